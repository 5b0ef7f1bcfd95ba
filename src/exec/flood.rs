//! What mailboxes of one lane hold, against the bus's memory budget: whether publishers are to be refused.
//!
//! Guarantees: publishers are refused only while entries wait in this lane's own mailboxes and the budget is
//! exceeded; whoever else exceeds it, a lane whose mailboxes are empty is not refused for it. Asking costs one
//! load while nothing was exceeded.

use crate::ring::Budget;
use crate::sync::plain::{AtomicUsize, Ordering as PlainOrdering};
use crate::sync::{Arc, AtomicBool, Ordering};

/// See the module.
#[derive(Debug)]
pub(super) struct Flood {
    /// A mailbox has seen the budget exceeded. Read by every publish, written rarely.
    seen: AtomicBool,
    /// Entries that wait in mailboxes.
    waiting: AtomicUsize,
    budget: Arc<Budget>,
}

impl Flood {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { seen: AtomicBool::new(false), waiting: AtomicUsize::new(0), budget }
    }

    /// Entries came into a mailbox, of so many bytes each.
    pub(super) fn rose(&self, entries: usize, bytes: usize) {
        self.waiting.fetch_add(entries, PlainOrdering::Relaxed);
        self.budget.force(entries * bytes);
        if self.budget.is_exceeded() {
            self.seen.store(true, Ordering::Relaxed);
        }
    }

    /// An entry of so many bytes left a mailbox.
    pub(super) fn fell(&self, bytes: usize) {
        self.waiting.fetch_sub(1, PlainOrdering::Relaxed);
        self.budget.give(bytes);
        if self.seen.load(Ordering::Relaxed) {
            self.look();
        }
    }

    /// Whether publishers are to be refused.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.seen.load(Ordering::Relaxed) && self.look()
    }

    /// Whether it is still so: others may have given back what they had, or the mailboxes are empty.
    #[cold]
    fn look(&self) -> bool {
        let on = self.budget.is_exceeded() && self.waiting.load(PlainOrdering::Relaxed) > 0;
        if !on {
            // A mailbox that says otherwise at the same moment says so again with its next entry.
            self.seen.store(false, Ordering::Relaxed);
        }
        on
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_lane_without_waiting_entries_is_not_refused_for_what_others_use() {
        let budget = Arc::new(Budget::new(100));
        let (flood, other) = (Flood::new(Arc::clone(&budget)), Flood::new(Arc::clone(&budget)));
        budget.force(100);
        flood.rose(1, 10);
        assert!(flood.is_on() && !other.is_on());
        // A ring has grown meanwhile, and keeps what it has.
        budget.force(50);
        flood.fell(10);
        assert!(budget.is_exceeded() && !flood.is_on());
    }

    #[test]
    fn it_ends_when_others_give_back() {
        let budget = Arc::new(Budget::new(100));
        let flood = Flood::new(Arc::clone(&budget));
        budget.force(100);
        flood.rose(2, 10);
        assert!(flood.is_on());
        budget.give(100);
        assert!(!flood.is_on());
    }
}
