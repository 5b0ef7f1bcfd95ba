//! The shutdown flurry, and other days when everything happens at once (G10, G11). `STASIS_STRESS=n` makes
//! it n times as large.
mod common;

use common::{DELIVERIES, Drops, Log, PATIENCE, Random, Seen, bus, must_end, number, stress};
use stasis_bus::{Bus, Delivery, Forward, Home, MessageType, Pinning, PublishError, Subscription, Topic};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

/// Counts what a handler sees, cheaply: messages, final messages, messages after the final one.
#[derive(Default)]
struct Tally {
    messages: AtomicU64,
    finals: AtomicU64,
    after: AtomicU64,
}

/// A delivery that is mostly a lane, sometimes inline, rarely a thread of its own.
fn delivery(random: &mut Random) -> Delivery {
    match random.below(100) {
        0 => Delivery::Dedicated,
        1..=20 => Delivery::Inline,
        _ => Delivery::Lane(Home::default()),
    }
}

struct Flurry {
    bus: Bus,
    topics: Vec<Topic>,
    forwards: Vec<Forward>,
    subscriptions: Vec<Subscription>,
    tallies: Vec<Arc<Tally>>,
    kind: MessageType<u64>,
    handlers: Drops,
}

impl Flurry {
    /// Hundreds of topics, forwarded in groups, with thousands of subscriptions.
    fn new(topics: usize, subscriptions: usize, seed: u64) -> Self {
        let bus = Bus::builder().lanes(2).pinning(Pinning::Off).memory_budget(1 << 30).build().unwrap();
        let kind = number(&bus);
        let topics: Vec<Topic> = (0..topics).map(|n| bus.topic(format!("topic:{n}")).unwrap()).collect();
        let groups = topics.len().div_ceil(20);
        // The first topics are "all" topics of groups; the others forward to theirs.
        let forwards = (groups..topics.len()).map(|n| topics[n].forward_to(&topics[n % groups]).unwrap()).collect();
        let mut random = Random::new(seed);
        let handlers = Drops::new();
        let (mut made, mut tallies) = (Vec::new(), Vec::new());
        for _ in 0..subscriptions {
            let (tally, token) = (Arc::new(Tally::default()), handlers.token());
            let count = Arc::clone(&tally);
            let builder = topics[random.below(topics.len())].subscriber().delivery(delivery(&mut random)).accept(&kind);
            let handler = move |received: &stasis_bus::Received<'_>| {
                let _ = &token;
                count.after.fetch_add(count.finals.load(Ordering::Relaxed), Ordering::Relaxed);
                let counter = if received.is_final() { &count.finals } else { &count.messages };
                counter.fetch_add(1, Ordering::Relaxed);
            };
            made.push(builder.subscribe(handler).unwrap());
            tallies.push(tally);
        }
        Self { bus, topics, forwards, subscriptions: made, tallies, kind, handlers }
    }

    /// Publishes on random topics until told to stop or the bus is closed; how many were taken.
    fn publish(topics: &[Topic], kind: &MessageType<u64>, stop: &AtomicBool, seed: u64) -> u64 {
        let mut random = Random::new(seed);
        let mut taken = 0;
        while !stop.load(Ordering::Relaxed) {
            match topics[random.below(topics.len())].publish(kind.message(taken)) {
                Ok(()) => taken += 1,
                Err(PublishError::Closed(_)) => break,
                Err(_) => thread::yield_now(),
            }
        }
        taken
    }

    fn check(self) {
        let Self { bus, topics, forwards, subscriptions, tallies, kind, handlers } = self;
        assert!(subscriptions.is_empty());
        bus.shutdown(PATIENCE).unwrap();
        let counts =
            |of: fn(&Tally) -> &AtomicU64| tallies.iter().map(|tally| of(tally).load(Ordering::SeqCst)).sum::<u64>();
        assert!(tallies.iter().all(|tally| tally.finals.load(Ordering::SeqCst) == 1), "one final message each");
        assert_eq!(counts(|tally| &tally.after), 0, "nothing after it");
        assert_eq!(counts(|tally| &tally.messages), bus.stats().delivered, "what was counted is what came");
        handlers.assert_all_gone("handlers");
        drop((topics, forwards, kind));
        assert!(bus.topics().is_empty(), "nobody holds a topic");
    }
}

#[test]
fn g10_the_shutdown_flurry() {
    must_end(|| {
        let mut flurry = Flurry::new(300, stress(3_000), 1);
        let stop = AtomicBool::new(false);
        let start = Barrier::new(7);
        let shares: Vec<Vec<Subscription>> = {
            let mut shares: Vec<Vec<Subscription>> = (0..3).map(|_| Vec::new()).collect();
            flurry.subscriptions.drain(..).enumerate().for_each(|(n, it)| shares[n % 3].push(it));
            shares
        };
        let forwards = std::mem::take(&mut flurry.forwards);
        thread::scope(|scope| {
            let publishers: Vec<_> = (0..3)
                .map(|seed| {
                    let (topics, kind, stop, start) = (&flurry.topics, &flurry.kind, &stop, &start);
                    scope.spawn(move || {
                        start.wait();
                        Flurry::publish(topics, kind, stop, seed + 10)
                    })
                })
                .collect();
            let droppers: Vec<_> = shares
                .into_iter()
                .map(|share| {
                    let start = &start;
                    scope.spawn(move || {
                        start.wait();
                        drop(share);
                    })
                })
                .collect();
            start.wait();
            drop(forwards);
            droppers.into_iter().for_each(|dropper| dropper.join().unwrap());
            stop.store(true, Ordering::Relaxed);
            assert!(publishers.into_iter().map(|publisher| publisher.join().unwrap()).sum::<u64>() > 0);
        });
        flurry.check();
    });
}

