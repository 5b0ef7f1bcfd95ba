//! G3, G9: a subscription with a queue of its own never has more waiting than it said, and every message is
//! delivered or counted, by cause.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;
#[path = "common/overflow_model.rs"]
mod overflow_model;

use common::{Gate, Log, OpenAtEnd, PATIENCE, bus, eventually, must_end, next, number, stress};
use overflow_model::{Act, Setup, run};
use proptest::prelude::*;
use stasis_bus::testing::ManualBus;
use stasis_bus::{
    Bus, Delivery, Drops, Home, JoinError, Key, Message, MessageType, Overflow, PanicPolicy, Pinning, PublishSyncError,
    SubscribeError, Subscription, SubscriptionStats, Topic,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

proptest! {
    #![proptest_config(ProptestConfig { cases: stress(400) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g03_every_message_is_accounted_for(setup in any::<[u8; 2]>(), acts in prop::collection::vec(any::<u8>(), 0..60)) {
        let acts: Vec<Act> = acts.into_iter().map(Act::decode).collect();
        run(Setup::decode(setup), &acts);
    }
}

const LANE: Delivery = Delivery::Lane(Home::Lane(0));
const OWN_QUEUE: [Delivery; 2] = [LANE, Delivery::Dedicated];

fn balanced(subscription: &Subscription) -> SubscriptionStats {
    let stats = subscription.stats();
    assert_eq!(stats.accepted, stats.delivered + stats.dropped.total() + stats.waiting, "G3: {stats:?}");
    stats
}

/// Pain 1: queues of six figures behind a slow subscriber. Here it is stuck altogether, on a lane with another one.
#[test]
fn a_stuck_subscriber_never_has_more_waiting_than_its_limit() {
    const MANY: u64 = 150_000;
    const LIMIT: u64 = 1000;
    let limit = LIMIT as usize;
    for policy in [Overflow::DropNewest { limit }, Overflow::DropOldest { limit }, Overflow::Lag { limit }] {
        for delivery in OWN_QUEUE {
            let bus = bus(1);
            let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let (entered, has_entered) = channel();
            let log = Log::new();
            let (write, pass) = (log.clone(), gate.clone());
            let stuck = topic.subscriber().delivery(delivery).accept(&kind).overflow(policy);
            let stuck = stuck
                .subscribe(move |received| {
                    write.write(received);
                    let _ = entered.send(());
                    pass.pass();
                })
                .unwrap();
            let other = Log::new();
            let quick = topic.subscriber().delivery(LANE).accept(&kind).subscribe(other.handler()).unwrap();
            topic.publish(kind.message(0)).unwrap();
            next(&has_entered);
            for n in 1..MANY {
                topic.publish(kind.message(n)).unwrap();
            }
            let stats = balanced(&stuck);
            assert_eq!((stats.accepted, stats.delivered, stats.waiting), (MANY, 1, LIMIT));
            assert_eq!((stats.queue_high_water, stats.dropped.total()), (LIMIT, MANY - 1 - LIMIT));
            quick.unsubscribe().wait().unwrap();
            assert_eq!(other.values().len() as u64, MANY, "the other one lost nothing");
            gate.open();
            stuck.unsubscribe().wait().unwrap();
            log.assert_ended();
            let kept = if matches!(policy, Overflow::DropNewest { .. }) { 1..LIMIT + 1 } else { MANY - LIMIT..MANY };
            assert!(log.values().into_iter().eq([0].into_iter().chain(kept)), "{policy:?}");
            let stats = balanced(&stuck);
            assert_eq!((stats.delivered, stats.waiting), (LIMIT + 1, 0));
        }
    }
}

