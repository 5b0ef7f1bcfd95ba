//! What subscriptions cost in memory (pain 17: they are cheap entries). Alone in its process: it counts
//! the bytes in use.
mod common;

use common::{PATIENCE, bus, lock, number};
use stasis_bus::{Bus, Delivery, Home, Message, MessageType, Pinning, Received, Subscription};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

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

/// One test at a time: all count the same bytes.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes in use when it stops falling: retired lists and freed messages need a moment.
fn settled() -> isize {
    let mut last = IN_USE.load(Ordering::SeqCst);
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let now = IN_USE.load(Ordering::SeqCst);
        if now >= last {
            return now;
        }
        last = now;
    }
    last
}

#[test]
fn a_hundred_thousand_subscriptions_take_less_than_200_bytes_each_and_give_them_back() {
    let _alone = lock(&ALONE);
    let bus = bus(2);
    let topic = bus.topic("t").unwrap();
    let kind = number(&bus);
    // What every bus has once: the first subscription of a lane, this thread's pools.
    // Nobody listens for changes: else every subscription is told of every other.
    let subscribe = |n: usize| {
        topic.subscriber().delivery(Delivery::Lane(Home::Lane(n % 2))).accept(&kind).subscribe(|_| ()).unwrap()
    };
    let _first = [0, 1].map(subscribe);
    let count = if cfg!(miri) { 1_000 } else { 100_000 };
    let before = settled();
    let mut subscriptions: Vec<Subscription> = Vec::with_capacity(count);
    let handles = IN_USE.load(Ordering::SeqCst) - before;
    for n in 0..count {
        // A handler without captures takes no memory of its own.
        subscriptions.push(subscribe(n));
    }
    assert_eq!(topic.subscribers(), count + 2);
    let each = || (IN_USE.load(Ordering::SeqCst) - before - handles) / count as isize;
    // Retired lists and freed messages need a moment, more of it on a busy machine.
    common::eventually("less than 200 bytes each", || each() + (size_of::<Subscription>() as isize) < 200);
    println!("{} bytes for each subscription, and a handle of {}", each(), size_of::<Subscription>());

    topic.publish_sync(kind.message(1), &subscriptions[count - 1]).unwrap();
    topic.publish_sync(kind.message(1), &subscriptions[count - 2]).unwrap();
    // A handler whose thread the system put aside for long may be served a little later than the others (G8).
    common::eventually("everybody got both", || bus.stats().delivered == 2 * (count as u64 + 2));
    let ends: Vec<_> = subscriptions.iter().rev().map(Subscription::unsubscribe).collect();
    ends.iter().for_each(|end| end.wait_timeout(PATIENCE).unwrap());
    drop((ends, subscriptions));
    common::eventually("the memory is given back", || {
        drop(subscribe(0)); // coming and going looks after what was retired
        IN_USE.load(Ordering::SeqCst) - before < 4 << 20
    });
}

/// Bytes that doing something so often leaves in use, after it was done 1000 times before.
fn left_by(often: usize, mut act: impl FnMut()) -> isize {
    let mut times = |n| (0..n).for_each(|_| act());
    times(1000);
    let before = settled();
    times(often);
    settled() - before
}

