//! Who serves a lane: the words by which it is taken from a thread that is stuck in foreign code.
//!
//! ```text
//!   worker                              taker
//!   running = id                        asked
//!   handler runs …                      heavy fence
//!   running = 0, light fence            running still id, same step?  yes ─► takes what it needs, lost
//!   asked or lost? ─► wait for verdict                                no ──► not asked
//! ```
//!
//! Either the taker sees that the worker has left the handler, or the worker sees that it is asked and
//! waits for the verdict: so while the taker looks at the worker's state, the worker is in foreign code
//! or waits. Calls are told apart by the number of the step (dispatch, control entry) they belong to.
//!
//! Guarantees: at most one thread serves a lane; whoever has lost it knows before it touches anything of
//! it. Cost a delivery: two stores and a load; where the system has no membarrier, a full fence and a load more.
//! Model: `loom-tests/tests/takeover.rs`.

use crate::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, fence, lock};

/// Stands for foreign code that is no member's handler: destructors.
pub(crate) const NO_MEMBER: u64 = u64::MAX;

const ASKED: usize = 1;
const LOST: usize = 2;
/// The worker's own: something is left to do after the call.
const WORK: usize = 4;
/// Somebody has looked at the worker's state: the worker is to see that it has.
const PEEKED: usize = 8;
/// Always there where [`fence::light`] is not enough: leaving takes the slow way, with a full fence.
const FENCED: usize = 16;

/// A call as somebody else saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Seen {
    /// Member, or zero: none.
    pub(crate) id: u64,
    step: u64,
}

impl Seen {
    /// Whether foreign code was running.
    pub(crate) fn is_call(self) -> bool {
        self.id != 0
    }

    /// Whether it was that of a member.
    pub(super) fn is_member(self) -> bool {
        self.is_call() && self.id != NO_MEMBER
    }

    /// Steps from an earlier call of the same worker to this one.
    pub(super) fn steps_since(self, earlier: Self) -> u64 {
        self.step.saturating_sub(earlier.step)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Hold {
    /// Id of the member whose handler runs, or zero.
    running: AtomicU64,
    /// Goes up with every dispatch, control entry and deferred entry.
    step: AtomicU64,
    signs: AtomicUsize,
    verdict: Mutex<()>,
}

impl Default for Hold {
    fn default() -> Self {
        Self {
            running: AtomicU64::new(0),
            step: AtomicU64::new(0),
            signs: AtomicUsize::new(if fence::light_is_full() { FENCED } else { 0 }),
            verdict: Mutex::new(()),
        }
    }
}

impl Hold {
    /// Another step begins. By the worker.
    #[inline]
    pub(super) fn step(&self) {
        self.step.store(self.step.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Foreign code begins. By the worker.
    #[inline(always)]
    pub(super) fn enter(&self, id: u64) {
        // Release: who sees the id sees step and walk.
        self.running.store(id, Ordering::Release);
    }

    /// Foreign code has ended; true: and nothing is to be looked at. By the worker.
    #[inline(always)]
    pub(super) fn leave(&self) -> bool {
        self.running.store(0, Ordering::Release);
        fence::light();
        // Relaxed: what a taker did is seen through the verdict's lock.
        self.signs.load(Ordering::Relaxed) == 0 || self.leave_fenced()
    }

    /// The rest of [`leave`](Self::leave) where a light fence is none.
    #[cold]
    fn leave_fenced(&self) -> bool {
        if fence::light_is_full() {
            fence::full();
        }
        !self.has_signs()
    }

    /// Whether the lane belongs to another thread by now. By the worker, outside foreign code.
    #[cold]
    pub(super) fn is_lost(&self) -> bool {
        if self.signs.load(Ordering::Relaxed) & ASKED != 0 {
            drop(lock(&self.verdict));
        }
        // Acquire: meets the Release of the verdict.
        let signs = self.signs.load(Ordering::Acquire);
        if signs & PEEKED != 0 {
            self.signs.fetch_and(!PEEKED, Ordering::Relaxed);
        }
        signs & LOST != 0
    }

    /// Whether there is something to look at.
    #[inline(always)]
    pub(super) fn has_signs(&self) -> bool {
        self.signs.load(Ordering::Relaxed) & !FENCED != 0
    }

    /// Makes the next [`leave`](Self::leave) say that there is something to look at. By the worker.
    pub(super) fn note_work(&self) {
        self.signs.fetch_or(WORK, Ordering::Relaxed);
    }

    /// Takes the note back. By the worker.
    pub(super) fn forget_work(&self) {
        self.signs.fetch_and(!WORK, Ordering::Relaxed);
    }

    /// The member whose handler runs, or zero.
    #[inline]
    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// What runs now.
    pub(super) fn look(&self) -> Seen {
        // Acquire: the step is that of this call or a later one.
        let id = self.running.load(Ordering::Acquire);
        Seen { id, step: self.step.load(Ordering::Relaxed) }
    }

    /// Takes the lane away if that call still runs: `transfer` then looks at the worker's state, which nobody
    /// else does meanwhile.
    pub(super) fn take<R>(&self, seen: Seen, transfer: impl FnOnce() -> R) -> Option<R> {
        self.ask(seen, LOST, transfer)
    }

    /// Looks at the worker's state if that call still runs; the lane stays the worker's.
    pub(super) fn peek<R>(&self, seen: Seen, look: impl FnOnce() -> R) -> Option<R> {
        // The sign stays until the worker has seen it, so that what it does next comes after the look.
        self.ask(seen, PEEKED, look)
    }

    fn ask<R>(&self, seen: Seen, sign: usize, transfer: impl FnOnce() -> R) -> Option<R> {
        let _verdict = lock(&self.verdict);
        if seen.id == 0 || self.signs.fetch_or(ASKED, Ordering::Relaxed) & LOST != 0 {
            self.signs.fetch_and(!ASKED, Ordering::Relaxed);
            return None;
        }
        // Meets the light fence in `leave`.
        fence::heavy();
        let taken = (self.look() == seen).then(transfer);
        if taken.is_some() {
            // Release: what the transfer did comes before.
            self.signs.fetch_or(sign, Ordering::Release);
        }
        self.signs.fetch_and(!ASKED, Ordering::Release);
        taken
    }
}
