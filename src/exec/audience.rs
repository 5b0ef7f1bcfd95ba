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
//! taken out stays (without handler) until its chunk is compacted, at most three for one that lives
//! (and those of one chunk of 16 that nobody lives in).
//! Cost: walk 2-3 ns a member; take out O(n/64) pointers.

mod cells;
mod chunk;
mod entry;
mod front;

use std::ops::ControlFlow;
use std::ptr;

use crate::message::{Filter, Interest, Message};
use crate::sync::Arc;
use crate::sync::plain::Ordering;
use chunk::{CHUNK, Chunk, Strand};
pub(crate) use entry::Entry;
use front::Front;

/// Cells of a new chunk, at least: of the only one, and of one behind others.
const ROOM: usize = 4;
const ROOM_BEHIND: usize = 16;
/// Above this many members the interest after a removal may stay too wide for a while.
const EXACT: usize = 256;

/// What stands in a list: something with an id.
pub(crate) trait Identified: 'static {
    /// What a delivery touches of it.
    type Post;

    fn post(&self) -> &Self::Post;
    /// Unique, and larger for later ones.
    fn id_of(post: &Self::Post) -> u64;
    /// As [`id_of`](Self::id_of).
    #[inline]
    fn id(&self) -> u64 {
        Self::id_of(self.post())
    }
}

/// One version of the list.
pub(crate) struct Audience<M: Identified> {
    strands: Arc<[Strand<M>]>,
    /// The mask of the last strand, in place of the one in `strands`: adding changes only this.
    last_live: u64,
    len: usize,
    interest: Interest,
    /// Removals since `interest` was exact.
    widened: usize,
    /// All members have the same filter, and what it accepts is what `interest` covers.
    alike: bool,
    /// All members, if they are a row of neighbours that are alike: see [`ready`](Audience::ready).
    front: Option<Front<M>>,
}

/// The first row of neighbours among those in the mask, and the mask of the rest.
#[inline(always)]
fn next_row<T>(cells: &[T], mask: u64) -> (&[T], u64) {
    debug_assert!(mask.checked_shr(cells.len() as u32).is_none_or(|beyond| beyond == 0), "cells that are filled");
    if mask == u64::MAX.wrapping_shr((cells.len() as u32).wrapping_neg()) {
        return (cells, 0);
    }
    let begin = mask.trailing_zeros();
    let end = begin + (mask >> begin).trailing_ones();
    (cells.get(begin as usize..end as usize).unwrap_or_default(), mask & u64::MAX.checked_shl(end).unwrap_or(0))
}

/// Whether the interest of this filter alone is all it takes to decide.
fn is_precise(filter: Option<&Arc<Filter>>) -> bool {
    filter.is_none_or(|filter| filter.is_precise())
}

impl<M: Identified> Audience<M> {
    /// Nobody.
    pub(crate) fn empty() -> Self {
        Self {
            strands: Arc::new([]),
            last_live: 0,
            len: 0,
            interest: Interest::default(),
            widened: 0,
            alike: true,
            front: None,
        }
    }

    /// This version, ready to be walked often.
    pub(crate) fn ready(self) -> Self {
        let front = match &*self.strands {
            [strand] if self.alike => Front::of(&strand.chunk, self.last_live),
            _ => None,
        };
        Self { front, ..self }
    }

    /// A list of these members.
    pub(crate) fn from_entries(mut entries: Vec<Entry<M>>) -> Self {
        entries.sort_by_key(|entry| entry.id());
        entries.dedup_by_key(|entry| entry.id());
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

    /// The strands with their true masks, without one that nobody lives in.
    fn true_strands(&self) -> Vec<Strand<M>> {
        let mut strands = self.strands.to_vec();
        if let Some(last) = strands.last_mut() {
            last.live = self.last_live;
        }
        strands.pop_if(|last| last.live == 0);
        strands
    }

    /// As this version, but for how many it has and what follows from that.
    fn like(&self, len: usize) -> Self {
        Self {
            strands: Arc::clone(&self.strands),
            last_live: self.last_live,
            len,
            interest: self.interest.clone(),
            widened: self.widened,
            alike: self.alike,
            front: None,
        }
    }

    /// All members in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<M>> {
        (0..self.strands.len()).filter_map(|at| self.strand(at)).flat_map(|(chunk, live)| chunk.entries(live))
    }

