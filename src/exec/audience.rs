//! Who gets a message on one lane: a copy-on-write list of members with their filters, in chunks.
//!
//! ```text
//!   version 1: spine ─► [chunk A: 64][chunk B: a b c . .]   live in B: 1 1 1
//!   version 2: spine ─► same chunks                          live in B: 1 1 1 1   d added in place
//!   version 3: spine ─► same chunks                          live in B: 1 0 1 1   b taken out
//! ```
//!
//! A version is a list of chunks and, for each, a mask of the cells it sees. Adding at the end writes
//! into a free cell that no older version looks at; taking out clears a bit. Entries are copied only to
//! compact a chunk that has become mostly dead, so coming and going costs O(1) amortised and touches
//! no other member. Members stand in the order of their ids.
//!
//! Guarantees: a version never changes for those who read it; a member stands in a version at most
//! once; what `interest` rejects, every member's filter rejects. Memory: 24 bytes a member; what was
//! taken out stays (without handler) until its chunk is compacted, at most three for one that lives.
//! Cost: walk 2-3 ns a member; take out O(n/64) pointers.

use std::ops::ControlFlow;
use std::ptr;
use std::sync::OnceLock;

use crate::message::{Filter, Interest, Message};
use crate::sync::Arc;
use crate::sync::plain::{AtomicBool, Ordering};

/// Cells of a full chunk: the bits of a mask.
const CHUNK: usize = 64;
/// Cells of a new chunk, at least.
const ROOM: usize = 4;
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

/// Cells filled from the front, once and for all.
struct Chunk<M> {
    cells: Box<[OnceLock<Entry<M>>]>,
    /// Not all of them have the filter of the first. Set before a cell that differs is filled.
    mixed: AtomicBool,
}

impl<M: Identified> Chunk<M> {
    /// A chunk of these members with room for `room` in all.
    fn new(entries: impl IntoIterator<Item = Entry<M>>, room: usize) -> Self {
        let mut cells: Vec<_> = entries.into_iter().map(OnceLock::from).collect();
        let filter = |cell: &OnceLock<Entry<M>>| cell.get().and_then(|entry| entry.filter.clone());
        let mixed = cells.windows(2).any(|two| filter(&two[0]) != filter(&two[1]));
        cells.resize_with(room.max(cells.len()), OnceLock::new);
        Self { cells: cells.into(), mixed: AtomicBool::new(mixed) }
    }

    fn id_at(&self, index: usize) -> Option<u64> {
        self.cells.get(index).and_then(OnceLock::get).map(|entry| entry.member.id())
    }

    /// The entries in the cells of a mask.
    fn entries(&self, mut mask: u64) -> impl Iterator<Item = &Entry<M>> {
        std::iter::from_fn(move || {
            let index = (mask != 0).then(|| mask.trailing_zeros())?;
            mask &= mask - 1;
            self.cells[index as usize].get()
        })
    }

    /// Those of the cells in `mask` that accept the message.
    #[inline(never)]
    fn accepting(&self, mask: u64, message: &Message) -> u64 {
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
    fn fill(&self, index: usize, entry: Entry<M>) -> Option<()> {
        let first = self.cells.first()?.get();
        if first.is_some_and(|first| first.filter != entry.filter) {
            self.mixed.store(true, Ordering::Relaxed);
        }
        self.cells.get(index)?.set(entry).ok()
    }

    /// Cells in use, by whatever version.
    fn filled(&self) -> usize {
        self.cells.partition_point(|cell| cell.get().is_some())
    }
}

/// A chunk as one version sees it.
struct Strand<M> {
    chunk: Arc<Chunk<M>>,
    live: u64,
}

impl<M> Clone for Strand<M> {
    fn clone(&self) -> Self {
        Self { chunk: Arc::clone(&self.chunk), live: self.live }
    }
}

impl<M: Identified> Strand<M> {
    fn new(entries: Vec<Entry<M>>, room: usize) -> Self {
        let live = u64::MAX.checked_shr((CHUNK - entries.len()) as u32).unwrap_or(0);
        Self { chunk: Arc::new(Chunk::new(entries, room)), live }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<M>> {
        self.chunk.entries(self.live)
    }
}

/// Where a walk stands: 64 times the strand, plus the cell. One word, because every delivery stores it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor(usize);

impl Cursor {
    fn new(strand: usize, cell: usize) -> Self {
        Self(strand * CHUNK + cell)
    }

    fn strand(self) -> usize {
        self.0 / CHUNK
    }

    fn cell(self) -> usize {
        self.0 % CHUNK
    }
}

/// One version of the list.
pub(crate) struct Audience<M> {
    strands: Arc<[Strand<M>]>,
    /// The mask of the last strand, in place of the one in `strands`: adding changes only this.
    last_live: u64,
    len: usize,
    interest: Interest,
    /// Removals since `interest` was exact.
    widened: usize,
    /// All members have the same filter, and what it accepts is what `interest` covers.
    alike: bool,
}

/// Whether the interest of this filter alone is all it takes to decide.
fn is_precise(filter: Option<&Arc<Filter>>) -> bool {
    filter.is_none_or(|filter| filter.is_precise())
}

impl<M: Identified> Audience<M> {
    /// Nobody.
    pub(crate) fn empty() -> Self {
        Self { strands: Arc::new([]), last_live: 0, len: 0, interest: Interest::default(), widened: 0, alike: true }
    }

