//! A bus that has refused publishers takes publishes again when it is quiet (G9): no flag, level or count is left
//! behind that nobody comes to clear. Publishers drive it into being full from several threads, with handlers
//! that get stuck, and budgets of just the lanes' own queues.
mod common;

use common::{PATIENCE, Random, eventually, must_end, number, stress};
use stasis_bus::{Bus, Delivery, Home, Key, Message, MessageType, Overflow, Pinning, Subscription, Topic};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const LANES: usize = 2;
/// Bytes of the lanes' own queues: the least there is.
const LEAST: usize = LANES * 1024 * 16;

fn tight(budget: usize) -> Bus {
    let builder = Bus::builder().lanes(LANES).pinning(Pinning::Off).ring_capacity(1024).memory_budget(budget);
    builder.watchdog(Duration::from_micros(300)).build().unwrap()
}

/// Counts its calls; now and then it is slow enough to be taken over.
fn slow_now_and_then(topic: &Topic, kind: &MessageType<u64>, with: With, every: u64) -> (Subscription, Arc<AtomicU64>) {
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    let handler = move |received: &stasis_bus::Received<'_>| {
        if !received.is_final() && counted.fetch_add(1, Ordering::Relaxed) % every == every / 2 {
            thread::sleep(Duration::from_millis(2));
        }
    };
    let builder = topic.subscriber().accept(kind);
    let builder = match with {
        With::Delivery(delivery) => builder.delivery(delivery),
        With::Overflow(overflow) => builder.overflow(overflow),
        With::TimeToLive => builder.time_to_live(Duration::from_secs(3600)),
    };
    (builder.subscribe(handler).unwrap(), calls)
}

#[derive(Clone, Copy, Debug)]
enum With {
    Delivery(Delivery),
    Overflow(Overflow),
    /// Waits in a queue of its own, as long as the budget lasts.
    TimeToLive,
}

fn no_key(_: &Message) -> Option<Key> {
    None
}

const ALL: [With; 9] = [
    With::Delivery(Delivery::Lane(Home::Lane(0))),
    With::Delivery(Delivery::Lane(Home::Lane(1))),
    With::Delivery(Delivery::Dedicated),
    With::Delivery(Delivery::Inline),
    With::Overflow(Overflow::Fail { limit: 1 }),
    With::Overflow(Overflow::Fail { limit: 700 }),
    With::Overflow(Overflow::DropOldest { limit: 5 }),
    With::Overflow(Overflow::Conflate { key: no_key, limit: 5 }),
    With::TimeToLive,
];

/// Publishes from several threads until all of it is refused most of the time; then nobody publishes, and once the
/// bus is quiet every topic takes a message, and every subscription gets it.
fn storm(with: &[With], budget: usize, seed: u64) {
    let bus = tight(budget);
    let kind = number(&bus);
    let mut random = Random::new(seed);
    let topics: Vec<Topic> = with.iter().map(|_| bus.topic(format!("t{}", random.below(3))).unwrap()).collect();
    let listeners: Vec<(Subscription, Arc<AtomicU64>)> = with
        .iter()
        .zip(&topics)
        .map(|(with, topic)| slow_now_and_then(topic, &kind, *with, 200 + random.below(2000) as u64))
        .collect();
    thread::scope(|scope| {
        for at in 0..3 {
            let (topics, kind) = (&topics, &kind);
            let mut random = Random::new(seed + 1000 * (at + 1));
            scope.spawn(move || {
                for n in 0..stress(6000) as u64 {
                    let _ = topics[random.below(topics.len())].publish(kind.message(n));
                }
            });
        }
    });
    // Whoever is slow comes to its end, and whoever was taken over goes home.
    for (topic, (listener, calls)) in topics.iter().zip(&listeners) {
        let before = calls.load(Ordering::Relaxed);
        let accepted = || topic.publish(kind.message(7)).is_ok();
        eventually(&format!("{with:?}, {budget} bytes: a quiet topic takes a message"), accepted);
        topic
            .publish_sync(kind.message(8), listener)
            .or_else(|error| if error.to_string().contains("full") { Ok(()) } else { Err(error) })
            .unwrap();
        eventually(&format!("{with:?}, {budget} bytes: delivered"), || calls.load(Ordering::Relaxed) > before);
    }
    for (listener, _) in listeners {
        listener.unsubscribe_and_join(PATIENCE).unwrap();
    }
    bus.shutdown(PATIENCE).unwrap();
    let stats = bus.stats();
    assert_eq!(stats.accepted, stats.delivered + stats.dropped.total(), "{with:?}, {budget} bytes: {stats:?}");
}

#[test]
fn g09_each_delivery_and_policy_recovers_alone() {
    must_end(|| {
        for (n, with) in ALL.iter().enumerate() {
            for budget in [LEAST, LEAST + 8192] {
                storm(&[*with], budget, 1 + n as u64);
            }
        }
    });
}

#[test]
fn g09_they_recover_beside_each_other() {
    must_end(|| {
        for seed in 0..6 {
            storm(&ALL, LEAST + (seed as usize % 3) * 8192, 77 + seed);
        }
    });
}

/// Others may use up the budget for good: a subscription that has nothing waiting is not refused for it.
#[test]
fn g09_a_budget_that_others_use_up_refuses_nobody_without_messages_waiting() {
    must_end(|| {
        let bus = tight(LEAST);
        let (kind, topic) = (number(&bus), bus.topic("t").unwrap());
        // Its queue comes on top of the lanes' own.
        let _dedicated =
            bus.topic("other").unwrap().subscriber().delivery(Delivery::Dedicated).subscribe(|_| ()).unwrap();
        assert!(bus.stats().ring_bytes > LEAST);
        let (listener, calls) = slow_now_and_then(&topic, &kind, With::TimeToLive, u64::MAX);
        for n in 0..100 {
            eventually("a message is taken", || topic.publish(kind.message(n)).is_ok());
        }
        listener.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 100);
    });
}