/// G2, G4, G5 while others publish: what comes of one publisher comes in order, the final message last.
#[test]
fn order_holds_and_the_final_message_is_last_under_load() {
    must_end(|| {
        let key = |message: &Message| message.payload::<u64>().map(|n| Key::from(n % 7));
        for policy in [
            Overflow::Spill,
            Overflow::DropNewest { limit: 3 },
            Overflow::DropOldest { limit: 3 },
            Overflow::Conflate { key, limit: 3 },
            Overflow::Fail { limit: 3 },
            Overflow::Lag { limit: 3 },
        ] {
            for delivery in OWN_QUEUE {
                let bus = bus(2);
                let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
                let (log, busy) = (Log::new(), Arc::new(AtomicBool::new(false)));
                let write = log.clone();
                let subscription = topic
                    .subscriber()
                    .delivery(delivery)
                    .accept(&kind)
                    .overflow(policy)
                    .time_to_live(Duration::from_secs(3600))
                    .subscribe(move |received| {
                        assert!(!busy.swap(true, Ordering::Relaxed), "G4");
                        write.write(received);
                        thread::yield_now();
                        busy.store(false, Ordering::Relaxed);
                    })
                    .unwrap();
                let accepted: u64 = thread::scope(|scope| {
                    let publish = |who: u64| {
                        let (topic, kind) = (&topic, &kind);
                        move || (0..300).filter(|n| topic.publish(kind.message(who * 1000 + n)).is_ok()).count() as u64
                    };
                    let threads: Vec<_> = (0..3).map(|who| scope.spawn(publish(who))).collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
                });
                subscription.unsubscribe().wait().unwrap();
                log.assert_ended();
                let stats = balanced(&subscription);
                assert_eq!((stats.accepted, stats.panics, stats.waiting), (accepted, 0, 0), "{policy:?}");
                assert!(stats.queue_high_water <= 3 || matches!(policy, Overflow::Spill));
                assert_eq!(stats.refused, 900 - accepted);
                let values = log.values();
                assert_eq!(values.len() as u64, stats.delivered);
                let conflated = matches!(policy, Overflow::Conflate { .. });
                for who in 0..3 {
                    for residue in 0..7 {
                        let mine = |n: &&u64| **n / 1000 == who && (!conflated || **n % 7 == residue);
                        assert!(values.iter().filter(mine).is_sorted_by(|a, b| a < b), "G2: {policy:?} {values:?}");
                    }
                }
                drop(subscription);
                assert!(bus.shutdown(PATIENCE).is_ok());
            }
        }
    });
}

