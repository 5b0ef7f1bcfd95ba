//! Key index: many subscribers that want one key each.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Drops, PATIENCE, bus, eventually, lock, must_end, next};
use proptest::prelude::*;
use stasis_bus::key_index::{KeyError, KeyIndex, KeyReceived, KeySubscription};
use stasis_bus::{ChangeKind, Delivery, JoinError, Message, MessageType, SubscriptionChange};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

type State = (u64, u64);
type Log = Arc<Mutex<Vec<(u64, Option<u64>)>>>;

fn key(message: &Message) -> Option<u64> {
    Some(message.payload::<State>()?.0)
}

fn kind(bus: &stasis_bus::Bus) -> MessageType<State> {
    MessageType::new(bus, "state").unwrap()
}

/// Writes down who got which value; the final message as none.
fn logger(log: &Log, who: u64) -> impl FnMut(&KeyReceived<'_, u64>) + Send + 'static {
    let log = Arc::clone(log);
    move |received| {
        assert_eq!(received.is_final(), received.payload::<State>().is_none());
        lock(&log).push((who, received.payload::<State>().map(|state| state.1)));
    }
}

#[test]
fn a_message_of_one_key_is_one_delivery_for_25_000_subscribers() {
    // As reported: every phone watches one extension, and every state change is offered to all of them.
    let count = if cfg!(miri) { 100 } else { 25_000 };
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("devicestate:all").unwrap());
    let index = KeyIndex::new(&topic, &kind, key).unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let watchers: Vec<_> = (0..count)
        .map(|extension: u64| {
            let calls = Arc::clone(&calls);
            let watch = move |received: &KeyReceived<'_, u64>| {
                if !received.is_final() {
                    assert_eq!(key(received), Some(extension));
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            };
            index.subscribe(extension, watch).unwrap()
        })
        .collect();
    assert_eq!((topic.subscribers(), index.keys()), (1, count as usize));
    watchers[0].unsubscribe().wait_timeout(PATIENCE).unwrap();
    let before = (index.stats().delivered, bus.stats().delivered);
    for extension in 0..100 {
        topic.publish(kind.message((extension, 1))).unwrap();
    }
    watchers[1].unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 99, "each watcher its own key's; nobody is left for 0");
    assert_eq!(index.stats().delivered - before.0, 101, "one delivery a message, and one for who left");
    assert!(bus.stats().delivered - before.1 <= 101 + 1);
    assert_eq!(index.panics(), 0);
}

#[test]
fn a_publish_for_a_key_nobody_wants_is_not_queued_nor_made() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let index = KeyIndex::apart(&topic, &kind, delivery, key).unwrap();
        let log = Log::default();
        assert!(!index.wants(&1));
        let one = index.subscribe(1_u64, logger(&log, 0)).unwrap();
        let published = bus.stats().published;
        assert!(index.wants(&1) && !index.wants(&2));
        assert!(!index.publish(kind.message((2, 5))).unwrap());
        assert!(!index.publish_with(&2, &kind, || unreachable!("nobody wants it")).unwrap());
        assert_eq!(bus.stats().published, published);
        assert!(index.publish(kind.message((1, 6))).unwrap());
        assert!(index.publish_with(&1, &kind, || (1, 7)).unwrap());
        topic.publish(kind.message((1, 8))).unwrap();
        one.unsubscribe().wait_timeout(PATIENCE).unwrap();
        assert!(!index.wants(&1) && index.keys() == 0);
        assert_eq!(*lock(&log), [(0, Some(6)), (0, Some(7)), (0, None)]);
        drop(index);
        bus.shutdown(PATIENCE).unwrap();
    }
}

