//! Where the memory of message blocks comes from: some blocks in one allocation.
//!
//! ```text
//!   ┌ span ──┐┌ block ──┐┌ block ──┐   ┌ block ──┐
//!   │ left: 8││ place 0 ││ place 1 │ … │ place 7 │    one allocation; freed when the last block is given up
//!   └ a line ┘└─────────┘└─────────┘   └─────────┘
//! ```
//!
//! Aligned memory is dear to ask for block by block: with glibc a message of a burst took twice as long to publish, and
//! three times as long to get rid of. The price: a block that is in use, or kept, keeps its span from the allocator.
//!
//! Guarantees: a span is freed once, after every block of it was given up; who frees it has seen the last uses of all of
//! them. Cost: an allocation; a subtraction on a shared line for blocks given up together. Model:
//! `loom-tests/tests/memory.rs`, `a_span_goes_with_its_last_block`.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

use crate::sync::{AtomicUsize, Ordering};

/// Alignment of blocks: a line.
pub(crate) const ALIGN: usize = 64;

/// Front of a span. The size is a multiple of its alignment, so what follows is aligned as well.
#[repr(align(64))]
struct Front {
    /// Blocks not given up.
    left: AtomicUsize,
    /// Of the whole.
    layout: Layout,
}

const _: () = assert!(align_of::<Front>() == ALIGN);

/// A span of which some block is not given up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(NonNull<Front>);

/// Memory for `blocks` blocks, `stride` bytes from one to the next, a multiple of [`ALIGN`]: the first. `None`: out of
/// memory.
pub(crate) fn allocate(stride: usize, blocks: usize) -> Option<NonNull<u8>> {
    debug_assert!(stride.is_multiple_of(ALIGN) && blocks > 0);
    let bytes = size_of::<Front>() + stride * blocks;
    let layout = Layout::from_size_align(bytes, ALIGN).expect("blocks are small");
    // SAFETY: not empty: the front alone is a line.
    let memory = NonNull::new(unsafe { alloc::alloc(layout) })?;
    // SAFETY: fresh memory, aligned, and large enough.
    unsafe { memory.cast().write(Front { left: AtomicUsize::new(blocks), layout }) };
    // SAFETY: within the allocation.
    Some(unsafe { memory.add(size_of::<Front>()) })
}

impl Span {
    /// That of the block at `place` of a span with that stride.
    ///
    /// # Safety
    /// It is, and not given up.
    #[inline]
    pub(crate) unsafe fn of(block: NonNull<u8>, place: usize, stride: usize) -> Self {
        // SAFETY: within the allocation, which lives as long as a block of it.
        Self(unsafe { block.sub(place * stride + size_of::<Front>()) }.cast())
    }

    /// Gives so many of its blocks up for good; true: the last was among them, and the span is gone.
    ///
    /// # Safety
    /// Nothing refers to them, and none is given up twice.
    pub(crate) unsafe fn give_up(self, blocks: usize) -> bool {
        // SAFETY: it lives as long as a block of it; nobody has it mutably before the last block is given up.
        let left = unsafe { &self.0.as_ref().left };
        // AcqRel: Release for our uses of the blocks, Acquire for those of the others if these are the last.
        let is_last = left.fetch_sub(blocks, Ordering::AcqRel) == blocks;
        if is_last {
            // SAFETY: no block is left, so nobody else comes here.
            let layout = unsafe { self.0.as_ref().layout };
            // SAFETY: as above.
            unsafe { ptr::drop_in_place(self.0.as_ptr()) };
            // SAFETY: allocated in `allocate` with this layout.
            unsafe { alloc::dealloc(self.0.as_ptr().cast(), layout) };
        }
        is_last
    }
}

/// Gives up a block of each of these spans, those that come one after the other together; how many blocks they were.
///
/// # Safety
/// As for [`Span::give_up`].
pub(crate) unsafe fn give_up_all(spans: impl Iterator<Item = Span>) -> usize {
    let (mut all, mut run) = (0, None);
    for span in spans {
        all += 1;
        run = match run {
            Some((same, count)) if same == span => Some((span, count + 1)),
            other => {
                give_up_run(other);
                Some((span, 1))
            }
        };
    }
    give_up_run(run);
    all
}

fn give_up_run(run: Option<(Span, usize)>) {
    if let Some((span, count)) = run {
        // SAFETY: the promise of who called `give_up_all`.
        unsafe { span.give_up(count) };
    }
}
