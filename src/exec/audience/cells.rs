//! Cells that are filled one after the other, once, while others read those before.
//!
//! Guarantees: what is filled stays as it is until the cells are dropped. Cost of looking: a load. Memory: that of the
//! values (a row of `OnceLock` takes a third more, and asks each cell whether it is filled).
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::{ptr, slice};

use crate::sync::plain::{AtomicBool, AtomicUsize, Ordering};

/// See the module.
pub(super) struct Cells<T> {
    cells: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// So many from the front are filled.
    filled: AtomicUsize,
    /// Somebody fills one.
    filling: AtomicBool,
}

// SAFETY: as a `Vec` that threads share, and `fill` takes values in from any of them: a cell is written by the only
// one who fills, before `filled` counts it, and read after that.
unsafe impl<T: Send + Sync> Sync for Cells<T> {}

impl<T> Cells<T> {
    /// Cells with these values, and free ones behind them, `room` in all.
    pub(super) fn new(values: impl IntoIterator<Item = T>, room: usize) -> Self {
        let mut cells: Vec<_> = values.into_iter().map(|value| UnsafeCell::new(MaybeUninit::new(value))).collect();
        let filled = AtomicUsize::new(cells.len());
        cells.resize_with(room.max(cells.len()), || UnsafeCell::new(MaybeUninit::uninit()));
        Self { cells: cells.into(), filled, filling: AtomicBool::new(false) }
    }

    /// The filled ones.
    #[inline]
    pub(super) fn get(&self) -> &[T] {
        // Acquire: meets the Release in `fill`.
        let filled = self.filled.load(Ordering::Acquire);
        // SAFETY: so many are filled, and are written no more; the wrappers have the layout of what is in them.
        unsafe { slice::from_raw_parts(self.cells.as_ptr().cast(), filled) }
    }

    /// Filled or not.
    pub(super) fn room(&self) -> usize {
        self.cells.len()
    }

    /// Fills the next cell; `None` if it is not the one at `index`, or somebody else is filling one.
    pub(super) fn fill(&self, index: usize, value: T) -> Option<()> {
        // Acquire: who filled one before has counted it.
        if self.filling.swap(true, Ordering::Acquire) {
            return None;
        }
        let free = (self.filled.load(Ordering::Relaxed) == index).then(|| self.cells.get(index)).flatten();
        if let Some(cell) = free {
            // SAFETY: nobody reads a cell that is not counted, and we are the only one who fills.
            unsafe { (*cell.get()).write(value) };
            // Release: who counts it sees it.
            self.filled.store(index + 1, Ordering::Release);
        }
        self.filling.store(false, Ordering::Release);
        free.map(|_| ())
    }
}

impl<T> Drop for Cells<T> {
    fn drop(&mut self) {
        let filled = ptr::slice_from_raw_parts_mut(self.cells.as_mut_ptr().cast::<T>(), *self.filled.get_mut());
        // SAFETY: so many are filled, and dropped here only. (As a slice: it goes on if a destructor panics.)
        unsafe { ptr::drop_in_place(filled) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn cells_are_filled_from_the_front_and_dropped_once() {
        let values: Vec<_> = (0..5).map(Arc::new).collect();
        let cells = Cells::new(values[..2].iter().cloned(), 4);
        assert_eq!((cells.get().len(), cells.room()), (2, 4));
        assert_eq!(cells.fill(3, Arc::clone(&values[3])), None, "not the next");
        assert_eq!(cells.fill(1, Arc::clone(&values[3])), None, "filled already");
        let before = cells.get();
        assert_eq!(cells.fill(2, Arc::clone(&values[2])), Some(()));
        assert_eq!(cells.fill(3, Arc::clone(&values[3])), Some(()));
        assert_eq!(cells.fill(4, Arc::clone(&values[4])), None, "no room");
        assert_eq!((before, cells.get()), (&values[..2], &values[..4]));
        drop(cells);
        assert!(values.iter().all(|value| Arc::strong_count(value) == 1));
        assert_eq!(Cells::new(values, 0).room(), 5);
    }

    #[test]
    fn what_is_counted_is_seen_whole() {
        let cells = Cells::new([], 64);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut index = 0;
                    while index < 64 {
                        index += usize::from(cells.fill(index, Box::new(index)).is_some() || cells.get().len() > index);
                    }
                });
            }
            while cells.get().len() < 64 {
                assert!(cells.get().iter().enumerate().all(|(index, value)| **value == index));
            }
        });
    }
}
