//! Claim-once delivery: exactly one of several subscribers takes a message.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{
    DELIVERIES, Drops, Gate, OpenAtEnd, PATIENCE, Random, bus, eventually, lock, must_end, next, number, stress,
};
use proptest::prelude::*;
use stasis_bus::claim::{Choice, Claim, ClaimQueue, Claimant, Unclaimed};
use stasis_bus::{Delivery, Message};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

fn value(message: &Message) -> u64 {
    *message.payload::<u64>().unwrap()
}

/// Who took what; the fallback is nobody.
type Log = Arc<Mutex<Vec<(Option<u64>, u64)>>>;

fn fallback(log: &Log) -> impl Fn(&Message, Unclaimed) + Send + Sync + 'static {
    let log = Arc::clone(log);
    move |message, _| lock(&log).push((None, value(message)))
}

fn taker(log: &Log, who: u64) -> impl FnMut(&Message) -> Claim + Send + 'static {
    let log = Arc::clone(log);
    move |message| {
        lock(&log).push((Some(who), value(message)));
        Claim::Take
    }
}

fn done(queue: &ClaimQueue, all: u64) -> bool {
    let stats = queue.stats();
    stats.claimed + stats.unclaimed == all
}

#[test]
fn claimants_take_turns() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
        let log = Log::default();
        let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
        let agents: Vec<_> = (0..3).map(|who| queue.claimant_on(delivery, taker(&log, who)).unwrap()).collect();
        for n in 0..9 {
            topic.publish(kind.message(n)).unwrap();
            // One after the other, so that all are idle each time.
            eventually("it is taken", || {
                done(&queue, n + 1) && agents.iter().map(Claimant::taken).sum::<u64>() == n + 1
            });
        }
        let turns: Vec<_> = lock(&log).iter().map(|entry| entry.0.unwrap()).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 1, 2], "{delivery:?}");
        assert_eq!(agents.iter().map(Claimant::taken).collect::<Vec<_>>(), [3, 3, 3]);
    }
}

#[test]
fn who_has_taken_the_fewest_is_asked_first() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let log = Log::default();
    let queue = ClaimQueue::with(topic.subscriber().accept(&kind), Choice::FewestTaken, 10, fallback(&log)).unwrap();
    let old = queue.claimant(taker(&log, 0)).unwrap();
    for n in 0..4 {
        topic.publish(kind.message(n)).unwrap();
        eventually("taken", || old.taken() == n + 1);
    }
    let new = queue.claimant(taker(&log, 1)).unwrap();
    for n in 0..4 {
        topic.publish(kind.message(n)).unwrap();
        eventually("taken", || new.taken() == n + 1);
    }
    assert_eq!((old.taken(), new.taken()), (4, 4));
}

#[test]
fn who_declines_or_panics_is_passed_over() {
    let bus = bus(2);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let log = Log::default();
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let _declines = queue.claimant(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Claim::Decline
    });
    let _panics = queue.claimant(|_| panic!("as asked")).unwrap();
    let takes = queue.claimant(taker(&log, 7)).unwrap();
    (0..50).for_each(|n| topic.publish(kind.message(n)).unwrap());
    eventually("all taken", || takes.taken() == 50);
    drop(takes);
    topic.publish(kind.message(99)).unwrap();
    eventually("nobody wants it", || done(&queue, 51));
    assert_eq!(lock(&log).last(), Some(&(None, 99)));
    let stats = queue.stats();
    assert_eq!((stats.claimed, stats.unclaimed, stats.waiting, stats.claimants), (50, 1, 0, 2));
    assert!(stats.panics > 0 && asked.load(Ordering::SeqCst) > 0);
    assert!(asked.load(Ordering::SeqCst) <= 51, "asked about each once at most");
    drop(queue);
}

#[test]
fn without_claimants_all_falls_back_in_order() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let (lost, seen) = channel();
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), move |message: &Message, why| {
        lost.send((value(message), why)).unwrap();
        panic!("contained");
    })
    .unwrap();
    (0..3).for_each(|n| topic.publish(kind.message(n)).unwrap());
    (0..3).for_each(|n| assert_eq!(next(&seen), (n, Unclaimed::Nobody)));
    drop(queue);
}

