//! A chunk of a list: up to 64 cells, filled once, and the mask through which one version sees them.

use std::ptr;

use super::cells::Cells;
use super::{Entry, Identified};
use crate::message::{Filter, Message};
use crate::sync::Arc;
use crate::sync::plain::{AtomicBool, Ordering};

/// Cells of a full chunk: the bits of a mask.
pub(super) const CHUNK: usize = 64;

/// Cells filled from the front, once and for all.
pub(super) struct Chunk<M: Identified> {
    pub(super) cells: Cells<Entry<M>>,
    /// Not all of them have the filter of the first. Set before a cell that differs is filled.
    pub(super) mixed: AtomicBool,
}

impl<M: Identified> Chunk<M> {
    /// A chunk of these members with room for `room` in all.
    pub(super) fn new(entries: impl IntoIterator<Item = Entry<M>>, room: usize) -> Self {
        let cells = Cells::new(entries, room);
        let mixed = cells.get().windows(2).any(|two| two[0].filter != two[1].filter);
        Self { cells, mixed: AtomicBool::new(mixed) }
    }

    pub(super) fn id_at(&self, index: usize) -> Option<u64> {
        self.cells.get().get(index).map(|entry| entry.id())
    }

    /// The entries in the cells of a mask.
    pub(super) fn entries(&self, mut mask: u64) -> impl Iterator<Item = &Entry<M>> {
        let entries = self.cells.get();
        std::iter::from_fn(move || {
            let index = (mask != 0).then(|| mask.trailing_zeros())?;
            mask &= mask - 1;
            entries.get(index as usize)
        })
    }

    /// Those of the cells in `mask` that accept the message.
    #[inline(never)]
    pub(super) fn accepting(&self, mask: u64, message: &Message) -> u64 {
        // Relaxed: a version that sees a cell that differs was published after the mark was set.
        if !self.mixed.load(Ordering::Relaxed) {
            return if self.cells.get().first().is_some_and(|entry| entry.accepts(message)) { mask } else { 0 };
        }
        let entries = self.cells.get();
        let (mut left, mut accepting) = (mask, 0);
        // Neighbours mostly share a filter: its verdict is kept.
        let (mut last, mut verdict): (*const Filter, bool) = (ptr::null(), true);
        while left != 0 {
            let index = left.trailing_zeros();
            if let Some(entry) = entries.get(index as usize) {
                let filter = entry.filter.as_ref().map_or(ptr::null(), Arc::as_ptr);
                if filter != last {
                    (last, verdict) = (filter, entry.accepts(message));
                }
                accepting |= u64::from(verdict) << index;
            }
            left &= left - 1;
        }
        accepting
    }

    /// Fills a cell; `None` if it is not free.
    pub(super) fn fill(&self, index: usize, entry: Entry<M>) -> Option<()> {
        if self.cells.get().first().is_some_and(|first| first.filter != entry.filter) {
            self.mixed.store(true, Ordering::Relaxed);
        }
        self.cells.fill(index, entry)
    }

    /// Whether a cell was never used.
    pub(super) fn has_room(&self) -> bool {
        self.filled() < self.cells.room()
    }

    /// Cells in use, by whatever version.
    pub(super) fn filled(&self) -> usize {
        self.cells.get().len()
    }
}

/// A chunk as one version sees it.
pub(super) struct Strand<M: Identified> {
    pub(super) chunk: Arc<Chunk<M>>,
    pub(super) live: u64,
}

impl<M: Identified> Clone for Strand<M> {
    fn clone(&self) -> Self {
        Self { chunk: Arc::clone(&self.chunk), live: self.live }
    }
}

impl<M: Identified> Strand<M> {
    pub(super) fn new(entries: Vec<Entry<M>>, room: usize) -> Self {
        let live = u64::MAX.checked_shr((CHUNK - entries.len()) as u32).unwrap_or(0);
        Self { chunk: Arc::new(Chunk::new(entries, room)), live }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<M>> {
        self.chunk.entries(self.live)
    }
}
