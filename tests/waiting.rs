//! G9: who gives up waiting leaves nothing behind. Alone in its process: it counts the allocations alive.
mod common;

use common::bus;
use stasis_bus::{Completion, JoinError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};
use std::time::Duration;

struct Counting;

static ALIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: all is left to the system's allocator.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// One look of a task.
fn look(completion: &mut Completion, wakes: &Arc<Wakes>) -> Poll<()> {
    let waker = Arc::clone(wakes).into();
    pin!(completion).poll(&mut Context::from_waker(&waker))
}

#[test]
fn g09_waits_that_end_early_leave_nothing_behind() {
    let bus = bus(1);
    let subscription = bus.topic("t").unwrap().subscribe(|_| ()).unwrap();
    let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
    let mut patient = subscription.completion();
    assert_eq!(look(&mut patient, &wakes), Poll::Pending);
    let give_up = || {
        assert_eq!(subscription.join_timeout(Duration::from_micros(1)), Err(JoinError::Timeout));
        assert_eq!(look(&mut subscription.completion(), &wakes), Poll::Pending);
    };
    (0..10).for_each(|_| give_up());
    let before = ALIVE.load(Ordering::SeqCst);
    (0..1000).for_each(|_| give_up());
    let left = ALIVE.load(Ordering::SeqCst) - before;
    // The bus's own threads allocate a little beside.
    assert!(left < 100, "{left} allocations left by 2000 waits");

    // The one who has not given up is woken, once, and nobody else.
    subscription.unsubscribe().wait().unwrap();
    common::eventually("the patient one was woken", || wakes.0.load(Ordering::SeqCst) == 1);
    assert_eq!(look(&mut patient, &wakes), Poll::Ready(()));
}
