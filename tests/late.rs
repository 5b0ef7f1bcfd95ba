//! Messages that come to a subscription after its end: published while it was leaving.
#![allow(missing_docs)]
mod common;

use common::{Drops, PATIENCE, must_end, stress};
use stasis_bus::{Bus, Delivery, Home, MessageType};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Handles of ended subscriptions are kept; publishers were in the middle of publishing when those ended.
/// Nothing of what came too late may stay.
#[test]
fn g10_the_handle_of_an_ended_subscription_keeps_no_message() {
    must_end(|| {
        // Publishers are long on their way: there are many lanes to push to and to wake before the last.
        // A small budget: what publishers are ahead is what each leaving has to wait for.
        let bus = Bus::builder().lanes(2).ring_capacity(1024).memory_budget(1 << 17).build().unwrap();
        let drops = Drops::new();
        let kind = MessageType::<common::Counted>::new(&bus, "counted").unwrap();
        let topic = bus.topic("t").unwrap();
        let lane = |n| Delivery::Lane(Home::Lane(n));
        let standing: Vec<_> =
            (0..2).map(|n| topic.subscriber().delivery(lane(n)).accept(&kind).subscribe(|_| ()).unwrap()).collect();
        let stop = AtomicBool::new(false);
        let mut kept = Vec::new();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let _ = topic.publish(kind.message(drops.token()));
                    }
                });
            }
            for n in 0..stress(1500) {
                let delivery = match n % 4 {
                    0 => Delivery::Inline,
                    1 => Delivery::Lane(Home::default()),
                    _ => Delivery::Dedicated,
                };
                let listener = topic.subscriber().delivery(delivery).accept(&kind).subscribe(|_| ()).unwrap();
                listener.unsubscribe_and_join(PATIENCE).unwrap();
                kept.push(listener);
            }
            stop.store(true, Ordering::Relaxed);
        });
        drops.await_all_gone("messages that came too late");
        drop((kept, standing));
    });
}
