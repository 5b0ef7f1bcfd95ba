//! Keyed delivery: order per key, parallel across keys.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Drops, Gate, OpenAtEnd, PATIENCE, Task, bus, eventually, lock, must_end, next};
use proptest::prelude::*;
use stasis_bus::keyed::{self, hash_of};
use stasis_bus::{JoinError, Message, MessageType, SubscribeError};
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

type Device = (u64, u64);

fn device(message: &Message) -> Option<u64> {
    Some(message.payload::<Device>()?.0)
}

fn kind(bus: &stasis_bus::Bus) -> MessageType<Device> {
    MessageType::new(bus, "device_state").unwrap()
}

#[test]
fn order_holds_for_each_of_100_000_devices() {
    // As reported: one subscriber of devicestate:all serves every device of the system, on one core.
    let devices: u64 = if cfg!(miri) { 100 } else { 100_000 };
    let bus = bus(4);
    let (kind, topic) = (kind(&bus), bus.topic("devicestate:all").unwrap());
    let lasts: Arc<Vec<AtomicUsize>> = Arc::new((0..devices).map(|_| AtomicUsize::new(0)).collect());
    let lanes = Arc::new(Mutex::new(HashMap::<usize, usize>::new()));
    let (seen, counts) = (Arc::clone(&lasts), Arc::clone(&lanes));
    let states = keyed::subscribe_shards(topic.subscriber().accept(&kind), device, move |shard| {
        let (seen, counts) = (Arc::clone(&seen), Arc::clone(&counts));
        let mut served = 0;
        move |received| {
            assert_eq!(received.shard(), shard);
            if let Some((device, state)) = received.payload::<Device>() {
                // Wrong order is a panic, and so counted below.
                let before = seen[*device as usize].swap(*state as usize, Ordering::SeqCst);
                assert_eq!(before + 1, *state as usize, "device {device}");
                served += 1;
                lock(&counts).insert(shard, served);
            }
        }
    })
    .unwrap();
    assert_eq!(states.shards(), 4);
    thread::scope(|scope| {
        // Each device has one publisher, as in life.
        for publisher in 0..2 {
            let (topic, kind) = (&topic, &kind);
            scope.spawn(move || {
                for state in 1..=3 {
                    for device in (publisher..devices).step_by(2) {
                        topic.publish(kind.message((device, state))).unwrap();
                    }
                }
            });
        }
    });
    states.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert!(lasts.iter().all(|last| last.load(Ordering::SeqCst) == 3), "nothing is lost");
    assert_eq!(states.stats().iter().map(|stats| stats.panics).sum::<u64>(), 0, "order per device");
    let lanes = lock(&lanes);
    assert_eq!(lanes.len(), 4, "all lanes deliver");
    assert_eq!(lanes.values().sum::<usize>(), 3 * devices as usize, "once each");
    let fair = devices as usize * 3 / 8;
    assert!(lanes.values().all(|&served| served > fair), "and share the work: {lanes:?}");
}

#[test]
fn two_keys_run_at_once_and_one_key_does_not() {
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let gate = Gate::new();
    let (entered, entries) = channel();
    let inside = Arc::new(AtomicUsize::new(0));
    let most_of_one_key = Arc::new(AtomicUsize::new(0));
    let handler = {
        let (gate, inside, most) = (gate.clone(), Arc::clone(&inside), Arc::clone(&most_of_one_key));
        move |received: &keyed::KeyedReceived<'_>| {
            let Some(device) = received.payload::<Device>() else { return };
            if device.0 == 0 {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            entered.send((received.shard(), device.1)).unwrap();
            gate.pass();
            if device.0 == 0 {
                inside.fetch_sub(1, Ordering::SeqCst);
            }
        }
    };
    let states = keyed::subscribe(topic.subscriber().accept(&kind), device, handler).unwrap();
    let _open = OpenAtEnd(gate.clone());
    for device in 0..8 {
        topic.publish(kind.message((device, 1))).unwrap();
        topic.publish(kind.message((device, 2))).unwrap();
    }
    let (first, second) = (next(&entries), next(&entries));
    assert_ne!(first.0, second.0, "both shards are in a handler");
    gate.open();
    states.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!((entries.try_iter().count(), most_of_one_key.load(Ordering::SeqCst)), (14, 1));
}

