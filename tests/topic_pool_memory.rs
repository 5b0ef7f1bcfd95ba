//! Topic pools give their memory back. Alone in its process: it counts the bytes in use.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{bus, number};
use stasis_bus::topic_pool::TopicPool;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Barrier;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::thread;
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

#[test]
fn a_hundred_thousand_topics_leave_nothing() {
    let bus = bus(2);
    let kind = number(&bus);
    let all = bus.topic("all").unwrap();
    let pool = TopicPool::new(&bus, &all).unwrap();
    let _listener = all.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
    let each = if cfg!(miri) { 100 } else { 25_000 };
    let churn = |count: usize| {
        let all_made = Barrier::new(4);
        thread::scope(|scope| {
            for at in 0..4 {
                let (pool, kind, all_made) = (&pool, &kind, &all_made);
                scope.spawn(move || {
                    for n in 0..count {
                        let topic = pool.get(format!("{at}/{n}")).unwrap();
                        if n % 1000 == 0 {
                            topic.publish(kind.message(n as u64)).unwrap();
                        }
                    }
                    // All topics are there at once.
                    all_made.wait();
                    for n in 0..count {
                        // Others' topics, oldest first; by both kinds of names.
                        let owner = (at + 1) % 4;
                        let prefix = if n % 2 == 0 { "" } else { "all/" };
                        assert!(pool.delete(format!("{prefix}{owner}/{n}")));
                    }
                });
            }
        });
        assert!(pool.is_empty());
    };
    churn(1000); // what threads, lanes and maps take once
    let quiet = || {
        thread::sleep(Duration::from_millis(5));
        IN_USE.load(Ordering::SeqCst)
    };
    let before = (0..40).map(|_| quiet()).min().unwrap_or_default();
    churn(each);
    // Nobody touches the bus any more: its lanes do this by themselves. A topic with its forward takes a
    // thousand bytes; ten are left for what a busier moment takes (threads that took a lane over, queues).
    let spare = (10 * 4 * each as isize).max(256 << 10);
    common::eventually("the memory is given back", || quiet() - before < spare);
    assert_eq!(bus.topics().len(), 1);
    assert_eq!(bus.stats().topics, 1);
}
