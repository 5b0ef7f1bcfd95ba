//! What the health monitor costs when nobody is stuck: 1 -> 8 on one lane, without monitor, with it, and with
//! somebody who asks for a report every 10 ms; a report itself, by the number of subscriptions with threads or
//! queues of their own, and whether a queue is congested. Then how long a publish takes while 100,000 topics are
//! listed in a loop (G13), beside nobody, and beside a thread that is as busy but has nothing to do with the bus.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use stasis_bus::{Bus, BusBuilder, Criticality, Delivery, FilterMode, Home, MessageType, Overflow};
use support::{Fanout, Payload};

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

    for (own, count) in [("dedicated", 0), ("dedicated", 100), ("with queues of their own", 25_000)] {
        let count = if short { count.min(100) } else { count };
        let bus = Bus::builder().lanes(2).build().expect("the figures fit");
        let topic = bus.topic("bench").expect("open");
        let subscribe = |_| {
            let builder = match own {
                "dedicated" => topic.subscriber().delivery(Delivery::Dedicated),
                _ => topic.subscriber().overflow(Overflow::DropOldest { limit: 16 }),
            };
            builder.filter_mode(FilterMode::Selective).subscribe(|_| ()).expect("open")
        };
        let _subscriptions: Vec<_> = (0..count).map(subscribe).collect();
        let time = |calls: u32, f: &dyn Fn()| {
            let start = Instant::now();
            (0..calls).for_each(|_| f());
            start.elapsed().as_nanos() as f64 / f64::from(calls)
        };
        let calls = if short { 10 } else { 200 };
        let report = time(calls, &|| drop(black_box(bus.health())));
        let asked = time(calls * 1000, &|| {
            black_box(bus.is_congested(Criticality::High));
        });
        println!("2 lanes, {count} {own}: a report {:.1} us, is_congested {asked:.2} ns", report / 1000.0);
    }
    beside_a_listing(short);
}

/// What a thread does beside the publisher.
#[derive(Clone, Copy)]
enum Beside {
    Nothing,
    /// Makes and sorts as much as a listing does.
    Elsewhere,
    /// `topics`, `stats` and `health`.
    Looks,
}

fn beside_a_listing(short: bool) {
    let (topics, rounds, calls) = if short { (1000, 1, 1000) } else { (100_000, 15, 20_000) };
    let bus = Bus::builder().lanes(1).build().expect("the figures fit");
    let _held: Vec<_> = (0..topics).map(|n| bus.topic(format!("held/{n}")).expect("open")).collect();
    let topic = bus.topic("busy").expect("open");
    let kind = MessageType::<Payload>::new(&bus, "payload").expect("free");
    let _subscription = topic.subscriber().accept(&kind).subscribe(|_| ()).expect("open");
    let arms = [Beside::Nothing, Beside::Elsewhere, Beside::Looks];
    let mut found: [Vec<[f64; 4]>; 3] = Default::default();
    let looks = AtomicU64::new(0);
    for _ in 0..rounds {
        for (arm, found) in arms.iter().zip(&mut found) {
            let over = AtomicBool::new(false);
            let mut times = Vec::with_capacity(calls);
            thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        match arm {
                            Beside::Nothing => return,
                            Beside::Elsewhere => {
                                let mut all: Vec<_> = (0..topics).map(|n| format!("held/{n}")).collect();
                                all.sort_unstable();
                                black_box(all);
                            }
                            Beside::Looks => {
                                black_box((bus.topics(), bus.stats(), bus.health()));
                                looks.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
                let mut due = Instant::now();
                for _ in 0..calls {
                    while Instant::now() < due {
                        std::hint::spin_loop();
                    }
                    let message = kind.message([0; 64]);
                    let start = Instant::now();
                    topic.publish(message).expect("there is room");
                    times.push(start.elapsed().as_nanos() as f64);
                    due += Duration::from_micros(10);
                }
                over.store(true, Ordering::Relaxed);
            });
            times.sort_by(f64::total_cmp);
            found.push([0.5, 0.99, 0.999, 1.0].map(|share| times[((calls as f64 * share) as usize).min(calls - 1)]));
        }
    }
    println!("\npublish, ns a call, at 100,000/s, {topics} topics; medians of {rounds} rounds");
    println!("{:40} {:>9} {:>9} {:>9} {:>9}", "", "p50", "p99", "p99.9", "max");
    let names = ["nobody looks", "a busy thread that is not of the bus", "topics, stats, health in a loop"];
    for (name, rounds) in names.iter().zip(&found) {
        let [p50, p99, p999, max] = [0, 1, 2, 3].map(|at| median(rounds.iter().map(|round| round[at]).collect()));
        println!("{name:40} {p50:9.0} {p99:9.0} {p999:9.0} {max:9.0}");
    }
    println!("{} listings", looks.load(Ordering::Relaxed));
}