#[test]
fn g10_waiting_in_vain_leaves_nothing_behind() {
    let _alone = lock(&ALONE);
    let bus = bus(1);
    let lasting = bus.topic("t").unwrap().subscribe(|_| ()).unwrap();
    let left = left_by(1000, || assert!(lasting.join_timeout(Duration::from_micros(20)).is_err()));
    assert!(left < 8_000, "{left} bytes by waits that timed out");
    // As `select!` in a loop does.
    let left = left_by(1000, || {
        let mut end = lasting.completion();
        assert!(Pin::new(&mut end).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
    assert!(left < 8_000, "{left} bytes by futures that were dropped");
}

#[test]
fn g10_dedicated_subscriptions_leave_nothing_behind_though_nobody_looks() {
    let _alone = lock(&ALONE);
    let bus = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(None).build().unwrap();
    let topic = bus.topic("t").unwrap();
    // What is gone is taken off lists now and then only: some 300 KB come and go. 250 bytes each would be 1.5 MB.
    let left = left_by(6000, || topic.subscriber().mailbox().subscribe(|_| ()).unwrap().unsubscribe().wait().unwrap());
    assert!(left < 700_000, "{left} bytes");
}

/// So many messages of each size at once are a burst: more than a pool has.
const BURST: usize = 20_000;

/// A payload that knows what it is.
fn filled<const N: usize>(n: usize) -> [u64; N] {
    std::array::from_fn(|word| (n * N + word) as u64)
}

/// Which message goes first.
#[derive(Clone, Copy)]
enum Order {
    First,
    Last,
    Any,
}

impl Order {
    fn at(self, n: usize) -> usize {
        match self {
            Self::First => n,
            Self::Last => BURST - 1 - n,
            // 7919 and the number of messages have no common divisor: each once, far from each other.
            Self::Any => n * 7919 % BURST,
        }
    }
}

/// Messages of a size, more than a pool has, made by a thread that ends or stays, dropped in some order by another one.
fn burst<const N: usize>(bus: &Bus, ends: bool, order: Order, is_in_order: bool) {
    let kind = MessageType::<[u64; N]>::new(bus, format!("{N} words")).unwrap();
    let (send, messages) = std::sync::mpsc::channel::<Vec<Option<Message>>>();
    let (stay, stays) = std::sync::mpsc::channel::<()>();
    let maker = std::thread::spawn({
        let kind = kind.clone();
        move || {
            send.send((0..BURST).map(|n| Some(kind.message(filled::<N>(n)))).collect()).unwrap();
            // What is made while those of the burst are on their way is no worse.
            for n in 0..if ends { 0 } else { BURST } {
                assert_eq!(kind.message(filled::<N>(n)).payload::<[u64; N]>(), Some(&filled(n)));
            }
            let _ = if ends { Ok(()) } else { stays.recv() };
        }
    });
    let mut messages = messages.recv().unwrap();
    if ends {
        drop(stay);
        maker.join().unwrap();
        drop_all::<N>(&mut messages, order);
    } else {
        drop_all::<N>(&mut messages, order);
        let kept = IN_USE.load(Ordering::SeqCst);
        drop(stay);
        maker.join().unwrap();
        // A megabyte in the pool and one on its way, with the gaps between blocks (as much again for the smallest), and spans
        // that are in use in part. In any order these may be all.
        let pool = kept - IN_USE.load(Ordering::SeqCst);
        assert!(!is_in_order || pool < 5 << 20, "a thread that made a burst of {N} words keeps {pool} bytes");
    }
}

fn drop_all<const N: usize>(messages: &mut [Option<Message>], order: Order) {
    for n in 0..BURST {
        let at = order.at(n);
        assert_eq!(messages[at].take().unwrap().payload::<[u64; N]>(), Some(&filled(at)));
    }
}

/// What a process has once, whatever test is first.
fn warm_up() {
    let bus = Bus::builder().lanes(2).pinning(Pinning::Off).watchdog(None).build().unwrap();
    burst::<8>(&bus, true, Order::First, true);
    let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
    let subscription = topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    topic.publish_sync(kind.message(1), &subscription).unwrap();
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
}

#[test]
fn what_a_burst_took_goes_back_in_any_order_of_drops() {
    let _alone = lock(&ALONE);
    warm_up();
    let orders = [(Order::First, true), (Order::Last, true), (Order::Any, false)];
    for ends in [false, true] {
        for (order, is_in_order) in orders {
            let before = settled();
            let bus = Bus::builder().lanes(1).pinning(Pinning::Off).watchdog(None).build().unwrap();
            burst::<1>(&bus, ends, order, is_in_order);
            burst::<8>(&bus, ends, order, is_in_order);
            burst::<9>(&bus, ends, order, is_in_order);
            burst::<56>(&bus, ends, order, is_in_order);
            burst::<120>(&bus, ends, order, is_in_order);
            drop(bus);
            let left = settled() - before;
            assert!(left < 64 << 10, "{left} bytes are left");
        }
    }
}

/// The same where lanes drop them: a queue that nobody serves for a while.
#[test]
fn what_a_burst_took_goes_back_when_lanes_have_served_it() {
    let _alone = lock(&ALONE);
    warm_up();
    let before = settled();
    let bus = Bus::builder().lanes(2).pinning(Pinning::Off).watchdog(None).build().unwrap();
    let kind = MessageType::<[u64; 8]>::new(&bus, "8 words").unwrap();
    let topic = bus.topic("t").unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let mut next = 0;
    let slow = move |received: &Received<'_>| {
        if next == 0 {
            let _ = wait.recv();
        }
        // The final message has none.
        let Some(payload) = received.payload::<[u64; 8]>() else { return };
        assert_eq!(*payload, filled(next));
        next += 1;
        if next == 5 * BURST {
            tell.send(()).unwrap();
        }
    };
    let subscription =
        topic.subscriber().delivery(Delivery::Lane(Home::Lane(0))).accept(&kind).subscribe(slow).unwrap();
    let publisher = std::thread::spawn(move || {
        for n in 0..5 * BURST {
            topic.publish(kind.message(filled::<8>(n))).unwrap();
        }
    });
    publisher.join().unwrap();
    let most = settled() - before;
    assert!(most > (5 * BURST * 128) as isize, "{most} bytes wait");
    go.send(()).unwrap();
    common::next(&told);
    subscription.unsubscribe_and_join(PATIENCE).unwrap();
    drop(subscription);
    drop(bus);
    let left = settled() - before;
    assert!(left < 64 << 10, "{left} bytes are left of {most}");
}
