//! G2: if one publish returned before another began, every subscription that gets both gets it first -
//! over topics, forwards, lanes and threads that synchronise by whatever means.
mod common;

use common::{DELIVERIES, Log, PATIENCE, bus, number, stress};
use stasis_bus::{Delivery, Home, Subscription, Topic};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

/// Topics `a`, `b`, `c` forwarded (over one more) to `all`, and listeners of every kind on `all`.
fn funnel(bus: &stasis_bus::Bus) -> (Vec<Topic>, Vec<(Subscription, Log)>, Vec<stasis_bus::Forward>) {
    let all = bus.topic("all").unwrap();
    let between = bus.topic("between").unwrap();
    let sources: Vec<Topic> = ["a", "b", "c"].iter().map(|name| bus.topic(name).unwrap()).collect();
    let mut forwards: Vec<_> = sources.iter().map(|source| source.forward_to(&between).unwrap()).collect();
    forwards.push(between.forward_to(&all).unwrap());
    // A second, shorter way for one of them.
    forwards.push(sources[1].forward_to(&all).unwrap());
    let homes = [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline];
    let listeners = homes
        .map(|delivery| {
            let log = Log::new();
            let filter = all.subscriber().delivery(delivery).decline(stasis_bus::SubscriptionChange::message_type());
            (filter.subscribe(log.handler()).unwrap(), log)
        })
        .into();
    (sources, listeners, forwards)
}

fn all_saw(listeners: Vec<(Subscription, Log)>, expected: impl Iterator<Item = u64> + Clone) {
    for (subscription, log) in listeners {
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        log.assert_ended();
        assert!(log.values().into_iter().eq(expected.clone()), "{subscription:?}");
    }
}

#[test]
fn g02_one_thread_over_several_topics() {
    let bus = bus(2);
    let kind = number(&bus);
    let (sources, listeners, _forwards) = funnel(&bus);
    let many = stress(20_000) as u64;
    for n in 0..many {
        sources[(n * 7 % 3) as usize].publish(kind.message(n)).unwrap();
    }
    all_saw(listeners, 0..many);
}

#[test]
fn g02_threads_that_take_turns_through_channels() {
    let bus = bus(2);
    let kind = number(&bus);
    let (sources, listeners, _forwards) = funnel(&bus);
    let many = stress(1_500) as u64;
    let (pass, turns): (Vec<_>, Vec<_>) = (0..3).map(|_| channel::<u64>()).unzip();
    thread::scope(|scope| {
        for (at, turn) in turns.into_iter().enumerate() {
            let (sources, kind) = (&sources, &kind);
            let to = pass[(at + 1) % 3].clone();
            scope.spawn(move || {
                while let Ok(n) = turn.recv() {
                    if n < many {
                        sources[at].publish(kind.message(n)).unwrap();
                    }
                    if n < many + 2 {
                        let _ = to.send(n + 1);
                    }
                    if n >= many {
                        return;
                    }
                }
            });
        }
        pass[0].send(0).unwrap();
    });
    all_saw(listeners, 0..many);
}

#[test]
fn g02_threads_that_take_turns_through_an_atomic() {
    let bus = bus(2);
    let kind = number(&bus);
    let (sources, listeners, _forwards) = funnel(&bus);
    let many = stress(3_000) as u64;
    let turn = AtomicU64::new(0);
    thread::scope(|scope| {
        for (at, source) in sources.iter().enumerate() {
            let (turn, kind) = (&turn, &kind);
            scope.spawn(move || {
                for n in (at as u64..many).step_by(3) {
                    while turn.load(Ordering::Acquire) != n {
                        thread::yield_now();
                    }
                    source.publish(kind.message(n)).unwrap();
                    turn.store(n + 1, Ordering::Release);
                }
            });
        }
    });
    all_saw(listeners, 0..many);
}