#[test]
fn g05_what_was_published_before_then_one_final_message() {
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let index = KeyIndex::new(&topic, &kind, key).unwrap();
    let log = Log::default();
    let drops = Drops::new();
    topic.publish(kind.message((1, 0))).unwrap();
    let token = drops.token();
    let mut write = logger(&log, 1);
    let one = index
        .subscribe(1_u64, move |received: &KeyReceived<'_, u64>| {
            let _ = &token;
            if received.is_final() {
                let change = received.payload::<SubscriptionChange>().unwrap();
                assert_eq!((change.kind, received.key()), (ChangeKind::Unsubscribe, &1));
            }
            write(received);
        })
        .unwrap();
    let two = index.subscribe(1_u64, logger(&log, 2)).unwrap();
    assert_ne!(one.id(), two.id());
    (1..=3).for_each(|n| topic.publish(kind.message((1, n))).unwrap());
    let end = one.unsubscribe();
    drop(one.unsubscribe());
    topic.publish(kind.message((1, 4))).unwrap();
    end.wait_timeout(PATIENCE).unwrap();
    assert!(one.is_done() && !one.is_subscribed());
    drops.assert_all_gone("the handler of one");
    drop(index);
    two.completion().wait_timeout(PATIENCE).unwrap();
    assert!(!two.is_subscribed());
    let of = |who| lock(&log).iter().filter(|entry| entry.0 == who).map(|entry| entry.1).collect::<Vec<_>>();
    assert_eq!(of(1), [Some(1), Some(2), Some(3), None], "nothing from before it came, nothing after it left");
    assert_eq!(of(2), [Some(1), Some(2), Some(3), Some(4), None]);
}

#[test]
fn handlers_come_and_go_from_within() {
    must_end(|| {
        let bus = bus(1);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let index = Arc::new(KeyIndex::new(&topic, &kind, key).unwrap());
        let log = Log::default();
        let (results, waited) = channel();
        let (inside, written) = (Arc::clone(&index), Arc::clone(&log));
        let mut own = Vec::new();
        let first = index
            .subscribe(1_u64, move |received: &KeyReceived<'_, u64>| {
                if received.is_final() {
                    own.clear();
                    return;
                }
                // Itself, and a new one of the same key; waiting for either would be for ever.
                received.unsubscribe();
                let new = inside.subscribe(1_u64, logger(&written, 2)).unwrap();
                results.send(new.unsubscribe().wait_timeout(Duration::from_secs(5))).unwrap();
                own.push(new);
                own.push(inside.subscribe(1_u64, logger(&written, 3)).unwrap());
            })
            .unwrap();
        topic.publish(kind.message((1, 1))).unwrap();
        assert_eq!(next(&waited), Err(JoinError::OwnHandler));
        first.completion().wait_timeout(PATIENCE).unwrap();
        eventually("the others ended with their owner", || lock(&log).len() == 2);
        let mut log = lock(&log).clone();
        log.sort_unstable();
        assert_eq!(log, [(2, None), (3, None)]);
    });
}

