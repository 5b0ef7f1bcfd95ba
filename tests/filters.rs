//! Conformance: which messages a subscription accepts.
mod common;

use common::{DELIVERIES, Gate, Log, OpenAtEnd, PATIENCE, bus, number, stress};
use stasis_bus::{
    Bus, Delivery, FilterMode, Formatters, MessageType, SubscriberBuilder, Subscription, SubscriptionChange, Topic,
};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Four types: none, JSON, AMI, JSON and AMI.
fn types(bus: &Bus) -> [MessageType<u64>; 4] {
    let text = |n: &u64| Some(n.to_string());
    [
        MessageType::new(bus, "plain").unwrap(),
        MessageType::builder("json").to_json(text).create(bus).unwrap(),
        MessageType::builder("ami").to_ami(text).create(bus).unwrap(),
        MessageType::builder("both").to_json(text).to_ami(text).create(bus).unwrap(),
    ]
}

/// A subscription with this filter, and what it saw.
struct Listener(Subscription, Log);

impl Listener {
    fn new(builder: SubscriberBuilder<'_>) -> Self {
        let log = Log::new();
        Self(builder.subscribe(log.handler()).unwrap(), log)
    }

    /// Publishes one of each type and says which arrived.
    fn arrivals(&self, types: &[MessageType<u64>]) -> Vec<u64> {
        let before = self.1.values().len();
        for (n, kind) in (0..).zip(types) {
            self.0.topic().publish_sync(kind.message(n), &self.0).unwrap();
        }
        self.1.values()[before..].to_vec()
    }
}

fn each_delivery(test: impl Fn(&Bus, &Topic, Delivery)) {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        test(&bus, &topic, delivery);
    }
}

#[test]
fn without_a_filter_everything_arrives() {
    each_delivery(|bus, topic, delivery| {
        let all = Listener::new(topic.subscriber().delivery(delivery));
        assert_eq!(all.arrivals(&types(bus)), [0, 1, 2, 3]);
    });
}

#[test]
fn accepted_types_alone_arrive() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let some = Listener::new(topic.subscriber().delivery(delivery).accept(&types[1]).accept(&types[2]));
        assert_eq!(some.arrivals(&types), [1, 2]);
    });
}

#[test]
fn formatters_alone_select_their_types() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let json = Listener::new(topic.subscriber().delivery(delivery).accept_formatters(Formatters::JSON));
        assert_eq!(json.arrivals(&types), [1, 3]);
        let either = topic.subscriber().delivery(delivery).accept_formatters(Formatters::JSON | Formatters::AMI);
        assert_eq!(Listener::new(either).arrivals(&types), [1, 2, 3]);
        let event = Listener::new(topic.subscriber().delivery(delivery).accept_formatters(Formatters::EVENT));
        assert_eq!(event.arrivals(&types), [0_u64; 0]);
    });
}

#[test]
fn types_and_formatters_are_ored() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let filter = topic.subscriber().delivery(delivery).accept(&types[0]).accept_formatters(Formatters::AMI);
        assert_eq!(Listener::new(filter).arrivals(&types), [0, 2, 3]);
    });
}

#[test]
fn a_declined_type_never_arrives() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let open = Listener::new(topic.subscriber().delivery(delivery).decline(&types[1]));
        assert_eq!(open.arrivals(&types), [0, 2, 3]);
        let json = topic.subscriber().delivery(delivery).accept_formatters(Formatters::JSON).decline(&types[1]);
        assert_eq!(Listener::new(json).arrivals(&types), [3]);
    });
}

#[test]
fn selective_with_nothing_accepted_gets_nothing_but_its_end() {
    each_delivery(|bus, topic, delivery| {
        let none = Listener::new(topic.subscriber().delivery(delivery).filter_mode(FilterMode::Selective));
        assert_eq!(none.arrivals(&types(bus)), [0_u64; 0]);
        none.0.unsubscribe_and_join(PATIENCE).unwrap();
        none.1.assert_ended();
        assert_eq!(none.1.all().len(), 1);
    });
}

#[test]
fn filters_change_for_later_publishes() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let listener = Listener::new(topic.subscriber().delivery(delivery).accept(&types[0]));
        let subscription = &listener.0;
        assert_eq!(listener.arrivals(&types), [0]);
        subscription.accept(&types[1]);
        assert_eq!(listener.arrivals(&types), [0, 1]);
        subscription.decline(&types[0]);
        assert_eq!(listener.arrivals(&types), [1]);
        subscription.accept_formatters(Formatters::AMI);
        assert_eq!(listener.arrivals(&types), [1, 2, 3]);
        subscription.accept_formatters(Formatters::NONE);
        subscription.set_filter_mode(FilterMode::None);
        assert_eq!(listener.arrivals(&types), [0, 1, 2, 3], "declining says what is not accepted, as in Stasis");
        subscription.accept(&types[0]);
        assert_eq!(listener.arrivals(&types), [0, 1, 2, 3]);
        subscription.set_filter_mode(FilterMode::Selective);
        assert_eq!(listener.arrivals(&types), [0, 1]);
    });
}

#[test]
fn accepting_alone_does_not_make_a_subscription_selective() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let listener = Listener::new(topic.subscriber().delivery(delivery));
        listener.0.accept(&types[2]);
        assert_eq!(listener.arrivals(&types), [0, 1, 2, 3]);
    });
}