#[test]
fn g05_one_final_message_after_all_shards() {
    for round in 0..50 {
        let bus = bus(3);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let drops = Drops::new();
        let states = keyed::subscribe_shards(topic.subscriber().accept(&kind), device, |_| {
            let (log, token) = (Arc::clone(&log), drops.token());
            move |received: &keyed::KeyedReceived<'_>| {
                let _ = &token;
                lock(&log).push(received.payload::<Device>().map(|device| device.0));
                assert_eq!(received.is_final(), received.payload::<Device>().is_none());
            }
        })
        .unwrap();
        for device in 0..20 {
            topic.publish(kind.message((device, round))).unwrap();
        }
        let end = states.unsubscribe();
        topic.publish(kind.message((99, 0))).unwrap();
        match round % 3 {
            0 => end.wait().unwrap(),
            1 => drop(states),
            _ => drop(bus.shutdown(PATIENCE).unwrap()),
        }
        end.wait_timeout(PATIENCE).unwrap();
        assert!(end.is_done());
        let log = lock(&log);
        assert_eq!((log.len(), log.last()), (21, Some(&None)), "all before, one final, last");
        drops.assert_all_gone("handlers of all shards");
    }
}

#[test]
fn a_handler_ends_the_whole_and_cannot_wait_for_it() {
    must_end(|| {
        let bus = bus(2);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let (sender, results) = channel();
        let (finals, ended) = channel();
        let slot = Arc::new(Mutex::new(None::<keyed::KeyedCompletion>));
        let own = Arc::clone(&slot);
        let states = keyed::subscribe(topic.subscriber().accept(&kind), device, move |received| {
            if received.is_final() {
                finals.send(()).unwrap();
                return;
            }
            received.unsubscribe();
            received.unsubscribe();
            let end = lock(&own).clone().unwrap();
            sender.send(end.wait_timeout(Duration::from_secs(1))).unwrap();
        })
        .unwrap();
        *lock(&slot) = Some(states.completion());
        for device in 0..4 {
            topic.publish(kind.message((device, 1))).unwrap();
        }
        assert_eq!(next(&results), Err(JoinError::OwnHandler));
        states.join_timeout(PATIENCE).unwrap();
        assert!(!states.is_subscribed() && states.is_done());
        next(&ended);
        assert!(ended.try_recv().is_err(), "once");
    });
}

