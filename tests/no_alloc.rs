//! G6: in the steady state a publish allocates nothing, message included. Alone in its process: it counts
//! every allocation of every thread.
mod common;

use common::{DELIVERIES, PATIENCE, bus, number};
use stasis_bus::{Delivery, Home, MessageType, Subscription, Topic};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is left to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: the count is the process's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const ROUNDS: u64 = 200;
/// Messages of a round; between rounds the lane catches up, so that no queue has to grow.
const BURST: u64 = 200;

/// Allocations during rounds of publishes, after as many to warm up. The best of a few times: what is in flight
/// at most depends on the machine, and memory is added until that is covered; what every message costs shows
/// each time.
fn steady(topic: &Topic, kind: &MessageType<u64>, subscriptions: &[Subscription]) -> u64 {
    (0..5)
        .map(|_| once(topic, kind, subscriptions))
        .find(|&counted| counted == 0)
        .unwrap_or_else(|| once(topic, kind, subscriptions))
}

fn once(topic: &Topic, kind: &MessageType<u64>, subscriptions: &[Subscription]) -> u64 {
    let round = || {
        for n in 0..BURST {
            topic.publish(kind.message(n)).unwrap();
        }
    };
    let settle = || {
        // Waiting allocates (a notice each), so it is kept out of the count.
        for subscription in subscriptions {
            topic.publish_sync(kind.message(0), subscription).unwrap();
        }
    };
    let mut counted = 0;
    for n in 0..2 * ROUNDS {
        settle();
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        round();
        if n >= ROUNDS {
            counted += ALLOCATIONS.load(Ordering::SeqCst) - before;
        }
    }
    counted
}

fn listeners(topic: &Topic, kind: &MessageType<u64>, count: usize, delivery: Delivery) -> Vec<Subscription> {
    (0..count).map(|_| topic.subscriber().delivery(delivery).accept(kind).subscribe(|_| ()).unwrap()).collect()
}

fn assert_none(counted: u64, what: &str) {
    // A segment may be added when the machine lets the lane wait; per message there is nothing.
    let published = ROUNDS * BURST;
    assert!(counted * 1000 < published, "{what}: {counted} allocations in {published} publishes");
}

#[test]
fn g06_publishing_to_one_or_eight_allocates_nothing() {
    let _alone = common::lock(&ONE_AT_A_TIME);
    for count in [1, 8] {
        for delivery in DELIVERIES {
            let bus = bus(2);
            let topic = bus.topic("t").unwrap();
            let kind = number(&bus);
            let subscriptions = listeners(&topic, &kind, count, delivery);
            assert_none(steady(&topic, &kind, &subscriptions), &format!("1 -> {count}, {delivery:?}"));
        }
    }
}

#[test]
fn g06_publishing_over_two_lanes_and_a_forward_allocates_nothing() {
    let _alone = common::lock(&ONE_AT_A_TIME);
    let bus = bus(2);
    let (topic, all) = (bus.topic("t").unwrap(), bus.topic("all").unwrap());
    let kind = number(&bus);
    let _forward = topic.forward_to(&all).unwrap();
    let mut subscriptions = listeners(&all, &kind, 2, Delivery::Lane(Home::Lane(0)));
    subscriptions.extend(listeners(&topic, &kind, 2, Delivery::Lane(Home::Lane(1))));
    subscriptions.extend(listeners(&all, &kind, 2, Delivery::Inline));
    assert_none(steady(&topic, &kind, &subscriptions), "two lanes, forward, inline");
}

/// As a cache does: more than a pool makes with care.
#[test]
fn g06_publishing_beside_many_messages_that_are_kept_allocates_nothing() {
    let _alone = common::lock(&ONE_AT_A_TIME);
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    let kept: Vec<_> = (0..20_000).map(|n| kind.message(n)).collect();
    let subscriptions = listeners(&topic, &kind, 2, Delivery::default());
    assert_none(steady(&topic, &kind, &subscriptions), "20,000 messages kept");
    assert!(kept.iter().zip(0..).all(|(message, n)| message.payload::<u64>() == Some(&n)));
}

#[test]
fn g14_publishing_to_nobody_allocates_nothing() {
    let _alone = common::lock(&ONE_AT_A_TIME);
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let (kind, other) = (number(&bus), number(&bus));
    let subscriptions = listeners(&topic, &other, 3, Delivery::default());
    for subscription in &subscriptions {
        topic.publish_sync(other.message(0), subscription).unwrap();
    }
    drop(kind.message(0));
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    for n in 0..10_000 {
        topic.publish(kind.message(n)).unwrap();
        assert!(!topic.publish_with(&kind, || unreachable!("nobody wants it")).unwrap());
    }
    let counted = ALLOCATIONS.load(Ordering::SeqCst) - before;
    assert!(counted < 100, "{counted} in 20,000: an idle lane may tidy up, a publish must not allocate");
    drop(subscriptions);
}

#[test]
fn the_counter_counts() {
    let _alone = common::lock(&ONE_AT_A_TIME);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    std::hint::black_box(Box::new(5));
    assert!(ALLOCATIONS.load(Ordering::SeqCst) > before);
    assert!(PATIENCE.as_secs() > 0);
}