/// The account of every policy, looked at all the time, while others publish and somebody leaves in the middle;
/// with next to no room, and with enough. What `Lag` says was lost adds up; of a key the latest value comes.
#[test]
fn g03_the_account_holds_at_any_moment() {
    const EACH: u64 = 200;
    let key = |message: &Message| message.payload::<u64>().map(|n| Key::from(n % 1000 % 8 + n / 1000 * 8));
    let policies = |limit| {
        [
            Overflow::DropNewest { limit },
            Overflow::DropOldest { limit },
            Overflow::Conflate { key, limit },
            Overflow::Fail { limit },
            Overflow::Lag { limit },
            Overflow::Spill,
        ]
    };
    let sizes = [1, 2, 1 << 20];
    for (policy, limit) in sizes.into_iter().flat_map(|limit| policies(limit).map(|policy| (policy, limit))) {
        for (delivery, leaves) in OWN_QUEUE.into_iter().flat_map(|delivery| [(delivery, false), (delivery, true)]) {
            must_end(move || {
                let bus = bus(1);
                let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
                let (log, lost) = (Log::new(), Arc::new(Mutex::new(0)));
                let (write, sum) = (log.clone(), Arc::clone(&lost));
                let slow = topic.subscriber().delivery(delivery).accept(&kind).overflow(policy);
                let slow = slow
                    .time_to_live(Duration::from_secs(3600))
                    .subscribe(move |received| {
                        *common::lock(&sum) += received.lagged();
                        write.write(received);
                        thread::yield_now();
                    })
                    .unwrap();
                let (over, accepted) = (AtomicBool::new(false), AtomicU64::new(0));
                thread::scope(|scope| {
                    scope.spawn(|| {
                        while !over.load(Ordering::SeqCst) {
                            let stats = balanced(&slow);
                            assert!(stats.waiting <= limit as u64 || matches!(policy, Overflow::Spill), "{stats:?}");
                            thread::yield_now();
                        }
                    });
                    let publish = |who: u64| {
                        let (topic, kind, accepted) = (&topic, &kind, &accepted);
                        move || {
                            let taken = (0..EACH).filter(|n| topic.publish(kind.message(who * 1000 + n)).is_ok());
                            accepted.fetch_add(taken.count() as u64, Ordering::SeqCst);
                        }
                    };
                    let threads: Vec<_> = (0..2).map(|who| scope.spawn(publish(who))).collect();
                    if leaves {
                        let come = |stats: SubscriptionStats| stats.accepted + stats.refused;
                        eventually("some have come", || come(slow.stats()) > 100);
                        drop(slow.unsubscribe());
                    }
                    threads.into_iter().for_each(|thread| thread.join().unwrap());
                    over.store(true, Ordering::SeqCst);
                });
                slow.unsubscribe().wait_timeout(PATIENCE).unwrap();
                log.assert_ended();
                let (stats, values) = (balanced(&slow), log.values());
                assert_eq!((stats.delivered, stats.waiting), (values.len() as u64, 0), "{policy:?} {stats:?}");
                let accepted = accepted.into_inner();
                if leaves {
                    assert!(stats.accepted <= accepted, "{policy:?} {stats:?}");
                } else {
                    assert_eq!((stats.accepted, stats.dropped.late), (accepted, 0), "{policy:?} {stats:?}");
                }
                match policy {
                    Overflow::Lag { .. } => assert_eq!(*common::lock(&lost), stats.dropped.oldest, "{stats:?}"),
                    Overflow::Conflate { .. } if limit > 16 && !leaves => {
                        // The last of each key of each publisher.
                        for last in (0..2).flat_map(|who| (EACH - 8..EACH).map(move |n| who * 1000 + n)) {
                            let of_key = |n: &&u64| **n / 1000 == last / 1000 && **n % 8 == last % 8;
                            assert_eq!(values.iter().rfind(of_key), Some(&last), "{values:?}");
                        }
                    }
                    _ => assert_eq!(*common::lock(&lost), 0, "only a policy that says so tells"),
                }
            });
        }
    }
}

/// G8: further turns of a stuck subscriber go to its mailbox; it loses nothing and comes back in order.
#[test]
fn a_stuck_turn_is_taken_over() {
    must_end(|| {
        let bus = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(Duration::from_micros(500)).build().unwrap();
        let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (log, pass) = (Log::new(), gate.clone());
        let write = log.clone();
        let stuck = topic.subscriber().delivery(LANE).accept(&kind).overflow(Overflow::DropNewest { limit: 500 });
        let stuck = stuck
            .subscribe(move |received| {
                write.write(received);
                if received.payload::<u64>() == Some(&3) {
                    pass.pass();
                }
            })
            .unwrap();
        let beside = Log::new();
        let quick = topic.subscriber().delivery(LANE).accept(&kind).subscribe(beside.handler()).unwrap();
        for n in 0..100 {
            topic.publish(kind.message(n)).unwrap();
        }
        eventually("the others go on", || beside.values().len() == 100);
        assert!(balanced(&stuck).waiting > 0);
        gate.open();
        for n in 100..200 {
            topic.publish_sync(kind.message(n), &stuck).unwrap();
        }
        stuck.unsubscribe().wait().unwrap();
        log.assert_ended();
        assert!(log.values().into_iter().eq(0..200));
        assert_eq!(balanced(&stuck).dropped, Drops::default());
        drop(quick);
        assert!(bus.shutdown(PATIENCE).is_ok());
    });
}

