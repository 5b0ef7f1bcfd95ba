//! Memory of the messages of a burst, beyond what a pool keeps.
//!
//! ```text
//!   publisher   ── block after block, side by side ──►  ┌ span: 256 blocks, 32 KB at most ┐
//!   lane        ── counts those it is done with ─────►  └ freed with the last of them ────┘
//! ```
//!
//! What waits so deep is served long after it was made: nothing is gained by keeping the messages of a moment apart
//! in memory, as a pool does, and everything by having them side by side: half of the page faults, and addresses that
//! processors foresee. None of it comes back to the publisher; the allocator has it again when the burst is over.
//!
//! Guarantees: a span goes back when all messages in it are gone, whoever had them; a thread that ended leaves nothing
//! behind. The price: a message that is kept keeps its span, 32 KB at most. Cost: a few instructions a block; a lane gives
//! the blocks of a span up together. Model: as `span`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr::NonNull;

use super::span::{self, Span};
use crate::sync::scaled;

/// Bytes of a span, about; and blocks at most, which have numbers of a byte.
const BYTES: usize = 1 << 15;
const BLOCKS: usize = scaled(1 << 8, 2);
/// Spans a lane gathers for at a time: more publishers than that seldom flood together.
const GATHERED: usize = 8;
/// Addresses of spans that differ by less are of one publisher mostly.
const APART: usize = BYTES;

/// A publisher's blocks of a size.
pub(super) struct Supply {
    next: Cell<*mut u8>,
    /// Blocks not handed out.
    left: Cell<usize>,
    size: usize,
}

impl Supply {
    pub(super) const fn new(size: usize) -> Self {
        Self { next: Cell::new(std::ptr::null_mut()), left: Cell::new(0), size }
    }

    fn blocks(&self) -> usize {
        (BYTES / self.size).min(BLOCKS)
    }

    /// A block, and its place in its span. `None`: out of memory.
    #[cold]
    pub(super) fn take(&self) -> Option<(NonNull<u8>, u8)> {
        if self.left.get() == 0 {
            self.next.set(span::allocate(self.size, self.blocks())?.as_ptr());
            self.left.set(self.blocks());
        }
        let place = self.blocks() - self.left.get();
        let block = NonNull::new(self.next.get())?;
        self.left.set(self.left.get() - 1);
        // Behind the last one it is never used.
        self.next.set(block.as_ptr().wrapping_add(self.size));
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
            let span = unsafe { Span::of(next, self.blocks() - left, self.size) };
            // SAFETY: nobody has those.
            unsafe { span.give_up(left) };
        }
    }
}

/// What a lane is done with and has not given up yet.
pub(super) struct Done([Cell<(Option<Span>, usize)>; GATHERED]);

impl Done {
    pub(super) const fn new() -> Self {
        Self([const { Cell::new((None, 0)) }; GATHERED])
    }

    /// A block of that span; given up with others of it, or in [`flush`](Self::flush).
    ///
    /// # Safety
    /// As for [`Span::give_up`].
    #[inline]
    pub(super) unsafe fn gather(&self, span: Span) {
        let place = &self.0[span.addr() / APART % GATHERED];
        match place.get() {
            (Some(same), blocks) if same == span => place.set((Some(span), blocks + 1)),
            (other, blocks) => {
                place.set((Some(span), 1));
                Self::give_up(other, blocks);
            }
        }
    }

    fn give_up(span: Option<Span>, blocks: usize) {
        if let Some(span) = span {
            // SAFETY: the promise of those who gathered them.
            unsafe { span.give_up(blocks) };
        }
    }

    pub(super) fn flush(&self) {
        for place in &self.0 {
            let (span, blocks) = place.replace((None, 0));
            Self::give_up(span, blocks);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        self.flush();
    }
}