    /// A list of these members.
    pub(crate) fn from_entries(mut entries: Vec<Entry<M>>) -> Self {
        entries.sort_by_key(|entry| entry.member.id());
        entries.dedup_by_key(|entry| entry.member.id());
        let len = entries.len();
        let mut strands = Vec::with_capacity(len.div_ceil(CHUNK));
        let mut rest = entries.into_iter().peekable();
        while rest.peek().is_some() {
            strands.push(Strand::new(rest.by_ref().take(CHUNK).collect(), 0));
        }
        let mut version = Self::empty();
        version.set_strands(strands);
        version.len = len;
        version.measure_interest();
        version
    }

    fn set_strands(&mut self, strands: Vec<Strand<M>>) {
        self.last_live = strands.last().map_or(0, |strand| strand.live);
        self.strands = strands.into();
    }

    fn measure_interest(&mut self) {
        let mut interest = Interest::default();
        for (chunk, live) in (0..self.strands.len()).filter_map(|at| self.strand(at)) {
            let mut last: *const Filter = ptr::null();
            // Relaxed: set before a cell that differs is filled, by who holds the control lock.
            let all_alike = !chunk.mixed.load(Ordering::Relaxed);
            for entry in chunk.entries(live).take(if all_alike { 1 } else { CHUNK }) {
                let filter = entry.filter.as_ref().map_or(ptr::null(), Arc::as_ptr);
                if filter.is_null() || filter != last {
                    interest.add(entry.filter.as_deref());
                }
                last = filter;
            }
        }
        self.interest = interest;
        self.widened = 0;
        self.alike = self.are_alike();
    }

    fn are_alike(&self) -> bool {
        let first = self.iter().next().and_then(|first| first.filter.as_ref());
        let mut chunks = (0..self.strands.len()).filter_map(|at| self.strand(at));
        is_precise(first)
            && chunks.all(|(chunk, live)| {
                // Relaxed: as above.
                !chunk.mixed.load(Ordering::Relaxed)
                    && chunk.entries(live).next().is_none_or(|entry| entry.filter.as_ref() == first)
            })
    }

    /// Whether all are alike with this one too.
    fn alike_with(&self, entry: &Entry<M>) -> bool {
        is_precise(entry.filter.as_ref())
            && self.alike
            && self.iter().next().is_none_or(|first| first.filter == entry.filter)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What any member may accept.
    #[inline]
    pub(crate) fn interest(&self) -> &Interest {
        &self.interest
    }

    #[inline]
    fn strand(&self, at: usize) -> Option<(&Chunk<M>, u64)> {
        let strand = self.strands.get(at)?;
        Some((&strand.chunk, if at + 1 == self.strands.len() { self.last_live } else { strand.live }))
    }

    /// The strands with their true masks.
    fn true_strands(&self) -> Vec<Strand<M>> {
        let mut strands = self.strands.to_vec();
        if let Some(last) = strands.last_mut() {
            last.live = self.last_live;
        }
        strands
    }

    /// All members in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<M>> {
        (0..self.strands.len()).filter_map(|at| self.strand(at)).flat_map(|(chunk, live)| chunk.entries(live))
    }

    /// Calls `f` with each member that accepts the message and where it stands, from the first or from behind
    /// the one at `after`, until `f` says break. The message is one that [`interest`](Self::interest) covers.
    #[inline(always)]
    pub(crate) fn walk<'a>(
        &'a self,
        message: &Message,
        after: Option<Cursor>,
        mut f: impl FnMut(Cursor, &'a Arc<M>) -> ControlFlow<()>,
    ) {
        let (mut at, mut mask) = after.map_or((0, u64::MAX), |after| {
            (after.strand(), u64::MAX.checked_shl(after.cell() as u32 + 1).unwrap_or(0))
        });
        while let Some((chunk, live)) = self.strand(at) {
            let cells = &*chunk.cells;
            let mut left = if self.alike { live & mask } else { chunk.accepting(live & mask, message) };
            while left != 0 {
                let cell = left.trailing_zeros() as usize;
                left &= left - 1;
                if let Some(entry) = cells.get(cell).and_then(OnceLock::get)
                    && f(Cursor::new(at, cell), &entry.member).is_break()
                {
                    return;
                }
            }
            (at, mask) = (at + 1, u64::MAX);
        }
    }

    /// The member at a place.
    pub(crate) fn at(&self, cursor: Cursor) -> Option<&Arc<M>> {
        Some(&self.strand(cursor.strand())?.0.cells.get(cursor.cell())?.get()?.member)
    }

    /// Strand and cell of a member.
    fn locate(&self, id: u64) -> Option<(usize, usize)> {
        let first = |strand: &Strand<M>| strand.chunk.id_at(0).unwrap_or(u64::MAX);
        let at = self.strands.partition_point(|strand| first(strand) <= id).checked_sub(1)?;
        let (chunk, live) = self.strand(at)?;
        let index = chunk.cells[..chunk.filled()]
            .binary_search_by_key(&id, |cell| cell.get().map_or(u64::MAX, |entry| entry.member.id()))
            .ok()?;
        (live >> index & 1 == 1).then_some((at, index))
    }