    /// Calls `f` with those that accept the message, in rows of neighbours, from the first or from behind the member with
    /// the id `after`, until `f` says break. The message is one that [`interest`](Self::interest) covers.
    #[inline(always)]
    pub(crate) fn walk<'a>(
        &'a self,
        message: &Message,
        after: Option<u64>,
        mut f: impl FnMut(&'a [Entry<M>]) -> ControlFlow<()>,
    ) {
        match (&self.front, after) {
            (Some(front), None) => drop(f(front.row())),
            _ => self.walk_strands(message, after, f),
        }
    }

    /// As [`walk`](Self::walk), whatever the list is. A function of its own: its loops need the registers.
    #[inline(never)]
    fn walk_strands<'a>(
        &'a self,
        message: &Message,
        after: Option<u64>,
        mut f: impl FnMut(&'a [Entry<M>]) -> ControlFlow<()>,
    ) {
        let (mut at, mut mask) = after.map_or((0, u64::MAX), |after| self.behind(after));
        while let Some((chunk, live)) = self.strand(at) {
            let entries = chunk.cells.get();
            let mut left = if self.alike { live & mask } else { chunk.accepting(live & mask, message) };
            while left != 0 {
                let row;
                (row, left) = next_row(entries, left);
                if f(row).is_break() {
                    return;
                }
            }
            (at, mask) = (at + 1, u64::MAX);
        }
    }

    /// Calls `f` with each that accepts the message.
    pub(crate) fn for_each(&self, message: &Message, mut f: impl FnMut(&Arc<M>)) {
        self.walk(message, None, |row| {
            row.iter().for_each(|entry| f(entry.member()));
            ControlFlow::Continue(())
        });
    }

    /// The strand of a member, and the cells behind it.
    #[cold]
    fn behind(&self, id: u64) -> (usize, u64) {
        let Some((at, cell)) = self.locate(id) else {
            debug_assert!(false, "whoever is called stands in the list");
            return (self.strands.len(), 0);
        };
        (at, u64::MAX.checked_shl(cell as u32 + 1).unwrap_or(0))
    }

    /// Strand and cell of a member.
    fn locate(&self, id: u64) -> Option<(usize, usize)> {
        let first = |strand: &Strand<M>| strand.chunk.id_at(0).unwrap_or(u64::MAX);
        let at = self.strands.partition_point(|strand| first(strand) <= id).checked_sub(1)?;
        let (chunk, live) = self.strand(at)?;
        let index = chunk.cells.get().binary_search_by_key(&id, |entry| entry.id()).ok()?;
        (live >> index & 1 == 1).then_some((at, index))
    }

    /// The entry of a member.
    pub(crate) fn get(&self, id: u64) -> Option<&Entry<M>> {
        let (at, index) = self.locate(id)?;
        self.strands[at].chunk.cells.get().get(index)
    }

    /// A version with these members too. Those already in it stay as they are.
    pub(crate) fn with(&self, added: &[Entry<M>]) -> Self {
        if let [entry] = added
            && let Some(version) = self.with_last(entry)
        {
            return version;
        }
        let mut entries: Vec<_> = self.iter().cloned().collect();
        entries.extend(added.iter().filter(|entry| self.get(entry.id()).is_none()).cloned());
        Self::from_entries(entries)
    }

    /// The quick way for a member newer than all others.
    fn with_last(&self, entry: &Entry<M>) -> Option<Self> {
        let mut entry = entry.clone();
        let mut version = Self { alike: self.alike_with(&entry), ..self.like(self.len + 1) };
        version.interest.add(entry.filter.as_deref());
        let Some(last) = self.strands.last() else {
            version.set_strands(vec![Strand::new(vec![entry], 1)]);
            return Some(version);
        };
        let filled = last.chunk.filled();
        let newest = last.chunk.cells.get().last()?;
        if newest.id() >= entry.id() {
            // Made at the same time as others, and overtaken: a matter of the last chunk.
            return self.with_late(entry);
        }
        // Neighbours with equal filters share one: a walk then tests it once.
        let is_akin = newest.filter == entry.filter;
        if is_akin {
            entry.filter.clone_from(&newest.filter);
        }
        // In a strand nobody lives in all have the same filter: see `without`.
        if last.chunk.has_room() && (is_akin || self.last_live != 0) {
            // Versions follow one another under the control lock, so the cell is free.
            last.chunk.fill(filled, entry)?;
            version.last_live |= 1 << filled;
            return Some(version);
        }
        let mut strands = self.true_strands();
        let live = strands.last().map_or(0, |last| last.live.count_ones() as usize);
        if live > CHUNK / 2 {
            strands.push(Strand::new(vec![entry], ROOM_BEHIND));
        } else {
            // Small or mostly dead: a new chunk with room for as many again.
            let mut members: Vec<_> = strands.pop().iter().flat_map(Strand::entries).cloned().collect();
            members.push(entry);
            let least = if strands.is_empty() { ROOM } else { ROOM_BEHIND };
            strands.push(Strand::new(members, (2 * live).clamp(least, CHUNK)));
        }
        version.set_strands(strands);
        Some(version)
    }

