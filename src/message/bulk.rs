//! Memory of the messages of a burst, beyond the blocks that a pool makes with care.
//!
//! ```text
//!   publisher   ── block after block, in order ──►  ┌ span: up to 128 blocks, 8 KB or more ┐
//! ```
//!
//! What waits so deep is served long after it was made: there is little to be gained by keeping the messages of a moment
//! apart in memory, and much by having them one after the other, in pieces that an allocator gets from the system at once:
//! fewer page faults and calls, and addresses that processors foresee.
//!
//! Guarantees: as `span`. The price: a block that is in use, or kept by its pool, keeps its span from the allocator. Lanes
//! give blocks back about in the order in which they were made, and then spans go as a whole; where a burst comes back in
//! any order, each of the two megabytes of blocks that a pool keeps may keep 8 KB of it.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::span::{self, ALIGN, Span};
use crate::sync::scaled;

/// Bytes of a span, about; and blocks at most, which have numbers of a byte.
const BYTES: usize = scaled(1 << 13, 1 << 8);
const BLOCKS: usize = 1 << 7;
/// A line between two blocks that nobody uses: many of these may be in use for good, where caches keep messages.
const GAP: usize = ALIGN;

/// A publisher's blocks of a size.
pub(super) struct Supply {
    next: Cell<*mut u8>,
    /// Blocks not handed out.
    left: Cell<usize>,
    stride: usize,
}

impl Supply {
    pub(super) const fn new(size: usize) -> Self {
        Self { next: Cell::new(ptr::null_mut()), left: Cell::new(0), stride: Self::stride(size) }
    }

    /// Bytes from a block of the size to the next one.
    pub(super) const fn stride(size: usize) -> usize {
        size + GAP
    }

    fn blocks(&self) -> usize {
        (BYTES / self.stride).clamp(2, BLOCKS)
    }

    /// A block, and its place in its span. `None`: out of memory.
    pub(super) fn take(&self) -> Option<(NonNull<u8>, u8)> {
        if self.left.get() == 0 {
            self.next.set(span::allocate(self.stride, self.blocks())?.as_ptr());
            self.left.set(self.blocks());
        }
        let place = self.blocks() - self.left.get();
        let block = NonNull::new(self.next.get())?;
        self.left.set(self.left.get() - 1);
        // Behind the last one it is never used.
        self.next.set(block.as_ptr().wrapping_add(self.stride));
        Some((block, place as u8))
    }
}

impl Drop for Supply {
    fn drop(&mut self) {
        let left = self.left.get();
        if let Some(next) = NonNull::new(self.next.get())
            && left > 0
        {
            // SAFETY: it is the first one that was not handed out.
            let span = unsafe { Span::of(next, self.blocks() - left, self.stride) };
            // SAFETY: nobody has those.
            unsafe { span.give_up(left) };
        }
    }
}
