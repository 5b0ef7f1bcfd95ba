//! Push, pop, fullness and the sleep mark: the algorithm over [`super::segments`].
//!
//! The consumer's sleep mark is a bit of the tail word, so the `fetch_add` that claims a position
//! also says whether somebody has to be woken: no extra fence, no extra shared word.

use crossbeam_utils::CachePadded;

use super::budget::Budget;
use super::index::{Layout, Position};
use super::segments::{Claim, Reader, Segments};
use super::slot::Entry;
use crate::stats::Tally;
use crate::sync::{Arc, AtomicBool, Ordering, fence, scaled};

/// The producers' half.
pub(crate) struct Ring<E: Entry> {
    segments: Arc<Segments<E>>,
    /// Less than a segment is free and the budget refused more. Read by every push, written rarely.
    full: CachePadded<AtomicBool>,
    gauges: CachePadded<Gauges>,
}

/// Written by the consumer only.
#[derive(Debug, Default)]
struct Gauges {
    taken: Tally,
    high_water: Tally,
}

/// The consumer's half: one per ring.
pub(crate) struct Consumer<E: Entry> {
    ring: Arc<Ring<E>>,
    reader: Reader<E>,
}

/// A place in the order of a ring that nobody else has.
#[must_use = "the consumer waits for it to be filled"]
pub(crate) struct Place {
    claim: Claim,
    /// Whether the consumer slept.
    asleep: bool,
}

/// How many entries go out between two looks at the producers' end for the high-water mark: each look takes the line
/// that producers write.
const DEPTH_SAMPLE: u64 = 128;

/// A ring with room for at least `capacity` entries that grows within `budget`.
///
/// `slot_bits`: 2^n entries a segment. `most`: entries beyond which it is full. What was asked for before
/// it was full still finds room: up to 65,536 entries, whatever `most`.
pub(crate) fn ring<E: Entry>(
    slot_bits: u32,
    capacity: usize,
    most: usize,
    budget: Arc<Budget>,
) -> (Arc<Ring<E>>, Consumer<E>) {
    let slots = 1usize << slot_bits;
    let base = capacity.div_ceil(slots).max(2);
    let segments = most.max(scaled(1 << 16, 1)).div_ceil(slots).max(base + 2).next_power_of_two();
    let layout = Layout::new(slot_bits, segments.trailing_zeros());
    ring_at(layout, base, most as u64, Position::default(), budget)
}

/// As [`ring`], with a given layout and first position.
pub(crate) fn ring_at<E: Entry>(
    layout: Layout,
    base: usize,
    most: u64,
    first: Position,
    budget: Arc<Budget>,
) -> (Arc<Ring<E>>, Consumer<E>) {
    let (segments, reader) = Segments::new(layout, base, most, first, budget);
    let gauges = Gauges::default();
    gauges.taken.set(first.get());
    let ring =
        Arc::new(Ring { segments, full: CachePadded::new(AtomicBool::new(false)), gauges: CachePadded::new(gauges) });
    (Arc::clone(&ring), Consumer { ring, reader })
}

impl<E: Entry> Ring<E> {
    /// Whether ordinary pushes should be refused now. May be stale: see the module of the ring.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        // Relaxed: a hint; the room behind it is kept by `keep_room`.
        self.full.load(Ordering::Relaxed)
    }

    /// Appends an entry. True if the caller has to wake the consumer.
    #[inline]
    pub(crate) fn push(&self, entry: E) -> bool {
        self.fill(self.claim(), entry)
    }

    /// Takes the next place. It has to be filled, and soon: the consumer waits at it.
    #[inline(always)]
    pub(crate) fn claim(&self) -> Place {
        let (claim, asleep) = self.segments.claim();
        let position = claim.position();
        if self.segments.layout().starts_segment(position) {
            self.keep_room(position);
        }
        Place { claim, asleep }
    }

    /// Puts an entry where it belongs. True if the caller has to wake the consumer.
    #[inline(always)]
    pub(crate) fn fill(&self, place: Place, entry: E) -> bool {
        self.segments.fill(place.claim, entry);
        place.asleep && self.segments.take_sleep_mark()
    }

    /// Called by the one producer that opens a segment: sees to it that there is another after it.
    #[cold]
    fn keep_room(&self, position: Position) {
        let length = self.segments.layout().segment_len();
        if self.segments.limit().since(position) > length || self.segments.grow() {
            return;
        }
        self.full.store(true, Ordering::Relaxed);
        // Meets the fence in `Consumer::pop`: either we see the limit it moved, or it sees `full`.
        fence::full();
        if self.segments.limit().since(position) > length {
            self.full.store(false, Ordering::Relaxed);
        }
    }

    /// The position after all pushes that returned before now.
    pub(crate) fn tail(&self) -> Position {
        self.segments.tail()
    }

    /// Takes the sleep mark; true for the one thread that has to wake the consumer.
    #[inline]
    pub(crate) fn take_sleep_mark(&self) -> bool {
        self.segments.take_sleep_mark()
    }

    /// Whether the sleep mark is set now.
    pub(crate) fn is_asleep(&self) -> bool {
        self.segments.is_asleep()
    }

    /// Entries pushed and not taken yet, roughly.
    pub(crate) fn depth(&self) -> u64 {
        self.segments.tail().get().saturating_sub(self.gauges.taken.get())
    }

    /// The largest depth sampled so far.
    pub(crate) fn high_water(&self) -> u64 {
        self.gauges.high_water.get()
    }
}

