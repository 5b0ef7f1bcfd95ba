//! Key index: many subscribers that want one key each.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{DELIVERIES, Drops, Gate, OpenAtEnd, PATIENCE, Task, bus, eventually, lock, must_end, next};
use proptest::prelude::*;
use stasis_bus::key_index::{KeyCompletion, KeyError, KeyIndex, KeyReceived, KeySubscription};
use stasis_bus::testing::ManualBus;
use stasis_bus::{ChangeKind, Delivery, Home, JoinError, Message, MessageType, SubscriptionChange};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::Poll;
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
fn g07_a_completion_can_be_awaited_whoever_brings_the_end() {
    for delivery in [Delivery::default(), Delivery::Dedicated] {
        for ender in 0..4 {
            must_end(move || {
                let bus = bus(1);
                let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
                let index = KeyIndex::apart(&topic, &kind, delivery, key).unwrap();
                let (gate, drops) = (Gate::new(), Drops::new());
                let _open = OpenAtEnd(gate.clone());
                let (entered, entries) = channel();
                let (pass, token) = (gate.clone(), drops.token());
                let watch = move |received: &KeyReceived<'_, u64>| {
                    let _ = &token;
                    if !received.is_final() {
                        entered.send(()).unwrap();
                        pass.pass();
                    }
                };
                let mut one = Some(index.subscribe(1_u64, watch).unwrap());
                assert!(index.publish(kind.message((1, 1))).unwrap());
                next(&entries);

                let tasks = [(); 3].map(|()| Task::new());
                let mut end = pin!(one.as_ref().unwrap().completion());
                let mut given_up = Box::pin(one.as_ref().unwrap().completion());
                let from_thread = one.as_ref().unwrap().completion();
                assert_eq!(end.wait_timeout(Duration::ZERO), Err(JoinError::Timeout));
                assert_eq!(tasks[0].poll(end.as_mut()), Poll::Pending);
                assert_eq!(tasks[1].poll(end.as_mut()), Poll::Pending, "the task has moved");
                assert_eq!(tasks[2].poll(given_up.as_mut()), Poll::Pending);
                drop(given_up);
                assert_eq!(tasks.each_ref().map(Task::is_kept), [false, true, false], "the latest waker alone");

                let mut index = Some(index);
                let mut others = Vec::new();
                match ender {
                    0 => drop(one.as_ref().map(KeySubscription::unsubscribe)),
                    1 => drop(one.take()),
                    2 => drop(index.take()),
                    _ => others.push(thread::spawn(move || drop(bus.shutdown(PATIENCE).unwrap()))),
                }
                others.push(thread::spawn(move || from_thread.wait().unwrap()));
                assert_eq!(tasks[1].poll(end.as_mut()), Poll::Pending, "the handler runs");
                assert_eq!((end.is_done(), tasks[1].woken()), (false, 0));
                gate.open();
                eventually("the task is woken", || tasks[1].woken() == 1);
                drops.assert_all_gone("the handler, before anybody is told");
                assert_eq!(tasks[1].poll(end.as_mut()), Poll::Ready(()));
                assert_eq!(tasks[1].poll(end.as_mut()), Poll::Ready(()), "asked again");
                if let Some(one) = &one {
                    let late = Task::new();
                    assert_eq!(late.poll(pin!(one.completion())), Poll::Ready(()), "asked for the first time");
                    assert_eq!((late.woken(), late.is_kept()), (0, false));
                    assert!(one.is_done() && !one.is_subscribed());
                }
                others.into_iter().for_each(|other| other.join().unwrap());
                eventually("no waker is kept", || !tasks.iter().any(Task::is_kept));
                assert_eq!(tasks.each_ref().map(|task| task.woken()), [0, 1, 0]);
            });
        }
    }
}

#[test]
fn g07_handlers_of_two_indexes_that_wait_for_each_other_are_told() {
    must_end(|| {
        let bus = bus(2);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let indexes = [0, 1].map(|lane| KeyIndex::apart(&topic, &kind, Delivery::Lane(Home::Lane(lane)), key).unwrap());
        let ends: Arc<[OnceLock<KeyCompletion<u64>>; 2]> = Arc::default();
        let meet = Arc::new(Barrier::new(2));
        let (tell, told) = channel();
        let pair = [0, 1].map(|own| {
            let (ends, meet, tell) = (Arc::clone(&ends), Arc::clone(&meet), tell.clone());
            let handler = move |received: &KeyReceived<'_, u64>| {
                if !received.is_final() {
                    received.unsubscribe();
                    meet.wait();
                    tell.send(ends[1 - own].get().unwrap().wait()).unwrap();
                }
            };
            indexes[own].subscribe(1_u64, handler).unwrap()
        });
        for (end, one) in ends.iter().zip(&pair) {
            assert!(end.set(one.completion()).is_ok());
        }
        indexes.iter().for_each(|index| assert!(index.publish(kind.message((1, 1))).unwrap()));
        let mut results = [next(&told), next(&told)];
        results.sort_by_key(Result::is_err);
        assert_eq!(results, [Ok(()), Err(JoinError::Circular)]);
        pair.iter().for_each(|one| one.completion().wait_timeout(PATIENCE).unwrap());
    });
}