/// G7: waiting for a subscription with a queue of its own, from inside handlers.
#[test]
fn g07_waits_inside_handlers_come_out() {
    must_end(|| {
        for delivery in OWN_QUEUE {
            let bus = bus(1);
            let (first, second) = (bus.topic("1").unwrap(), bus.topic("2").unwrap());
            let kind = number(&bus);
            let own = |topic: &Topic| topic.clone();
            let log = Log::new();
            let inner =
                second.subscriber().delivery(delivery).accept(&kind).overflow(Overflow::DropOldest { limit: 9 });
            let inner = Arc::new(inner.subscribe(log.handler()).unwrap());
            let outer_slot: Arc<Mutex<Option<Arc<Subscription>>>> = Arc::default();
            let (answers, answer) = channel();
            let (slot, target, again, back, number) =
                (Arc::clone(&outer_slot), Arc::clone(&inner), own(&second), own(&first), kind.clone());
            let outer = first.subscriber().delivery(delivery).accept(&kind).overflow(Overflow::DropOldest { limit: 9 });
            let outer = outer.subscribe(move |received| {
                if received.payload::<u64>() == Some(&1) {
                    let me = slot.lock().unwrap().clone().unwrap();
                    let itself = back.publish_sync(number.message(2), &me);
                    answers.send(matches!(itself, Err(PublishSyncError::OwnHandler(_)))).unwrap();
                    answers.send(again.publish_sync(number.message(7), &target).is_ok()).unwrap();
                    answers.send(me.join() == Err(JoinError::OwnHandler)).unwrap();
                    // To itself, without waiting: comes after this call.
                    answers.send(back.publish(number.message(3)).is_ok()).unwrap();
                }
            });
            let outer = Arc::new(outer.unwrap());
            *outer_slot.lock().unwrap() = Some(Arc::clone(&outer));
            first.publish_sync(kind.message(1), &outer).unwrap();
            assert!((0..4).all(|_| next(&answer)), "{delivery:?}");
            assert_eq!(log.values(), [7]);
            *outer_slot.lock().unwrap() = None;
            outer.unsubscribe().wait().unwrap();
            assert_eq!(balanced(&outer).delivered, 2);
        }
    });
}

#[test]
fn what_waits_at_shutdown_is_delivered_before_the_final_message() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let builder = topic.subscriber().accept(&kind).overflow(Overflow::Lag { limit: 5 });
    let subscription = builder.subscribe(log.handler()).unwrap();
    (0..8).for_each(|n| topic.publish(kind.message(n)).unwrap());
    assert_eq!(manual.bus().stats().waiting, 5);
    manual.bus().shutdown(PATIENCE).unwrap();
    assert_eq!(log.values(), [3, 4, 5, 6, 7]);
    log.assert_ended();
    assert!(subscription.is_done());
    let (stats, all) = (balanced(&subscription), manual.bus().stats());
    assert_eq!((all.accepted, all.delivered, all.dropped), (8, 5, stats.dropped));
}

/// Lag: a subscriber that lost messages knows it, and takes its state from where it is kept.
#[test]
fn a_lagging_subscriber_gets_its_state_anew() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("devicestate:all").unwrap(), number(manual.bus()));
    // What the publisher keeps, as a cache does: an entry is there before its update is published.
    let truth = Arc::new(Mutex::new(BTreeMap::new()));
    let view = Arc::new(Mutex::new((BTreeMap::new(), Vec::new())));
    let (kept, shown) = (Arc::clone(&truth), Arc::clone(&view));
    let board = topic.subscriber().accept(&kind).overflow(Overflow::Lag { limit: 4 });
    let board = board
        .subscribe(move |received| {
            let Some(&n) = received.payload::<u64>() else { return };
            let mut shown = shown.lock().unwrap();
            if received.lagged() > 0 {
                shown.0 = kept.lock().unwrap().clone();
                shown.1.push(received.lagged());
            }
            shown.0.insert(n % 10, n);
        })
        .unwrap();
    let change = |n: u64| {
        truth.lock().unwrap().insert(n % 10, n);
        topic.publish(kind.message(n)).unwrap();
    };
    (0..25).for_each(change);
    manual.run();
    (25..28).for_each(change);
    manual.run();
    (28..40).for_each(change);
    board.unsubscribe();
    manual.run();
    let shown = view.lock().unwrap();
    assert_eq!(shown.1, [21, 8]);
    assert_eq!(shown.0, *truth.lock().unwrap());
    assert_eq!(balanced(&board).dropped.oldest, 29);
}