#[test]
fn a_blocked_claimant_holds_one_message() {
    for (lanes, delivery) in [(1, Delivery::default()), (2, Delivery::default()), (1, Delivery::Dedicated)] {
        let bus = bus(lanes);
        let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
        let log = Log::default();
        let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        let (door, mut take) = (gate.clone(), taker(&log, 0));
        let (entered, stuck) = channel();
        let blocks = queue.claimant_on(delivery, move |message| {
            entered.send(value(message)).unwrap();
            door.pass();
            take(message)
        });
        topic.publish(kind.message(0)).unwrap();
        assert_eq!(next(&stuck), 0);
        let works = queue.claimant_on(delivery, taker(&log, 1)).unwrap();
        (1..=200).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("the other one takes all the rest", || works.taken() == 200);
        assert_eq!(*lock(&log), (1..=200).map(|n| (Some(1), n)).collect::<Vec<_>>(), "in order");
        gate.open();
        eventually("and the last one", || done(&queue, 201));
        drop(blocks);
    }
}

#[test]
fn messages_wait_for_busy_claimants_up_to_a_limit() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let (lost, overflow) = channel();
    let queue =
        ClaimQueue::with(topic.subscriber().accept(&kind), Choice::default(), 3, move |message: &Message, why| {
            lost.send((value(message), why)).unwrap();
        })
        .unwrap();
    let log = Log::default();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let (door, mut take) = (gate.clone(), taker(&log, 0));
    let (entered, stuck) = channel();
    let one = queue
        .claimant(move |message| {
            entered.send(()).unwrap();
            door.pass();
            take(message)
        })
        .unwrap();
    topic.publish(kind.message(0)).unwrap();
    next(&stuck);
    (1..=5).for_each(|n| topic.publish(kind.message(n)).unwrap());
    assert_eq!((next(&overflow), next(&overflow)), ((4, Unclaimed::TooMany), (5, Unclaimed::TooMany)));
    assert_eq!(queue.stats().waiting, 3);
    gate.open();
    eventually("the others are taken", || one.taken() == 4);
    assert_eq!(*lock(&log), (0..4).map(|n| (Some(0), n)).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_one_who_leaves_is_told() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let log = Log::default();
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let drops = Drops::new();
    let (door, mut take, token) = (gate.clone(), taker(&log, 0), drops.token());
    let (entered, stuck) = channel();
    let one = queue
        .claimant(move |message| {
            let _ = &token;
            entered.send(()).unwrap();
            door.pass();
            take(message)
        })
        .unwrap();
    topic.publish(kind.message(0)).unwrap();
    next(&stuck);
    (1..=3).for_each(|n| topic.publish(kind.message(n)).unwrap());
    eventually("they wait", || queue.stats().waiting == 3);
    let end = one.leave();
    assert_eq!(*lock(&log), [(None, 1), (None, 2), (None, 3)]);
    gate.open();
    end.wait_timeout(PATIENCE).unwrap();
    assert_eq!(lock(&log).last(), Some(&(Some(0), 0)), "what it had in hand it finished");
    drops.await_all_gone("its handler");
    assert!(done(&queue, 4));
}

#[test]
fn a_new_claimant_takes_what_waits() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let log = Log::default();
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let (door, mut take) = (gate.clone(), taker(&log, 0));
    let _one = queue.claimant(move |message| {
        door.pass();
        take(message)
    });
    (0..4).for_each(|n| topic.publish(kind.message(n)).unwrap());
    eventually("they wait", || queue.stats().waiting == 3);
    let new = queue.claimant(taker(&log, 1)).unwrap();
    eventually("it takes them", || new.taken() == 3);
}

#[test]
fn handlers_may_publish_leave_and_join() {
    must_end(|| {
        let bus = bus(1);
        let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
        let log = Log::default();
        let queue = Arc::new(ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap());
        let slot = Arc::new(Mutex::new(None::<Claimant>));
        let (own, inside, written, to, again) =
            (Arc::clone(&slot), Arc::clone(&queue), Arc::clone(&log), topic.clone(), kind.clone());
        let (joined, join) = channel();
        let one = queue
            .claimant(move |message| {
                assert_eq!(message.depth() + 1, stasis_bus::feedback::depth());
                joined.send(inside.claimant(taker(&written, 1)).unwrap()).unwrap();
                to.publish(again.message(value(message) + 1)).unwrap();
                drop(lock(&own).take());
                Claim::Decline
            })
            .unwrap();
        *lock(&slot) = Some(one);
        topic.publish(kind.message(1)).unwrap();
        let _new = next(&join);
        eventually("the new one takes both", || done(&queue, 2));
        let mut log = lock(&log).clone();
        log.sort_unstable();
        assert_eq!(log, [(Some(1), 1), (Some(1), 2)]);
        // The claimant's handler holds the queue; it has left, so nothing goes in a circle.
        drop(queue);
    });
}

