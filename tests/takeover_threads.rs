//! Take-over when the system gives no more threads. Alone in its process: it limits what that may map.
#![cfg(all(target_os = "linux", not(miri)))]
#![allow(missing_docs)]
mod common;
#[path = "common/few_threads.rs"]
mod few_threads;

use common::{Gate, Log, OpenAtEnd, PATIENCE, eventually, must_end, number};
use few_threads::FewThreads;
use stasis_bus::{Bus, Delivery, Home, Pinning};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn g07_g08_no_lane_is_taken_without_a_thread_for_it() {
    must_end(|| {
        let bus = Bus::builder()
            .name("test")
            .lanes(1)
            .pinning(Pinning::Off)
            .watchdog(Duration::from_micros(500))
            .build()
            .unwrap();
        let kind = number(&bus);
        let (topic, side) = (bus.topic("t").unwrap(), bus.topic("side").unwrap());
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (log, waits) = (Log::new(), Log::new());
        let lane = Delivery::Lane(Home::Lane(0));
        let target = Arc::new(side.subscriber().delivery(lane).accept(&kind).subscribe(log.handler()).unwrap());
        let (publish, other, made, write, pass) =
            (side.clone(), Arc::clone(&target), kind.clone(), waits.clone(), gate.clone());
        let waiter = topic
            .subscriber()
            .delivery(lane)
            .accept(&kind)
            .subscribe(move |received| {
                if received.payload::<u64>() == Some(&0) {
                    pass.pass();
                    publish.publish_sync(made.message(1), &other).unwrap();
                }
                write.write(received);
            })
            .unwrap();
        // Whatever is made once is made before memory is short.
        topic.publish(kind.message(2)).unwrap();
        eventually("it runs", || waits.values() == [2]);
        let none = FewThreads::none();
        topic.publish(kind.message(0)).unwrap();
        eventually("it is stuck", || bus.stats().takeovers + bus.stats().takeovers_refused > 0);
        gate.open();
        eventually("the waiter comes out", || waits.values() == [2, 0]);
        drop(none);
        assert_eq!((log.values(), bus.stats().takeovers), (vec![1], 0));
        waiter.unsubscribe_and_join(PATIENCE).unwrap();
    });
}