#[test]
fn g07_waits_within_waits_end_before_the_stack_does() {
    // Each handler waits for the end of the next index's subscriber, and serves it meanwhile, on one stack.
    const CHAIN: usize = 200;
    must_end(|| {
        let manual = ManualBus::builder().lanes(1).build().unwrap();
        let (kind, topic) = (kind(manual.bus()), manual.bus().topic("t").unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut following: Option<Arc<(KeyIndex<u64>, KeySubscription<u64>)>> = None;
        for n in (0..CHAIN).rev() {
            let index = KeyIndex::apart(&topic, &kind, Delivery::Lane(Home::Lane(0)), key).unwrap();
            let (log, kind, then) = (Arc::clone(&log), kind.clone(), following.take());
            let handler = move |received: &KeyReceived<'_, u64>| {
                if let (false, Some(then)) = (received.is_final(), &then) {
                    assert!(then.0.publish(kind.message((1, 1))).unwrap());
                    let result = then.1.unsubscribe().wait();
                    lock(&log).push((n, result));
                }
            };
            let one = index.subscribe(1_u64, handler).unwrap();
            following = Some(Arc::new((index, one)));
        }
        let first = following.unwrap();
        assert!(first.0.publish(kind.message((1, 1))).unwrap());
        manual.run();
        let log = lock(&log).clone();
        assert_eq!(log[0].1, Err(JoinError::TooDeep), "the deepest one");
        assert!(log[1..].iter().all(|(_, result)| result.is_ok()), "{log:?}");
        assert_eq!(log.len(), CHAIN - 1, "and all go on");
    });
}

#[test]
fn who_joins_when_the_index_has_just_ended_ends_without_a_message() {
    /// A key whose making ends the index: after it was seen to be there, before the subscriber is in.
    struct Ending<F>(F);
    impl<F: FnOnce()> From<Ending<F>> for u64 {
        fn from(ending: Ending<F>) -> Self {
            ending.0();
            1
        }
    }
    for by_the_bus in [false, true] {
        must_end(move || {
            let bus = bus(1);
            let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
            let index = KeyIndex::new(&topic, &kind, key).unwrap();
            let (log, drops) = (Log::default(), Drops::new());
            let (mut write, token) = (logger(&log, 1), drops.token());
            let handler = move |received: &KeyReceived<'_, u64>| {
                let _ = &token;
                write(received);
            };
            let ending = Ending(|| {
                if by_the_bus {
                    bus.shutdown(PATIENCE).unwrap();
                } else {
                    index.unsubscribe().wait_timeout(PATIENCE).unwrap();
                }
            });
            let joined = index.subscribe(ending, handler);
            assert_eq!(joined.as_ref().err(), by_the_bus.then_some(&KeyError::Ended));
            if let Ok(one) = &joined {
                let task = Task::new();
                let mut end = pin!(one.unsubscribe());
                eventually("it has ended", || one.is_done());
                assert_eq!((task.poll(end.as_mut()), end.wait()), (Poll::Ready(()), Ok(())));
                assert!(!one.is_subscribed());
            }
            drops.await_all_gone("the handler");
            assert_eq!((lock(&log).len(), index.keys(), index.wants(&1)), (0, 0, false), "it never began");
        });
    }
}

#[test]
fn an_index_of_an_indexs_topic_keeps_to_its_own_subscribers() {
    // They are told of who comes and goes at the others too, whether they have the same kind of keys or not.
    for lanes in [[0, 0], [0, 1], [1, 0]] {
        must_end(move || {
            let bus = bus(2);
            let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
            let [lane, other] = lanes.map(|lane| Delivery::Lane(Home::Lane(lane)));
            let by_key = KeyIndex::apart(&topic, &kind, lane, key).unwrap();
            let by_value =
                KeyIndex::apart(&topic, &kind, other, |message| Some(message.payload::<State>()?.1)).unwrap();
            let _first = by_value.topic().forward_to(by_key.topic()).unwrap();
            let _second = by_key.topic().forward_to(by_value.topic()).unwrap();
            let by_text =
                KeyIndex::apart(&topic, &kind, lane, |message| key(message).map(|key| key.to_string())).unwrap();
            let _third = by_key.topic().forward_to(by_text.topic()).unwrap();
            let log = Log::default();
            let texts = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&texts);
            let count = move |received: &KeyReceived<'_, String>| {
                count.fetch_add(1 + u64::from(received.is_final()) * 100, Ordering::SeqCst);
            };
            let of_text = by_text.subscribe("2", count).unwrap();
            let of_key = by_key.subscribe(1_u64, logger(&log, 0)).unwrap();
            let of_value = by_value.subscribe(1_u64, logger(&log, 1)).unwrap();
            for state in [(1, 10), (10, 1), (2, 2)] {
                by_key.topic().publish(kind.message(state)).unwrap();
            }
            of_key.unsubscribe().wait_timeout(PATIENCE).unwrap();
            of_value.unsubscribe().wait_timeout(PATIENCE).unwrap();
            let of = |who| lock(&log).iter().filter(|entry| entry.0 == who).map(|entry| entry.1).collect::<Vec<_>>();
            assert_eq!((of(0), of(1)), (vec![Some(10), None], vec![Some(1), None]));
            of_text.unsubscribe().wait_timeout(PATIENCE).unwrap();
            assert_eq!(texts.load(Ordering::SeqCst), 102, "one message, and the final one");
            drop(by_key);
            bus.shutdown(PATIENCE).unwrap();
        });
    }
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