#[test]
fn each_message_is_taken_once_or_falls_back() {
    for seed in 0..stress(10) as u64 {
        let bus = bus(2);
        let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
        let log = Log::default();
        let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
        let sent = stress(300) as u64;
        thread::scope(|scope| {
            scope.spawn(|| (0..sent).for_each(|n| topic.publish(kind.message(n)).unwrap()));
            for who in 0..3 {
                let (queue, log) = (&queue, &log);
                scope.spawn(move || {
                    let mut random = Random::new(seed * 4 + who);
                    for round in 0..20 {
                        let (mut take, mut mood) = (taker(log, who), Random::new(seed + round));
                        let agent = queue.claimant(move |message| match mood.below(4) {
                            0 => Claim::Decline,
                            1 if value(message).is_multiple_of(7) => panic!("as asked"),
                            _ => take(message),
                        });
                        (0..random.below(50)).for_each(|_| thread::yield_now());
                        drop(agent);
                    }
                });
            }
        });
        if seed % 2 == 0 {
            bus.shutdown(PATIENCE).unwrap();
        }
        eventually("all are decided", || done(&queue, sent));
        let mut times = HashMap::<u64, usize>::new();
        lock(&log).iter().for_each(|entry| *times.entry(entry.1).or_default() += 1);
        assert_eq!(times.len() as u64, sent, "nothing is lost");
        assert!(times.values().all(|&n| n == 1), "nothing comes twice");
    }
}

#[test]
fn a_shutdown_with_a_backlog_accounts_for_all() {
    let bus = bus(1);
    let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
    let log = Log::default();
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
    let gate = Gate::new();
    let (door, mut take) = (gate.clone(), taker(&log, 0));
    let (entered, stuck) = channel();
    let _one = queue.claimant(move |message| {
        entered.send(()).unwrap();
        door.pass();
        take(message)
    });
    (0..100).for_each(|n| topic.publish(kind.message(n)).unwrap());
    next(&stuck);
    let end = thread::spawn({
        let bus = bus.clone();
        move || bus.shutdown(PATIENCE).map(drop)
    });
    eventually("the bus is closed", || bus.is_closed());
    gate.open();
    end.join().unwrap().unwrap();
    eventually("all are decided", || done(&queue, 100));
    assert!(queue.claimant(taker(&log, 1)).is_err());
    assert_eq!(lock(&log).len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn with_idle_claimants_the_first_willing_one_takes_it(willing in prop::collection::vec(any::<u8>(), 0..5), sent in 0_u64..40) {
        // Claimant k takes message n if bit n % 8 of its byte is set.
        let bus = bus(2);
        let (kind, topic) = (number(&bus), bus.topic("calls").unwrap());
        let log = Log::default();
        let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback(&log)).unwrap();
        let agents: Vec<_> = willing.iter().enumerate().map(|(who, &bits)| {
            let mut take = taker(&log, who as u64);
            queue.claimant(move |message| if bits >> (value(message) % 8) & 1 == 1 { take(message) } else { Claim::Decline }).unwrap()
        }).collect();
        (0..sent).for_each(|n| topic.publish(kind.message(n)).unwrap());
        eventually("all are decided", || done(&queue, sent));
        let log = lock(&log);
        prop_assert_eq!(log.len() as u64, sent);
        for (who, n) in log.iter() {
            let takers = |bits: u8| bits >> (n % 8) & 1 == 1;
            match who {
                Some(who) => prop_assert!(takers(willing[*who as usize])),
                None => prop_assert!(!willing.iter().any(|bits| takers(*bits)), "{} had a taker", n),
            }
        }
        drop(agents);
    }
}
