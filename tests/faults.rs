//! Faults made on purpose: what the system refuses, and handlers that overdo it.
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Gate, Log, PATIENCE, bus, must_end, next, number, stress};
use stasis_bus::{Bus, Delivery, Home, Pinning};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

#[test]
fn a_lane_that_cannot_be_pinned_runs_unpinned() {
    must_end(|| {
        for core in [1023, 1024, 100_000, usize::MAX] {
            let bus = Bus::builder().lanes(1).pinning(Pinning::List(vec![core])).build().unwrap();
            let (kind, topic, log) = (number(&bus), bus.topic("t").unwrap(), Log::new());
            let lane = Delivery::Lane(Home::Lane(0));
            let listener = topic.subscriber().delivery(lane).accept(&kind).subscribe(log.handler()).unwrap();
            topic.publish(kind.message(7)).unwrap();
            listener.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(log.values(), [7_u64], "core {core}");
        }
    });
}

#[test]
fn g06_a_handler_publishes_from_inside_to_depth_1000() {
    must_end(|| {
        for delivery in DELIVERIES {
            let bus = bus(1);
            let (kind, topic) = (number(&bus), bus.topic("t").unwrap());
            let (inside, again, (done, bottom)) = (topic.clone(), kind.clone(), channel());
            let mut expected = 1000;
            let listener = topic.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
                let Some(&depth) = received.payload::<u64>() else { return };
                assert_eq!(depth, expected);
                expected = depth.wrapping_sub(1);
                match depth {
                    0 => done.send(()).unwrap(),
                    _ => inside.publish(again.message(depth - 1)).unwrap(),
                }
            });
            topic.publish(kind.message(1000)).unwrap();
            next(&bottom);
            let listener = listener.unwrap();
            listener.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(bus.stats().panics, 0, "{delivery:?}");
            assert_eq!(bus.stats().delivered, 1001, "{delivery:?}");
        }
    });
}

/// 100,000 comings and goings a second are asked for; how long these take is not looked at.
#[test]
fn g03_subscribers_come_and_go_beside_publishers() {
    const PUBLISHERS: u64 = 2;
    must_end(|| {
        let bus = bus(2);
        let (kind, topic, log) = (number(&bus), bus.topic("t").unwrap(), Log::new());
        let witness = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
        let (stop, churns) = (AtomicBool::new(false), stress(20_000));
        let published: Vec<u64> = thread::scope(|scope| {
            let publish = |at: u64| {
                let (kind, topic, stop) = (&kind, &topic, &stop);
                move || {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) {
                        n += u64::from(topic.publish(kind.message(n * PUBLISHERS + at)).is_ok());
                        // The log is in memory, and there are others on this machine.
                        if n % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                    n
                }
            };
            let publishers: Vec<_> = (0..PUBLISHERS).map(|at| scope.spawn(publish(at))).collect();
            let mut kept = VecDeque::new();
            for n in 0..churns {
                let delivery = if n % 5 == 0 { Delivery::Inline } else { Delivery::Lane(Home::default()) };
                kept.push_back(topic.subscriber().delivery(delivery).accept(&kind).subscribe(|_| ()).unwrap());
                if kept.len() > n % 50 {
                    drop(kept.pop_front());
                }
            }
            drop(kept);
            stop.store(true, Ordering::Relaxed);
            publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
        });
        witness.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(topic.subscribers(), 0);
        let report = bus.shutdown(PATIENCE).unwrap();
        assert!(report.reclaimed && report.threads == 0, "{report:?}");
        let mut next: Vec<u64> = (0..PUBLISHERS).collect();
        for n in log.values() {
            let place = &mut next[(n % PUBLISHERS) as usize];
            assert_eq!(n, *place, "each once, in order");
            *place += PUBLISHERS;
        }
        for (at, n) in published.iter().enumerate() {
            assert_eq!(next[at], n * PUBLISHERS + at as u64, "all of them");
        }
        let stats = bus.stats();
        assert_eq!(stats.ended, churns as u64 + 1);
        assert_eq!(stats.published, published.iter().sum::<u64>());
        assert_eq!(stats.accepted, stats.delivered + stats.dropped.total());
    });
}

/// A handler that publishes to two others until the memory for queues is used up is told so, loses nothing of what was
/// taken, and the bus goes on when the queues are empty.
#[test]
fn g09_a_handler_that_uses_up_the_memory_budget_is_refused_and_the_bus_goes_on() {
    must_end(|| {
        for delivery in DELIVERIES {
            let builder = Bus::builder().lanes(2).pinning(Pinning::Off).ring_capacity(1024).watchdog(None);
            let bus = builder.memory_budget(2 * 1024 * 16 + 4096).build().unwrap();
            let (kind, go, topic, log) = (number(&bus), bus.topic("go").unwrap(), bus.topic("t").unwrap(), Log::new());
            let (gate, (tell, told)) = (Gate::new(), channel());
            let listener = topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap();
            let (held, entered) = (gate.clone(), channel());
            let stuck = topic.subscriber().delivery(Delivery::Dedicated).subscribe(move |_| {
                let _ = entered.0.send(());
                held.pass();
            });
            next(&entered.1);
            let (target, again) = (topic.clone(), kind.clone());
            let floods = go.subscriber().delivery(delivery).accept(&kind).subscribe(move |received| {
                if !received.is_final() {
                    let taken = (0..).take_while(|&n| target.publish(again.message(n)).is_ok()).count();
                    tell.send(taken as u64).unwrap();
                }
            });
            go.publish(kind.message(0)).unwrap();
            let taken = next(&told);
            assert!(taken >= 512, "{delivery:?}: {taken}");
            gate.open();
            stuck.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
            common::eventually("room again", || topic.publish(kind.message(taken)).is_ok());
            floods.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
            listener.unsubscribe_and_join(PATIENCE).unwrap();
            assert!(log.values().into_iter().eq(0..=taken), "{delivery:?}");
        }
    });
}