    /// For a member that belongs among those of the last chunk.
    fn with_late(&self, entry: Entry<M>) -> Option<Self> {
        let mut strands = self.true_strands();
        let last = strands.pop()?;
        if self.get(entry.id()).is_some()
            || last.chunk.id_at(0)? >= entry.id()
            || last.live.count_ones() as usize == CHUNK
        {
            return None;
        }
        let mut members: Vec<_> = last.entries().cloned().collect();
        let mut version = Self { alike: self.alike_with(&entry), ..self.like(self.len + 1) };
        version.interest.add(entry.filter.as_deref());
        members.push(entry);
        members.sort_by_key(|entry| entry.id());
        strands.push(Strand::new(members, 0));
        version.set_strands(strands);
        Some(version)
    }

    /// A version without this member; `None` if it is not in. `lean`: keeps nothing of it.
    pub(crate) fn without(&self, id: u64, lean: bool) -> Option<Self> {
        let (at, index) = self.locate(id)?;
        let (chunk, live) = self.strand(at)?;
        let live = live & !(1 << index);
        let left = live.count_ones() as usize;
        let is_last = at + 1 == self.strands.len();
        let filter = chunk.cells.get()[index].filter.as_ref();
        // A dead cell keeps its entry: a member's shell is small, but a filter keeps types alive. So it is one that
        // another member has, in the same strand or, if nobody lives in it, in the one before: when that
        // member goes, the dead go too.
        let beside = if left > 0 { Some((chunk, live)) } else { at.checked_sub(1).and_then(|at| self.strand(at)) };
        let is_shared = filter.is_some_and(|filter| {
            let mut others = beside.iter().flat_map(|(chunk, live)| chunk.entries(*live));
            others.any(|other| other.filter.as_ref().is_some_and(|other| Arc::ptr_eq(other, filter)))
        });
        let is_dense = if left > 0 { left * 4 >= chunk.filled() } else { is_last && at > 0 && chunk.has_room() };
        let stays = is_dense && !lean && (is_shared || filter.is_none());
        let mut version = self.like(self.len - 1);
        if stays && is_last {
            version.last_live = live;
        } else {
            let mut strands = self.true_strands();
            if stays {
                strands[at].live = live;
            } else if left == 0 {
                strands.remove(at);
            } else {
                let room = if is_last { (2 * left).clamp(ROOM, CHUNK) } else { 0 };
                let members: Vec<_> = chunk.entries(live).cloned().collect();
                strands[at] = Strand::new(members, room);
            }
            version.set_strands(strands);
        }
        // One that stays accepts the same: nothing narrows.
        if !is_shared {
            version.widened += 1;
            if version.len <= EXACT || version.widened > version.len / 4 {
                version.measure_interest();
            }
        }
        Some(version)
    }

    /// A version in which this member has another filter; `None` if it is not in.
    pub(crate) fn refiltered(&self, id: u64, filter: Option<Arc<Filter>>) -> Option<Self> {
        let (at, _) = self.locate(id)?;
        let mut strands = self.true_strands();
        let mut members: Vec<_> = strands[at].entries().cloned().collect();
        let entry = members.iter_mut().find(|entry| entry.id() == id)?;
        entry.filter = filter;
        strands[at] = Strand::new(members, 0);
        let mut version = Self::empty();
        version.set_strands(strands);
        version.len = self.len;
        version.measure_interest();
        Some(version)
    }
}

