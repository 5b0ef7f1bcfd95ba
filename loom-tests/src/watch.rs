//! The allocator of all models: use after free does not go unnoticed, and message blocks are counted.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator; what is freed is filled with a pattern first, so that whoever still follows a
/// pointer out of it comes to an address that faults.
struct Watch;

#[global_allocator]
static WATCH: Watch = Watch;

/// Larger allocations are loom's own.
const LARGEST: usize = 4096;
/// Message blocks are the allocations aligned like this.
const BLOCK_ALIGN: usize = 64;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

/// Message blocks allocated and not freed by the models of this thread.
#[must_use]
pub fn live_blocks() -> isize {
    LIVE.get()
}

fn count(layout: Layout, change: isize) {
    if layout.align() == BLOCK_ALIGN {
        let _ = LIVE.try_with(|live| live.set(live.get() + change));
    }
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Watch {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout, 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout, -1);
        if layout.size() <= LARGEST {
            // SAFETY: the memory is the caller's to give up.
            unsafe { pointer.write_bytes(0xdd, layout.size()) };
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}
