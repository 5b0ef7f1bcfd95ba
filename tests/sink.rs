//! Conformance: the message sink of `testing`.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Drops, Gate, PATIENCE, bus, must_end, number};
use stasis_bus::testing::{ManualBus, MessageSink, SinkError, TestMessage, test_message_type};
use stasis_bus::{Bus, ChangeKind, MessageType, SubscriptionChange, TypeError};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(20);

#[test]
fn messages_stand_in_the_order_they_came() {
    for to in DELIVERIES {
        let bus = bus(2);
        let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
        let sink = MessageSink::new();
        let subscription = topic.subscriber().delivery(to).subscribe_handler(sink.handler()).unwrap();
        (0..100).for_each(|n| topic.publish(kind.message(n)).unwrap());
        assert_eq!(sink.wait_for_count(100, PATIENCE), Ok(100), "{to:?}");
        assert_eq!(sink.payloads::<u64>(), (0..100).collect::<Vec<_>>());
        assert!(sink.messages().iter().all(|message| message.is(&kind)), "no subscription change among them");
        assert!(!sink.is_ended());
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        sink.wait_for_end(PATIENCE).unwrap();
        assert_eq!((sink.count(), sink.finals(), sink.is_ended()), (100, 1, true), "the final one is not kept");
    }
}

#[test]
fn a_wait_for_a_count_gives_what_there_is_or_says_what_came() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (dial, hangup) = (number(&bus), MessageType::<()>::new(&bus, "hangup").unwrap());
    let sink = MessageSink::new();
    let _subscription = sink.subscribe(&topic).unwrap();
    assert_eq!(sink.wait_for_count(0, Duration::ZERO), Ok(0));
    topic.publish(dial.message(1)).unwrap();
    topic.publish(hangup.message(())).unwrap();
    assert_eq!(sink.wait_for_count(2, PATIENCE), Ok(2));
    assert_eq!(sink.wait_for_count(1, Duration::ZERO), Ok(2), "as many as there are");
    let error = sink.wait_for_count(3, SOON).unwrap_err();
    assert!(matches!(error, SinkError::TooFew { wanted: 3, limit: SOON, .. }));
    assert_eq!(error.arrived().types(), ["number", "hangup"]);
    assert_eq!(error.to_string(), "2 of 3 messages arrived within 20ms: [number, hangup]");
}

#[test]
fn a_wait_ends_when_another_thread_publishes() {
    must_end(|| {
        let bus = bus(1);
        let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
        let sink = MessageSink::new();
        let subscription = sink.subscribe(&topic).unwrap();
        let waiting = Gate::new();
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                waiting.open();
                sink.wait_for(1, |message| message.payload() == Some(&7_u64), Duration::MAX)
            });
            let other = scope.spawn(|| sink.wait_for_end(Duration::MAX));
            waiting.pass();
            [7, 6, 5, 7].iter().for_each(|&n| topic.publish(kind.message(n)).unwrap());
            assert_eq!(waiter.join().unwrap(), Ok(3), "the first one from index 1 on");
            drop(subscription);
            assert_eq!(other.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn a_wait_for_a_message_looks_from_an_index_on() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let sink = MessageSink::new();
    let _subscription = sink.subscribe(&topic).unwrap();
    [1, 2, 1].iter().for_each(|&n| topic.publish(kind.message(n)).unwrap());
    manual.run();
    let one = |message: &stasis_bus::Message| message.payload() == Some(&1_u64);
    assert_eq!(sink.wait_for(0, one, Duration::ZERO), Ok(0));
    assert_eq!(sink.wait_for(1, one, Duration::ZERO), Ok(2));
    let error = sink.wait_for(3, one, SOON).unwrap_err();
    assert!(matches!(error, SinkError::NoMatch { start: 3, .. }));
    assert_eq!(error.to_string(), "no message from index 3 on matched within 20ms: [number, number, number]");
    assert!(sink.wait_for(usize::MAX, one, SOON).is_err());
    let mut asked = 0;
    let none = |_: &stasis_bus::Message| {
        asked += 1;
        false
    };
    assert!(sink.wait_for(0, none, SOON).is_err());
    assert_eq!(asked, 3, "once for each");
}

#[test]
fn a_predicate_may_use_the_sink() {
    must_end(|| {
        let manual = ManualBus::new().unwrap();
        let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
        let sink = MessageSink::new();
        let _subscription = sink.subscribe(&topic).unwrap();
        topic.publish(kind.message(1)).unwrap();
        let found = sink.wait_for(
            0,
            |_| {
                let _ = topic.publish(kind.message(2));
                sink.wait_for_count(2, PATIENCE).is_ok() && sink.messages().len() == 2 && !sink.is_ended()
            },
            PATIENCE,
        );
        assert_eq!(found, Ok(0));
    });
}

#[test]
fn should_stay_tells_of_any_other_number() {
    let bus = bus(1);
    let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
    let sink = MessageSink::new();
    let subscription = sink.subscribe(&topic).unwrap();
    assert_eq!(sink.should_stay(0, SOON), Ok(()));
    let error = sink.should_stay(1, PATIENCE).unwrap_err();
    assert_eq!(error.to_string(), "0 messages instead of 1: []", "at once");
    topic.publish_sync(kind.message(1), &subscription).unwrap();
    let error = sink.should_stay(0, PATIENCE).unwrap_err();
    assert!(matches!(error, SinkError::Changed { expected: 0, .. }));
    assert_eq!(error.to_string(), "1 messages instead of 0: [number]");
    sink.assert_count(1, Duration::ZERO);
}

#[test]
fn a_failed_assertion_reads_well() {
    let sink = MessageSink::new();
    let panic = thread::spawn(move || sink.assert_count(2, Duration::ZERO)).join().unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "0 of 2 messages arrived within 0ns: []");
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("").unwrap(), number(manual.bus()));
    let sink = MessageSink::new();
    let subscription = sink.subscribe(&topic).unwrap();
    (0..1000).for_each(|n| topic.publish(kind.message(n)).unwrap());
    drop(subscription);
    manual.run();
    let text = sink.should_stay(1, PATIENCE).unwrap_err().to_string();
    assert!(text.ends_with("number, and 980 more] and the final message") && text.len() < 300, "{text}");
}