impl<M: Identified> std::fmt::Debug for Audience<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::message::{FilterMode, MessageType};

    struct Numbered(u64);

    impl Identified for Numbered {
        type Post = Self;
        fn post(&self) -> &Self {
            self
        }
        fn id_of(post: &Self) -> u64 {
            post.0
        }
    }

    fn filter(kind: &MessageType<u64>) -> Filter {
        let mut filter = Filter::default();
        filter.accept(kind.as_ref());
        filter.set_mode(FilterMode::Selective);
        filter
    }

    fn entry(id: u64, filter: &Filter) -> Entry<Numbered> {
        Entry::new(Arc::new(Numbered(id)), Some(Arc::new(filter.clone())))
    }

    fn types() -> [MessageType<u64>; 2] {
        let bus = crate::Bus::builder().lanes(1).build().unwrap();
        ["one", "other"].map(|name| MessageType::new(&bus, name).unwrap())
    }

    fn ids(list: &Audience<Numbered>) -> Vec<u64> {
        list.iter().map(|entry| entry.member().id()).collect()
    }

    #[test]
    fn who_comes_and_goes_behind_a_full_chunk_uses_one_chunk() {
        let [kind, _] = types();
        let filter = filter(&kind);
        let mut list = Audience::from_entries((0..CHUNK as u64).map(|id| entry(id, &filter)).collect());
        let mut chunks = Vec::new();
        for id in 64..64 + 10 * ROOM_BEHIND as u64 {
            list = list.with(&[entry(id, &filter)]);
            assert_eq!(ids(&list).last(), Some(&id));
            chunks.push(Arc::as_ptr(&list.strands.last().unwrap().chunk));
            list = list.without(id, false).unwrap();
            assert!(list.len() == CHUNK && list.get(id).is_none() && ids(&list) == Vec::from_iter(0..64));
        }
        chunks.dedup();
        assert!(chunks.len() <= 11, "{} chunks for {} members", chunks.len(), 10 * ROOM_BEHIND);
    }

    #[test]
    fn a_list_keeps_no_filter_of_those_who_are_gone() {
        let [one, other] = types();
        let (mine, theirs) = (filter(&one), filter(&other));
        // A full chunk: one member with `mine` in it, all others with `theirs`.
        let members = (0..CHUNK as u64).map(|id| entry(id, if id == 63 { &mine } else { &theirs }));
        let mut list = Audience::empty();
        for member in members {
            list = list.with(&[member]);
        }
        let held = Arc::downgrade(list.get(63).unwrap().filter.as_ref().unwrap());
        // Comes and goes behind it, with the filter of its neighbour.
        list = list.with(&[entry(64, &mine)]);
        list = list.without(64, false).unwrap();
        assert_eq!(list.strands.len(), 2, "nobody lives in the second");
        assert_eq!(held.strong_count(), 2, "the neighbour's, and the dead cell's");
        let gone = list.without(63, false).unwrap();
        drop(list);
        assert_eq!(held.strong_count(), 0, "nobody has it any more");
        assert_eq!(ids(&gone), Vec::from_iter(0..63));
        // One with another filter does not join the dead.
        let mut list = gone.with(&[entry(65, &theirs)]).with(&[entry(66, &mine)]).without(66, false).unwrap();
        list = list.with(&[entry(67, &theirs)]);
        assert_eq!(ids(&list), Vec::from_iter((0..63).chain([65, 67])));
        assert!(
            !list.strands.iter().any(|strand| strand.chunk.cells.get().iter().any(|entry| entry.member().id() == 66))
        );
    }

    /// Whatever comes and goes, in whatever order, the list holds who is in it and covers what they accept.
    #[test]
    fn a_list_is_what_was_put_in_and_not_taken_out() {
        let types = types();
        let filters = [filter(&types[0]), filter(&types[1])];
        let messages = types.each_ref().map(|kind| kind.message(1));
        for seed in 0..200u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut list = Audience::empty();
            let mut model: Vec<(u64, usize)> = Vec::new();
            let (mut next, crowd) = (0, 4 + random(140));
            for _ in 0..400 {
                if model.is_empty() || random(crowd) > model.len() as u64 {
                    next += 1;
                    let which = usize::from(random(8) == 0);
                    list = list.with(&[entry(next, &filters[which])]);
                    model.push((next, which));
                } else {
                    // Mostly the latest.
                    let from = if random(3) == 0 { 0 } else { model.len() - 1 };
                    let (id, _) = model.remove(from + random((model.len() - from) as u64) as usize);
                    list = list.without(id, random(20) == 0).unwrap();
                    assert!(list.without(id, false).is_none());
                }
                assert_eq!(list.len(), model.len());
                assert_eq!(ids(&list), model.iter().map(|(id, _)| *id).collect::<Vec<_>>());
                for (which, message) in messages.iter().enumerate() {
                    let wanted: Vec<u64> = model.iter().filter(|(_, mine)| *mine == which).map(|(id, _)| *id).collect();
                    assert_eq!(
                        list.interest().covers(message.type_id(), message.formatters()),
                        !wanted.is_empty(),
                        "exact up to {EXACT} members"
                    );
                    let mut got = Vec::new();
                    if list.interest().covers(message.type_id(), message.formatters()) {
                        list.for_each(message, |member| got.push(member.id()));
                    }
                    assert_eq!(got, wanted);
                }
            }
        }
    }
}
