//! Conformance: subscriptions, and the messages about them.
mod common;

use common::{DELIVERIES, Log, PATIENCE, Seen, bus, eventually, next, number};
use stasis_bus::{ChangeKind, Delivery, Handler, Home, Received, SubscribeError, SubscriptionChange};
use std::sync::mpsc::channel;

#[test]
fn a_subscription_tells_what_it_is() {
    let bus = bus(1);
    let topic = bus.topic("calls").unwrap();
    let named = topic.subscriber().name("cdr").subscribe(|_| ()).unwrap();
    let plain = topic.subscribe(|_| ()).unwrap();
    assert!(named.id() < plain.id());
    assert_eq!(named.unique_id(), format!("calls-{}", named.id()));
    assert_eq!((named.name(), plain.name()), (Some("cdr"), None));
    assert_eq!(named.topic(), &topic);
    assert!(plain.location().file().ends_with("subscriptions.rs"), "{}", plain.location());
    assert_eq!((topic.subscribers(), bus.stats().subscriptions), (2, 2));
}

#[test]
fn its_states_follow_its_life() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let subscription = topic.subscriber().delivery(delivery).subscribe(|_| ()).unwrap();
        assert!(subscription.is_subscribed() && !subscription.is_done(), "{delivery:?}");
        let end = subscription.unsubscribe();
        assert!(!subscription.is_subscribed() && topic.subscribers() == 0, "{delivery:?}");
        end.wait_timeout(PATIENCE).unwrap();
        assert!(subscription.is_done() && end.is_done() && subscription.completion().is_done(), "{delivery:?}");
        assert!(subscription.unsubscribe().is_done(), "again is harmless");
        assert_eq!(bus.stats().ended, 1);
    }
}

#[test]
fn it_sees_its_own_beginning_then_others_come_and_go() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let log = Log::new();
        let first = topic.subscriber().delivery(delivery).subscribe(log.handler()).unwrap();
        let second = topic.subscriber().delivery(delivery).subscribe(|_| ()).unwrap();
        let id = second.id();
        drop(second);
        first.unsubscribe_and_join(PATIENCE).unwrap();
        let change = Seen::Change;
        let expected = [
            change(ChangeKind::Subscribe, first.id()),
            change(ChangeKind::Subscribe, id),
            change(ChangeKind::Unsubscribe, id),
            Seen::Final,
        ];
        assert_eq!(log.all(), expected, "{delivery:?}");
    }
}

#[test]
fn the_final_message_is_its_own_change() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("calls").unwrap();
        let kind = number(&bus);
        let (tell, told) = channel();
        // Its filter rejects the type of the change: the final one comes all the same.
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .accept(&kind)
            .subscribe(move |received| {
                let change = received.payload::<SubscriptionChange>().cloned();
                tell.send((received.is_final(), received.subscription_id(), received.message().clone(), change))
                    .unwrap();
            })
            .unwrap();
        topic.publish(kind.message(1)).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        let (is_final, id, message, change) = next(&told);
        assert_eq!((is_final, id, message.is(&kind), change.is_none()), (false, subscription.id(), true, true));
        let (is_final, id, message, change) = next(&told);
        assert_eq!((is_final, id), (true, subscription.id()), "{delivery:?}");
        assert!(message.is(SubscriptionChange::message_type()));
        let change = change.unwrap();
        assert_eq!((change.kind, change.subscription), (ChangeKind::Unsubscribe, subscription.id()));
        assert_eq!((&*change.topic, change.unique_id()), ("calls", subscription.unique_id()));
        assert!(told.recv().is_err(), "nothing after the final message");
    }
}

#[test]
fn changes_go_over_forwards_as_any_message() {
    let bus = bus(1);
    let (from, to) = (bus.topic("from").unwrap(), bus.topic("to").unwrap());
    let _forward = from.forward_to(&to).unwrap();
    let log = Log::new();
    let watcher = to.subscriber().no_mailbox().subscribe(log.handler()).unwrap();
    let other = from.subscribe(|_| ()).unwrap();
    let id = other.id();
    drop(other);
    watcher.unsubscribe_and_join(PATIENCE).unwrap();
    let change = Seen::Change;
    let own = change(ChangeKind::Subscribe, watcher.id());
    assert_eq!(log.all(), [own, change(ChangeKind::Subscribe, id), change(ChangeKind::Unsubscribe, id), Seen::Final]);
}

#[test]
fn g03_subscribed_twice_is_delivered_twice() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let log = Log::new();
    let twice = [(); 2].map(|()| topic.subscriber().accept(&kind).subscribe(log.handler()).unwrap());
    topic.publish(kind.message(3)).unwrap();
    for subscription in twice {
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
    }
    assert_eq!(log.values(), [3, 3]);
}

#[test]
fn a_handler_may_be_a_type_of_its_own() {
    struct Sum(u64, std::sync::mpsc::Sender<u64>);
    impl Handler for Sum {
        fn handle(&mut self, received: &Received<'_>) {
            self.0 += received.payload::<u64>().copied().unwrap_or(0);
            if received.is_final() {
                self.1.send(self.0).unwrap();
            }
        }
    }
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let (tell, told) = channel();
    let subscription = topic.subscriber().subscribe_handler(Sum(0, tell)).unwrap();
    for n in 1..=4 {
        topic.publish(kind.message(n)).unwrap();
    }
    drop(subscription);
    assert_eq!(next(&told), 10);
}

#[test]
fn its_figures_count_what_the_handler_got() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let subscription = topic.subscriber().delivery(delivery).accept(&kind).subscribe(|_| ()).unwrap();
        for n in 0..5 {
            topic.publish_sync(kind.message(n), &subscription).unwrap();
        }
        let figures = subscription.stats();
        assert_eq!((figures.delivered, figures.late, figures.panics), (5, 0, 0), "{delivery:?}");
        assert_eq!((bus.stats().published, bus.stats().delivered), (5, 5));
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        drop(subscription);
        eventually("totals outlive the subscription", || bus.stats().delivered == 5);
    }
}

#[test]
fn what_cannot_be_subscribed_is_refused() {
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let refused = topic.subscriber().delivery(Delivery::Lane(Home::Lane(2))).subscribe(|_| ());
    assert!(matches!(refused, Err(SubscribeError::NoSuchLane { asked: 2, lanes: 2 })));
    bus.shutdown(PATIENCE).unwrap();
    for delivery in DELIVERIES {
        let refused = topic.subscriber().delivery(delivery).subscribe(|_| panic!("never subscribed"));
        assert!(matches!(refused, Err(SubscribeError::Closed)), "{delivery:?}");
    }
    assert_eq!(topic.subscribers(), 0);
}