#[test]
fn a_cleared_sink_counts_from_zero() {
    let drops = Drops::new();
    let manual = ManualBus::new().unwrap();
    let topic = manual.bus().topic("t").unwrap();
    let kind = MessageType::new(manual.bus(), "counted").unwrap();
    let sink = MessageSink::new();
    let subscription = sink.subscribe(&topic).unwrap();
    (0..3).for_each(|_| topic.publish(kind.message(drops.token())).unwrap());
    manual.run();
    assert_eq!((sink.count(), drops.dropped()), (3, 0));
    sink.clear();
    drops.assert_all_gone("cleared");
    assert_eq!((sink.count(), sink.is_ended()), (0, false));
    topic.publish(kind.message(drops.token())).unwrap();
    drop(subscription);
    manual.run();
    sink.clear();
    assert_eq!((sink.count(), sink.is_ended()), (0, true), "its end stays");
}

/// A payload whose destructor uses the sink it stood in.
struct Nosy(MessageSink);

impl Drop for Nosy {
    fn drop(&mut self) {
        let _ = self.0.count();
    }
}

#[test]
fn g07_destructors_of_messages_run_under_no_lock() {
    must_end(|| {
        let manual = ManualBus::new().unwrap();
        let topic = manual.bus().topic("t").unwrap();
        let kind = MessageType::new(manual.bus(), "nosy").unwrap();
        let sink = MessageSink::new();
        let _subscription = sink.subscribe(&topic).unwrap();
        topic.publish(kind.message(Nosy(sink.clone()))).unwrap();
        manual.run();
        assert_eq!(sink.count(), 1);
        sink.clear();
    });
}

#[test]
fn a_sink_may_be_dropped_while_subscribed() {
    for to in DELIVERIES {
        let drops = Drops::new();
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = MessageType::new(&bus, "counted").unwrap();
        let sink = MessageSink::new();
        let subscription = topic.subscriber().delivery(to).subscribe_handler(sink.handler()).unwrap();
        topic.publish(kind.message(drops.token())).unwrap();
        drop(sink);
        topic.publish_sync(kind.message(drops.token()), &subscription).unwrap();
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        drops.await_all_gone("what the sink held");
    }
}

#[test]
fn a_sink_of_many_subscriptions_ends_with_the_last() {
    let manual = ManualBus::builder().lanes(2).build().unwrap();
    let (one, two) = (manual.bus().topic("one").unwrap(), manual.bus().topic("two").unwrap());
    let sink = MessageSink::new();
    assert!(matches!(sink.wait_for_end(Duration::ZERO), Err(SinkError::NotEnded { .. })), "never subscribed");
    let first = sink.subscribe(&one).unwrap();
    let second = sink.subscribe(&two).unwrap();
    drop(first);
    manual.run();
    assert_eq!((sink.finals(), sink.is_ended()), (1, false));
    drop(sink.handler()); // never subscribed: nothing to wait for
    drop(second);
    manual.run();
    assert_eq!((sink.finals(), sink.is_ended()), (2, true));
    manual.bus().shutdown(PATIENCE).unwrap();
    assert!(sink.subscribe(&one).is_err());
    assert!(sink.is_ended(), "a refused subscription changes nothing");
}

#[test]
fn a_sink_may_keep_subscription_changes_too() {
    let manual = ManualBus::new().unwrap();
    let topic = manual.bus().topic("t").unwrap();
    let (plain, all) = (MessageSink::new(), MessageSink::with_changes());
    let _plain = plain.subscribe(&topic).unwrap();
    let own = all.subscribe(&topic).unwrap();
    drop(topic.subscribe(|_| ()).unwrap());
    manual.run();
    assert_eq!(plain.count(), 0);
    let kinds: Vec<_> = all.payloads::<SubscriptionChange>().iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Subscribe, ChangeKind::Subscribe, ChangeKind::Unsubscribe]);
    assert_eq!(all.payloads::<SubscriptionChange>()[0].subscription, own.id());
}

#[test]
fn shutdown_of_the_bus_ends_a_sink() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let sink = Arc::new(MessageSink::new());
    let _subscription = sink.subscribe(&topic).unwrap();
    let waiting = Arc::clone(&sink);
    let waiter = thread::spawn(move || waiting.wait_for_end(PATIENCE));
    bus.shutdown(PATIENCE).unwrap();
    waiter.join().unwrap().unwrap();
}

#[test]
fn test_messages_are_of_the_type_stasis_names() {
    let bus = bus(1);
    let kind = test_message_type(&bus).unwrap();
    let (one, two) = (kind.message(TestMessage(1)), kind.message(TestMessage::default()));
    assert_eq!(
        (one.type_name(), one.payload(), two.payload()),
        ("stasis_test_message_type", Some(&TestMessage(1)), Some(&TestMessage(0)))
    );
    let poor = Bus::builder().lanes(1).decline_type("stasis_test_message_type").build().unwrap();
    assert!(matches!(test_message_type(&poor), Err(TypeError::Declined(_))));
}
