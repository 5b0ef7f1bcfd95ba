//! A list of one chunk as a row of members, found without the pointers between list and members.
//!
//! Most lists are so: some neighbours, nobody gone. A walk through one reads the list's own line and then the members',
//! where strand, chunk and cells would be three lines more, each known only when the one before has come.
//!
//! Guarantees: the row is that of the version it was made for; cost: two loads.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::chunk::Chunk;
use super::{Entry, Identified};
use crate::sync::Arc;

/// The first cells of a chunk.
pub(super) struct Front<M: Identified> {
    row: NonNull<[Entry<M>]>,
    /// Keeps the row alive.
    _chunk: Arc<Chunk<M>>,
}

// SAFETY: what is behind the pointer is shared as through the chunk.
unsafe impl<M: Identified> Send for Front<M> where Arc<Chunk<M>>: Send {}
// SAFETY: as above.
unsafe impl<M: Identified> Sync for Front<M> where Arc<Chunk<M>>: Sync {}

impl<M: Identified> Front<M> {
    /// Of a chunk seen through this mask; `None` if that is not just its first cells, or nobody.
    pub(super) fn of(chunk: &Arc<Chunk<M>>, live: u64) -> Option<Self> {
        let len = live.trailing_ones();
        if len == 0 || live.count_ones() != len {
            return None;
        }
        let row = NonNull::from(chunk.cells.get().get(..len as usize)?);
        Some(Self { row, _chunk: Arc::clone(chunk) })
    }

    #[inline]
    pub(super) fn row(&self) -> &[Entry<M>] {
        // SAFETY: filled cells of our chunk, which does not write, move or drop them as long as it lives.
        unsafe { self.row.as_ref() }
    }
}