    /// The entry of a member.
    pub(crate) fn get(&self, id: u64) -> Option<&Entry<M>> {
        let (at, index) = self.locate(id)?;
        self.strands[at].chunk.cells[index].get()
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
        let mut entry = entry.clone();
        let mut version = Self {
            strands: Arc::clone(&self.strands),
            last_live: self.last_live,
            len: self.len + 1,
            interest: self.interest.clone(),
            widened: self.widened,
            alike: self.alike_with(&entry),
        };
        version.interest.add(entry.filter.as_deref());
        let Some(last) = self.strands.last() else {
            version.set_strands(vec![Strand::new(vec![entry], 1)]);
            return Some(version);
        };
        let filled = last.chunk.filled();
        let newest = last.chunk.cells[filled - 1].get()?;
        if newest.member.id() >= entry.member.id() {
            // Made at the same time as others, and overtaken: a matter of the last chunk.
            return self.with_late(entry);
        }
        // Neighbours with equal filters share one: a walk then tests it once.
        if newest.filter == entry.filter {
            entry.filter.clone_from(&newest.filter);
        }
        if filled < last.chunk.cells.len() {
            // Versions follow one another under the control lock, so the cell is free.
            last.chunk.fill(filled, entry)?;
            version.last_live |= 1 << filled;
            return Some(version);
        }
        let mut strands = self.true_strands();
        let live = self.last_live.count_ones() as usize;
        if live > CHUNK / 2 {
            strands.push(Strand::new(vec![entry], ROOM));
        } else {
            // Small or mostly dead: a new chunk with room for as many again.
            let mut members: Vec<_> = strands.pop()?.entries().cloned().collect();
            members.push(entry);
            strands.push(Strand::new(members, (2 * live).clamp(ROOM, CHUNK)));
        }
        version.set_strands(strands);
        Some(version)
    }

    /// For a member that belongs among those of the last chunk.
    fn with_late(&self, entry: Entry<M>) -> Option<Self> {
        let mut strands = self.true_strands();
        let last = strands.pop()?;
        if self.get(entry.member.id()).is_some()
            || last.chunk.id_at(0)? >= entry.member.id()
            || last.live.count_ones() as usize == CHUNK
        {
            return None;
        }
        let mut members: Vec<_> = last.entries().cloned().collect();
        let mut version = Self::empty();
        version.interest = self.interest.clone();
        version.interest.add(entry.filter.as_deref());
        version.len = self.len + 1;
        version.widened = self.widened;
        version.alike = self.alike_with(&entry);
        members.push(entry);
        members.sort_by_key(|entry| entry.member.id());
        strands.push(Strand::new(members, 0));
        version.set_strands(strands);
        Some(version)
    }

    /// A version without this member; `None` if it is not in. `lean`: keeps nothing of it.
    pub(crate) fn without(&self, id: u64, lean: bool) -> Option<Self> {
        let (at, index) = self.locate(id)?;
        let mut strands = self.true_strands();
        let strand = &mut strands[at];
        strand.live &= !(1 << index);
        let live = strand.live.count_ones() as usize;
        // A dead cell keeps its entry: a member's shell is small, but a filter keeps types alive.
        let filter = strand.chunk.cells[index].get()?.filter.as_ref();
        let keeps_filter = filter.is_some_and(|filter| {
            !strand.entries().any(|other| other.filter.as_ref().is_some_and(|other| Arc::ptr_eq(other, filter)))
        });
        if live == 0 {
            strands.remove(at);
        } else if lean || keeps_filter || live * 4 < strand.chunk.filled() {
            let room = if at + 1 == strands.len() { (2 * live).clamp(ROOM, CHUNK) } else { 0 };
            let members: Vec<_> = strands[at].entries().cloned().collect();
            strands[at] = Strand::new(members, room);
        }
        let mut version = Self::empty();
        version.set_strands(strands);
        version.len = self.len - 1;
        version.interest = self.interest.clone();
        version.widened = self.widened + 1;
        version.alike = self.alike;
        if version.len <= EXACT || version.widened > version.len / 4 {
            version.measure_interest();
        }
        Some(version)
    }

    /// A version in which this member has another filter; `None` if it is not in.
    pub(crate) fn refiltered(&self, id: u64, filter: Option<Arc<Filter>>) -> Option<Self> {
        let (at, _) = self.locate(id)?;
        let mut strands = self.true_strands();
        let mut members: Vec<_> = strands[at].entries().cloned().collect();
        let entry = members.iter_mut().find(|entry| entry.member.id() == id)?;
        entry.filter = filter;
        strands[at] = Strand::new(members, 0);
        let mut version = Self::empty();
        version.set_strands(strands);
        version.len = self.len;
        version.measure_interest();
        Some(version)
    }
}

impl<M> std::fmt::Debug for Audience<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").field("len", &self.len).finish_non_exhaustive()
    }
}
