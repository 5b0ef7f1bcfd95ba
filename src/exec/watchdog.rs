//! Looks after the lanes: a handler that keeps one for longer than the period loses it (G8).
//!
//! ```text
//!   every half period: for each lane, what runs? the same call as last time ─► take over, spare goes on
//!   all lanes asleep for a while ─► sleeps too, until one wakes
//! ```
//!
//! Guarantees: a call that lasts is noticed half a period to a period after it began; the undisturbed
//! lane pays nothing for being looked at but its own marks (`hold`). Cost: a thread; while lanes are
//! busy two wake-ups a period.

use std::time::{Duration, Instant};

use super::hold::Seen;
use super::lane::{Lane, Member};
use super::spares::Spares;
use crate::sync::park::{self, Sleeper};
use crate::sync::plain::{AtomicU64, Ordering as PlainOrdering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, fence, lock};

/// Ticks with all lanes asleep after which the watchdog sleeps too.
const QUIET_TICKS: u32 = 64;
/// Longest sleep, should a lane's call for it be missed.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// Log messages about take-overs: one in this time.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// How lanes wake a sleeping watchdog.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asleep: AtomicBool,
    sleeper: Mutex<Option<Sleeper>>,
    /// Lanes taken over.
    takeovers: AtomicU64,
    /// Times a lane had to be left as it was because there was no spare thread.
    refused: AtomicU64,
}

impl Watch {
    /// A lane has woken. Cost: a fence and a load.
    pub(super) fn lane_woke(&self) {
        // Meets the fence in `Watchdog::sleep`.
        fence::full();
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            let sleeper = lock(&self.sleeper).clone();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
        }
    }

    /// Lanes taken over so far.
    pub(crate) fn takeovers(&self) -> u64 {
        self.takeovers.load(PlainOrdering::Relaxed)
    }

    /// Times no spare thread was left.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(PlainOrdering::Relaxed)
    }
}

/// See the module.
pub(crate) struct Watchdog<M: Member> {
    period: Duration,
    lanes: Box<[Arc<Lane<M>>]>,
    spares: Arc<Spares<M>>,
    watch: Arc<Watch>,
    seen: Vec<Seen>,
    logged: Option<Instant>,
    /// Take-overs since the last log message.
    unlogged: u64,
}

impl<M: Member> Watchdog<M> {
    /// Starts the thread. It ends when all lanes have ended.
    pub(crate) fn start(
        period: Duration,
        lanes: &[Arc<Lane<M>>],
        spares: Arc<Spares<M>>,
        watch: Arc<Watch>,
    ) -> std::io::Result<JoinHandle<()>> {
        for lane in lanes {
            lane.watched_by(Arc::clone(&watch));
        }
        let seen = vec![Seen::default(); lanes.len()];
        let dog = Self { period, lanes: lanes.into(), spares, watch, seen, logged: None, unlogged: 0 };
        thread::Builder::new().name("stasis-watchdog".to_owned()).spawn(move || dog.run())
    }

    fn run(mut self) {
        *lock(&self.watch.sleeper) = Some(Sleeper::current());
        let mut quiet = 0;
        while !self.lanes.iter().all(|lane| lane.has_ended()) {
            if quiet > QUIET_TICKS {
                self.sleep();
                quiet = 0;
            } else {
                park::sleep(Some(self.period / 2));
            }
            self.look();
            quiet = if self.all_asleep() { quiet + 1 } else { 0 };
        }
        self.spares.close();
    }

    fn all_asleep(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_asleep() || lane.has_ended())
    }

    /// Until a lane wakes.
    fn sleep(&self) {
        self.watch.asleep.store(true, Ordering::Relaxed);
        // Meets the fence in `Watch::lane_woke`: either we see that it is awake, or it sees that we sleep.
        fence::full();
        if self.all_asleep() {
            park::sleep(Some(LONGEST_SLEEP));
        }
        self.watch.asleep.store(false, Ordering::Relaxed);
    }

    fn look(&mut self) {
        self.spares.retry();
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let Some(worker) = lane.worker() else { continue };
            let seen = worker.look();
            if !seen.is_call() || seen != self.seen[at] {
                self.seen[at] = seen;
                continue;
            }
            if !self.spares.reserve() {
                self.watch.refused.fetch_add(1, PlainOrdering::Relaxed);
                self.log(at, false);
                continue;
            }
            if let Some(next) = worker.take_over(seen, self.period / 2) {
                self.watch.takeovers.fetch_add(1, PlainOrdering::Relaxed);
                lane.note_takeover();
                self.spares.serve_lane(next);
                self.seen[at] = Seen::default();
                self.log(at, true);
            }
        }
    }

    /// Tells the log, once in a while: a flood of these would be the next trouble.
    fn log(&mut self, lane: usize, taken: bool) {
        self.unlogged += 1;
        if self.logged.is_some_and(|last| last.elapsed() < LOG_EVERY) {
            return;
        }
        self.logged = Some(Instant::now());
        let lane = self.lanes[lane].name();
        let times = std::mem::take(&mut self.unlogged);
        if taken {
            tracing::warn!(lane, times, "a handler keeps its lane for too long: another thread goes on with the lane");
        } else {
            tracing::error!(lane, times, "a handler keeps its lane, and all spare threads are in use");
        }
    }
}
