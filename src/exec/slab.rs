//! Memory for what a lane writes at every delivery: the hot halves of its members, and their handlers.
//!
//! ```text
//!   lane ─► Slabs ─ 64 bytes ─► Slab: up to 64 blocks, a bit each: free
//!                 ─ 128 … 1024     ▲                │ set by whoever drops what was placed, on any thread
//!             Placed<T> ─ counts ──┘                └ cleared by who places, one at a time
//! ```
//!
//! Processors fetch ahead: they see the distance from one member to the next and ask for those that should come
//! then, lines that lie pages away included. Where the members of two lanes lie in turns, as an allocator puts
//! them, each lane so takes lines from the other that this one writes at every message: 1000 members on two lanes
//! took twice the time, and six times as long where the cores have no cache in common.
//!
//! Guarantees: a block is given out again only when its last user has let go of it; a slab lives as long as
//! something is placed in it. Larger things, and those without size, are boxed. Memory: 4 to 16 KiB a slab, the
//! empty ones but one of each size are freed by idle lanes. Cost: placing a short lock and a scan of the slabs
//! once in 64 times, dropping one atomic operation. Model: `loom-tests/tests/slab.rs`.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock, scaled};

/// Bytes of the smallest blocks; each size is twice the one before.
const LEAST: usize = 64;
const SIZES: usize = 5;
/// Blocks of a slab at most: the bits of its word.
const BLOCKS: usize = scaled(64, 2);
/// Bytes of a slab at most.
const SLAB: usize = 16 << 10;
/// Slabs begin at pages: what lies before and behind is nobody's neighbour in a stream of lines.
const PAGE: usize = 4096;

/// A row of blocks of one size.
struct Slab {
    memory: NonNull<u8>,
    layout: Layout,
    block: usize,
    blocks: usize,
    /// A bit for each free block.
    free: AtomicU64,
    /// Of the lane: a slab has become empty since somebody looked.
    emptied: Option<Arc<AtomicBool>>,
}

