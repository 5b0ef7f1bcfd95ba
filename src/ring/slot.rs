//! One cell of a ring, and a block of them: the unsafe kernel of the queue.
//!
//! ```text
//!   producer that claimed the slot: second = …, then first = pointer  (Release)
//!   consumer:                       first != null?  (Acquire)  then second
//!   whole segment read:             all first = null, used again
//! ```
//!
//! A slot holds the two words of an [`Entry`]. Its first word is never null while the slot is
//! full, so it doubles as the flag: no stamp, four slots a cache line.
//!
//! Guarantees: an entry put in is taken out at most once; a slot never written reads as empty. The
//! callers (`ring::mpsc`) guarantee one producer a slot and lap, and one consumer.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::sync::{AtomicPtr, Ordering, UnsafeCell, prefetch};

/// How many cells further the line of a cell is asked for.
const CELLS_AHEAD: usize = 12;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Something a slot can hold: two words, the first never null.
pub(crate) trait Entry: Send + Sized {
    /// Gives the entry up as two words.
    fn into_words(self) -> (NonNull<()>, *const ());

    /// Makes the entry from its words again.
    ///
    /// # Safety
    /// The words come from one call of [`into_words`](Self::into_words), and are used once.
    unsafe fn from_words(first: NonNull<()>, second: *const ()) -> Self;
}

/// One cell.
struct Slot {
    /// Null: empty. Else the entry's first word; `second` is then readable.
    first: AtomicPtr<()>,
    /// Written by the one producer that claimed the slot, before `first`; read by the one consumer
    /// after it saw `first`.
    second: UnsafeCell<*const ()>,
}

/// A block of slots that is used as a whole: filled, emptied, cleared, filled again.
///
/// A bare pointer with manners: the last thing a producer does in a segment is the store that lets the
/// consumer free it, so no reference to the block may outlive that store.
pub(crate) struct Segment<E> {
    slots: NonNull<Slot>,
    _entries: PhantomData<E>,
}

impl<E> Clone for Segment<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Segment<E> {}

impl<E: Entry> Segment<E> {
    /// A block of `slots` empty cells. Somebody has to [`free`](Self::free) it.
    pub(crate) fn allocate(slots: usize) -> Self {
        let cells: Box<[Slot]> = (0..slots)
            .map(|_| Slot { first: AtomicPtr::new(ptr::null_mut()), second: UnsafeCell::new(ptr::null()) })
            .collect();
        Self { slots: NonNull::from(Box::leak(cells)).cast(), _entries: PhantomData }
    }

    /// Frees the block. Entries in it are forgotten.
    ///
    /// # Safety
    /// From `allocate(slots)`; nobody uses it from now on.
    pub(crate) unsafe fn free(self, slots: usize) {
        let cells = NonNull::slice_from_raw_parts(self.slots, slots);
        // SAFETY: the box that `allocate` leaked.
        drop(unsafe { Box::from_raw(cells.as_ptr()) });
    }

    /// As a pointer, for an atomic.
    pub(crate) fn into_raw(self) -> *mut () {
        self.slots.as_ptr().cast()
    }

    /// From a pointer; `None` for null. Using it is up to the other methods' conditions.
    #[inline]
    pub(crate) fn from_raw(pointer: *mut ()) -> Option<Self> {
        Some(Self { slots: NonNull::new(pointer.cast())?, _entries: PhantomData })
    }

    /// Bytes one cell takes.
    pub(crate) const fn slot_bytes() -> usize {
        size_of::<Slot>()
    }

    /// Fills a cell.
    ///
    /// # Safety
    /// The segment lives, `index` is in it, and the caller has claimed the cell: nobody else writes it
    /// until it was cleared, and nobody frees the segment before it was taken.
    #[inline]
    pub(crate) unsafe fn put(self, index: usize, entry: E) {
        let (first, second) = entry.into_words();
        // SAFETY: in the block.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: the segment lives. The reference is to cells that others may write (they hold no
        // immutable data), so it does not claim that the block outlives the store below.
        let slot = unsafe { slot.as_ref() };
        slot.second.with_mut(|cell| {
            // SAFETY: the claim makes this thread the only writer, and the consumer does not read
            // `second` before it has seen `first`.
            unsafe { *cell = second }
        });
        // Release: publishes `second` and all that the entry points to; meets the Acquire in `take`.
        // Model: `ring.rs`, `an_entry_is_seen_whole`.
        slot.first.store(first.as_ptr(), Ordering::Release);
    }

    /// Takes the entry of a cell if it is there. The cell keeps its words until it is cleared.
    ///
    /// # Safety
    /// The segment lives, `index` is in it, and the caller is the one consumer and asks each cell until it
    /// gives once, in each lap.
    #[inline]
    pub(crate) unsafe fn take(self, index: usize) -> Option<E> {
        // SAFETY: in the block.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: only the consumer's side frees the block.
        let slot = unsafe { slot.as_ref() };
        // Acquire: meets the Release in `put`.
        let first = NonNull::new(slot.first.load(Ordering::Acquire))?;
        let second = slot.second.with(|cell| {
            // SAFETY: `first` was seen, so the producer is done with `second`.
            unsafe { *cell }
        });
        // SAFETY: both words come from the `into_words` in `put`; this is the once.
        Some(unsafe { E::from_words(first, second) })
    }

    /// Asks for the line of a cell that is going to be filled; the index may lie beyond the block.
    #[inline]
    pub(crate) fn expect_put(self, index: usize) {
        prefetch::to_write(self.slots.as_ptr().wrapping_add(index).cast_const().cast());
    }

    /// Asks for what the entry of a cell points to, if it is there already: two lines.
    ///
    /// # Safety
    /// The segment lives and `index` is in it.
    #[inline]
    pub(crate) unsafe fn expect_take(self, index: usize) {
        // SAFETY: in the block.
        let slot = unsafe { self.slots.add(index) };
        // SAFETY: the segment lives.
        let slot = unsafe { slot.as_ref() };
        // Relaxed: nothing is read through it.
        let first = slot.first.load(Ordering::Relaxed);
        if first.is_null() {
            return;
        }
        // There is a backlog: the cells behind are not being written now.
        prefetch::to_read(self.slots.as_ptr().wrapping_add(index + CELLS_AHEAD).cast_const().cast());
        // The first line is written too, when the memory goes back.
        prefetch::to_write(first.cast_const());
        prefetch::to_read(first.wrapping_byte_add(LINE).cast_const());
    }

    /// Empties all cells for another lap.
    ///
    /// # Safety
    /// From `allocate(slots)`; every cell was filled and taken: no producer or consumer is in it.
    pub(crate) unsafe fn clear(self, slots: usize) {
        let cells = NonNull::slice_from_raw_parts(self.slots, slots);
        // SAFETY: the block, and nobody else uses it now.
        for slot in unsafe { cells.as_ref() } {
            // Relaxed: the segment is published to producers by the store that installs it.
            slot.first.store(ptr::null_mut(), Ordering::Relaxed);
        }
    }
}