#[test]
fn g07_a_completion_can_be_awaited_and_is_there_when_all_shards_have_ended() {
    // Which shard ends first, and who ends the whole.
    for (first, ender) in [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)] {
        must_end(move || {
            let bus = bus(2);
            let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
            let gates = [Gate::new(), Gate::new()];
            let _open = gates.clone().map(OpenAtEnd);
            let drops = [Drops::new(), Drops::new()];
            let (entered, entries) = channel();
            let states = keyed::subscribe_shards(topic.subscriber().accept(&kind), device, |shard| {
                let (gate, token, entered) = (gates[shard].clone(), drops[shard].token(), entered.clone());
                move |received: &keyed::KeyedReceived<'_>| {
                    let _ = &token;
                    if !received.is_final() {
                        entered.send(shard).unwrap();
                        gate.pass();
                    }
                }
            })
            .unwrap();
            (0..8).for_each(|device| topic.publish(kind.message((device, 1))).unwrap());
            let mut inside = [next(&entries), next(&entries)];
            inside.sort_unstable();
            assert_eq!(inside, [0, 1], "both shards are in a handler");

            let tasks = [(); 3].map(|()| Task::new());
            let mut end = pin!(states.completion());
            assert_eq!(end.wait_timeout(Duration::ZERO), Err(JoinError::Timeout));
            assert_eq!(tasks[0].poll(end.as_mut()), Poll::Pending);
            assert_eq!(tasks[1].poll(end.as_mut()), Poll::Pending, "the task has moved");
            let mut given_up = Box::pin(end.clone());
            assert_eq!(tasks[2].poll(given_up.as_mut()), Poll::Pending);
            drop(given_up);
            assert_eq!(tasks.each_ref().map(Task::is_kept), [false, true, false], "the latest waker alone");

            let mut states = Some(states);
            let shutdown = match ender {
                0 => {
                    drop(states.as_ref().map(keyed::KeyedSubscription::unsubscribe));
                    None
                }
                1 => {
                    drop(states.take());
                    None
                }
                _ => Some(thread::spawn(move || bus.shutdown(PATIENCE).map(drop))),
            };
            assert_eq!(tasks[1].poll(end.as_mut()), Poll::Pending, "handlers run");
            gates[first].open();
            drops[first].await_all_gone("the first shard's handler");
            if first == 0 {
                eventually("the task looks at the other shard", || tasks[1].woken() == 1);
            }
            assert_eq!(tasks[1].poll(end.as_mut()), Poll::Pending, "the other shard's handler runs");
            assert!(!end.is_done() && end.wait_timeout(Duration::ZERO) == Err(JoinError::Timeout));
            let before = tasks[1].woken();
            assert_eq!(before, 1 - first, "of shards behind one that runs nothing is told");
            gates[1 - first].open();
            eventually("the task is woken", || tasks[1].woken() == before + 1);
            assert_eq!(tasks[1].poll(end.as_mut()), Poll::Ready(()));
            drops.iter().for_each(|drops| drops.assert_all_gone("handlers"));
            assert_eq!(tasks[1].poll(end.as_mut()), Poll::Ready(()), "asked again");
            let late = Task::new();
            assert_eq!(late.poll(pin!(end.clone())), Poll::Ready(()), "asked for the first time");
            eventually("no waker is kept", || !tasks.iter().chain([&late]).any(Task::is_kept));
            assert_eq!((tasks[0].woken(), tasks[2].woken(), late.woken()), (0, 0, 0));
            if let Some(shutdown) = shutdown {
                shutdown.join().unwrap().unwrap();
            }
        });
    }
}

#[test]
fn a_handler_may_end_the_whole_before_all_its_shards_are_subscribed() {
    must_end(|| {
        let bus = bus(3);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let (handled, told) = channel();
        let drops = Drops::new();
        let states = keyed::subscribe_shards(
            topic.subscriber().accept(&kind),
            |_| None, // all of the first shard
            |shard| {
                if shard == 2 {
                    topic.publish(kind.message((0, 1))).unwrap();
                    assert_eq!(next(&told), (0, false), "its handler has unsubscribed");
                }
                let (handled, token) = (handled.clone(), drops.token());
                move |received: &keyed::KeyedReceived<'_>| {
                    let _ = &token;
                    received.unsubscribe();
                    handled.send((received.shard(), received.is_final())).unwrap();
                }
            },
        )
        .unwrap();
        assert!(!states.is_subscribed());
        states.join_timeout(PATIENCE).unwrap();
        drops.assert_all_gone("handlers of all shards");
        assert!(next(&told).1, "the final message");
        assert!(told.try_recv().is_err(), "of the whole: once");
        assert_eq!(topic.subscribers(), 0);
    });
}