#[test]
fn a_conflated_key_keeps_its_place() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let key = |message: &Message| message.payload::<u64>().filter(|n| **n < 100).map(|n| Key::from(n % 10));
    let subscription = topic.subscriber().accept(&kind).overflow(Overflow::Conflate { key, limit: 3 });
    let subscription = subscription.subscribe(log.handler()).unwrap();
    for n in [1, 2, 100, 11, 21, 12, 101] {
        topic.publish(kind.message(n)).unwrap();
    }
    manual.run();
    // 100 and 101 have no key; the fourth that waits drives out the oldest.
    assert_eq!(log.values(), [12, 100, 101]);
    let dropped = balanced(&subscription).dropped;
    assert_eq!((dropped.conflated, dropped.oldest), (3, 1));
}

#[test]
fn a_refused_message_reaches_nobody_and_promises_are_taken_back() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let (wide, narrow, plain, inline) = (Log::new(), Log::new(), Log::new(), Log::new());
    let fail = |limit, log: &Log| {
        topic.subscriber().accept(&kind).overflow(Overflow::Fail { limit }).subscribe(log.handler()).unwrap()
    };
    let (first, second) = (fail(3, &wide), fail(1, &narrow));
    let _plain = topic.subscriber().accept(&kind).subscribe(plain.handler()).unwrap();
    let _inline = topic.subscriber().accept(&kind).no_mailbox().subscribe(inline.handler()).unwrap();
    topic.publish(kind.message(1)).unwrap();
    for n in 2..10 {
        assert!(topic.publish(kind.message(n)).unwrap_err().is_full());
    }
    manual.run();
    // Had the promises of the first one not been taken back, it would be full now.
    topic.publish(kind.message(10)).unwrap();
    manual.run();
    for log in [&wide, &narrow, &plain, &inline] {
        assert_eq!(log.values(), [1, 10]);
    }
    assert_eq!((balanced(&first).refused, balanced(&second).refused), (0, 8));
    assert_eq!(manual.bus().stats().refused, 8);
}

/// Subscription changes come above the limit: there is nobody to hand them back to.
#[test]
fn a_full_subscription_still_hears_of_subscription_changes() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let subscription = topic.subscriber().overflow(Overflow::Fail { limit: 1 }).subscribe(log.handler()).unwrap();
    manual.run();
    topic.publish(kind.message(1)).unwrap();
    drop(topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap());
    assert_eq!(subscription.stats().waiting, 3);
    assert!(topic.publish(kind.message(2)).unwrap_err().is_full());
    manual.run();
    assert!(topic.publish(kind.message(3)).is_ok());
    manual.run();
    assert_eq!(log.values(), [1, 3]);
    balanced(&subscription);
}

#[test]
fn what_cannot_be_kept_is_refused() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let none = topic.subscriber().overflow(Overflow::DropOldest { limit: 0 }).subscribe(|_| ());
    assert!(matches!(none, Err(SubscribeError::NoRoom)));
    let rules = || {
        [
            topic.subscriber().overflow(Overflow::Lag { limit: 1 }),
            topic.subscriber().time_to_live(Duration::from_secs(1)),
            topic.subscriber().priority(|_| None, |_| false),
        ]
    };
    for builder in rules() {
        assert!(matches!(builder.no_mailbox().subscribe(|_| ()), Err(SubscribeError::NoQueue)));
    }
    let spill = topic.subscriber().overflow(Overflow::Spill).no_mailbox().subscribe(|_| ());
    assert!(spill.is_ok(), "the default needs no queue");
}

