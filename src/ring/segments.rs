//! The segments of one ring: who may write where, growth, recycling, reading in order.
//!
//! ```text
//!  producers ── claim ──► tail: 13                      limit: 16 (positions granted so far)
//!                              │                            │
//!  directory:  [ seg 8..12 ][ seg 12..16 ][ null ][ null ]  ▼ grow / recycle installs the next
//!                    ▲ reader (head 9); a segment read to its end is cleared and installed at
//!                      `limit`, or given back to the budget
//! ```
//!
//! Invariants (each `// SAFETY` below cites one):
//! - **claim**: a position is handed out once, by the one `fetch_add` on `tail`.
//! - **granted**: for every position in `floor..limit` the directory names a cleared or partly used
//!   segment, and `limit - floor` never exceeds the directory. `limit` only grows, after the
//!   segment was installed.
//! - **quiet**: a producer touches only the segment of its claim, until it has written its slot;
//!   so once the reader took every slot of a segment nobody is in it.
//! - **one reader**: there is one [`Reader`] for each [`Segments`].
//!
//! Guarantees: claim wait-free, fill wait-free within `limit`; growth lock-free; at the hard end of
//! the directory a claimer waits for the reader (only reachable when more threads than a segment has
//! slots push into a full ring at once: whoever pushes asks first, see `Part::push_through`). Models:
//! `loom-tests/tests/ring.rs`.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;

use crossbeam_utils::CachePadded;

use super::budget::Budget;
use super::index::{Layout, Position, TailWord};
use super::slot::{Entry, Segment};
use crate::sync::backoff::Backoff;
use crate::sync::{Arc, AtomicPtr, AtomicU64, Ordering, prefetch};

/// How many cells ahead a producer asks for the line of a cell: the reader had it last. Two lines.
const PUT_AHEAD: usize = 8;
/// How many entries ahead the reader asks for what they point to. Less than a line, mostly: who has caught up is not
/// to take lines away that a producer is about to write.
const TAKE_AHEAD: usize = 4;

/// The right to fill one position, once.
#[derive(Debug)]
pub(crate) struct Claim(Position);

impl Claim {
    #[inline]
    pub(crate) fn position(&self) -> Position {
        self.0
    }
}

/// What installing a segment came to.
#[derive(PartialEq, Eq)]
enum Install {
    Done,
    /// The directory is full: the segment is still the caller's.
    NoPlace,
}

/// The shared half.
pub(crate) struct Segments<E: Entry> {
    /// Next position to claim, and the sleep mark.
    tail: CachePadded<AtomicU64>,
    /// Positions below it have a segment. Written once per segment.
    limit: CachePadded<AtomicU64>,
    /// Positions below it are read and their segments out of the directory. Written once per segment.
    floor: CachePadded<AtomicU64>,
    /// Null, or a segment this directory owns.
    cells: Box<[AtomicPtr<()>]>,
    layout: Layout,
    /// Entries beyond which it does not grow but for what is claimed already.
    most: u64,
    budget: Arc<Budget>,
    /// Entries are moved through, never shared (`Entry` is `Send`).
    _entries: PhantomData<fn() -> E>,
}

/// The reading half.
pub(crate) struct Reader<E: Entry> {
    segments: Arc<Segments<E>>,
    head: Position,
    /// The segment of `head`.
    current: Segment<E>,
    /// Segments kept when the ring is idle.
    base: u64,
}

// SAFETY: a reader is the single consumer wherever it is; `current` is a segment of `segments`.
unsafe impl<E: Entry> Send for Reader<E> {}

impl<E: Entry> Segments<E> {
    /// A ring whose first position is `first` (tests start near the end of the number range), with
    /// `base` segments that are always there, and no more than `most` entries' worth by growing.
    pub(crate) fn new(
        layout: Layout,
        base: usize,
        most: u64,
        first: Position,
        budget: Arc<Budget>,
    ) -> (Arc<Self>, Reader<E>) {
        assert!(base >= 2 && base + 2 <= layout.segments(), "two segments at least, two places free");
        assert!(layout.starts_segment(first), "a ring starts at a segment");
        let cells = (0..layout.segments()).map(|_| AtomicPtr::new(ptr::null_mut())).collect();
        let segments = Arc::new(Self {
            tail: CachePadded::new(AtomicU64::new(TailWord::awake(first))),
            limit: CachePadded::new(AtomicU64::new(first.get())),
            floor: CachePadded::new(AtomicU64::new(first.get())),
            cells,
            layout,
            most,
            budget,
            _entries: PhantomData,
        });
        for _ in 0..base {
            segments.budget.force(segments.segment_bytes());
            let placed = segments.install(Segment::allocate(layout.slots()));
            debug_assert!(placed == Install::Done);
        }
        let current = segments.named(first);
        let reader = Reader { segments: Arc::clone(&segments), head: first, current, base: base as u64 };
        (segments, reader)
    }

