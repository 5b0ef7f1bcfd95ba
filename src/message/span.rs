//! Where the memory of message blocks comes from: some blocks in one allocation.
//!
//! ```text
//!   ┌ span ──┐┌ block ──┐┌ block ──┐   ┌ block ──┐
//!   │ left: 8││ place 0 ││ place 1 │ … │ place 7 │    one allocation; freed when the last block is given up
//!   └ a line ┘└─────────┘└─────────┘   └─────────┘
//! ```
//!
//! Aligned memory is dear to ask for block by block: with glibc a message of a burst took twice as long to publish, and
//! three times as long to get rid of. The price: a block that is in use, or kept by its pool, keeps its span from the
//! allocator. Blocks mostly come back in the order in which they were made, and then spans go as a whole; where they come
//! back in any order, a pool of one megabyte keeps up to 17 of what a burst took (one block of 128 bytes in a span of
//! 2,112).
//!
//! Guarantees: a span is freed once, after every block of it was given up; who frees it has seen the last uses of all of
//! them. Cost: an allocation in eight blocks; a subtraction on a shared line for a block given up. Model:
//! `loom-tests/tests/memory.rs`, `a_span_goes_with_its_last_block`.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

use crate::sync::{AtomicUsize, Ordering};

/// Alignment of blocks: a line.
pub(crate) const ALIGN: usize = 64;

/// Front of a span. The size is a multiple of its alignment, so what follows is aligned as well.
#[repr(align(64))]
struct Span {
    /// Blocks not given up.
    left: AtomicUsize,
    /// Blocks in all.
    blocks: usize,
}

const _: () = assert!(align_of::<Span>() == ALIGN);

/// Of a span with so many blocks, `stride` bytes from one to the next, a multiple of [`ALIGN`].
fn layout(stride: usize, blocks: usize) -> Layout {
    let bytes = size_of::<Span>() + stride * blocks;
    Layout::from_size_align(bytes, ALIGN).expect("blocks are small")
}

/// Memory for `blocks` blocks, `stride` bytes from one to the next: the first. `None`: out of memory.
pub(crate) fn allocate(stride: usize, blocks: usize) -> Option<NonNull<u8>> {
    debug_assert!(stride.is_multiple_of(ALIGN) && blocks > 0);
    // SAFETY: not empty: the front alone is a line.
    let memory = NonNull::new(unsafe { alloc::alloc(layout(stride, blocks)) })?;
    // SAFETY: fresh memory, aligned, and large enough.
    unsafe { memory.cast().write(Span { left: AtomicUsize::new(blocks), blocks }) };
    // SAFETY: within the allocation.
    Some(unsafe { memory.add(size_of::<Span>()) })
}

/// Gives a block up for good; true: it was the last, and the span is gone.
///
/// # Safety
/// The block is the one at `place` of a span with that stride, nothing refers to it, and it is given up once.
pub(crate) unsafe fn give_up(block: NonNull<u8>, place: usize, stride: usize) -> bool {
    // SAFETY: the front of the block's span, which lives as long as a block of it.
    let span = unsafe { block.sub(place * stride + size_of::<Span>()) }.cast::<Span>();
    // SAFETY: as above; nobody has it mutably before the last block is given up.
    let left = unsafe { &span.as_ref().left };
    // AcqRel: Release for our uses of the block, Acquire for those of the others if it is the last.
    let is_last = left.fetch_sub(1, Ordering::AcqRel) == 1;
    if is_last {
        // SAFETY: no block is left, so nobody else comes here.
        let blocks = unsafe { span.as_ref().blocks };
        // SAFETY: as above.
        unsafe { ptr::drop_in_place(span.as_ptr()) };
        // SAFETY: allocated in `allocate` with this layout.
        unsafe { alloc::dealloc(span.as_ptr().cast(), layout(stride, blocks)) };
    }
    is_last
}