/// G12: functions of the user's that panic; G7: destructors that publish to the very queue they are dropped from.
#[test]
fn user_code_around_a_full_queue_may_panic_and_publish() {
    struct Again(Topic, MessageType<u64>);
    impl Drop for Again {
        fn drop(&mut self) {
            let _ = self.0.publish(self.1.message(9));
            panic!("on purpose");
        }
    }
    must_end(|| {
        let manual = ManualBus::new().unwrap();
        let bus = manual.bus();
        let (topic, kind) = (bus.topic("t").unwrap(), number(bus));
        let again = MessageType::<Again>::new(bus, "again").unwrap();
        let key = |message: &Message| match message.payload::<u64>() {
            Some(0) => panic!("on purpose"),
            Some(n) => Some(Key::from(*n)),
            None => None,
        };
        let log = Log::new();
        let subscription =
            topic.subscriber().accept(&kind).accept(&again).overflow(Overflow::Conflate { key, limit: 2 });
        let subscription = subscription.subscribe(log.handler()).unwrap();
        topic.publish(again.message(Again(topic.clone(), kind.clone()))).unwrap();
        for n in [0, 0, 5, 5] {
            topic.publish(kind.message(n)).unwrap();
        }
        // The second zero drove out the first message, whose destructor published a 9.
        manual.run();
        assert_eq!(log.values().len(), 2);
        let stats = balanced(&subscription);
        assert_eq!((stats.accepted, stats.delivered), (6, 2));
    });
}

#[test]
fn a_handler_that_panics_may_end_its_subscription() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let log = Log::new();
    let write = log.clone();
    let builder = topic.subscriber().accept(&kind).on_panic(PanicPolicy::End);
    let subscription = builder.overflow(Overflow::DropNewest { limit: 9 }).subscribe(move |received| {
        write.write(received);
        assert!(received.payload::<u64>() != Some(&1), "on purpose");
    });
    let subscription = subscription.unwrap();
    (0..4).for_each(|n| topic.publish(kind.message(n)).unwrap());
    manual.run();
    assert!(subscription.is_done() && !subscription.is_subscribed());
    assert_eq!(log.values(), [0, 1, 2, 3]);
    log.assert_ended();
    let stats = balanced(&subscription);
    assert_eq!((stats.panics, stats.delivered), (1, 4));
}

/// Queues of subscriptions' own count towards the budget of the bus.
#[test]
fn a_queue_without_limit_ends_with_the_memory_budget() {
    let settings = Bus::builder().memory_budget(64 << 10);
    let manual = ManualBus::builder().lanes(1).settings(settings.ring_capacity(1024)).build().unwrap();
    let bus = manual.bus();
    let (topic, kind) = (bus.topic("t").unwrap(), number(bus));
    let before = bus.stats().ring_bytes;
    let subscription = topic.subscriber().accept(&kind).time_to_live(Duration::from_secs(3600));
    let subscription = subscription.subscribe(|_| ()).unwrap();
    let accepted = (0..100_000).take_while(|n| topic.publish(kind.message(*n)).is_ok()).count() as u64;
    assert!((100..10_000).contains(&accepted), "{accepted}");
    assert!(bus.stats().ring_bytes > before);
    manual.run();
    assert_eq!(bus.stats().ring_bytes, before);
    topic.publish(kind.message(1)).unwrap();
    manual.run();
    assert_eq!(balanced(&subscription).delivered, accepted + 1);
    // What never comes out is given back too.
    topic.publish(kind.message(1)).unwrap();
    subscription.unsubscribe();
    manual.run();
    assert_eq!(bus.stats().ring_bytes, before);
}

/// What an inline handler publishes in answer to a message comes after that message, whoever subscribed first.
#[test]
fn g02_an_answer_of_an_inline_handler_comes_second() {
    let manual = ManualBus::new().unwrap();
    let (topic, kind) = (manual.bus().topic("t").unwrap(), number(manual.bus()));
    let (answers, number) = (topic.clone(), kind.clone());
    let _inline = topic.subscriber().accept(&kind).no_mailbox().subscribe(move |received| {
        if received.payload::<u64>() == Some(&1) {
            answers.publish(number.message(2)).unwrap();
        }
    });
    let log = Log::new();
    let late = topic.subscriber().accept(&kind).overflow(Overflow::DropNewest { limit: 9 });
    let late = late.subscribe(log.handler()).unwrap();
    topic.publish(kind.message(1)).unwrap();
    manual.run();
    assert_eq!(log.values(), [1, 2]);
    balanced(&late);
}