// SAFETY: the memory is reached through blocks, each of which has one user at a time (`free`).
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    fn new(block: usize, blocks: usize, align: usize, emptied: Option<Arc<AtomicBool>>) -> Arc<Self> {
        let layout = Layout::from_size_align(block * blocks, align).expect("a few pages");
        // SAFETY: the size is not zero.
        let memory = unsafe { alloc(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout));
        Arc::new(Self { memory, layout, block, blocks, free: AtomicU64::new(Self::all(blocks)), emptied })
    }

    /// For values of this layout alone, on lines that the processor does not fetch together with others.
    fn single(layout: Layout) -> Arc<Self> {
        let lines = 2 * LEAST;
        Self::new(layout.size().next_multiple_of(lines), 1, layout.align().max(lines), None)
    }

    fn all(blocks: usize) -> u64 {
        u64::MAX >> (u64::BITS as usize - blocks)
    }

    fn is_empty(&self) -> bool {
        // Acquire: who frees the slab comes after those who used it.
        self.free.load(Ordering::Acquire) == Self::all(self.blocks)
    }

    /// A block, if one is free. By one thread at a time.
    fn take(&self) -> Option<NonNull<u8>> {
        // Acquire: meets the Release of who gave it back, whose accesses come before ours.
        let free = self.free.load(Ordering::Acquire);
        let at = (free != 0).then(|| free.trailing_zeros() as usize)?;
        // Relaxed: others only add bits.
        self.free.fetch_and(!(1 << at), Ordering::Relaxed);
        // SAFETY: it is one of the blocks, so within the memory.
        Some(unsafe { self.memory.add(at * self.block) })
    }

    /// The block's user has let go of it.
    fn give_back(&self, block: NonNull<u8>) {
        let bit = 1 << ((block.addr().get() - self.memory.addr().get()) / self.block);
        // Release: whatever we did with it comes before its next use.
        let free = self.free.fetch_or(bit, Ordering::Release) | bit;
        if free == Self::all(self.blocks)
            && let Some(emptied) = &self.emptied
        {
            // Release: who sees the mark sees the bits. (A swap, because loom takes a store for one that the swap in
            // `sweep` may follow.)
            emptied.swap(true, Ordering::Release);
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
        let slab = Slab::new(block, BLOCKS.min(SLAB / block), PAGE, Some(Arc::clone(emptied)));
        self.slabs.push(Arc::clone(&slab));
        self.at = slabs;
        (slab.take().expect("all its blocks are free"), slab)
    }

    /// Lets go of the empty slabs but one.
    fn sweep(&mut self) -> Vec<Arc<Slab>> {
        let empty: Vec<_> = self.slabs.extract_if(.., |slab| slab.is_empty()).collect();
        self.at = 0;
        let mut empty = empty.into_iter();
        self.slabs.extend(empty.next());
        empty.collect()
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
        let layout = Layout::new::<T>();
        let block = layout.size().next_power_of_two().max(LEAST);
        let row = (block / LEAST).trailing_zeros() as usize;
        if row >= SIZES || layout.size() == 0 || layout.align() > LEAST {
            return Placed::boxed(value);
        }
        let (memory, slab) = lock(&self.rows)[row].take(block, &self.emptied);
        Placed::at(memory, slab, value)
    }

    /// Whether [`sweep`](Self::sweep) may find something.
    pub(super) fn is_untidy(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }

    /// Frees slabs that nothing is in, but one of each size.
    pub(crate) fn sweep(&self) {
        // Acquire: meets the Release in `Placed`: what became empty is seen to be.
        if self.is_untidy() && self.emptied.swap(false, Ordering::Acquire) {
            let empty: Vec<_> = lock(&self.rows).iter_mut().flat_map(Row::sweep).collect();
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
pub(crate) struct Placed<T: ?Sized> {
    value: NonNull<T>,
    /// None: it is boxed.
    slab: Option<Arc<Slab>>,
}

// SAFETY: owns its value, as a `Box` does.
unsafe impl<T: ?Sized + Send> Send for Placed<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Sync> Sync for Placed<T> {}

impl<T> Placed<T> {
    /// Away from all others: for what no lane of the bus serves.
    pub(crate) fn alone(value: T) -> Self {
        if size_of::<T>() == 0 {
            return Self::boxed(value);
        }
        let slab = Slab::single(Layout::new::<T>());
        Self::at(slab.take().expect("its one block is free"), slab, value)
    }

    fn boxed(value: T) -> Self {
        Self { value: NonNull::from(Box::leak(Box::new(value))), slab: None }
    }

    /// The memory is a free block of the slab that is large enough.
    fn at(memory: NonNull<u8>, slab: Arc<Slab>, value: T) -> Self {
        let place = memory.cast::<T>();
        // SAFETY: ours alone since it was taken, large enough and aligned: blocks are as large as the value's size
        // rounded up, and begin at multiples of their size or, if single, of the value's alignment.
        unsafe { place.write(value) };
        Self { value: place, slab: Some(slab) }
    }

    /// The same value by another type: `|value| value as &mut dyn Trait`.
    ///
    /// # Panics
    /// If `view` gives something else than its argument.
    pub(crate) fn seen_as<U: ?Sized>(self, view: impl FnOnce(&mut T) -> &mut U) -> Placed<U> {
        let mut this = self;
        let value = NonNull::from(view(&mut this));
        // SAFETY: made from a reference just now.
        let seen = unsafe { value.as_ref() };
        assert!(size_of_val(seen) == size_of::<T>() && align_of_val(seen) == align_of::<T>());
        assert_eq!(value.addr(), this.value.addr(), "a view of the value itself");
        let slab = this.slab.take();
        mem::forget(this);
        Placed { value, slab }
    }
}

impl<T: ?Sized> Deref for Placed<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: written in `at` or `boxed`, and dropped with `self` only.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for Placed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and we are the only way to it.
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized> Drop for Placed<T> {
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
            assert_eq!(address(&pair[1].0) - address(&pair[0].0), 64);
        }
        let pages = |addresses: Vec<usize>| {
            let mut pages: Vec<_> = addresses.into_iter().map(|address| address / PAGE).collect();
            pages.sort_unstable();
            pages.dedup();
            pages
        };
        let ours = pages(placed.iter().map(|pair| address(&pair.0)).collect());
        let theirs = pages(placed.iter().map(|pair| address(&pair.1)).collect());
        assert_eq!((ours.len(), theirs.len()), (10, 10));
        assert!(ours.iter().all(|page| !theirs.contains(page)));
        assert!(placed.iter().zip(0..).all(|(pair, n)| *pair.0 == [n; 8] && *pair.1 == [n; 4]));
        let gone = placed.swap_remove(100).0;
        let free = address(&gone);
        drop(gone);
        assert_eq!(address(&one.place([0_u64; 7])), free);
        assert_eq!(one.slabs(), 10);
    }

    #[test]
    fn sizes_alignments_and_what_fits_nowhere() {
        #[repr(align(128))]
        struct Wide(u8);
        let slabs = Slabs::default();
        let (small, large, none, wide) =
            (slabs.place(1_u8), slabs.place([7_u8; 1024]), slabs.place(()), slabs.place(Wide(3)));
        assert_eq!((*small, large[1023], *none, wide.0), (1, 7, (), 3));
        assert!(small.slab.is_some() && large.slab.is_some() && none.slab.is_none() && wide.slab.is_none());
        assert!(slabs.place([0_u8; 1025]).slab.is_none());
        assert_eq!((address(&small) % 64, address(&large) % 1024, address(&wide) % 128), (0, 0, 0));
        let alone = (Placed::alone(1_u8), Placed::alone(()), Placed::alone(Wide(5)));
        assert_eq!((*alone.0, alone.2.0, address(&alone.0) % 128), (1, 5, 0));
        assert_eq!(slabs.slabs(), 2);
    }

    #[test]
    fn empty_slabs_go_but_one_of_a_size() {
        let slabs = Slabs::default();
        let mut placed: Vec<_> = (0..1000_u64).map(|n| slabs.place(n)).collect();
        assert_eq!((slabs.slabs(), slabs.is_untidy()), (16, false));
        placed.truncate(65);
        assert!(slabs.is_untidy());
        slabs.sweep();
        assert_eq!((slabs.slabs(), slabs.is_untidy()), (3, false));
        drop(placed);
        slabs.sweep();
        assert_eq!(slabs.slabs(), 1);
        // What is placed may outlive the lane.
        let last = slabs.place(5);
        drop(slabs);
        assert_eq!(*last, 5);
    }

    #[test]
    fn a_value_seen_as_a_trait_object_is_dropped_once_and_its_block_comes_back_though_it_panics() {
        struct Loud<'a>(&'a AtomicBool);
        impl Drop for Loud<'_> {
            fn drop(&mut self) {
                assert!(!self.0.swap(true, Ordering::Relaxed), "dropped twice");
                panic!("on purpose");
            }
        }
        trait Any {}
        impl<T> Any for T {}
        let (slabs, dropped) = (Slabs::default(), AtomicBool::new(false));
        let placed = slabs.place(Loud(&dropped)).seen_as(|loud| loud as &mut (dyn Any + '_));
        let at = placed.value.addr();
        assert!(catch_unwind(AssertUnwindSafe(|| drop(placed))).is_err());
        assert!(dropped.load(Ordering::Relaxed));
        assert_eq!(slabs.place(0_u64).value.addr(), at);
    }

    #[test]
    #[should_panic(expected = "a view of the value itself")]
    fn a_view_of_something_else_is_refused() {
        drop(Slabs::default().place([1_u64, 2]).seen_as(|_| Box::leak(Box::new([3_u64, 4]))));
    }
}