#[test]
fn g11_the_bus_ends_in_the_middle_of_the_flurry() {
    must_end(|| {
        let mut flurry = Flurry::new(200, stress(1_500), 2);
        let stop = AtomicBool::new(false);
        let subscriptions = std::mem::take(&mut flurry.subscriptions);
        let completions: Vec<_> = subscriptions.iter().map(Subscription::completion).collect();
        let half = subscriptions.len() / 2;
        thread::scope(|scope| {
            for seed in 0..3 {
                let (topics, kind, stop) = (&flurry.topics, &flurry.kind, &stop);
                scope.spawn(move || Flurry::publish(topics, kind, stop, seed + 20));
            }
            let bus = flurry.bus.clone();
            scope.spawn(move || {
                let mut subscriptions = subscriptions;
                drop(subscriptions.split_off(half));
                bus.shutdown(PATIENCE).unwrap();
                drop(subscriptions);
            });
            scope.spawn(|| flurry.bus.shutdown(PATIENCE).unwrap());
        });
        completions.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
        flurry.check();
    });
}

#[test]
fn g10_the_flurry_with_the_last_bus_handle_dropped_in_it() {
    must_end(|| {
        for round in 0..stress(10) {
            let flurry = Flurry::new(30, 200, round as u64);
            let Flurry { bus, topics, forwards, subscriptions, tallies, kind, handlers } = flurry;
            let completions: Vec<_> = subscriptions.iter().map(Subscription::completion).collect();
            let start = Barrier::new(4);
            thread::scope(|scope| {
                let (start, kind) = (&start, &kind);
                let own = topics.clone();
                scope.spawn(move || {
                    start.wait();
                    Flurry::publish(&own, kind, &AtomicBool::new(false), 3)
                });
                scope.spawn(move || {
                    start.wait();
                    drop(subscriptions);
                });
                scope.spawn(move || {
                    start.wait();
                    drop((topics, forwards));
                });
                start.wait();
                drop(bus);
            });
            completions.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
            handlers.await_all_gone("handlers");
            assert!(tallies.iter().all(|tally| tally.finals.load(Ordering::SeqCst) == 1));
        }
    });
}

#[test]
fn calls_come_and_go() {
    // The recorded habit: each call makes topics and forwards, subscribes, publishes, and takes all down.
    must_end(|| {
        let bus = bus(2);
        let all = bus.topic("channel:all").unwrap();
        let kind = number(&bus);
        let log = Log::new();
        let watcher = all.subscriber().mailbox().accept(&kind).subscribe(log.handler()).unwrap();
        let calls = stress(150) as u64;
        thread::scope(|scope| {
            for thread in 0..4 {
                let (bus, all, kind) = (&bus, &all, &kind);
                scope.spawn(move || {
                    for call in 0..calls {
                        let channel = bus.topic(format!("channel:{thread}:{call}")).unwrap();
                        let bridge = bus.topic(format!("bridge:{}", call % 5)).unwrap();
                        let _forwards = [channel.forward_to(all).unwrap(), channel.forward_to(&bridge).unwrap()];
                        let own = Log::new();
                        let delivery = DELIVERIES[call as usize % 3];
                        let listener =
                            channel.subscriber().delivery(delivery).accept(kind).subscribe(own.handler()).unwrap();
                        for n in 0..5 {
                            channel.publish(kind.message(n)).unwrap();
                        }
                        listener.unsubscribe_and_join(PATIENCE).unwrap();
                        assert_eq!(
                            own.all(),
                            [0, 1, 2, 3, 4].map(Seen::Value).into_iter().chain([Seen::Final]).collect::<Vec<_>>()
                        );
                    }
                });
            }
        });
        watcher.unsubscribe_and_join(PATIENCE).unwrap();
        log.assert_ended();
        assert_eq!(log.values().len() as u64, 4 * 5 * calls);
        drop(watcher);
        assert_eq!(bus.topics(), [all]);
        assert_eq!(bus.stats().subscriptions, 0);
    });
}

#[test]
fn final_handlers_that_wait_while_late_messages_come() {
    // The final handler waits for another subscription of its lane while publishers still push to it.
    must_end(|| {
        let bus = bus(1);
        let (topic, other) = (bus.topic("t").unwrap(), bus.topic("other").unwrap());
        let kind = number(&bus);
        let target = Arc::new(other.subscribe(|_| ()).unwrap());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        topic.publish(kind.message(1)).unwrap();
                    }
                });
            }
            for _ in 0..stress(200) {
                let (target, other, own) = (Arc::clone(&target), other.clone(), kind.clone());
                let subscription = topic.subscriber().subscribe(move |received| {
                    if received.is_final() {
                        other.publish_sync(own.message(2), &target).unwrap();
                    }
                });
                let subscription = subscription.unwrap();
                let joined = subscription.unsubscribe_and_join(PATIENCE);
                if joined.is_err() || subscription.stats().panics > 0 {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{joined:?}, {:?}", subscription.stats());
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}
