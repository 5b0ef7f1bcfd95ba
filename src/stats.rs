//! Counters nobody waits for: one padded cell per thread slot, summed when somebody looks.
//!
//! ```text
//!   publisher in slot 0 ─► cells[0] += 1      (plain load and store, own cache line)
//!   publisher in slot 1 ─► cells[1] += 1
//!   reader              ─► sum of all cells   (a moment's view, never ahead of itself)
//! ```
//!
//! Guarantees: no count is lost; a read after a thread was joined sees all it counted; cost of a
//! count about 1 ns for the first 127 threads, an atomic add for others; memory 16 KiB a set.

use crossbeam_utils::CachePadded;

use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::thread_slot::{self, SLOTS, Slot};

/// What a publishing thread counts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    /// Publishes taken by at least one lane or inline subscription.
    Published,
    /// Publishes no subscription of the topic accepts.
    Unwanted,
    /// Publishes refused because a queue was full.
    Refused,
    /// Publishers that began to deliver themselves; and those that have ended it: see [`Counters::deliver`].
    Delivering,
    Delivered,
}

const KINDS: usize = 5;

/// One set of counters.
pub(crate) struct Counters {
    cells: Box<[CachePadded<[AtomicU64; KINDS]>]>,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self { cells: (0..SLOTS).map(|_| CachePadded::new(Default::default())).collect() }
    }

    /// Counts one.
    #[inline(always)]
    pub(crate) fn count(&self, kind: Count) {
        let slot = thread_slot::current();
        add(&self.cells[slot.index()][kind as usize], slot, 1, Ordering::Relaxed);
    }

    /// The calling thread calls inline handlers and pushes into queues of subscriptions' own while the result lives.
    /// To be called pinned: who closes the bus then sees it after the grace period.
    #[inline]
    pub(crate) fn deliver(&self) -> Delivering<'_> {
        self.count(Count::Delivering);
        Delivering(self)
    }

    /// Whether no thread does so. True for good once nobody can begin it any more.
    pub(crate) fn is_quiet(&self) -> bool {
        let ended = self.sum(Count::Delivered);
        self.sum(Count::Delivering) == ended
    }

    /// The total over all threads.
    pub(crate) fn sum(&self, kind: Count) -> u64 {
        // Acquire: meets the Release in `Delivering::drop`.
        self.cells.iter().map(|cell| cell[kind as usize].load(Ordering::Acquire)).sum()
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters").finish_non_exhaustive()
    }
}

/// See [`Counters::deliver`].
pub(crate) struct Delivering<'a>(&'a Counters);

impl Drop for Delivering<'_> {
    #[inline]
    fn drop(&mut self) {
        let slot = thread_slot::current();
        // Release: who sees it sees what was delivered.
        add(&self.0.cells[slot.index()][Count::Delivered as usize], slot, 1, Ordering::Release);
    }
}

/// Adds to a cell that only the owner of `slot` writes, or that all share.
#[inline]
fn add(cell: &AtomicU64, slot: Slot, n: u64, order: Ordering) {
    if slot.is_own() {
        // In two steps: this thread is the only writer.
        cell.store(cell.load(Ordering::Relaxed) + n, order);
    } else {
        cell.fetch_add(n, order);
    }
}

/// A counter with one writer at a time (a lane's worker, a subscription's runner).
#[derive(Debug, Default)]
pub(crate) struct Tally(AtomicU64);

impl Tally {
    /// Adds. Only the present single writer may call it.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Makes it `n`.
    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Raises to `n` if that is more.
    #[inline]
    pub(crate) fn raise(&self, n: u64) {
        if n > self.0.load(Ordering::Relaxed) {
            self.0.store(n, Ordering::Relaxed);
        }
    }

    /// The value now.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_with_more_threads_than_slots() {
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..2 * SLOTS {
                scope.spawn(|| (0..100).for_each(|_| counters.count(Count::Published)));
            }
        });
        assert_eq!(counters.sum(Count::Published), 200 * SLOTS as u64);
        assert_eq!(counters.sum(Count::Refused), 0);
    }
}
