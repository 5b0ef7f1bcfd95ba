//! What the health monitor costs when nobody is stuck: 1 -> 8 on one lane, without monitor, with it, and with
//! somebody who asks for a report every 10 ms; then a report itself, by the number of subscriptions with threads
//! of their own, and whether a queue is congested.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stasis_bus::{Bus, BusBuilder, Criticality, Delivery, Home};
use support::Fanout;

fn builder() -> BusBuilder {
    // Without watchdog there is a monitor only if somebody wants to be told.
    Bus::builder().lanes(1).watchdog(None).ring_capacity(4096).memory_budget(4096 * 16)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let (rounds, messages) = if short { (1, 1000) } else { (15, 200_000) };

    // Interleaved rounds, so that the machine's moods hit all.
    let buses = [builder(), builder().on_culprit(|_| ()), builder().on_culprit(|_| ())]
        .map(|builder| builder.build().expect("the figures fit"));
    let asked = buses[2].clone();
    let fanouts = buses.map(|bus| Fanout::new(bus, 8, Home::Affinity));
    let mut each: [Vec<f64>; 3] = Default::default();
    for _ in 0..rounds {
        for (at, (bench, each)) in fanouts.iter().zip(&mut each).enumerate() {
            let over = AtomicBool::new(at != 2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        black_box(asked.health());
                        thread::sleep(Duration::from_millis(10));
                    }
                });
                each.push(bench.run(1, messages).as_nanos() as f64 / (messages * 8) as f64);
                over.store(true, Ordering::Relaxed);
            });
        }
    }
    let [off, on, asked] = each.map(median);
    println!("1 -> 8, ns a delivery, median of {rounds}: no monitor {off:.2}, monitor {on:.2}, reports {asked:.2}");

    for own in [0, 100] {
        let bus = Bus::builder().lanes(2).build().expect("the figures fit");
        let topic = bus.topic("bench").expect("open");
        let subscribe = |_| topic.subscriber().delivery(Delivery::Dedicated).subscribe(|_| ()).expect("open");
        let _subscriptions: Vec<_> = (0..own).map(subscribe).collect();
        let time = |calls: u32, f: &dyn Fn()| {
            let start = Instant::now();
            (0..calls).for_each(|_| f());
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        let calls = if short { 10 } else { 1000 };
        let report = time(calls, &|| drop(black_box(bus.health())));
        let asked = time(calls * 1000, &|| {
            black_box(bus.is_congested(Criticality::High));
        });
        println!("2 lanes, {own} dedicated: a report {:.1} us, is_congested {asked:.2} ns", report / 1000.0);
    }
}