#[test]
fn a_forced_mode_stays() {
    each_delivery(|bus, topic, delivery| {
        let types = types(bus);
        let forced = topic.subscriber().delivery(delivery).filter_mode(FilterMode::ForcedNone).accept(&types[0]);
        let listener = Listener::new(forced);
        listener.0.set_filter_mode(FilterMode::Selective);
        assert_eq!(listener.arrivals(&types), [0, 1, 2, 3]);
    });
}

#[test]
fn what_is_published_already_is_not_filtered_again() {
    // The lane is held back, so the messages wait while the filter changes.
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let gate = Gate::new();
    let held = gate.clone();
    let _holder =
        topic.subscriber().accept(SubscriptionChange::message_type()).subscribe(move |_| held.pass()).unwrap();
    let _open = OpenAtEnd(gate.clone());
    let listener = Listener::new(topic.subscriber().accept(&kind));
    topic.publish(kind.message(1)).unwrap();
    listener.0.decline(&kind);
    topic.publish(kind.message(2)).unwrap();
    listener.0.accept(&kind);
    topic.publish(kind.message(3)).unwrap();
    gate.open();
    listener.0.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(listener.1.values(), [1, 3]);
}

#[test]
fn no_message_comes_before_the_filter_is_set() {
    // Pain 11: a thread publishes while subscriptions are made; none may see what it does not accept.
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let (wanted, unwanted) = (number(&bus), number(&bus));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                topic.publish(unwanted.message(666)).unwrap();
                topic.publish(wanted.message(1)).unwrap();
            }
        });
        for round in 0..stress(300) {
            let listener = Listener::new(topic.subscriber().delivery(DELIVERIES[round % 3]).accept(&wanted));
            listener.0.unsubscribe_and_join(PATIENCE).unwrap();
            listener.1.assert_ended();
            assert!(listener.1.values().iter().all(|n| *n == 1));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn g03_a_change_between_two_accepting_filters_loses_nothing() {
    // Before, between and after, the filter accepts the type: so nobody may ever find it unwanted.
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let listener = topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    let (changing, published) = (AtomicBool::new(true), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while changing.load(Ordering::Relaxed) {
                    // Asking is the quickest way into the race; every publish asks the same first.
                    assert!((0..100_000).all(|_| topic.wants(&kind)), "said to be unwanted");
                    topic.publish(kind.message(1)).unwrap();
                    published.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..stress(50_000) {
            listener.set_filter_mode(FilterMode::None);
            listener.set_filter_mode(FilterMode::Selective);
        }
        changing.store(false, Ordering::Relaxed);
    });
    listener.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(listener.stats().delivered, published.load(Ordering::Relaxed) as u64);
}

#[test]
fn types_with_large_numbers_are_told_apart() {
    each_delivery(|bus, topic, delivery| {
        let mut types: Vec<MessageType<u64>> = (0..700).map(|_| number(bus)).collect();
        types.sort_by_key(|kind| kind.id()); // numbers of ended types are used again, in any order
        assert!(types[699].id().get() > 256, "the test needs numbers beyond the inline words");
        let chosen = [0, 1, 254, 255, 256, 257, 320, 511, 512, 699];
        let builder =
            chosen.iter().fold(topic.subscriber().delivery(delivery), |builder, n| builder.accept(&types[*n]));
        let listener = Listener::new(builder);
        assert_eq!(listener.arrivals(&types), chosen.map(|n| n as u64));
        let wanted: Vec<usize> = (0..700).filter(|n| types[*n].id().get() < 256 && topic.wants(&types[*n])).collect();
        assert!(wanted.iter().all(|n| chosen.contains(n)), "exact below 256: {wanted:?}");
        assert!(chosen.iter().all(|n| topic.wants(&types[*n])));
        listener.0.decline(&types[512]);
        listener.0.decline(&types[0]);
        assert_eq!(
            listener.arrivals(&types),
            chosen[1..].iter().filter(|n| **n != 512).map(|n| *n as u64).collect::<Vec<_>>()
        );
    });
}

#[test]
fn a_filter_keeps_its_type_so_no_other_gets_its_number() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let id = kind.id();
    let listener = Listener::new(topic.subscriber().accept(&kind));
    drop(kind);
    let others: Vec<MessageType<u64>> = (0..300).map(|_| number(&bus)).collect();
    assert!(others.iter().all(|other| other.id() != id));
    assert_eq!(listener.arrivals(&others), [0_u64; 0]);
}

#[test]
fn filters_hold_over_forwards_made_before_and_after() {
    let bus = bus(1);
    let (up, down) = (bus.topic("up").unwrap(), bus.topic("down").unwrap());
    let types = types(&bus);
    let listener = Listener::new(down.subscriber().accept(&types[0]));
    let _forward = up.forward_to(&down).unwrap();
    let publish_all = || {
        for (n, kind) in (0..).zip(&types) {
            up.publish_sync(kind.message(n), &listener.0).unwrap();
        }
    };
    publish_all();
    listener.0.accept(&types[3]);
    publish_all();
    assert_eq!(listener.1.values(), [0, 0, 3]);
}
