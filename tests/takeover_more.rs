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
fn stuck_at(topic: &Topic, lane: usize, kind: &MessageType<u64>, at: u64, gate: &Gate, log: &Log) -> Subscription {
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
        // The spare serves the lane for the waiter, gets stuck itself, and there is no other.
        eventually("stuck", || bus.stats().takeovers + bus.stats().takeovers_refused > 0);
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
        eventually("that is in the first's mailbox", || {
            bus.stats().lanes[0].depth == 0 && bus.stats().lanes[0].served >= 2
        });
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

/// Not kept: what a waiting handler helps with lies above it on its stack, and keeps it when it gets stuck.
#[test]
fn g08_a_handler_whose_wait_is_over_goes_on_whatever_it_helped_with() {
    must_end(|| {
        let bus = builder().build().unwrap();
        let kind = number(&bus);
        let (topic, side, rest) = (bus.topic("t").unwrap(), bus.topic("side").unwrap(), bus.topic("rest").unwrap());
        let (gate, slow) = (Gate::new(), Gate::new());
        let _open = [gate.clone(), slow.clone()].map(OpenAtEnd);
        let (log, waits, own) = (Log::new(), Log::new(), Log::new());
        let (pass, write) = (slow.clone(), own.clone());
        // On a thread of its own, so that its end needs no lane.
        let dedicated = side.subscriber().delivery(Delivery::Dedicated).accept(&kind).subscribe(move |received| {
            pass.pass();
            write.write(received);
        });
        let dedicated = Arc::new(dedicated.unwrap());
        let _stuck = stuck_at(&rest, 0, &kind, 5, &gate, &log);
        let (publish, target, made, write) = (side.clone(), Arc::clone(&dedicated), kind.clone(), waits.clone());
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
        rest.publish(kind.message(5)).unwrap();
        eventually("the helped handler is stuck", || bus.stats().takeovers == 1);
        slow.open();
        eventually("the wait is over", || own.values() == [1]);
        eventually("the waiter comes out", || waits.values() == [0]);
        gate.open();
        waiter.unsubscribe_and_join(PATIENCE).unwrap();
    });
}

/// As above, as a deadlock: a lock of the user's that the waiting handler holds.
#[test]
fn g07_a_handler_may_hold_a_lock_of_its_own_while_it_waits() {
    must_end(|| {
        let bus = builder().build().unwrap();
        let kind = number(&bus);
        let (topic, side) = (bus.topic("t").unwrap(), bus.topic("side").unwrap());
        let (log, waits, others) = (Log::new(), Log::new(), Log::new());
        let shared = Arc::new(std::sync::Mutex::new(()));
        let lane = Delivery::Lane(Home::Lane(0));
        let target = Arc::new(side.subscriber().delivery(lane).accept(&kind).subscribe(log.handler()).unwrap());
        let (other, made, publish, write, held) =
            (Arc::clone(&target), kind.clone(), side.clone(), waits.clone(), Arc::clone(&shared));
        let waiter = topic.subscriber().delivery(lane).accept(&kind).subscribe(move |received| {
            if !received.is_final() {
                let _held = common::lock(&held);
                publish.publish_sync(made.message(1), &other).unwrap();
            }
            write.write(received);
        });
        let (write, held) = (others.clone(), Arc::clone(&shared));
        let _locker = topic
            .subscriber()
            .delivery(lane)
            .accept(&kind)
            .subscribe(move |received| {
                let _held = common::lock(&held);
                write.write(received);
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        eventually("both come out", || waits.values() == [0] && others.values() == [0]);
        waiter.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
    });
}
