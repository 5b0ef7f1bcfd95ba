//! What a queue of a subscription's own costs, publish to delivery, one publisher and one subscriber: without
//! (as `fanout` 1->1), with each policy while the subscriber keeps up, and publishing alone into a full queue.
#![allow(missing_docs)]

mod support;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use stasis_bus::{Key, Message, MessageType, Overflow, SubscriberBuilder};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{Payload, bounded_bus, publish, publish_sync};

fn key(message: &Message) -> Option<Key> {
    message.payload::<Payload>().map(|bytes| Key::from(u64::from(bytes[0])))
}

type Rules = for<'a> fn(SubscriberBuilder<'a>) -> SubscriberBuilder<'a>;

const KINDS: [(&str, Rules); 7] = [
    ("none", |builder| builder),
    ("drop oldest", |builder| builder.overflow(Overflow::DropOldest { limit: 1024 })),
    ("conflate", |builder| builder.overflow(Overflow::Conflate { key, limit: 1024 })),
    ("fail", |builder| builder.overflow(Overflow::Fail { limit: 1024 })),
    ("lag", |builder| builder.overflow(Overflow::Lag { limit: 1024 })),
    ("time to live", |builder| builder.time_to_live(Duration::from_secs(60))),
    ("priority", |builder| builder.priority(key, |_| false)),
];

fn kept_up_with(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("overflow, delivered or dropped");
    group.throughput(Throughput::Elements(1));
    for (name, rules) in KINDS {
        let bus = bounded_bus(1, 4096);
        let topic = bus.topic("bench").expect("open");
        let kind = MessageType::<Payload>::new(&bus, "payload").expect("not declined");
        let seen = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&seen);
        let subscription = rules(topic.subscriber().accept(&kind))
            .subscribe(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .expect("open");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|messages| {
                let start = Instant::now();
                for n in 0..messages {
                    publish(&topic, kind.message([n as u8; 64]));
                }
                publish_sync(&topic, kind.message([0; 64]), &subscription);
                start.elapsed()
            });
        });
    }
    group.finish();
}

fn into_a_full_queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("overflow, publish into a full queue");
    group.throughput(Throughput::Elements(1));
    for (name, rules) in KINDS[1..5].iter().copied() {
        let bus = bounded_bus(1, 4096);
        let topic = bus.topic("bench").expect("open");
        let kind = MessageType::<Payload>::new(&bus, "payload").expect("not declined");
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().expect("not poisoned");
        let pass = Arc::clone(&gate);
        let stuck = rules(topic.subscriber().accept(&kind)).subscribe(move |_| drop(pass.lock())).expect("open");
        for n in 0..2048_u32 {
            // Refused where the policy is to refuse.
            let _ = topic.publish(kind.message([n as u8; 64]));
        }
        group.bench_function(name, |bencher| {
            let message = kind.message([7; 64]);
            bencher.iter_batched(|| message.clone(), |message| topic.publish(message), BatchSize::SmallInput);
        });
        drop(closed);
        drop(stuck);
    }
    group.finish();
}

criterion_group!(benches, kept_up_with, into_a_full_queue);
criterion_main!(benches);
