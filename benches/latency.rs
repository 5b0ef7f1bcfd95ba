//! How long from publish to handler and back: a ping over two lanes, one message at a time.
#![allow(missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use stasis_bus::{Bus, Delivery, Home, MessageType, WaitStrategy};

fn ping(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ping");
    for (name, wait, lanes) in [
        ("across 2 lanes and back, spinning", WaitStrategy::BusySpin, 2),
        ("across 2 lanes and back, adaptive", WaitStrategy::Adaptive, 2),
        ("one lane and back, adaptive", WaitStrategy::Adaptive, 1),
        ("one lane and back, parked", WaitStrategy::Park, 1),
    ] {
        let bus = Bus::builder().lanes(lanes).wait(wait).build().expect("defaults");
        let kind = MessageType::<u64>::new(&bus, "ping").expect("free");
        let (there, back) = (bus.topic("there").expect("open"), bus.topic("back").expect("open"));
        let returned = Arc::new(AtomicU64::new(0));
        let (reply, reply_kind) = (back.clone(), kind.clone());
        let _relay = (lanes == 2).then(|| {
            there.subscriber().accept(&kind).delivery(Delivery::Lane(Home::Lane(0))).subscribe(move |received| {
                if let Some(n) = received.payload::<u64>() {
                    reply.publish(reply_kind.message(*n)).expect("room");
                }
            })
        });
        let last = if lanes == 2 { &back } else { &there };
        let seen = Arc::clone(&returned);
        let _end = last.subscriber().accept(&kind).delivery(Delivery::Lane(Home::Lane(lanes - 1))).subscribe(
            move |received| {
                if let Some(n) = received.payload::<u64>() {
                    seen.store(*n, Ordering::Release);
                }
            },
        );
        let mut n = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                n += 1;
                there.publish(kind.message(n)).expect("room");
                while returned.load(Ordering::Acquire) != n {
                    std::thread::yield_now();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, ping);
criterion_main!(benches);
