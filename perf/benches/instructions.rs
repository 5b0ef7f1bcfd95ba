//! Instructions per operation, counted by callgrind: figures that a busy machine does not change.
//!
//! Nothing runs beside: the bus is a `ManualBus`, served by the same thread in batches, so a delivery is one by the
//! production code of a lane, without the waiting and with the driver's step for each dispatch. Counted is one part
//! of what a case does: making and publishing, or delivering and freeing. All counts are powers of ten, so an
//! operation's figure can be read off the total.
//!
//! ```text
//! cargo install gungraun-runner --version 0.20.0          # once; valgrind as well
//! cargo bench -p perf --bench instructions                # each case beside the last run; fails beyond its limit
//! cargo bench -p perf --bench instructions -- '*deliver*'        # some of them
//! ```
//!
//! The limits are some 3 % above what rustc 1.95 makes of it. Whoever makes something cheaper lowers its limit.

// What gungraun's macros make has no documentation.
#![allow(missing_docs)]

use std::hint::black_box;

use gungraun::prelude::*;
use gungraun::{Callgrind, EntryPoint, EventKind};
use stasis_bus::testing::ManualBus;
use stasis_bus::{Delivery, MessageType, Subscription, Topic};

type Payload = [u64; 8];

/// Messages published before they are delivered, and such batches of a case: 10,000 messages.
const BATCH: u64 = 50;
const BATCHES: u64 = 200;
const MESSAGES: u64 = BATCH * BATCHES;
/// Where each message has a thousand deliveries, and where a subscription comes and goes.
const FEW: u64 = 1000;

/// Counts what `part` of [`Case`] does, and fails beyond `most` instructions for each of `count` operations.
fn at_most(part: &str, count: u64, most: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    let callgrind = Callgrind::with_args(["--cache-sim=no"])
        .entry_point(EntryPoint::Custom(format!("*Case*{part}*")))
        .hard_limits([(EventKind::Ir, count * most)])
        .clone();
    config.tool(callgrind);
    config
}

/// A bus and what is needed to use it.
struct Case {
    bus: ManualBus,
    kind: MessageType<Payload>,
    other: MessageType<Payload>,
    /// Published on.
    topic: Topic,
    /// Subscribed to; the same, but with forwards.
    end: Topic,
    kept: Vec<Subscription>,
}

impl Case {
    fn new(lanes: usize) -> Self {
        let bus = ManualBus::builder().lanes(lanes).build().expect("the figures fit");
        let kind = MessageType::new(bus.bus(), "payload").expect("not declined");
        let other = MessageType::new(bus.bus(), "other").expect("not declined");
        let topic = bus.bus().topic("instructions").expect("the bus is open");
        let end = topic.clone();
        Self { bus, kind, other, topic, end, kept: Vec::new() }
    }

    fn subscribed(mut self, count: usize, delivery: Delivery, kind: &MessageType<Payload>) -> Self {
        for _ in 0..count {
            let mut sum = 0;
            let builder = self.end.subscriber().delivery(delivery).accept(kind);
            let subscription = builder.subscribe(move |received| {
                if let Some(payload) = received.payload::<Payload>() {
                    sum = black_box(payload[0] + payload[7] + sum);
                }
            });
            self.kept.push(subscription.expect("the bus is open"));
        }
        self
    }

    /// Pools, rings and caches of a bus that has run for a while.
    fn warm(self) -> Self {
        for _ in 0..BATCHES {
            self.publish_all(BATCH);
            self.bus.run();
        }
        self
    }

    #[inline(always)]
    fn publish_all(&self, count: u64) {
        for n in 0..count {
            self.topic.publish(self.kind.message([n; 8])).expect("there is room");
        }
    }

    #[inline(never)]
    fn send(&self, count: u64) {
        self.publish_all(count);
    }

    #[inline(never)]
    fn serve(&self) {
        self.bus.run();
    }

    fn exchange(&self, messages: u64) {
        for _ in 0..messages / BATCH {
            self.send(BATCH);
            self.serve();
        }
    }

    #[inline(never)]
    fn make(&self, count: u64) {
        for n in 0..count {
            drop(black_box(self.kind.message([n; 8])));
        }
    }

