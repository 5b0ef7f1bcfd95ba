//! Memory for what a lane writes at every delivery: the hot halves of its members, and their handlers.
//!
//! ```text
//!   lane ─► Slabs ─ 16 bytes ─► Slab: blocks of one size, a bit each: free
//!                 ─ 32, 64 …        ▲                │ set by whoever drops what was placed, on any thread
//!             Placed<T> ─ counts ───┘                └ cleared by who places, one at a time
//! ```
//!
//! Processors fetch ahead: they see the distance from one member to the next and ask for those that should come
//! then, lines that lie pages away included. Where the members of two lanes lie in turns, as an allocator puts
//! them, each lane so takes lines from the other that this one writes at every message: 1000 members on two lanes
//! took twice the time, and six times as long where the cores have no cache in common.
//!
//! Guarantees: a block is given out again only when its last user has let go of it; a slab lives as long as
//! something is placed in it. Boxed is what is larger than 1 KiB, has no size, or is aligned to more than a line.
//! Memory: values are rounded up to 16, 32, or lines of 64 bytes; a row of slabs begins with 64 blocks, and doubles
//! up to 1024 or 64 KiB; the empty ones but one of each size are freed by the lane when it is idle, 32 of a size at a
//! time.
//! Cost: placing a short lock, and a look at each slab's words where those before it are full (50,000 members: 800
//! words); dropping one atomic operation. Model: `loom-tests/tests/slab.rs`.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::{self, ManuallyDrop};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock, scaled};

/// Bytes of a line. Blocks are one or more of them, or a half or a quarter.
const LINE: usize = 64;
/// Lines of the largest blocks.
const MOST_LINES: usize = 16;
/// Sizes of blocks: 16, 32, and lines.
const SIZES: usize = 2 + MOST_LINES;
/// Blocks of the first slab of a size, and of the largest: bits of words.
const FIRST: usize = scaled(64, 2);
const MOST: usize = scaled(1024, 2);
/// Bytes of a slab at most.
const LARGEST: usize = 64 << 10;
/// Slabs begin at pages: what lies before and behind is nobody's neighbour in a stream of lines.
const PAGE: usize = 4096;
/// Slabs that are freed in one go.
const SWEPT: usize = 32;

/// Row of the blocks for values of so many bytes, and the size of those blocks.
fn row(size: usize) -> (usize, usize) {
    match size {
        0..=16 => (0, 16),
        17..=32 => (1, 32),
        _ => (1 + size.div_ceil(LINE), size.next_multiple_of(LINE)),
    }
}

/// Blocks of one size, side by side.
struct Slab {
    memory: NonNull<u8>,
    layout: Layout,
    block: usize,
    /// A bit for each free block, and none else.
    free: Box<[AtomicU64]>,
    /// Of the lane: a slab has become empty since somebody looked.
    emptied: Arc<AtomicBool>,
}

// SAFETY: the memory is reached through blocks, each of which has one user at a time (`free`).
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// The bits of a word of a slab of so many blocks.
fn word(blocks: usize) -> u64 {
    u64::MAX >> (u64::BITS as usize - blocks.min(64))
}

impl Slab {
    fn new(block: usize, blocks: usize, emptied: &Arc<AtomicBool>) -> Arc<Self> {
        let layout = Layout::from_size_align(block * blocks, PAGE).expect("some pages");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        let free = (0..blocks).step_by(64).map(|first| AtomicU64::new(word(blocks - first))).collect();
        Arc::new(Self { memory, layout, block, free, emptied: Arc::clone(emptied) })
    }

    fn blocks(&self) -> usize {
        self.layout.size() / self.block
    }

    fn is_empty(&self) -> bool {
        // Acquire: who frees the slab comes after those who used it.
        let words = self.free.iter().map(|free| free.load(Ordering::Acquire));
        words.map(|free| free.count_ones() as usize).sum::<usize>() == self.blocks()
    }

