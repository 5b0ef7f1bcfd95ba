//! What all threads of a soak write down: how far publishers are, what was counted, what went wrong.

use super::checker::{ALL, Fault};
use super::options::Plant;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Topics of the soak: number 0 is the one that everything leads to.
pub(crate) const TOPICS: usize = 6;
/// Kept of each kind.
const EXAMPLES: u64 = 3;

/// A promise that is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Lost,
    Doubled,
    Reordered,
    Unexpected,
    AfterFinal,
    Finals,
    Concurrent,
    Handlers,
    Leaked,
    Miscounted,
    Echo,
    Extras,
    Stuck,
}

impl Verdict {
    /// All, with the promise and what a violation is.
    pub(crate) const ALL: [(Verdict, &'static str, &'static str); 13] = [
        (Verdict::Lost, "lost (G3)", "accepted for sure and not delivered"),
        (Verdict::Doubled, "doubled (G3)", "delivered to a subscription more than once"),
        (Verdict::Reordered, "reordered (G2)", "delivered after a later one of the same publisher"),
        (Verdict::Unexpected, "unexpected (G1)", "messages nobody published"),
        (Verdict::AfterFinal, "after final (G5)", "delivered after the final message"),
        (Verdict::Finals, "final message (G5)", "subscriptions without exactly one final message"),
        (Verdict::Concurrent, "serial (G4)", "handlers running twice at a time"),
        (Verdict::Handlers, "handlers dropped (G5)", "handlers not dropped exactly once"),
        (Verdict::Leaked, "leaks (G10)", "messages, topics and rings alive after shutdown"),
        (Verdict::Miscounted, "accounting (G3)", "by which the bus's own counts are off"),
        (Verdict::Echo, "recursion (G6)", "publishes inside handlers lost, doubled or out of order"),
        (Verdict::Extras, "extensions", "wrong answers of caches, routers, pools, state, taskprocessors"),
        (Verdict::Stuck, "it goes on (G7, G8, G11)", "standstills, and ends that do not end"),
    ];
}

impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Lost => Self::Lost,
            Fault::Doubled => Self::Doubled,
            Fault::Reordered => Self::Reordered,
            Fault::Unexpected => Self::Unexpected,
            Fault::AfterFinal => Self::AfterFinal,
            Fault::Finals => Self::Finals,
        }
    }
}

/// How far a publisher is, over all and by topic (number 0 stands for all).
#[derive(Debug, Default)]
pub(crate) struct Pace {
    begun: [AtomicU64; TOPICS],
    done: [AtomicU64; TOPICS],
}

impl Pace {
    /// A publish on `topic` begins.
    pub(crate) fn begin(&self, topic: usize) {
        Self::step(&self.begun, topic);
        // Meets the fence in `Ledger::begun`: a publish that does not see a new subscription is seen as begun.
        fence(Ordering::SeqCst);
    }

    /// It has returned.
    pub(crate) fn end(&self, topic: usize) {
        Self::step(&self.done, topic);
    }

    fn step(counts: &[AtomicU64; TOPICS], topic: usize) {
        counts[topic].fetch_add(1, Ordering::Release);
        counts[ALL].fetch_add(1, Ordering::Release);
    }

    /// Numbers of the next message on `topic`: of all, and on it. For the publisher only.
    pub(crate) fn next(&self, topic: usize) -> (u64, u64) {
        (self.begun[ALL].load(Ordering::Relaxed), self.begun[topic].load(Ordering::Relaxed))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) paces: Vec<Pace>,
    /// Messages each witness has seen: publishers wait for them.
    pub(crate) witnessed: Vec<AtomicU64>,
    pub(crate) stop: AtomicBool,
    pub(crate) plant: Option<Plant>,
    /// Accepted publishes, those of threads and of handlers.
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Calls of handlers, final ones not counted.
    pub(crate) calls: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) made: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) payloads: AtomicU64,
    pub(crate) echoes: AtomicU64,
    pub(crate) rounds: AtomicU64,
    pub(crate) churned: AtomicU64,
    counts: [AtomicU64; Verdict::ALL.len()],
    examples: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn new(publishers: usize, witnesses: usize, plant: Option<Plant>) -> Self {
        Self {
            paces: (0..publishers).map(|_| Pace::default()).collect(),
            witnessed: (0..witnesses).map(|_| AtomicU64::new(0)).collect(),
            stop: AtomicBool::new(false),
            plant,
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            made: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            payloads: AtomicU64::new(0),
            echoes: AtomicU64::new(0),
            rounds: AtomicU64::new(0),
            churned: AtomicU64::new(0),
            counts: Default::default(),
            examples: Mutex::default(),
        }
    }

    pub(crate) fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Per publisher: publishes that had begun on `topic`.
    pub(crate) fn begun(&self, topic: usize) -> Vec<u64> {
        fence(Ordering::SeqCst);
        self.paces.iter().map(|pace| pace.begun[topic].load(Ordering::Acquire)).collect()
    }

    /// Per publisher: publishes on `topic` that have returned.
    pub(crate) fn done(&self, topic: usize) -> Vec<u64> {
        self.paces.iter().map(|pace| pace.done[topic].load(Ordering::Acquire)).collect()
    }

    /// Publishes of the publishing threads that have returned.
    pub(crate) fn published(&self) -> u64 {
        self.done(ALL).iter().sum()
    }

    /// What the slowest witness has seen of them.
    pub(crate) fn slowest(&self) -> u64 {
        self.witnessed.iter().map(|seen| seen.load(Ordering::Relaxed)).min().unwrap_or(u64::MAX)
    }

    /// Something is wrong, `times`.
    pub(crate) fn violated(&self, verdict: Verdict, times: u64, what: impl FnOnce() -> String) {
        if times == 0 {
            return;
        }
        if self.counts[verdict as usize].fetch_add(times, Ordering::Relaxed) < EXAMPLES {
            self.examples().push(what());
        }
    }

    /// Notes the fault, if there is one.
    pub(crate) fn check(&self, result: Result<(), Fault>, what: impl FnOnce() -> String) {
        if let Err(fault) = result {
            self.violated(fault.into(), 1, || format!("{fault:?}: {}", what()));
        }
    }

    pub(crate) fn violations(&self) -> [u64; Verdict::ALL.len()] {
        std::array::from_fn(|n| self.counts[n].load(Ordering::Relaxed))
    }

    pub(crate) fn examples(&self) -> MutexGuard<'_, Vec<String>> {
        self.examples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