    #[inline(never)]
    fn churn(&self, count: u64) {
        for _ in 0..count {
            drop(self.topic.subscriber().accept(&self.kind).subscribe(|_| ()).expect("the bus is open"));
            self.bus.run();
        }
    }
}

fn nobody() -> Case {
    Case::new(1).warm()
}

fn filtered_out() -> Case {
    let case = Case::new(1);
    let other = case.other.clone();
    case.subscribed(1, Delivery::default(), &other).warm()
}

fn subscribers(lanes: usize, count: usize, delivery: Delivery) -> Case {
    let case = Case::new(lanes);
    let kind = case.kind.clone();
    case.subscribed(count, delivery, &kind).warm()
}

fn on_lane(count: usize) -> Case {
    subscribers(1, count, Delivery::default())
}

fn on_two_lanes(count: usize) -> Case {
    subscribers(2, count, Delivery::default())
}

fn delivered(delivery: Delivery) -> Case {
    subscribers(1, 1, delivery)
}

fn behind_forwards(depth: usize) -> Case {
    let mut case = Case::new(1);
    for level in 0..depth {
        let next = case.bus.bus().topic(format!("level {level}")).expect("the bus is open");
        // Kept by the process, which ends soon.
        std::mem::forget(case.end.forward_to(&next).expect("the bus is open"));
        case.end = next;
    }
    let kind = case.kind.clone();
    case.subscribed(1, Delivery::default(), &kind).warm()
}

#[library_benchmark]
#[bench::message(args = (), setup = nobody, config = at_most("make", MESSAGES, 157))]
fn make_and_free(case: Case) -> Case {
    case.make(MESSAGES);
    case
}

#[library_benchmark]
#[bench::to_nobody(args = (), setup = nobody, config = at_most("send", MESSAGES, 197))]
#[bench::filtered_out(args = (), setup = filtered_out, config = at_most("send", MESSAGES, 197))]
#[bench::to_1(args = (1), setup = on_lane, config = at_most("send", MESSAGES, 300))]
#[bench::to_8(args = (8), setup = on_lane, config = at_most("send", MESSAGES, 300))]
#[bench::to_1_dedicated(args = (Delivery::Dedicated), setup = delivered, config = at_most("send", MESSAGES, 300))]
#[bench::to_1_inline(args = (Delivery::Inline), setup = delivered, config = at_most("send", MESSAGES, 680))]
#[bench::to_64_on_two_lanes(args = (64), setup = on_two_lanes, config = at_most("send", MESSAGES, 570))]
#[bench::over_3_forwards(args = (3), setup = behind_forwards, config = at_most("send", MESSAGES, 300))]
fn publish(case: Case) -> Case {
    case.exchange(MESSAGES);
    case
}

#[library_benchmark]
#[bench::to_1000(args = (1000), setup = on_lane, config = at_most("send", FEW, 300))]
fn publish_few(case: Case) -> Case {
    case.exchange(FEW);
    case
}

#[library_benchmark]
#[bench::to_1(args = (1), setup = on_lane, config = at_most("serve", MESSAGES, 708))]
#[bench::to_8(args = (8), setup = on_lane, config = at_most("serve", MESSAGES, 975))]
#[bench::to_1_dedicated(args = (Delivery::Dedicated), setup = delivered, config = at_most("serve", MESSAGES, 1015))]
#[bench::to_64_on_two_lanes(args = (64), setup = on_two_lanes, config = at_most("serve", MESSAGES, 3495))]
fn deliver(case: Case) -> Case {
    case.exchange(MESSAGES);
    case
}

#[library_benchmark]
#[bench::to_1000(args = (1000), setup = on_lane, config = at_most("serve", FEW, 34_700))]
fn deliver_few(case: Case) -> Case {
    case.exchange(FEW);
    case
}

#[library_benchmark]
#[bench::one(args = (), setup = nobody, config = at_most("churn", FEW, 13_850))]
fn subscribe_and_unsubscribe(case: Case) -> Case {
    case.churn(FEW);
    case
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [make_and_free, publish, publish_few, deliver, deliver_few, subscribe_and_unsubscribe]
);

main!(library_benchmark_groups = instructions);
