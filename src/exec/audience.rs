//! Who gets a message on one lane: a copy-on-write list of members with their filters, in chunks.
//!
//! ```text
//!   version 1: spine ─► [chunk A: 128][chunk B: a b c . .]   sees 3 of B
//!   version 2: spine ─► same chunks                           sees 4 of B: d was added in place
//!   version 3: spine'─► [chunk A][chunk B': a b d]            c taken out: one chunk copied
//! ```
//!
//! Members stand in the order of their ids. Adding at the end writes into free room that older
//! versions do not look at; anything else copies one chunk and the spine. So adding the 100,000th
//! member copies nothing, and taking one out copies 128 entries and a list of pointers.
//!
//! Guarantees: a version never changes for those who read it; a member stands in a version at most
//! once; what `interest` rejects, every member's filter rejects. Cost: add O(1) amortised, remove
//! O(128 + n/128), walk 2-3 ns a member.

use std::ptr;
use std::sync::OnceLock;

use crate::message::{Filter, Interest, Message};
use crate::sync::Arc;

/// Members of a full chunk.
const CHUNK: usize = 128;
/// Above this many members the interest after a removal may stay too wide for a while.
const EXACT: usize = 256;

/// What stands in a list: something with an id.
pub(crate) trait Identified {
    /// Unique, and larger for later ones.
    fn id(&self) -> u64;
}

/// A member and what it accepts (`None`: everything).
pub(crate) struct Entry<M> {
    pub(crate) member: Arc<M>,
    pub(crate) filter: Option<Arc<Filter>>,
}

impl<M> Clone for Entry<M> {
    fn clone(&self) -> Self {
        Self { member: Arc::clone(&self.member), filter: self.filter.clone() }
    }
}

impl<M> Entry<M> {
    #[inline]
    pub(crate) fn accepts(&self, message: &Message) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.accepts(message))
    }
}

struct Chunk<M>(Box<[OnceLock<Entry<M>>]>);

impl<M: Identified> Chunk<M> {
    /// A chunk of these members with room for `room` in all.
    fn new(entries: impl IntoIterator<Item = Entry<M>>, room: usize) -> Self {
        let mut slots: Vec<_> = entries.into_iter().map(OnceLock::from).collect();
        slots.resize_with(room.max(slots.len()), OnceLock::new);
        Self(slots.into())
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<M>> {
        self.0.iter().map_while(OnceLock::get)
    }

    fn first_id(&self) -> u64 {
        self.0.first().and_then(OnceLock::get).map_or(u64::MAX, |entry| entry.member.id())
    }
}

/// Where a walk stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    chunk: u32,
    index: u32,
}

/// A walk over the members that accept one message.
pub(crate) struct Scan<'a, M> {
    audience: &'a Audience<M>,
    /// The chunk the cursor is in.
    slots: &'a [OnceLock<Entry<M>>],
    cursor: Cursor,
    /// Neighbours often share a filter: its verdict is kept.
    last_filter: *const Filter,
    last_verdict: bool,
}

impl<'a, M: Identified> Scan<'a, M> {
    /// The next member that accepts the message.
    #[inline(always)]
    pub(crate) fn next(&mut self, message: &Message) -> Option<&'a Arc<M>> {
        loop {
            while let Some(entry) = self.slots.get(self.cursor.index as usize).and_then(OnceLock::get) {
                self.cursor.index += 1;
                let filter = entry.filter.as_ref().map_or(ptr::null(), Arc::as_ptr);
                if filter != self.last_filter {
                    self.last_filter = filter;
                    self.last_verdict = entry.accepts(message);
                }
                if self.last_verdict {
                    return Some(&entry.member);
                }
            }
            self.cursor = Cursor { chunk: self.cursor.chunk + 1, index: 0 };
            self.slots = self.audience.slots(self.cursor.chunk);
            if self.slots.is_empty() {
                return None;
            }
        }
    }

    /// Where the walk stands: behind the member it gave last.
    #[inline(always)]
    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }
}

/// One version of the list.
pub(crate) struct Audience<M> {
    chunks: Arc<[Arc<Chunk<M>>]>,
    /// Members of the last chunk that this version sees; it sees all of the others.
    last: usize,
    len: usize,
    interest: Interest,
    /// Removals since `interest` was exact.
    widened: usize,
}

impl<M: Identified> Audience<M> {
    /// Nobody.
    pub(crate) fn empty() -> Self {
        Self { chunks: Arc::new([]), last: 0, len: 0, interest: Interest::default(), widened: 0 }
    }