#[test]
fn g02_threads_that_share_a_lock() {
    let bus = bus(2);
    let kind = number(&bus);
    let (sources, listeners, _forwards) = funnel(&bus);
    let many = stress(6_000) as u64;
    let counter = Mutex::new(0);
    thread::scope(|scope| {
        for at in 0..4 {
            let (sources, counter, kind) = (&sources, &counter, &kind);
            scope.spawn(move || {
                for round in 0.. {
                    let mut n = counter.lock().unwrap();
                    if *n == many {
                        return;
                    }
                    // Held over the publish, so the numbers are published one after another.
                    sources[(at + round) % 3].publish(kind.message(*n)).unwrap();
                    *n += 1;
                }
            });
        }
    });
    all_saw(listeners, 0..many);
}

/// A relay answers each question on another topic, while the publish of the question may still be going on. Who is
/// served on a lane, whichever, or on a thread of its own sees the question first, since its place there was taken
/// before the relay got it; an inline relay runs when the question is queued everywhere. (An inline witness of a relay
/// on a lane may be called with the answer first: the publisher has not come to it yet.)
#[test]
fn g02_a_message_published_in_a_handler_comes_after_the_one_that_caused_it() {
    let lane = Delivery::Lane(Home::Lane(0));
    let all_kinds = [lane, Delivery::Lane(Home::Lane(1)), Delivery::Dedicated, Delivery::Inline];
    for (relay, witnesses) in [(lane, 3), (Delivery::Inline, all_kinds.len())] {
        let bus = bus(2);
        let (questions, answers, all) =
            (bus.topic("questions").unwrap(), bus.topic("answers").unwrap(), bus.topic("all").unwrap());
        let kind = number(&bus);
        let _forwards = [questions.forward_to(&all).unwrap(), answers.forward_to(&all).unwrap()];
        let listen = |delivery: Delivery| {
            let log = Log::new();
            (all.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap(), log)
        };
        // The relay is the newest: who is older and on its lane, or inline as it, has seen the question when it runs.
        let listeners: Vec<_> = all_kinds.into_iter().map(listen).collect();
        let relay = questions.subscriber().delivery(relay).accept(&kind).subscribe({
            let (answers, kind) = (answers.clone(), kind.clone());
            move |received| {
                if let Some(n) = received.payload::<u64>() {
                    answers.publish(kind.message(n + 1)).unwrap();
                }
            }
        });
        let relay = relay.unwrap();
        let many = stress(1_000) as u64;
        for n in 0..many {
            questions.publish(kind.message(2 * n)).unwrap();
        }
        relay.unsubscribe_and_join(PATIENCE).unwrap();
        for (at, (subscription, log)) in listeners.into_iter().enumerate() {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            let values = log.values();
            let position = |n: u64| values.iter().position(|seen| *seen == n).unwrap();
            assert_eq!(values.len() as u64, 2 * many);
            for n in (0..many).step_by(17).filter(|_| at < witnesses) {
                assert!(position(2 * n) < position(2 * n + 1), "question {n} before its answer");
            }
            assert!(values.iter().filter(|n| **n % 2 == 1).is_sorted(), "answers in order");
            assert!(values.iter().filter(|n| **n % 2 == 0).is_sorted(), "questions in order");
        }
    }
}

#[test]
fn g02_each_publishers_messages_stay_in_order_under_contention() {
    for delivery in DELIVERIES {
        let bus = bus(2);
        let kind = number(&bus);
        let (all, log) = (bus.topic("all").unwrap(), Log::new());
        let subscription = all.subscriber().delivery(delivery).accept(&kind).subscribe(log.handler()).unwrap();
        let sources: Vec<Topic> = (0..4).map(|n| bus.topic(format!("s{n}")).unwrap()).collect();
        let _forwards: Vec<_> = sources.iter().map(|source| source.forward_to(&all).unwrap()).collect();
        let each = stress(4_000) as u64;
        thread::scope(|scope| {
            for (at, source) in (0..).zip(&sources) {
                let kind = &kind;
                scope.spawn(move || {
                    for n in 0..each {
                        while source.publish(kind.message(at * each + n)).is_err() {
                            thread::yield_now(); // an inline queue may be full
                        }
                    }
                });
            }
        });
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        let values = log.values();
        for at in 0..4 {
            let own = values.iter().copied().filter(|n| n / each == at);
            assert!(own.eq(at * each..(at + 1) * each), "{delivery:?}: publisher {at}");
        }
    }
}