    /// A block, if one is free. By one thread at a time.
    fn take(&self) -> Option<NonNull<u8>> {
        for (at, word) in self.free.iter().enumerate() {
            // Acquire: meets the Release of who gave it back, whose accesses come before ours.
            let free = word.load(Ordering::Acquire);
            if free != 0 {
                let bit = free.trailing_zeros() as usize;
                // Relaxed: others only add bits.
                word.fetch_and(!(1 << bit), Ordering::Relaxed);
                // SAFETY: it is one of the blocks, so within the memory.
                return Some(unsafe { self.memory.add((64 * at + bit) * self.block) });
            }
        }
        None
    }

    /// The block's user has let go of it.
    fn give_back(&self, block: NonNull<u8>) {
        let at = (block.addr().get() - self.memory.addr().get()) / self.block;
        let bit = 1 << (at % 64);
        // Release: whatever we did with it comes before its next use.
        let free = self.free[at / 64].fetch_or(bit, Ordering::Release) | bit;
        if free == word(self.blocks() - at / 64 * 64) && self.is_empty() {
            // Release: who sees the mark sees the bits. (A swap, because loom takes a store for one that the swap in
            // `sweep` may follow.)
            self.emptied.swap(true, Ordering::Release);
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout; nothing is in it: what is counts us.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

/// The slabs of one size.
#[derive(Default)]
struct Row {
    slabs: Vec<Arc<Slab>>,
    /// Where a block was found last.
    at: usize,
}

impl Row {
    fn take(&mut self, block: usize, emptied: &Arc<AtomicBool>) -> (NonNull<u8>, Arc<Slab>) {
        let slabs = self.slabs.len();
        for at in (self.at..slabs).chain(0..self.at) {
            if let Some(memory) = self.slabs[at].take() {
                self.at = at;
                return (memory, Arc::clone(&self.slabs[at]));
            }
        }
        let blocks = (FIRST << slabs.min(4)).min(MOST).min(LARGEST / block);
        let slab = Slab::new(block, blocks, emptied);
        self.slabs.push(Arc::clone(&slab));
        self.at = slabs;
        (slab.take().expect("all its blocks are free"), slab)
    }

    /// Takes out `most` of the empty slabs, but leaves one.
    fn sweep(&mut self, most: usize) -> Vec<Arc<Slab>> {
        let mut kept = false;
        let mut left = most;
        let found = self.slabs.extract_if(.., |slab| {
            let goes = left > 0 && slab.is_empty() && mem::replace(&mut kept, true);
            left -= usize::from(goes);
            goes
        });
        let found: Vec<_> = found.collect();
        self.at = self.at.min(self.slabs.len().saturating_sub(1));
        found
    }
}

/// The slabs of a lane.
#[derive(Default)]
pub(crate) struct Slabs {
    rows: Mutex<[Row; SIZES]>,
    emptied: Arc<AtomicBool>,
}

impl Slabs {
    /// Puts the value beside the others of the lane.
    pub(crate) fn place<T>(&self, value: T) -> Placed<T> {
        let (row, block) = row(size_of::<T>());
        if row >= SIZES || size_of::<T>() == 0 || align_of::<T>() > LINE {
            return Placed::boxed(value);
        }
        let (memory, slab) = lock(&self.rows)[row].take(block, &self.emptied);
        Placed::at(memory, slab, value)
    }

    /// Whether [`sweep`](Self::sweep) may find something.
    pub(super) fn is_untidy(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }

    /// Frees some of the slabs that nothing is in, but one of each size.
    pub(crate) fn sweep(&self) {
        // Acquire: meets the Release in `give_back`: what became empty is seen to be.
        if self.is_untidy() && self.emptied.swap(false, Ordering::Acquire) {
            let empty: Vec<_> = lock(&self.rows).iter_mut().flat_map(|row| row.sweep(SWEPT)).collect();
            if empty.len() >= SWEPT {
                self.emptied.store(true, Ordering::Relaxed);
            }
            drop(empty);
        }
    }

    /// How many there are.
    pub(crate) fn slabs(&self) -> usize {
        lock(&self.rows).iter().map(|row| row.slabs.len()).sum()
    }
}

impl std::fmt::Debug for Slabs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slabs").field("slabs", &self.slabs()).finish_non_exhaustive()
    }
}

/// A value of its own, as in a `Box`, but in a slab.
pub(crate) struct Placed<T> {
    value: NonNull<T>,
    /// None: it is boxed.
    slab: Option<Arc<Slab>>,
}

// SAFETY: owns its value, as a `Box` does.
unsafe impl<T: Send> Send for Placed<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Placed<T> {}

impl<T> Placed<T> {
    /// Where the allocator puts it: for what no lane of the bus serves, and what does not fit.
    pub(crate) fn boxed(value: T) -> Self {
        Self { value: NonNull::from(Box::leak(Box::new(value))), slab: None }
    }

