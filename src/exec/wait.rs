//! How an idle worker waits: the wait strategies.
//!
//! Looking at increasing intervals is faster than looking all the time: a consumer that has caught
//! up and keeps looking fights the producers for the line they write.

use std::time::Duration;

use crate::sync::{spin_loop, thread};

/// How a lane waits for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WaitStrategy {
    /// Never gives the core away. Lowest latency; only for cores that do nothing else.
    BusySpin,
    /// Spins shortly, then yields the core again and again.
    Yield,
    /// Sleeps as soon as there is nothing to do. Least CPU time.
    Park,
    /// Spins shortly, yields a little, then sleeps (default). Spins less on few cores.
    #[default]
    Adaptive,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Look,
    Sleep,
}

/// Progress of one idle period.
#[derive(Debug)]
pub(super) struct Idle {
    strategy: WaitStrategy,
    round: u32,
    spins: u32,
    yields: u32,
}

/// Pauses of the longest spin round (a power of two).
const LONGEST: u32 = 6;

impl Idle {
    pub(super) fn new(strategy: WaitStrategy) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spins = match cores {
            1 => 0,
            2 => 40,
            _ => 200,
        };
        Self { strategy, round: 0, spins, yields: 4 }
    }

    /// There was work.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.round = 0;
    }

    /// Whether it is time to tidy up: when the idle period has become long enough, and now and then
    /// again (strategies that never sleep).
    pub(super) fn is_lasting(&self) -> bool {
        self.round == self.spins / 2 + 1 || self.round % 1024 == 1023
    }

    /// Waits a moment, or says it is time to sleep.
    pub(super) fn pause(&mut self) -> Next {
        self.round = self.round.wrapping_add(1).max(1);
        match self.strategy {
            WaitStrategy::BusySpin => self.spin(),
            WaitStrategy::Yield if self.round > self.spins => thread::yield_now(),
            WaitStrategy::Yield => self.spin(),
            WaitStrategy::Park => return Next::Sleep,
            WaitStrategy::Adaptive if self.round > self.spins + self.yields => return Next::Sleep,
            WaitStrategy::Adaptive if self.round > self.spins => thread::yield_now(),
            WaitStrategy::Adaptive => self.spin(),
        }
        Next::Look
    }

    fn spin(&self) {
        for _ in 0..1u32 << self.round.min(LONGEST) {
            spin_loop();
        }
    }
}

/// How long a worker sleeps at most: a moment while retired lists wait for their grace period, else long,
/// for those that are retired while all lanes sleep.
pub(super) fn nap(reclaim_pending: bool) -> Option<Duration> {
    Some(if reclaim_pending { Duration::from_millis(1) } else { Duration::from_millis(500) })
}