    /// A list of these members.
    pub(crate) fn from_entries(mut entries: Vec<Entry<M>>) -> Self {
        entries.sort_by_key(|entry| entry.member.id());
        entries.dedup_by_key(|entry| entry.member.id());
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(CHUNK));
        let mut last = 0;
        let mut rest = entries.into_iter().peekable();
        while rest.peek().is_some() {
            let part: Vec<_> = rest.by_ref().take(CHUNK).collect();
            last = part.len();
            chunks.push(Arc::new(Chunk::new(part, 0)));
        }
        let mut list = Self { chunks: chunks.into(), last, len, interest: Interest::default(), widened: 0 };
        list.measure_interest();
        list
    }

    fn measure_interest(&mut self) {
        let mut interest = Interest::default();
        for entry in self.iter() {
            interest.add(entry.filter.as_deref());
        }
        self.interest = interest;
        self.widened = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What any member may accept.
    #[inline]
    pub(crate) fn interest(&self) -> &Interest {
        &self.interest
    }

    fn visible<'a>(&self, at: usize, chunk: &'a Chunk<M>) -> &'a [OnceLock<Entry<M>>] {
        if at + 1 == self.chunks.len() { &chunk.0[..self.last] } else { &chunk.0 }
    }

    /// All members in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<M>> {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| self.visible(at, chunk).iter().map_while(OnceLock::get))
    }

    /// A walk over the members from `cursor` on.
    #[inline]
    pub(crate) fn scan(&self, cursor: Cursor) -> Scan<'_, M> {
        Scan { audience: self, slots: self.slots(cursor.chunk), cursor, last_filter: ptr::null(), last_verdict: true }
    }

    #[inline]
    fn slots(&self, chunk: u32) -> &[OnceLock<Entry<M>>] {
        self.chunks.get(chunk as usize).map_or(&[], |slots| self.visible(chunk as usize, slots))
    }

    fn locate(&self, id: u64) -> Option<(usize, usize)> {
        let at = self.chunks.partition_point(|chunk| chunk.first_id() <= id).checked_sub(1)?;
        let slots = self.visible(at, &self.chunks[at]);
        let filled = slots.partition_point(|slot| slot.get().is_some());
        let index = slots[..filled]
            .binary_search_by_key(&id, |slot| slot.get().map_or(u64::MAX, |entry| entry.member.id()))
            .ok()?;
        Some((at, index))
    }

    /// The entry of a member.
    pub(crate) fn get(&self, id: u64) -> Option<&Entry<M>> {
        let (chunk, index) = self.locate(id)?;
        self.chunks[chunk].0[index].get()
    }

    /// A version with these members too. Those already in it stay as they are.
    pub(crate) fn with(&self, added: &[Entry<M>]) -> Self {
        if let [entry] = added
            && let Some(version) = self.with_last(entry)
        {
            return version;
        }
        let mut entries: Vec<_> = self.iter().cloned().collect();
        entries.extend(added.iter().filter(|entry| self.get(entry.member.id()).is_none()).cloned());
        Self::from_entries(entries)
    }

    /// The quick way for a member newer than all others.
    fn with_last(&self, entry: &Entry<M>) -> Option<Self> {
        let newest = self.chunks.last().and_then(|chunk| chunk.0[self.last - 1].get());
        if newest.is_some_and(|newest| newest.member.id() >= entry.member.id()) {
            return None;
        }
        let mut entry = entry.clone();
        // Neighbours with equal filters share one: a walk then tests it once.
        if let Some(same) = newest.filter(|newest| newest.filter == entry.filter) {
            entry.filter.clone_from(&same.filter);
        }
        let (chunks, last) = self.appended(&entry);
        let mut interest = self.interest.clone();
        interest.add(entry.filter.as_deref());
        Some(Self { chunks, last, len: self.len + 1, interest, widened: self.widened })
    }

    fn appended(&self, entry: &Entry<M>) -> (Arc<[Arc<Chunk<M>>]>, usize) {
        let Some((tail, before)) = self.chunks.split_last() else {
            return (Arc::new([Arc::new(Chunk::new([entry.clone()], 1))]), 1);
        };
        // Free room that no version has used: the cell is set once and for all.
        if let Some(slot) = tail.0.get(self.last)
            && slot.set(entry.clone()).is_ok()
        {
            return (Arc::clone(&self.chunks), self.last + 1);
        }
        if self.last == CHUNK {
            let fresh = Arc::new(Chunk::new([entry.clone()], CHUNK));
            return (self.chunks.iter().cloned().chain([fresh]).collect(), 1);
        }
        // The room is used by a version that was given up, or too small: copy with more room.
        let members = self.visible(before.len(), tail).iter().filter_map(OnceLock::get).cloned();
        let room = (2 * self.last).clamp(4, CHUNK);
        let copy = Arc::new(Chunk::new(members.chain([entry.clone()]), room));
        (before.iter().cloned().chain([copy]).collect(), self.last + 1)
    }

    /// A version without this member; `None` if it is not in.
    pub(crate) fn without(&self, id: u64) -> Option<Self> {
        self.rewritten(id, None)
    }

    /// A version in which this member has another filter; `None` if it is not in.
    pub(crate) fn refiltered(&self, id: u64, filter: Option<Arc<Filter>>) -> Option<Self> {
        let member = Arc::clone(&self.get(id)?.member);
        self.rewritten(id, Some(Entry { member, filter }))
    }

    fn rewritten(&self, id: u64, replacement: Option<Entry<M>>) -> Option<Self> {
        let (at, index) = self.locate(id)?;
        let removed = replacement.is_none();
        let mut members: Vec<_> =
            self.visible(at, &self.chunks[at]).iter().filter_map(OnceLock::get).cloned().collect();
        match replacement {
            Some(entry) => members[index] = entry,
            None => drop(members.remove(index)),
        }
        let mut chunks: Vec<_> = self.chunks.to_vec();
        if members.is_empty() {
            chunks.remove(at);
        } else {
            chunks[at] = Arc::new(Chunk::new(members, 0));
        }
        let last = match chunks.last() {
            None => 0,
            Some(_) if at + 1 < self.chunks.len() => self.last,
            Some(tail) => tail.entries().count(),
        };
        let len = self.len - usize::from(removed);
        let mut version =
            Self { chunks: chunks.into(), last, len, interest: self.interest.clone(), widened: self.widened + 1 };
        if !removed || len <= EXACT || version.widened > len / 4 {
            version.measure_interest();
        }
        Some(version)
    }
}

impl<M> std::fmt::Debug for Audience<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").field("len", &self.len).finish_non_exhaustive()
    }
}
