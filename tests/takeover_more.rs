//! Take-over in its corners: no spare thread left, no memory left, no thread to be had.
#![allow(missing_docs)]
mod common;

use common::{Gate, Log, OpenAtEnd, PATIENCE, eventually, must_end, number};
use stasis_bus::{Bus, BusBuilder, Delivery, Home, MessageType, Pinning, Received, Subscription, Topic};
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_micros(500);

fn builder() -> BusBuilder {
    Bus::builder().name("test").lanes(1).pinning(Pinning::Off).watchdog(PERIOD)
}

/// On a lane, waits at the gate when it gets `at`, and writes down what it gets.
fn stuck_at(
    topic: &Topic,
    lane: usize,
    kind: &MessageType<u64>,
    at: u64,
    gate: &Gate,
    log: &Log,
) -> Subscription {
    let (gate, log) = (gate.clone(), log.clone());
    let handle = move |received: &Received<'_>| {
        if received.payload::<u64>() == Some(&at) {
            gate.pass();
        }
        log.write(received);
    };
    topic.subscriber().delivery(Delivery::Lane(Home::Lane(lane))).accept(kind).subscribe(handle).unwrap()
}

#[test]
fn g07_a_helped_handler_that_gets_stuck_needs_no_second_spare_thread() {
    must_end(|| {
        // `waiter` waits inside its handler for `stuck`, on one stack; the only spare thread has the lane then.
        let bus = builder().spare_threads(1).build().unwrap();
        let kind = number(&bus);
        let (topic, side) = (bus.topic("t").unwrap(), bus.topic("side").unwrap());
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (log, waits) = (Log::new(), Log::new());
        let stuck = Arc::new(stuck_at(&side, 0, &kind, 1, &gate, &log));
        let (publish, target, made, write) = (side.clone(), Arc::clone(&stuck), kind.clone(), waits.clone());
        let waiter = topic
            .subscriber()
            .delivery(Delivery::Lane(Home::Lane(0)))
            .accept(&kind)
            .subscribe(move |received| {
                if received.payload::<u64>() == Some(&0) {
                    publish.publish_sync(made.message(1), &target).unwrap();
                }
                write.write(received);
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        eventually("taken over", || bus.stats().takeovers == 1);
        gate.open();
        eventually("the waiter comes out", || waits.values() == [0]);
        assert_eq!(log.values(), [1]);
        waiter.unsubscribe_and_join(PATIENCE).unwrap();
        waits.assert_ended();
    });
}

#[test]
fn g09_a_lane_takes_messages_again_when_others_have_given_memory_back() {
    must_end(|| {
        let bus = builder().lanes(2).ring_capacity(1024).memory_budget(64 << 10).build().unwrap();
        let kind = number(&bus);
        let topics = [bus.topic("t0").unwrap(), bus.topic("t1").unwrap()];
        let (gates, logs) = ([Gate::new(), Gate::new()], [Log::new(), Log::new()]);
        let _open = gates.clone().map(OpenAtEnd);
        let stuck: Vec<_> = (0..2).map(|n| stuck_at(&topics[n], n, &kind, 0, &gates[n], &logs[n])).collect();
        topics.iter().for_each(|topic| topic.publish(kind.message(0)).unwrap());
        eventually("both are taken over", || bus.stats().takeovers == 2);
        eventually("the second uses the budget up", || topics[1].publish(kind.message(1)).is_err());
        // One more for the first while there is too little.
        let first = topics[0].publish(kind.message(1)).is_ok();
        assert!(first, "nothing waits for the first yet");
        eventually("that is in the first's mailbox", || bus.stats().lanes[0].depth == 0 && bus.stats().lanes[0].served >= 2);
        gates[0].open();
        eventually("the first has all", || logs[0].values() == [0, 1]);
        gates[1].open();
        eventually("the second takes messages again", || topics[1].publish(kind.message(2)).is_ok());
        eventually("so does the first", || topics[0].publish(kind.message(2)).is_ok());
        for subscription in &stuck {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
        }
        assert_eq!(logs[0].values(), [0, 1, 2]);
    });
}
