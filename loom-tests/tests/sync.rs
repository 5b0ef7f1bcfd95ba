//! Publishing and waiting for one subscriber.
#![cfg(loom)]

use loom_tests::whole::{LONG, Log, begin, bus, subscribe};
use loom_tests::{Drops, Model, spawn};
use stasis_bus::Delivery;
use stasis_bus::model::message_type;

/// Another thread publishes meanwhile; when `publish_sync` returns its message was handled, once.
fn waiting_for_a_handler(name: &'static str, delivery: Delivery, preemptions: usize) {
    Model::new(name).preemptions(preemptions).check(move || {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let topic = bus.topic("calls").unwrap();
        let kind = message_type::<usize>("n");
        let subscription = subscribe(&topic, delivery, &log, &drops);
        let (own, others) = (kind.message(1), kind.message(5));
        begin(&bus);
        let publisher = {
            let topic = topic.clone();
            spawn(move || topic.publish(others).unwrap())
        };
        topic.publish_sync(own, &subscription).unwrap();
        let seen = log.lock().unwrap().clone();
        assert!(matches!(seen[..], [1] | [1, 5] | [5, 1]), "{seen:?}");
        publisher.join().unwrap();
        loom::stop_exploring();
        drop((subscription, topic));
        bus.shutdown(LONG).unwrap();
        assert_eq!((log.lock().unwrap().len(), drops.count()), (3, 1));
    });
}

/// Promises G2, G3 for `publish_sync`: it returns after the handler, and it returns (else: deadlock).
/// Mutation: the notice queued before the message.
#[test]
fn it_returns_after_the_handler_on_a_lane() {
    waiting_for_a_handler("it_returns_after_the_handler_on_a_lane", Delivery::default(), 1);
}

/// The same where the other publisher may be in the handler.
/// Mutation: a notice served at once.
#[test]
fn it_returns_after_the_handler_inline() {
    waiting_for_a_handler("it_returns_after_the_handler_inline", Delivery::Inline, 2);
}
