//! Message memory that goes back to its publisher, and an allocator that watches it.
#![cfg(loom)]

use loom_tests::{Drops, Model, spawn};
use stasis_bus::model::{flush, gather_on_this_thread, message_type};

mod watch {
    //! Message blocks are the allocations aligned to 64 bytes exactly: freed ones are filled with a
    //! pattern that no live block has, and frees are checked.
    #![allow(unsafe_code)]
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    pub(super) struct Watch;

    thread_local! {
        static LIVE: Cell<isize> = const { Cell::new(0) };
    }

    /// Blocks allocated and not freed by the models of this thread.
    pub(super) fn live() -> isize {
        LIVE.get()
    }

    // SAFETY: everything is left to the system's allocator.
    unsafe impl GlobalAlloc for Watch {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            if layout.align() == 64 {
                let _ = LIVE.try_with(|live| live.set(live.get() + 1));
            }
            // SAFETY: as the caller promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            if layout.align() == 64 {
                let _ = LIVE.try_with(|live| live.set(live.get() - 1));
                // SAFETY: the block is the caller's to give up. Whoever follows a link or a pointer out
                // of it from now on comes to an address that faults.
                unsafe { pointer.write_bytes(0xdd, layout.size()) };
            }
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(pointer, layout) }
        }
    }
}

#[global_allocator]
static WATCH: watch::Watch = watch::Watch;

/// Runs a model after which no block may be left.
fn check(name: &'static str, preemptions: usize, execution: impl Fn() + Send + Sync + 'static) {
    let before = watch::live();
    Model::new(name).preemptions(preemptions).check(execution);
    assert_eq!(watch::live() - before, 0, "message memory is left behind");
}

/// Promise (delicate point 10): a block that another thread hands over is used again by its publisher, only
/// after its last reference is gone; payloads are dropped once; the publisher's end leaves nothing.
/// Mutations: the exchange in `hand_over` Relaxed; the swap in `take_incoming` Relaxed.
#[test]
fn a_block_comes_back_to_its_publisher() {
    check("a_block_comes_back_to_its_publisher", 3, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let message = kind.message(drops.probe());
        let lane = spawn(move || drop(message));
        let again = kind.message(drops.probe());
        assert!(again.payload::<loom_tests::Probe>().is_some());
        drop(again);
        lane.join().unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: two references dropped at once: the last one, and only it, frees.
/// Mutations: `BlockRef::drop` loading `refs` Relaxed; its subtraction Relaxed; `free` after either.
#[test]
fn the_last_reference_frees() {
    use loom_tests::Watched;
    check("the_last_reference_frees", 3, || {
        let kind = message_type("n");
        let message = kind.message(Payload(Watched::new(0)));
        let other = message.clone();
        let reader = spawn(move || {
            assert_eq!(other.payload::<Payload>().unwrap().0.get(), 0);
            drop(other);
        });
        drop(message);
        reader.join().unwrap();
    });
}

/// Writes when it is dropped: every read must come before.
struct Payload(loom_tests::Watched);

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.set(1);
    }
}

/// Promise: the publisher ends while its blocks are on their way: handed over before it closes, they are
/// freed by it; after, by the lane, which frees the pool's shared part too; neither is done twice.
/// Mutations: `Pool::drop` storing CLOSED without taking what was returned; `settle` left out of the late
/// path; `hand_over` not looking for CLOSED again after a failed exchange; `orphans` counted Relaxed.
#[test]
fn a_publisher_that_ends_leaves_nothing() {
    check("a_publisher_that_ends_leaves_nothing", 3, || {
        let drops = Drops::new();
        let probes = [drops.probe(), drops.probe()];
        let kind = message_type("n");
        let (send, receive) = loom::sync::mpsc::channel();
        let publisher = {
            let kind = kind.clone();
            spawn(move || probes.into_iter().for_each(|probe| send.send(kind.message(probe)).unwrap()))
        };
        // The publisher may be anywhere from its first message to its end.
        drop(receive.recv().unwrap());
        drop(receive.recv().unwrap());
        publisher.join().unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: a lane gathers blocks and hands a batch over with one exchange, when it flushes or ends.
/// Mutations: `Outbox::drop` not flushing; `gather` linking the batch's tail wrong; `len` not counted.
#[test]
fn a_batch_comes_back_whole() {
    check("a_batch_comes_back_whole", 3, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let messages = [kind.message(drops.probe()), kind.message(drops.probe()), kind.message(drops.probe())];
        let lane = spawn(move || {
            gather_on_this_thread();
            let [first, second, third] = messages;
            drop(first);
            drop(second);
            flush();
            drop(third);
        });
        drop(kind.message(drops.probe()));
        lane.join().unwrap();
        drop(kind.message(drops.probe()));
        assert_eq!(drops.count(), 5);
    });
}