    fn segment_bytes(&self) -> usize {
        self.layout.slots() * Segment::<E>::slot_bytes()
    }

    #[inline]
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Claims the next position; true if the reader sleeps. Wait-free.
    #[inline(always)]
    pub(crate) fn claim(&self) -> (Claim, bool) {
        // Relaxed: the position alone; entries are published by their slots. That claims of
        // ordered publishers are ordered follows from coherence of this one word.
        let word = TailWord::from_raw(self.tail.fetch_add(TailWord::ONE, Ordering::Relaxed));
        (Claim(word.position()), word.is_asleep())
    }

    /// The next position to be claimed. What was pushed before (happens-before) lies below it.
    #[inline]
    pub(crate) fn tail(&self) -> Position {
        TailWord::from_raw(self.tail.load(Ordering::Relaxed)).position()
    }

    /// Positions granted so far.
    #[inline]
    pub(crate) fn limit(&self) -> Position {
        // Acquire: meets the Release in `advance`; the segments below are visible.
        Position::from_raw(self.limit.load(Ordering::Acquire))
    }

    /// Fills the claimed position.
    #[inline(always)]
    pub(crate) fn fill(&self, claim: Claim, entry: E) {
        let Claim(position) = claim;
        if position >= self.limit() {
            self.grow_to(position);
        }
        let (segment, slot) = (self.named(position), self.layout.slot_of(position));
        segment.expect_put(slot + PUT_AHEAD);
        // SAFETY: invariants "granted" (below `limit` and not yet read, as only we fill it: the
        // directory's segment for it lives and is not cleared before our slot was taken) and "claim".
        unsafe { segment.put(slot, entry) };
    }

    /// The directory's segment for a granted position.
    #[inline]
    fn named(&self, position: Position) -> Segment<E> {
        // Acquire: with the Acquire on `limit` (callers) the cleared slots are visible.
        let segment = self.cells[self.layout.segment_of(position)].load(Ordering::Acquire);
        Segment::from_raw(segment).expect("a granted position has a segment")
    }

    /// A segment more, within the budget. False if there is none to be had.
    pub(crate) fn grow(&self) -> bool {
        let bytes = self.segment_bytes();
        let floor = Position::from_raw(self.floor.load(Ordering::Relaxed));
        if self.limit().since(floor) + self.layout.segment_len() > self.most || !self.budget.try_take(bytes) {
            return false;
        }
        self.install_or_free(Segment::allocate(self.layout.slots())) == Install::Done
    }

    /// As [`install`](Self::install); a segment without a place goes back to the budget.
    fn install_or_free(&self, segment: Segment<E>) -> Install {
        let placed = self.install(segment);
        if placed == Install::NoPlace {
            // SAFETY: allocated with this many slots; `install` did not publish it, or handed it back.
            unsafe { segment.free(self.layout.slots()) };
            self.budget.give(self.segment_bytes());
        }
        placed
    }

    /// Segments until `position` is granted, whatever the budget says.
    #[cold]
    fn grow_to(&self, position: Position) {
        let mut backoff = Backoff::new();
        while position >= self.limit() {
            self.budget.force(self.segment_bytes());
            if self.install_or_free(Segment::allocate(self.layout.slots())) == Install::NoPlace {
                backoff.snooze();
            }
        }
    }

    /// Puts a cleared segment where the next positions will be.
    fn install(&self, segment: Segment<E>) -> Install {
        let length = self.layout.segment_len();
        loop {
            let limit = self.limit();
            // Acquire: meets the Release in `Reader::leave_segment`; the cells of positions below
            // are empty. A stale (smaller) floor only makes us refuse.
            let floor = Position::from_raw(self.floor.load(Ordering::Acquire));
            if limit.since(floor) + length > length * (self.layout.segments() as u64 - 1) {
                return Install::NoPlace;
            }
            let cell = &self.cells[self.layout.segment_of(limit)];
            // Release: publishes the cleared slots to `named`. A thread that read `limit` long ago
            // may put its segment in early, at a later lap's turn; that is a segment granted early.
            let placed =
                cell.compare_exchange(ptr::null_mut(), segment.into_raw(), Ordering::AcqRel, Ordering::Acquire);
            self.advance(limit);
            if placed.is_ok() {
                return Install::Done;
            }
        }
    }