impl<E: Entry> Consumer<E> {
    /// The next entry, or nothing (yet).
    #[inline(always)]
    pub(crate) fn pop(&mut self) -> Option<E> {
        let (entry, left_segment) = self.reader.take()?;
        let taken = self.reader.head().get();
        self.ring.gauges.taken.set(taken);
        if taken % DEPTH_SAMPLE == 1 {
            self.sample();
        }
        if left_segment {
            // Meets the fence in `Ring::keep_room`.
            fence::full();
            if self.ring.full.load(Ordering::Relaxed) {
                self.ring.full.store(false, Ordering::Relaxed);
            }
        }
        Some(entry)
    }

    /// Number of the entry that comes next: all before it were taken.
    #[inline]
    pub(crate) fn head(&self) -> Position {
        self.reader.head()
    }

    /// Whether something was claimed that was not taken.
    pub(crate) fn has_more(&self) -> bool {
        self.reader.segments().tail() != self.reader.head()
    }

    /// Raises the high-water mark to what waits now.
    #[cold]
    fn sample(&self) {
        let waiting = self.reader.segments().tail().get().saturating_sub(self.reader.head().get());
        self.ring.gauges.high_water.raise(waiting + 1);
    }

    /// Says "I sleep", if everything claimed was taken. After true, look once more at other
    /// sources of work, then sleep; [`cancel_sleep`](Self::cancel_sleep) if there was some.
    pub(crate) fn try_mark_asleep(&mut self) -> bool {
        self.reader.segments().try_mark_asleep(self.reader.head())
    }

    /// Takes the mark back; false if somebody took it and a wake-up is on its way.
    pub(crate) fn cancel_sleep(&mut self) -> bool {
        self.reader.segments().take_sleep_mark()
    }
}

impl<E: Entry> std::fmt::Debug for Ring<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("depth", &self.depth()).finish_non_exhaustive()
    }
}

impl<E: Entry> std::fmt::Debug for Consumer<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("head", &self.head()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::num::NonZeroUsize;
    use std::ptr::{self, NonNull};

    /// A number, as the address of the first word.
    struct Number(usize);

    #[allow(unsafe_code)]
    impl Entry for Number {
        fn into_words(self) -> (NonNull<()>, *const ()) {
            let address = NonZeroUsize::new(self.0 + 1).expect("above zero");
            (NonNull::without_provenance(address), ptr::null())
        }

        unsafe fn from_words(first: NonNull<()>, _: *const ()) -> Self {
            Self(first.addr().get() - 1)
        }
    }

    /// Positions where something could wrap: the places in the directory do so all the time, 32 bits would, and the
    /// last ones there are lie below 2^63 (the mark of the sleeper takes a bit).
    const STARTS: [u64; 3] = [(1 << 32) - 1024, (1 << 62) - 1024, (1 << 63) - 50_048];

    #[test]
    fn a_ring_works_near_the_end_of_the_numbers() {
        for start in STARTS {
            let budget = Arc::new(Budget::new(1 << 20));
            let (ring, mut consumer) = ring_at(Layout::new(2, 4), 2, 40, Position::new(start), Arc::clone(&budget));
            let (mut next, mut taken) = (0, 0);
            while taken < 50_000 {
                // Up to full and down again, by rows of different lengths.
                while next < 50_000 && !ring.is_full() && next - taken < 1 + next % 37 {
                    ring.push(Number(next));
                    next += 1;
                }
                assert_eq!(ring.depth() as usize, next - taken);
                while let Some(Number(n)) = consumer.pop() {
                    assert_eq!(n, taken, "from {start}");
                    taken += 1;
                }
                assert_eq!(consumer.head().get(), start + taken as u64);
                assert!(consumer.try_mark_asleep() && ring.is_asleep());
                assert!(ring.take_sleep_mark() && !consumer.cancel_sleep());
            }
            assert!(!ring.is_full() && !consumer.has_more());
            drop((ring, consumer));
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn producers_meet_near_the_end_of_the_numbers() {
        const EACH: usize = 10_000;
        for start in STARTS {
            let budget = Arc::new(Budget::new(1 << 12));
            let (ring, mut consumer) = ring_at(Layout::new(3, 6), 2, 200, Position::new(start), Arc::clone(&budget));
            std::thread::scope(|scope| {
                for at in 0..3 {
                    let ring = &ring;
                    scope.spawn(move || {
                        for n in 0..EACH {
                            while ring.is_full() {
                                std::thread::yield_now();
                            }
                            ring.push(Number(at * EACH + n));
                        }
                    });
                }
                let mut next = [0; 3];
                while next.iter().sum::<usize>() < 3 * EACH {
                    let Some(Number(n)) = consumer.pop() else {
                        std::thread::yield_now();
                        continue;
                    };
                    assert_eq!(n % EACH, next[n / EACH], "from {start}");
                    next[n / EACH] += 1;
                }
            });
            assert_eq!(ring.tail().get(), start + 3 * EACH as u64);
        }
    }
}
