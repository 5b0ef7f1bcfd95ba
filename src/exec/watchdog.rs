//! Looks after the lanes: a handler that keeps one for longer than the period loses it (G8).
//!
//! ```text
//!   every half period: for each lane, what runs?
//!     the same call as last time                            ─► stuck: take over, a spare goes on
//!     the same member, and others wait because of it, twice ─► slow: take over, a spare goes on
//!   all lanes asleep for a while ─► sleeps too, until one wakes
//! ```
//!
//! A member is slow if its calls never last for long but together keep the lane: entries that were queued at the
//! last look still wait, hardly any was served since ([`FEW`]), and it is this member that runs, again.
//!
//! Guarantees: a call that lasts is noticed half a period to a period after it began, a slow member in two looks
//! more; the undisturbed lane pays nothing for being looked at but its own marks (`hold`). Cost: a thread; while
//! lanes are busy two wake-ups a period.

use std::time::{Duration, Instant};

use super::affinity;
use super::hold::Seen;
use super::lane::{Lane, Member};
use super::spares::Spares;
use crate::sync::park::{self, Sleeper};
use crate::sync::plain::{AtomicU64, Ordering as PlainOrdering};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, fence, lock};

/// Steps between two looks that are few: a lane with less has calls that last, or much to do in each step.
const FEW: u64 = 16;
/// Ticks with all lanes asleep after which the watchdog sleeps too.
const QUIET_TICKS: u32 = 64;
/// Pause between looks while all lanes sleep and the observer has something to look at.
const OBSERVING: Duration = Duration::from_millis(10);
/// Longest sleep, should a lane's call for it be missed.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

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
            self.wake();
        }
    }

    /// A lane has ended: with the last of them the watchdog does, however long its period is.
    pub(super) fn lane_ended(&self) {
        self.wake();
    }

    fn wake(&self) {
        let sleeper = lock(&self.sleeper).clone();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
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

/// Looks on with the watchdog. Called by its thread, after each look; must not block.
pub(crate) trait Observer: Send + Sync + 'static {
    /// True: there is something to look at even if all lanes sleep.
    fn look(&self) -> bool;
}

/// What the last look at a lane saw.
#[derive(Clone, Copy, Default)]
struct Sight {
    call: Seen,
    /// Entries ever queued.
    queued: u64,
    /// The member that ran was found to keep others waiting.
    is_slow: bool,
}

/// See the module.
pub(crate) struct Watchdog<M: Member> {
    period: Duration,
    lanes: Box<[Arc<Lane<M>>]>,
    /// None: lanes are not taken over.
    spares: Option<Arc<Spares<M>>>,
    observer: Arc<dyn Observer>,
    watch: Arc<Watch>,
    seen: Vec<Sight>,
}

impl<M: Member> Watchdog<M> {
    /// Starts the thread. It ends when all lanes have ended.
    pub(crate) fn start(
        period: Duration,
        lanes: &[Arc<Lane<M>>],
        spares: Option<Arc<Spares<M>>>,
        observer: Arc<dyn Observer>,
        watch: Arc<Watch>,
    ) -> std::io::Result<JoinHandle<()>> {
        for lane in lanes {
            lane.watched_by(Arc::clone(&watch));
        }
        let seen = vec![Sight::default(); lanes.len()];
        let dog = Self { period, lanes: lanes.into(), spares, observer, watch, seen };
        thread::Builder::new().name("stasis-watchdog".to_owned()).spawn(affinity::unbound(move || dog.run()))
    }

    fn run(mut self) {
        *lock(&self.watch.sleeper) = Some(Sleeper::current());
        let (mut quiet, mut observed) = (0, false);
        while !self.all_ended() {
            if quiet > QUIET_TICKS && observed {
                self.pause(OBSERVING.max(self.period / 2));
            } else if quiet > QUIET_TICKS {
                self.sleep();
                quiet = 0;
            } else {
                self.pause(self.period / 2);
            }
            self.look();
            observed = self.observer.look();
            quiet = if self.all_asleep() { quiet + 1 } else { 0 };
        }
        self.observer.look();
        if let Some(spares) = &self.spares {
            spares.close();
        }
    }

    fn all_ended(&self) -> bool {
        self.lanes.iter().all(|lane| lane.has_ended())
    }

    /// So long, or until all lanes have ended: a look before its time takes a call for an older one.
    fn pause(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while !self.all_ended() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            park::sleep(Some(left));
        }
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
        let Some(spares) = self.spares.clone() else { return };
        spares.retry();
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let Some(worker) = lane.worker() else { continue };
            let (call, queued, begun) = (worker.look(), lane.queued(), lane.begun());
            let last = std::mem::replace(&mut self.seen[at], Sight { call, queued, is_slow: false });
            let keeps = call.is_call() && call.id == last.call.id;
            let is_slow = keeps
                && call.is_member()
                && lane.members() > 1
                && begun < last.queued
                && call.steps_since(last.call) <= FEW;
            self.seen[at].is_slow = is_slow;
            let quick = if keeps && call == last.call {
                self.period / 2
            } else if is_slow && last.is_slow {
                // Many such calls are what made it slow.
                self.period / 2 / FEW as u32
            } else {
                continue;
            };
            if !spares.reserve() {
                self.watch.refused.fetch_add(1, PlainOrdering::Relaxed);
                continue;
            }
            if let Some(next) = worker.take_over(call, quick) {
                self.watch.takeovers.fetch_add(1, PlainOrdering::Relaxed);
                lane.note_takeover();
                spares.serve_lane(next);
                self.seen[at] = Sight::default();
            }
        }
    }
}
