//! Whole buses with four to six threads, over thousands of schedules drawn from seeds: too large for loom.
//!
//! ```text
//! RUSTFLAGS="--cfg stasis_schedule" cargo test --profile loom -p loom-tests --test schedules
//! STASIS_SCHEDULES=5000 …       more of them; STASIS_SEED=17 …  that one again
//! ```
//!
//! See `src/sync/schedule.rs` for what is drawn. A failure prints its seed.
#![cfg(stasis_schedule)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stasis_bus::schedule::{run, spawn};
use stasis_bus::{Bus, Delivery, MessageType, Pinning, Subscription, Topic, WaitStrategy};

const LONG: Duration = Duration::from_secs(1000);
/// The final message in a log.
const FINAL: u64 = u64::MAX;

type Log = Arc<Mutex<Vec<u64>>>;

/// Runs `scenario` under many schedules.
fn explore(scenario: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seeds = match number("STASIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STASIS_SCHEDULES").unwrap_or(400),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed, || scenario(seed)))) {
            eprintln!("the failing schedule is that of STASIS_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// What replaying by seed rests on.
#[test]
fn a_seed_gives_its_order_again() {
    let order = |seed| {
        run(seed, || {
            let log = Log::default();
            let threads = [1, 2, 3].map(|id| {
                let log = Arc::clone(&log);
                spawn(move || {
                    for _ in 0..8 {
                        spin();
                        log.lock().unwrap().push(id);
                    }
                })
            });
            threads.into_iter().for_each(|join| join());
            let order = log.lock().unwrap().clone();
            order
        })
    };
    let first: Vec<_> = (0..20).map(order).collect();
    assert!(first.iter().any(|other| *other != first[0]), "seeds differ");
    assert_eq!((0..20).map(order).collect::<Vec<_>>(), first);
}

fn bus(lanes: usize) -> Bus {
    Bus::builder()
        .lanes(lanes)
        .pinning(Pinning::Off)
        .wait(WaitStrategy::Park)
        .watchdog(None)
        .ring_capacity(64)
        .build()
        .expect("a bus")
}

fn subscribe(topic: &Topic, delivery: Delivery) -> (Subscription, Log) {
    let log = Log::default();
    let into = Arc::clone(&log);
    let subscription = topic
        .subscriber()
        .delivery(delivery)
        .subscribe(move |received| {
            if received.is_final() {
                into.lock().unwrap().push(FINAL);
            } else if let Some(&n) = received.payload::<u64>() {
                into.lock().unwrap().push(n);
            }
        })
        .expect("subscribed");
    (subscription, log)
}

fn publisher(topic: &Topic, kind: &MessageType<u64>, numbers: std::ops::Range<u64>) -> impl FnOnce() + use<> {
    let (topic, kind) = (topic.clone(), kind.clone());
    spawn(move || numbers.for_each(|n| topic.publish(kind.message(n)).expect("open")))
}

/// The numbers of each publisher (hundreds) in order and once; the final message last.
fn check(log: &Log, complete: bool) {
    let seen = log.lock().unwrap().clone();
    assert_eq!(seen.last(), Some(&FINAL), "{seen:?}");
    for hundred in 0..3 {
        let own: Vec<_> = seen.iter().filter(|&&n| n / 100 == hundred).collect();
        assert!(own.is_sorted_by(|a, b| a < b), "{seen:?}");
        assert!(!complete || own.len() == 4, "{seen:?}");
    }
    assert_eq!(seen.iter().filter(|&&n| n == FINAL).count(), 1, "{seen:?}");
}

/// Promises G2, G3, G5: two publishers, two lanes, three kinds of delivery, one subscriber that leaves and
/// one that comes: six threads.
#[test]
fn subscribers_come_and_go_while_two_publish() {
    explore(|_| {
        let bus = bus(2);
        let topic = bus.topic("calls").unwrap();
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let staying = [Delivery::default(), Delivery::Inline, Delivery::Dedicated].map(|how| subscribe(&topic, how));
        let leaving = subscribe(&topic, Delivery::default());
        let publishers = [publisher(&topic, &kind, 0..4), publisher(&topic, &kind, 100..104)];
        let (topic_of_churn, leaver) = (topic.clone(), leaving.0);
        let churn = spawn(move || {
            drop(leaver);
            subscribe(&topic_of_churn, Delivery::default())
        });
        publishers.into_iter().for_each(|join| join());
        let late = churn();
        topic.publish(kind.message(200)).unwrap();
        drop(topic);
        bus.shutdown(LONG).unwrap();
        for (_, log) in &staying {
            log.lock().unwrap().retain(|&n| n != 200);
            let seen = log.lock().unwrap().clone();
            assert_eq!(seen.len(), 9, "{seen:?}");
            check(log, false);
        }
        check(&leaving.1, false);
        check(&late.1, false);
        assert!(late.1.lock().unwrap().contains(&200), "subscribed before it was published");
    });
}

/// Promises G2, G3: forwards made and cancelled at both ends while two publish: each message once or not at
/// all, whichever of the two ways it took.
#[test]
fn forwards_come_and_go_while_two_publish() {
    explore(|_| {
        let bus = bus(1);
        let [one, two, all] = ["one", "two", "all"].map(|name| bus.topic(name).unwrap());
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let direct = [one.forward_to(&all).unwrap(), two.forward_to(&all).unwrap()];
        let staying = subscribe(&all, Delivery::default());
        let publishers = [publisher(&one, &kind, 0..4), publisher(&two, &kind, 100..104)];
        let (from, to) = (one.clone(), two.clone());
        let churn = spawn(move || {
            let diamond = from.forward_to(&to).unwrap();
            drop(direct);
            diamond.cancel();
        });
        publishers.into_iter().for_each(|join| join());
        churn();
        assert_eq!((one.subscribers(), two.subscribers(), all.subscribers()), (0, 0, 1));
        drop((one, two, all));
        bus.shutdown(LONG).unwrap();
        check(&staying.1, false);
    });
}

/// Promise G11: shutdown while two publish and one leaves: what was accepted is delivered, before the final
/// message.
#[test]
fn shutdown_while_two_publish() {
    explore(|_| {
        let bus = bus(2);
        let topic = bus.topic("calls").unwrap();
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let (staying, log) = subscribe(&topic, Delivery::default());
        let (leaving, other) = subscribe(&topic, Delivery::Inline);
        let publishers = [0, 100].map(|first| {
            let (topic, kind) = (topic.clone(), kind.clone());
            spawn(move || (first..first + 4).filter(|&n| topic.publish(kind.message(n)).is_ok()).collect::<Vec<_>>())
        });
        let leaver = spawn(move || drop(leaving));
        bus.shutdown(LONG).unwrap();
        let accepted: Vec<u64> = publishers.into_iter().flat_map(|join| join()).collect();
        leaver();
        let mut seen = log.lock().unwrap().clone();
        assert_eq!(seen.pop(), Some(FINAL));
        seen.sort_unstable();
        assert_eq!(seen, accepted, "accepted is delivered");
        check(&other, false);
        drop((staying, topic));
    });
}

/// Promises G2, G7: two threads wait for subscribers that publish to each other, on one lane: it comes out,
/// and each finds its message handled.
#[test]
fn publish_sync_over_handlers_that_publish() {
    explore(|_| {
        let bus = bus(1);
        let [ping, pong] = ["ping", "pong"].map(|name| bus.topic(name).unwrap());
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let (answer, to) = (kind.clone(), pong.clone());
        let forwarding = ping
            .subscribe(move |received| {
                if let Some(&n) = received.payload::<u64>() {
                    to.publish(answer.message(n)).unwrap();
                }
            })
            .unwrap();
        let forwarding = Arc::new(forwarding);
        let (end, log) = subscribe(&pong, Delivery::default());
        let threads = [0, 100].map(|first| {
            let (ping, kind, waits_for) = (ping.clone(), kind.clone(), Arc::clone(&forwarding));
            spawn(move || (first..first + 4).for_each(|n| ping.publish_sync(kind.message(n), &waits_for).unwrap()))
        });
        threads.into_iter().for_each(|join| join());
        end.unsubscribe_and_join(LONG).unwrap();
        assert_eq!(log.lock().unwrap().len(), 9, "both were handled before");
        check(&log, false);
        drop((forwarding, ping, pong));
        bus.shutdown(LONG).unwrap();
    });
}

/// Promises G2-G5 over take-overs: a handler that takes its time while the watchdog looks; members of its
/// lane go on elsewhere.
#[test]
fn a_slow_handler_under_the_watchdog() {
    explore(|seed| {
        let bus = Bus::builder()
            .lanes(1)
            .pinning(Pinning::Off)
            .wait(WaitStrategy::Park)
            .watchdog(Some(Duration::from_micros(50)))
            .build()
            .expect("a bus");
        let topic = bus.topic("calls").unwrap();
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let slow = Log::default();
        let into = Arc::clone(&slow);
        let stuck = topic
            .subscribe(move |received| {
                if received.is_final() {
                    into.lock().unwrap().push(FINAL);
                } else if let Some(&n) = received.payload::<u64>() {
                    if n % 3 == seed % 3 {
                        (0..50).for_each(|_| spin());
                    }
                    into.lock().unwrap().push(n);
                }
            })
            .unwrap();
        let (quick, log) = subscribe(&topic, Delivery::default());
        let publishers = [publisher(&topic, &kind, 0..4), publisher(&topic, &kind, 100..104)];
        publishers.into_iter().for_each(|join| join());
        stuck.unsubscribe_and_join(LONG).unwrap();
        quick.unsubscribe_and_join(LONG).unwrap();
        for log in [&slow, &log] {
            assert_eq!(log.lock().unwrap().len(), 9);
            check(log, false);
        }
        drop((stuck, quick, topic));
        bus.shutdown(LONG).unwrap();
    });
}

/// Promises G2, G3, G12: a handler that panics now and then, on a lane and inline: it gets everything all the same, and
/// so does its neighbour.
#[test]
fn a_handler_that_panics_while_two_publish() {
    explore(|seed| {
        let bus = bus(1);
        let topic = bus.topic("calls").unwrap();
        let kind = MessageType::<u64>::new(&bus, "n").unwrap();
        let panicking = [Delivery::default(), Delivery::Inline].map(|delivery| {
            let log = Log::default();
            let into = Arc::clone(&log);
            let subscriber = topic.subscriber().delivery(delivery).accept(&kind);
            let subscription = subscriber.subscribe(move |received| {
                let n = received.payload::<u64>().copied().unwrap_or(FINAL);
                into.lock().unwrap().push(n);
                if n % 3 == seed % 3 {
                    // No panic hook: this one is meant.
                    resume_unwind(Box::new("a handler panics, as it should"));
                }
            });
            (subscription.unwrap(), log)
        });
        let (neighbour, log) = subscribe(&topic, Delivery::default());
        let publishers = [publisher(&topic, &kind, 0..4), publisher(&topic, &kind, 100..104)];
        publishers.into_iter().for_each(|join| join());
        for (subscription, log) in panicking.iter().chain([&(neighbour, log)]) {
            subscription.unsubscribe_and_join(LONG).unwrap();
            assert_eq!(log.lock().unwrap().len(), 9);
            check(log, false);
        }
        assert!(bus.stats().panics >= 4, "a third of eight messages, twice");
        drop((panicking, topic));
        bus.shutdown(LONG).unwrap();
    });
}

/// Gives the others a turn.
fn spin() {
    stasis_bus::schedule::pause();
}
