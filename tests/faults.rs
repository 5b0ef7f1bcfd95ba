//! Faults made on purpose: what the system refuses, and handlers that overdo it.
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Log, PATIENCE, bus, must_end, next, number};
use stasis_bus::{Bus, Delivery, Home, Pinning};
use std::sync::mpsc::channel;

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
