//! A chunk of a list: up to 64 cells, filled once, and the mask through which one version sees them.

use std::ptr;
use std::sync::OnceLock;

use super::{Entry, Identified};
use crate::message::{Filter, Message};
use crate::sync::Arc;
use crate::sync::plain::{AtomicBool, Ordering};

/// Cells of a full chunk: the bits of a mask.
pub(super) const CHUNK: usize = 64;

/// Cells filled from the front, once and for all.
pub(super) struct Chunk<M: Identified> {
    pub(super) cells: Box<[OnceLock<Entry<M>>]>,
    /// Not all of them have the filter of the first. Set before a cell that differs is filled.
    pub(super) mixed: AtomicBool,
}

impl<M: Identified> Chunk<M> {
    /// A chunk of these members with room for `room` in all.
    pub(super) fn new(entries: impl IntoIterator<Item = Entry<M>>, room: usize) -> Self {
        let mut cells: Vec<_> = entries.into_iter().map(OnceLock::from).collect();
        let filter = |cell: &OnceLock<Entry<M>>| cell.get().and_then(|entry| entry.filter.clone());
        let mixed = cells.windows(2).any(|two| filter(&two[0]) != filter(&two[1]));
        cells.resize_with(room.max(cells.len()), OnceLock::new);
        Self { cells: cells.into(), mixed: AtomicBool::new(mixed) }
    }

    pub(super) fn id_at(&self, index: usize) -> Option<u64> {
        self.cells.get(index).and_then(OnceLock::get).map(|entry| entry.member().id())
    }

    /// The entries in the cells of a mask.
    pub(super) fn entries(&self, mut mask: u64) -> impl Iterator<Item = &Entry<M>> {
        std::iter::from_fn(move || {
            let index = (mask != 0).then(|| mask.trailing_zeros())?;
            mask &= mask - 1;
            self.cells[index as usize].get()
        })
    }

    /// Those of the cells in `mask` that accept the message.
    #[inline(never)]
    pub(super) fn accepting(&self, mask: u64, message: &Message) -> u64 {
        // Relaxed: a version that sees a cell that differs was published after the mark was set.
        if !self.mixed.load(Ordering::Relaxed) {
            let first = self.cells.first().and_then(OnceLock::get);
            return if first.is_some_and(|entry| entry.accepts(message)) { mask } else { 0 };
        }
        let (mut left, mut accepting) = (mask, 0);
        // Neighbours mostly share a filter: its verdict is kept.
        let (mut last, mut verdict): (*const Filter, bool) = (ptr::null(), true);
        while left != 0 {
            let index = left.trailing_zeros();
            if let Some(entry) = self.cells.get(index as usize).and_then(OnceLock::get) {
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
        let first = self.cells.first()?.get();
        if first.is_some_and(|first| first.filter != entry.filter) {
            self.mixed.store(true, Ordering::Relaxed);
        }
        self.cells.get(index)?.set(entry).ok()
    }

    /// Whether a cell was never used.
    pub(super) fn has_room(&self) -> bool {
        self.cells.last().is_some_and(|cell| cell.get().is_none())
    }

    /// Cells in use, by whatever version.
    pub(super) fn filled(&self) -> usize {
        self.cells.partition_point(|cell| cell.get().is_some())
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