    /// Moves `limit` over a segment that is in its cell. Whoever sees it first does it.
    fn advance(&self, from: Position) {
        let to = from.plus(self.layout.segment_len());
        // Release: publishes the installed segment; AcqRel passes on what others published. A failed
        // exchange means somebody else moved it.
        let _ = self.limit.compare_exchange(from.get(), to.get(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Marks the reader as asleep if nothing is claimed beyond `head`.
    pub(crate) fn try_mark_asleep(&self, head: Position) -> bool {
        // AcqRel: Acquire meets `take_sleep_mark` of a waker that was earlier in this word's order,
        // so what it did before waking (a control entry) is seen by the look that follows; Release
        // for the mirror case. Model: `park.rs`, `no_wake_up_is_lost`.
        self.tail
            .compare_exchange(TailWord::awake(head), TailWord::asleep(head), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether the sleep mark is set now.
    pub(crate) fn is_asleep(&self) -> bool {
        TailWord::from_raw(self.tail.load(Ordering::Relaxed)).is_asleep()
    }

    /// Takes the sleep mark; true for the one thread that has to wake the reader.
    #[inline]
    pub(crate) fn take_sleep_mark(&self) -> bool {
        // AcqRel: see `try_mark_asleep`.
        TailWord::from_raw(self.tail.fetch_and(TailWord::AWAKE_MASK, Ordering::AcqRel)).is_asleep()
    }
}

impl<E: Entry> Reader<E> {
    #[inline]
    pub(crate) fn segments(&self) -> &Segments<E> {
        &self.segments
    }

    /// Number of the entry that comes next.
    #[inline]
    pub(crate) fn head(&self) -> Position {
        self.head
    }

    /// The next entry, if its producer has written it. True in the pair if it ended a segment.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<(E, bool)> {
        let slot = self.segments.layout.slot_of(self.head);
        // SAFETY: `current` is the segment of `head`, which the directory owns until we leave it; invariant
        // "one reader"; `head` moves on below as soon as the slot gave.
        let entry = unsafe { self.current.take(slot) }?;
        if prefetch::WORKS && slot + TAKE_AHEAD < self.segments.layout.slots() {
            // SAFETY: `current` lives, and has that many cells.
            unsafe { self.current.expect_take(slot + TAKE_AHEAD) };
        }
        self.head = self.head.plus(1);
        let left = self.segments.layout.starts_segment(self.head);
        if left {
            self.leave_segment();
        }
        Some((entry, left))
    }

    /// Every slot of `current` was taken: clear it, use it again or free it, go to the next.
    #[cold]
    fn leave_segment(&mut self) {
        let segments = &*self.segments;
        let length = segments.layout.segment_len();
        let old = Position::from_raw(self.head.get() - length);
        // Relaxed: only the reader empties cells, and the Release on `floor` comes after.
        segments.cells[segments.layout.segment_of(old)].store(ptr::null_mut(), Ordering::Relaxed);
        // Release: meets the Acquire in `install`.
        segments.floor.store(self.head.get(), Ordering::Release);
        let read = self.current;
        // One more than the base may stay: a ring that needed it once needs it at every segment.
        if segments.limit().since(self.head) > self.base * length {
            // SAFETY: out of the directory; invariant "quiet": nobody is in it.
            unsafe { read.free(segments.layout.slots()) };
            segments.budget.give(segments.segment_bytes());
        } else {
            // SAFETY: invariant "quiet".
            unsafe { read.clear(segments.layout.slots()) };
            segments.install_or_free(read);
        }
        self.current = segments.named(self.head);
    }
}

impl<E: Entry> Drop for Reader<E> {
    fn drop(&mut self) {
        // Tells `Segments::drop` where the unread entries begin. Release: for the thread that
        // drops the shared half (through the reference count of the `Arc`).
        self.segments.floor.store(self.head.get(), Ordering::Release);
    }
}

impl<E: Entry> Drop for Segments<E> {
    fn drop(&mut self) {
        let mut position = Position::from_raw(self.floor.load(Ordering::Acquire));
        while position < self.tail() {
            // SAFETY: invariants "granted" and "one reader" (it is gone, and had not taken it); the last user
            // of the ring is gone, so all claims are filled.
            drop(unsafe { self.named(position).take(self.layout.slot_of(position)) });
            position = position.plus(1);
        }
        for cell in &self.cells {
            if let Some(segment) = Segment::<E>::from_raw(cell.load(Ordering::Acquire)) {
                // SAFETY: installed by us, with this many slots; nobody else is left.
                unsafe { segment.free(self.layout.slots()) };
                self.budget.give(self.segment_bytes());
            }
        }
    }
}