#[test]
fn a_panic_is_one_subscribers_alone() {
    let bus = bus(1);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let index = KeyIndex::new(&topic, &kind, key).unwrap();
    let log = Log::default();
    let bad = index.subscribe(1_u64, |_: &KeyReceived<'_, u64>| panic!("as asked")).unwrap();
    let good = index.subscribe(1_u64, logger(&log, 1)).unwrap();
    topic.publish(kind.message((1, 1))).unwrap();
    bad.unsubscribe().wait_timeout(PATIENCE).unwrap();
    topic.publish(kind.message((1, 2))).unwrap();
    good.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!(*lock(&log), [(1, Some(1)), (1, Some(2)), (1, None)]);
    assert_eq!(index.panics(), 2, "one message, one final message");
}

#[test]
fn the_end_of_the_bus_is_the_end_of_all() {
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let index = KeyIndex::new(&topic, &kind, key).unwrap();
    let log = Log::default();
    let all: Vec<_> = (0..10).map(|n| index.subscribe(n % 3_u64, logger(&log, n)).unwrap()).collect();
    topic.publish(kind.message((0, 7))).unwrap();
    bus.shutdown(PATIENCE).unwrap();
    assert!(all.iter().all(|one| one.is_done() && !one.is_subscribed()));
    assert_eq!(lock(&log).iter().filter(|entry| entry.1.is_none()).count(), 10);
    assert_eq!(lock(&log).iter().filter(|entry| entry.1 == Some(7)).count(), 4);
    assert_eq!(index.subscribe(1_u64, |_: &KeyReceived<'_, u64>| ()).unwrap_err(), KeyError::Ended);
    assert!(index.publish(kind.message((1, 1))).unwrap_err().is_closed());
    assert_eq!(index.keys(), 0);
}

#[test]
fn who_joins_an_ending_index_ends_too() {
    for _ in 0..100 {
        let bus = bus(1);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let index = KeyIndex::new(&topic, &kind, key).unwrap();
        let drops = Drops::new();
        let joined: Vec<KeySubscription<u64>> = thread::scope(|scope| {
            let joins = scope.spawn(|| {
                let join = |n| {
                    let token = drops.token();
                    index
                        .subscribe(n, move |_: &KeyReceived<'_, u64>| {
                            let _ = &token;
                        })
                        .ok()
                };
                (0..20_u64).map_while(join).collect()
            });
            index.unsubscribe();
            joins.join().unwrap()
        });
        for one in &joined {
            one.completion().wait_timeout(PATIENCE).unwrap();
        }
        drops.await_all_gone("handlers");
        eventually("nobody wants anything", || index.keys() == 0);
    }
}

#[test]
fn subscribers_come_and_go_while_others_publish() {
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let index = KeyIndex::new(&topic, &kind, key).unwrap();
    let keys = 8;
    let rounds = common::stress(200);
    thread::scope(|scope| {
        for who in 0..keys {
            let (index, topic, kind) = (&index, &topic, &kind);
            scope.spawn(move || {
                for round in 0..rounds as u64 {
                    let log = Log::default();
                    let one = index.subscribe(who, logger(&log, who)).unwrap();
                    topic.publish(kind.message((who, round))).unwrap();
                    topic.publish(kind.message(((who + 1) % keys, 1 << 32))).unwrap();
                    one.unsubscribe().wait_timeout(PATIENCE).unwrap();
                    let seen = lock(&log).clone();
                    assert_eq!(seen.last(), Some(&(who, None)));
                    let own: Vec<_> = seen.iter().filter_map(|entry| entry.1.filter(|n| *n < 1 << 32)).collect();
                    assert_eq!(own, [round], "its own message, and none of an earlier round");
                }
            });
        }
    });
    assert_eq!((index.keys(), index.panics()), (0, 0));
    bus.shutdown(PATIENCE).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Join(u64),
    Leave(usize),
    Publish(u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..4).prop_map(Step::Join),
        any::<usize>().prop_map(Step::Leave),
        (0_u64..4, any::<u64>()).prop_map(|(key, value)| Step::Publish(key, value)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn it_does_what_plain_lists_do(steps in prop::collection::vec(step(), 0..80), inline in any::<bool>()) {
        let bus = bus(1);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let delivery = if inline { Delivery::Inline } else { Delivery::default() };
        let index = KeyIndex::apart(&topic, &kind, delivery, key).unwrap();
        let log = Log::default();
        let mut there: Vec<(u64, KeySubscription<u64>)> = Vec::new();
        let mut model = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Join(key) => {
                    there.push((next, index.subscribe(key, logger(&log, next)).unwrap()));
                    next += 1;
                }
                Step::Leave(at) if !there.is_empty() => {
                    let (who, _left) = there.remove(at % there.len());
                    model.push((who, None));
                }
                Step::Leave(_) => {}
                Step::Publish(key, value) => {
                    let wanted = there.iter().any(|(_, one)| *one.key() == key);
                    prop_assert_eq!(index.publish(kind.message((key, value))).unwrap(), wanted);
                    model.extend(there.iter().filter(|(_, one)| *one.key() == key).map(|(who, _)| (*who, Some(value))));
                }
            }
        }
        index.unsubscribe().wait_timeout(PATIENCE).unwrap();
        model.extend(there.iter().map(|(who, _)| (*who, None)));
        prop_assert_eq!(&*lock(&log), &model);
    }
}
