//! Forwards made and cancelled while others subscribe, unsubscribe and publish at both ends.
#![cfg(loom)]

use loom_tests::whole::{FINAL, LONG, Log, begin, bus, subscribe};
use loom_tests::{Drops, Model, spawn};
use stasis_bus::Delivery;
use stasis_bus::model::message_type;

/// A forward is made while somebody subscribes at one of its ends: afterwards a message reaches each
/// subscription once.
fn forwarding_against_subscribing(name: &'static str, downstream: bool) {
    Model::new(name).check(move || {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        begin(&bus);
        let forwarder = {
            let (up, down) = (up.clone(), down.clone());
            spawn(move || up.forward_to(&down).unwrap())
        };
        let subscription = subscribe(if downstream { &down } else { &up }, Delivery::Inline, &log, &drops);
        let forward = forwarder.join().unwrap();
        loom::stop_exploring();
        up.publish(kind.message(1)).unwrap();
        assert_eq!((log.lock().unwrap().clone(), up.subscribers()), (vec![1], 1));
        forward.cancel();
        assert_eq!((up.subscribers(), down.subscribers()), (usize::from(!downstream), usize::from(downstream)));
        drop((subscription, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!((log.lock().unwrap().clone(), drops.count()), (vec![1, FINAL], 1));
    });
}

/// Promise G3: whoever of the two comes second sees the other.
/// Mutations: downstream subscriptions read before the lock; topics upstream found before the lock.
#[test]
fn a_forward_against_a_subscribe_downstream() {
    forwarding_against_subscribing("a_forward_against_a_subscribe_downstream", true);
}

/// Promise G3 at the other end: the list a forward changes loses nobody.
/// Mutation: the list read before the lock.
#[test]
fn a_forward_against_a_subscribe_upstream() {
    // Somebody has to be downstream, so that the list is changed at all.
    Model::new("a_forward_against_a_subscribe_upstream").check(|| {
        loom::stop_exploring();
        let (log, other, drops) = (Log::default(), Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        let below = subscribe(&down, Delivery::Inline, &other, &drops);
        begin(&bus);
        let forwarder = {
            let (up, down) = (up.clone(), down.clone());
            spawn(move || up.forward_to(&down).unwrap())
        };
        let subscription = subscribe(&up, Delivery::Inline, &log, &drops);
        let forward = forwarder.join().unwrap();
        loom::stop_exploring();
        up.publish(kind.message(1)).unwrap();
        assert_eq!((log.lock().unwrap().clone(), other.lock().unwrap().clone()), (vec![1], vec![1]));
        drop((forward, subscription, below, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promises G3, G5: one of two forwards is cancelled while one of two subscribers leaves: who stays gets
/// each message once, who left nothing after its final message.
/// Mutation: the list read before the lock.
#[test]
fn a_cancel_against_an_unsubscribe() {
    Model::new("a_cancel_against_an_unsubscribe").check(|| {
        loom::stop_exploring();
        let (stays, leaves, drops) = (Log::default(), Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        let (one, two) = (up.forward_to(&down).unwrap(), up.forward_to(&down).unwrap());
        let staying = subscribe(&down, Delivery::Inline, &stays, &drops);
        let leaving = subscribe(&down, Delivery::Inline, &leaves, &drops);
        begin(&bus);
        let canceller = spawn(move || one.cancel());
        drop(leaving);
        canceller.join().unwrap();
        loom::stop_exploring();
        assert_eq!((up.subscribers(), down.subscribers()), (1, 1));
        up.publish(kind.message(1)).unwrap();
        assert_eq!((stays.lock().unwrap().clone(), leaves.lock().unwrap().clone()), (vec![1], vec![FINAL]));
        two.cancel();
        assert_eq!((up.subscribers(), down.subscribers()), (0, 1));
        drop((staying, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promises G3, G5: a forward is made while one of the two it brings leaves: afterwards who stays is upstream, who left
/// is not, and gets nothing after its final message.
/// Mutation: downstream subscriptions read before the lock.
#[test]
fn a_forward_against_an_unsubscribe() {
    Model::new("a_forward_against_an_unsubscribe").check(|| {
        loom::stop_exploring();
        let (stays, leaves, drops) = (Log::default(), Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        let staying = subscribe(&down, Delivery::Inline, &stays, &drops);
        let leaving = subscribe(&down, Delivery::Inline, &leaves, &drops);
        begin(&bus);
        let forwarder = {
            let (up, down) = (up.clone(), down.clone());
            spawn(move || up.forward_to(&down).unwrap())
        };
        drop(leaving);
        let forward = forwarder.join().unwrap();
        loom::stop_exploring();
        assert_eq!((up.subscribers(), down.subscribers()), (1, 1));
        up.publish(kind.message(1)).unwrap();
        assert_eq!((stays.lock().unwrap().clone(), leaves.lock().unwrap().clone()), (vec![1], vec![FINAL]));
        drop((forward, staying, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise G3: a forward is cancelled while somebody subscribes downstream: afterwards nobody is left upstream.
/// Mutation: topics upstream found before the lock.
#[test]
fn a_cancel_against_a_subscribe() {
    Model::new("a_cancel_against_a_subscribe").check(|| {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        let forward = up.forward_to(&down).unwrap();
        begin(&bus);
        let canceller = spawn(move || forward.cancel());
        let subscription = subscribe(&down, Delivery::Inline, &log, &drops);
        canceller.join().unwrap();
        loom::stop_exploring();
        assert_eq!((up.subscribers(), down.subscribers()), (0, 1));
        up.publish(kind.message(1)).unwrap();
        down.publish(kind.message(2)).unwrap();
        assert_eq!(log.lock().unwrap().clone(), [2]);
        drop((subscription, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!((log.lock().unwrap().clone(), drops.count()), (vec![2, FINAL], 1));
    });
}

/// Promise G3 (delicate point 8): a racing publish sees the whole forward or nothing of it.
/// Mutation: subscriptions entered one at a time.
#[test]
fn a_forward_is_seen_whole() {
    Model::new("a_forward_is_seen_whole").check(|| {
        loom::stop_exploring();
        let (first, second, drops) = (Log::default(), Log::default(), Drops::new());
        let bus = bus();
        let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
        let kind = message_type::<usize>("n");
        let subscriptions = [&first, &second].map(|log| subscribe(&down, Delivery::Inline, log, &drops));
        begin(&bus);
        let publisher = {
            let (up, message) = (up.clone(), kind.message(5));
            spawn(move || up.publish(message).unwrap())
        };
        let forward = up.forward_to(&down).unwrap();
        publisher.join().unwrap();
        loom::stop_exploring();
        let seen = first.lock().unwrap().clone();
        assert!(seen.len() <= 1 && seen == second.lock().unwrap().clone(), "both or neither: {seen:?}");
        drop((forward, subscriptions, up, down));
        bus.shutdown(LONG).unwrap();
        assert_eq!(drops.count(), 2);
    });
}
