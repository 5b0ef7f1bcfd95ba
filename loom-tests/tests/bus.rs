//! Whole buses: the topic's publish path against unsubscribing and shutting down.
#![cfg(loom)]

use loom_tests::whole::{FINAL, LONG, Log, begin, bus, subscribe};
use loom_tests::{Drops, Model, spawn};
use stasis_bus::Delivery;
use stasis_bus::model::{close_intake, finish_shutdown, message_type};

/// Promises G2, G3, G5: unsubscribe versus publish versus final message. What was published before comes;
/// the racing one comes before the final message or not at all; the final one is last and the handler
/// dropped once; what was not delivered is counted.
fn unsubscribing_against_publishing(name: &'static str, delivery: Delivery) {
    Model::new(name).preemptions(if delivery == Delivery::Inline { 2 } else { 1 }).check(move || {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let topic = bus.topic("calls").unwrap();
        let kind = message_type::<usize>("n");
        let subscription = subscribe(&topic, delivery, &log, &drops);
        begin(&bus);
        topic.publish(kind.message(1)).unwrap();
        let publisher = {
            let (topic, message) = (topic.clone(), kind.message(5));
            spawn(move || topic.publish(message).unwrap())
        };
        let end = subscription.unsubscribe();
        publisher.join().unwrap();
        loom::stop_exploring();
        end.wait().unwrap();
        let seen = log.lock().unwrap().clone();
        assert!(matches!(seen[..], [1, 99] | [1, 5, 99]), "{seen:?}");
        assert_eq!(drops.count(), 1);
        assert!(!subscription.is_subscribed() && subscription.is_done());
        topic.publish(kind.message(6)).unwrap();
        drop((subscription, end, topic));
        bus.shutdown(LONG).unwrap();
        assert_eq!(log.lock().unwrap().len(), seen.len(), "nothing after the final message");
    });
}

/// On a lane.
/// Mutations: control entries at position zero; `finish` keeping the handler.
#[test]
fn unsubscribe_against_publish_on_a_lane() {
    unsubscribing_against_publishing("unsubscribe_against_publish_on_a_lane", Delivery::default());
}

/// Inline.
/// Mutation: `finish` keeping the handler.
#[test]
fn unsubscribe_against_publish_inline() {
    unsubscribing_against_publishing("unsubscribe_against_publish_inline", Delivery::Inline);
}

/// Promises G3, G12: a handler that panics while another publish races: both messages come, the panic is counted, and
/// the final message comes as if nothing had happened.
fn panicking_against_publishing(name: &'static str, delivery: Delivery) {
    Model::new(name).preemptions(if delivery == Delivery::Inline { 2 } else { 1 }).check(move || {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let topic = bus.topic("calls").unwrap();
        let kind = message_type::<usize>("n");
        let (seen, probe) = (Log::clone(&log), drops.probe());
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .subscribe(move |received| {
                let _ = &probe;
                let n = if received.is_final() { Some(&FINAL) } else { received.payload::<usize>() };
                // Changes are of no interest here.
                let Some(&n) = n else { return };
                seen.lock().unwrap().push(n);
                if n == 1 {
                    // No panic hook: this one is meant.
                    std::panic::resume_unwind(Box::new("a handler panics, as it should"));
                }
            })
            .unwrap();
        begin(&bus);
        let publisher = {
            let (topic, message) = (topic.clone(), kind.message(5));
            spawn(move || topic.publish(message).unwrap())
        };
        topic.publish(kind.message(1)).unwrap();
        publisher.join().unwrap();
        loom::stop_exploring();
        subscription.unsubscribe().wait().unwrap();
        let seen = log.lock().unwrap().clone();
        assert!(matches!(seen[..], [1, 5, FINAL] | [5, 1, FINAL]), "{seen:?}");
        assert_eq!((drops.count(), subscription.stats().panics), (1, 1));
        drop((subscription, topic));
        bus.shutdown(LONG).unwrap();
    });
}

/// On a lane.
/// Mutation: `panicked` letting the panic go on.
#[test]
fn a_panic_against_a_publish_on_a_lane() {
    panicking_against_publishing("a_panic_against_a_publish_on_a_lane", Delivery::default());
}

/// Inline.
/// Mutations: the publisher's own call not caught; a queued one not caught.
#[test]
fn a_panic_against_a_publish_inline() {
    panicking_against_publishing("a_panic_against_a_publish_inline", Delivery::Inline);
}

/// Promise G11: shutdown versus publish. A publish that was accepted is delivered, before the final message;
/// one that was refused is handed back and delivered to nobody.
/// Mutations: looking at "closed" before pinning; no grace period.
#[test]
fn shutdown_against_publish() {
    against_publish("shutdown_against_publish", Delivery::default());
}

/// As above, where the publisher has unpinned before it calls the handler.
/// Mutation: shutdown not waiting for those that deliver.
#[test]
fn shutdown_against_an_inline_publish() {
    against_publish("shutdown_against_an_inline_publish", Delivery::Inline);
}

fn against_publish(model: &'static str, delivery: Delivery) {
    // Inline: within a bound of two, shutdown never comes between the publisher's unpinning and its handler.
    Model::new(model).preemptions(if delivery == Delivery::Inline { 3 } else { 2 }).check(move || {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let topic = bus.topic("calls").unwrap();
        let kind = message_type::<usize>("n");
        let subscription = subscribe(&topic, delivery, &log, &drops);
        begin(&bus);
        let publisher = {
            let (topic, message) = (topic.clone(), kind.message(5));
            spawn(move || topic.publish(message))
        };
        close_intake(&bus);
        loom::stop_exploring();
        let report = finish_shutdown(&bus);
        match publisher.join().unwrap() {
            Ok(()) => assert_eq!(log.lock().unwrap().clone(), [5, 99]),
            Err(error) => {
                assert!(error.is_closed());
                assert_eq!(log.lock().unwrap().clone(), [99]);
            }
        }
        assert_eq!((report.ended, drops.count()), (1, 1));
        assert!(topic.publish(kind.message(6)).unwrap_err().is_closed());
        drop((subscription, topic));
    });
}

/// Promises G5, G10: a handle dropped during shutdown. Whoever comes first takes the subscription off; it
/// gets one final message, and shutdown waits for it.
/// Mutation: shutdown not waiting for those that are leaving, nor lanes for their members.
#[test]
fn shutdown_against_unsubscribe() {
    Model::new("shutdown_against_unsubscribe").check(|| {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let topic = bus.topic("calls").unwrap();
        let subscription = subscribe(&topic, Delivery::default(), &log, &drops);
        drop(topic);
        close_intake(&bus);
        begin(&bus);
        let leaver = spawn(move || drop(subscription));
        finish_shutdown(&bus);
        leaver.join().unwrap();
        loom::stop_exploring();
        assert_eq!((log.lock().unwrap().clone(), drops.count()), (vec![99], 1));
    });
}
