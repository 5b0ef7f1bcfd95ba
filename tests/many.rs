//! 25,000 subscriptions on two lanes (pain 13: 53,212 taskprocessors): threads and bytes. Alone in its process:
//! it counts both.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{PATIENCE, bus, eventually, number};
use stasis_bus::key_index::{KeyIndex, KeyReceived};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: all is left to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COUNT: u64 = if cfg!(miri) { 500 } else { 25_000 };

/// Threads of this process; nothing where the system does not tell.
fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

fn each(before: isize) -> isize {
    (IN_USE.load(Ordering::SeqCst) - before) / COUNT as isize
}

/// As [`each`], when what was replaced on the way has been freed: it does not change any more.
fn settled(before: isize) -> isize {
    let mut last = each(before);
    for _ in 0..200 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = each(before);
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// One test, so that nothing else makes threads.
#[test]
fn twenty_five_thousand_subscriptions_are_two_lanes_and_a_few_bytes() {
    plain_subscriptions_share_two_lanes();
    subscribers_of_an_index_share_one_subscription();
}

fn plain_subscriptions_share_two_lanes() {
    let before = threads();
    let bus = bus(2);
    let (kind, topic) = (number(&bus), bus.topic("endpoints").unwrap());
    let seen = Arc::new(AtomicU64::new(0));
    let bytes = IN_USE.load(Ordering::SeqCst);
    let all: Vec<_> = (0..COUNT)
        .map(|_| {
            let seen = Arc::clone(&seen);
            let count = move |received: &stasis_bus::Received<'_>| {
                seen.fetch_add(u64::from(!received.is_final()), Ordering::Relaxed);
            };
            topic.subscriber().accept(&kind).subscribe(count).unwrap()
        })
        .collect();
    eventually("less than 300 bytes each", || each(bytes) < 300);
    println!("{COUNT} plain subscriptions: {} bytes each, handle and handler included", settled(bytes));
    topic.publish(kind.message(1)).unwrap();
    eventually("all got it", || seen.load(Ordering::SeqCst) == COUNT);
    if let (Some(before), Some(now)) = (before, threads()) {
        // Spares come and go between the two looks.
        let own = now - before;
        println!("{own} threads: 2 lanes, watchdog, {} spares", bus.stats().spare_threads);
        eventually("2 lanes, the watchdog, spares", || {
            let (now, spares) = (threads().unwrap_or(0), bus.stats().spare_threads);
            now - before == 3 + spares
        });
    }
    let ends: Vec<_> = all.iter().map(stasis_bus::Subscription::unsubscribe).collect();
    ends.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
    drop(all);
    bus.shutdown(PATIENCE).unwrap();
}

fn subscribers_of_an_index_share_one_subscription() {
    let before = threads();
    let bus = bus(2);
    let (kind, topic) = (number(&bus), bus.topic("endpoints").unwrap());
    let index = KeyIndex::new(&topic, &kind, |message| message.payload::<u64>().copied()).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let bytes = IN_USE.load(Ordering::SeqCst);
    let all: Vec<_> = (0..COUNT)
        .map(|key| {
            let seen = Arc::clone(&seen);
            let count = move |received: &KeyReceived<'_, u64>| {
                seen.fetch_add(u64::from(!received.is_final()), Ordering::Relaxed);
            };
            index.subscribe(key, count).unwrap()
        })
        .collect();
    for key in 0..COUNT {
        topic.publish(kind.message(key)).unwrap();
    }
    eventually("each got its own", || seen.load(Ordering::SeqCst) == COUNT);
    assert_eq!(index.stats().delivered, 2 * COUNT, "one delivery a message, and one for each who came");
    eventually("less than 700 bytes each", || each(bytes) < 700);
    println!("{COUNT} subscribers of an index: {} bytes each, handle and handler included", settled(bytes));
    if let Some(before) = before {
        eventually("2 lanes, the watchdog, spares", || {
            threads().unwrap_or(0) - before == 3 + bus.stats().spare_threads
        });
    }
    drop(all);
    index.unsubscribe().wait_timeout(PATIENCE).unwrap();
    bus.shutdown(PATIENCE).unwrap();
}