    /// The memory is a free block of the slab that is large enough.
    fn at(memory: NonNull<u8>, slab: Arc<Slab>, value: T) -> Self {
        let place = memory.cast::<T>();
        // SAFETY: ours alone since it was taken, large enough and aligned: blocks are as large as the value's size
        // rounded up to one that its alignment divides, and begin at multiples of that.
        unsafe { place.write(value) };
        Self { value: place, slab: Some(slab) }
    }

    /// The value without its type. Not dropped before it is [`seen`](Unseen::seen) again.
    pub(crate) fn unseen(mut self) -> Unseen {
        let slab = self.slab.take();
        Unseen { value: ManuallyDrop::new(self).value.cast(), slab }
    }
}

/// A placed value whose type only others know.
pub(crate) struct Unseen {
    value: NonNull<()>,
    slab: Option<Arc<Slab>>,
}

impl Unseen {
    /// Where the value is.
    #[inline(always)]
    pub(crate) fn address(&self) -> NonNull<()> {
        self.value
    }

    /// For destructors, who have a reference only: moves it out, and leaves what is not to be used.
    pub(crate) fn take(&mut self) -> Self {
        Self { value: self.value, slab: self.slab.take() }
    }

    /// The value with its type.
    ///
    /// # Safety
    /// It is one of this type, and what this was taken from is not used any more.
    pub(crate) unsafe fn seen<T>(self) -> Placed<T> {
        Placed { value: self.value.cast(), slab: self.slab }
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: written in `at` or `boxed`, and dropped with `self` only.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for Placed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and we are the only way to it.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for Placed<T> {
    fn drop(&mut self) {
        /// Gives the block back also if the value's destructor panics.
        struct Back(NonNull<u8>, Arc<Slab>);
        impl Drop for Back {
            fn drop(&mut self) {
                self.1.give_back(self.0);
            }
        }
        let Some(slab) = self.slab.take() else {
            // SAFETY: the pointer is that of a `Box` (`boxed`).
            drop(unsafe { Box::from_raw(self.value.as_ptr()) });
            return;
        };
        let _back = Back(self.value.cast(), slab);
        // SAFETY: written in `at`, and dropped here only.
        unsafe { self.value.drop_in_place() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn address<T>(placed: &Placed<T>) -> usize {
        placed.value.addr().get()
    }

    #[test]
    fn what_a_lane_has_lies_together_and_is_used_again() {
        let (one, other) = (Slabs::default(), Slabs::default());
        let mut placed: Vec<_> = (0..640_u64).map(|n| (one.place([n; 8]), other.place([n; 4]))).collect();
        for pair in placed.windows(2).filter(|pair| address(&pair[0].0) / PAGE == address(&pair[1].0) / PAGE) {
            assert_eq!(address(&pair[1].0) - address(&pair[0].0), 64, "side by side");
        }
        let pages = |addresses: Vec<usize>| {
            let mut pages: Vec<_> = addresses.into_iter().map(|address| address / PAGE).collect();
            pages.sort_unstable();
            pages.dedup();
            pages
        };
        let ours = pages(placed.iter().map(|pair| address(&pair.0)).collect());
        let theirs = pages(placed.iter().map(|pair| address(&pair.1)).collect());
        assert_eq!((ours.len(), theirs.len()), (10, 6), "the first 64 small ones fill half a page");
        assert!(ours.iter().all(|page| !theirs.contains(page)));
        assert!(placed.iter().zip(0..).all(|(pair, n)| *pair.0 == [n; 8] && *pair.1 == [n; 4]));
        let gone = placed.swap_remove(100).0;
        let free = address(&gone);
        drop(gone);
        let next: Vec<_> = (0..321_u64).map(|n| one.place([n; 8])).collect();
        assert!(next.iter().any(|placed| address(placed) == free));
        assert_eq!(one.slabs(), 4, "64, 128, 256 and 512 blocks");
    }

    #[test]
    fn sizes_alignments_and_what_fits_nowhere() {
        #[repr(align(128))]
        struct Wide(u8);
        #[repr(align(64))]
        struct Line([u8; 65]);
        let slabs = Slabs::default();
        let small = [1_u8, 2].map(|n| slabs.place(n));
        assert_eq!((*small[0], *small[1], address(&small[1]) - address(&small[0])), (1, 2, 16));
        let (half, large, line) = (slabs.place([3_u64; 3]), slabs.place([7_u8; 1024]), slabs.place(Line([5; 65])));
        assert_eq!((half[2], large[1023], line.0[64], address(&line) % 64), (3, 7, 5, 0));
        assert_eq!(slabs.slabs(), 4);
        let (none, wide, huge) = (slabs.place(()), slabs.place(Wide(3)), slabs.place([9_u8; 1025]));
        assert_eq!((*none, wide.0, huge[1024]), ((), 3, 9));
        assert!(none.slab.is_none() && wide.slab.is_none() && huge.slab.is_none());
        assert_eq!(slabs.slabs(), 4);
        for size in 1..=1024 {
            let (row, block) = row(size);
            assert!(row < SIZES && block >= size && block < size + LINE, "{size}: {row}, {block}");
            assert!(row == 0 || super::row(size - 1).0.abs_diff(row) <= 1);
        }
        assert_eq!(row(1025).0, SIZES);
    }

    #[test]
    fn blocks_of_all_words_come_back_and_empty_slabs_go_but_one_of_a_size() {
        let slabs = Slabs::default();
        let mut placed: Vec<_> = (0..50_000_u64).map(|n| slabs.place([n; 8])).collect();
        assert!(placed.iter().zip(0..).all(|(value, n)| **value == [n; 8]));
        let mut addresses: Vec<_> = placed.iter().map(address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 50_000, "one each");
        // 64 + 128 + 256 + 512, and 49,040 by 1024.
        assert_eq!((slabs.slabs(), slabs.is_untidy()), (52, false));
        let kept = placed.remove(0);
        placed.drain(..).rev().for_each(drop);
        assert!(slabs.is_untidy());
        slabs.sweep();
        assert_eq!((slabs.slabs(), slabs.is_untidy()), (52 - SWEPT, true), "the rest next time");
        slabs.sweep();
        slabs.sweep();
        assert_eq!((slabs.slabs(), slabs.is_untidy()), (2, false));
        let again: Vec<_> = (0..127_u64).map(|n| slabs.place([n; 8])).collect();
        assert!(slabs.slabs() == 2 && again.iter().zip(0..).all(|(value, n)| **value == [n; 8]));
        drop((again, kept));
        slabs.sweep();
        assert_eq!(slabs.slabs(), 1);
        // What is placed may outlive the lane.
        let last = slabs.place([5_u64; 8]);
        drop(slabs);
        assert_eq!(*last, [5; 8]);
    }

    #[test]
    fn a_value_seen_again_is_dropped_once_and_its_block_comes_back_though_it_panics() {
        struct Loud<'a>(&'a AtomicBool);
        impl Drop for Loud<'_> {
            fn drop(&mut self) {
                assert!(!self.0.swap(true, Ordering::Relaxed), "dropped twice");
                panic!("on purpose");
            }
        }
        let (slabs, dropped) = (Slabs::default(), AtomicBool::new(false));
        let mut unseen = slabs.place(Loud(&dropped)).unseen();
        let (at, taken) = (unseen.address().addr(), unseen.take());
        drop(unseen);
        assert!(!dropped.load(Ordering::Relaxed));
        // SAFETY: what was placed above.
        let placed = unsafe { taken.seen::<Loud<'_>>() };
        assert!(catch_unwind(AssertUnwindSafe(|| drop(placed))).is_err());
        assert!(dropped.load(Ordering::Relaxed));
        assert_eq!(slabs.place(0_u64).value.addr(), at);
    }
}