#[test]
fn g11_shutdown_between_two_shards_refuses_the_whole_without_a_final_message() {
    must_end(|| {
        let bus = bus(2);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let (handled, told) = channel();
        let drops = Drops::new();
        let refused = keyed::subscribe_shards(
            topic.subscriber().accept(&kind),
            |_| None,
            |shard| {
                if shard == 1 {
                    topic.publish(kind.message((0, 1))).unwrap();
                    bus.shutdown(PATIENCE).unwrap();
                }
                let (handled, token) = (handled.clone(), drops.token());
                move |received: &keyed::KeyedReceived<'_>| {
                    let _ = &token;
                    handled.send(received.is_final()).unwrap();
                }
            },
        );
        assert!(matches!(refused, Err(SubscribeError::Closed)));
        drops.assert_all_gone("handlers of all shards");
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [false], "what was published before");
    });
}

#[test]
fn messages_without_a_key_are_one_key() {
    let bus = bus(4);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&log);
    let states = keyed::subscribe(
        topic.subscriber().accept(&kind),
        |_| None,
        move |received| {
            if let Some((_, n)) = received.payload::<Device>() {
                lock(&seen).push((received.shard(), *n));
            }
        },
    )
    .unwrap();
    (0..100).for_each(|n| topic.publish(kind.message((n, n))).unwrap());
    states.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!(*lock(&log), (0..100).map(|n| (0, n)).collect::<Vec<_>>());
}

#[test]
fn a_panic_costs_one_message() {
    let bus = bus(2);
    let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let states = keyed::subscribe(topic.subscriber().accept(&kind), device, move |received| {
        if !received.is_final() {
            assert_ne!(received.payload::<Device>(), Some(&(3, 1)), "as asked");
            count.fetch_add(1, Ordering::SeqCst);
        }
    })
    .unwrap();
    (0..10).for_each(|n| topic.publish(kind.message((n, 1))).unwrap());
    states.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 9);
}

#[test]
fn after_shutdown_there_is_none() {
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    bus.shutdown(PATIENCE).unwrap();
    let refused = keyed::subscribe(topic.subscriber(), device, |_| ());
    assert!(matches!(refused, Err(SubscribeError::Closed)));
}

#[test]
fn a_subscription_may_be_dropped_in_its_handler() {
    must_end(|| {
        let bus = bus(2);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let slot = Arc::new(Mutex::new(None::<keyed::KeyedSubscription>));
        let own = Arc::clone(&slot);
        let drops = Drops::new();
        let token = drops.token();
        let states = keyed::subscribe(topic.subscriber().accept(&kind), device, move |_| {
            let _ = &token;
            let own = lock(&own).take();
            drop(own);
        })
        .unwrap();
        *lock(&slot) = Some(states);
        drop(slot);
        topic.publish(kind.message((1, 1))).unwrap();
        drops.await_all_gone("the handler");
        eventually("nobody is left", || topic.subscribers() == 0);
    });
}

#[test]
fn hashes_are_spread() {
    let names: HashSet<u64> = (0..1000).map(|n| hash_of(&format!("SIP/{n}"))).collect();
    assert_eq!(names.len(), 1000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn each_key_sees_what_a_plain_list_says(lanes in 1_usize..4, sent in prop::collection::vec((0_u64..12, any::<u64>()), 0..200)) {
        let bus = bus(lanes);
        let (kind, topic) = (kind(&bus), bus.topic("t").unwrap());
        let seen = Arc::new(Mutex::new(HashMap::<u64, Vec<u64>>::new()));
        let log = Arc::clone(&seen);
        let states = keyed::subscribe(topic.subscriber().accept(&kind), device, move |received| {
            if let Some((key, value)) = received.payload::<Device>() {
                lock(&log).entry(*key).or_default().push(*value);
            }
        }).unwrap();
        let mut model = HashMap::<u64, Vec<u64>>::new();
        for (key, value) in sent {
            topic.publish(kind.message((key, value))).unwrap();
            model.entry(key).or_default().push(value);
        }
        states.unsubscribe().wait_timeout(PATIENCE).unwrap();
        prop_assert_eq!(&*lock(&seen), &model);
    }
}
