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
    /// Spins shortly, then sleeps (default). Spins less on few cores.
    #[default]
    Adaptive,
}

/// A strategy on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    strategy: WaitStrategy,
    /// Looks before the core is given away.
    spins: u32,
}

impl From<WaitStrategy> for Waits {
    /// To be made before a lane's thread is pinned: a pinned thread sees one core.
    fn from(strategy: WaitStrategy) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spins = match cores {
            1 => 0,
            2 => FEW_LOOKS,
            _ => LOOKS,
        };
        Self { strategy, spins }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Look,
    Sleep,
}

/// Progress of one idle period.
///
/// A worker that has caught up with busy publishers finds one message at each look, and its looks slow them
/// down: both fight for the lines the queue ends in. When it has been so for a while, periods begin with a
/// pause of about a microsecond, as long as several messages come in it; if not (somebody waits for an
/// answer before sending more), the pause is no use, and is not tried again for a while.
#[derive(Debug)]
pub(super) struct Idle {
    waits: Waits,
    round: u32,
    /// Things done since the last pause.
    done: u32,
    /// Short periods in a row that ended with little to do.
    short: u32,
    /// How many of them it takes.
    trial: u32,
    /// Periods begin with a long pause.
    batching: bool,
}

/// Looks before the core is given away: with 8 pauses of 10-40 ns between two, some 40 us, and 9 us where cores are few. A
/// publisher that wakes on the core of a lane that only spins waits for the end of its time slice: milliseconds. An
/// adaptive lane sleeps then, and never yields: that puts it behind who shares its core by a whole slice, awake, so that
/// nobody wakes it on another.
const LOOKS: u32 = 200;
const FEW_LOOKS: u32 = 48;
/// Pauses between two looks, and of a long pause (powers of two).
const LONGEST: u32 = 3;
const LONG: u32 = 6;
/// Looks of a period that was short.
const SHORT: u32 = 17;
/// Short periods in a row after which a long pause is tried: at first, and at most.
const TRIAL: u32 = 16;
const LONGEST_TRIAL: u32 = 1 << 14;
/// Things found that are few, and such that a long pause has been of use.
const FEW: u32 = 16;
const USEFUL: u32 = 3;

impl Idle {
    pub(super) fn new(waits: Waits) -> Self {
        Self { waits, round: 0, done: 0, short: 0, trial: TRIAL, batching: false }
    }

    /// There was work.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.done += 1;
    }

    /// The first pause after work: the period before it is over.
    fn begin(&mut self) {
        let done = std::mem::take(&mut self.done);
        let was_short = self.round <= SHORT;
        self.round = 0;
        match self.waits.strategy {
            WaitStrategy::BusySpin | WaitStrategy::Park => return,
            WaitStrategy::Yield | WaitStrategy::Adaptive => {}
        }
        if self.batching {
            self.batching = done >= USEFUL;
            self.trial = if self.batching { TRIAL } else { (self.trial * 4).min(LONGEST_TRIAL) };
        } else if was_short && done <= FEW {
            self.short += 1;
            self.batching = self.short >= self.trial;
        } else {
            self.short = 0;
        }
        if self.batching {
            self.short = 0;
        }
    }

    /// Whether the idle period has just become long enough to give back what others wait for.
    pub(super) fn is_lasting(&self) -> bool {
        self.round == self.waits.spins + 1
    }

    /// Whether it is time to tidy up, for strategies that never sleep.
    pub(super) fn is_long(&self) -> bool {
        self.round % 1024 == 1023
    }

    /// Waits a moment, or says it is time to sleep.
    pub(super) fn pause(&mut self) -> Next {
        if self.done > 0 {
            self.begin();
        }
        self.round = self.round.wrapping_add(1).max(1);
        let Waits { strategy, spins } = self.waits;
        match strategy {
            WaitStrategy::BusySpin => self.spin(),
            WaitStrategy::Yield if self.round > spins => thread::yield_now(),
            WaitStrategy::Yield => self.spin(),
            WaitStrategy::Park => return Next::Sleep,
            WaitStrategy::Adaptive if self.round > spins => return Next::Sleep,
            WaitStrategy::Adaptive => self.spin(),
        }
        Next::Look
    }

    fn spin(&self) {
        let is_long = self.batching && self.round == 1;
        for _ in 0..1u32 << if is_long { LONG } else { self.round.min(LONGEST) } {
            spin_loop();
        }
    }
}

/// How long a worker sleeps at most: a moment while something is to be tidied up, else long, for lists that are
/// retired while all lanes sleep.
pub(super) fn nap(is_untidy: bool) -> Option<Duration> {
    Some(if is_untidy { Duration::from_millis(1) } else { Duration::from_millis(500) })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A period in which `done` things were found, and one look after it found nothing.
    fn period(idle: &mut Idle, done: u32) -> bool {
        (0..done).for_each(|_| idle.reset());
        idle.pause();
        idle.batching
    }

    /// So a lane's strategy is made by who starts its thread; it slept at once when the thread made it.
    #[test]
    fn a_pinned_thread_would_think_that_there_is_one_core() {
        let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.first().copied()) else { return };
        let here = Waits::from(WaitStrategy::Adaptive).spins;
        let pinned = std::thread::spawn(move || {
            core_affinity::set_for_current(core).then(|| Waits::from(WaitStrategy::Adaptive).spins)
        });
        assert!(pinned.join().unwrap().is_none_or(|spins| spins == 0));
        assert_eq!(here > 0, std::thread::available_parallelism().unwrap().get() > 1);
    }

    #[test]
    fn a_stream_is_taken_in_batches_and_a_ping_is_not() {
        let mut idle = Idle::new(Waits::from(WaitStrategy::Yield));
        let began = (1..=TRIAL).filter(|_| period(&mut idle, 1)).count();
        assert_eq!(began, 1, "after {TRIAL} short periods");
        assert!(period(&mut idle, 8) && period(&mut idle, 5), "several came in each pause: a stream");
        assert!(!period(&mut idle, 1), "one came: no use");
        // The next trial takes longer, and longer again.
        assert!((0..TRIAL).all(|_| !period(&mut idle, 1)));
        assert_eq!((0..8 * TRIAL).filter(|_| period(&mut idle, 1)).count(), 1);
    }

    #[test]
    fn seldom_messages_are_never_waited_for() {
        let mut idle = Idle::new(Waits::from(WaitStrategy::Yield));
        for _ in 0..10 * TRIAL {
            assert!(!period(&mut idle, 1));
            // A long period: many looks that found nothing.
            (0..2 * SHORT).for_each(|_| assert_eq!(idle.pause(), Next::Look));
        }
    }

    #[test]
    fn who_spins_or_sleeps_at_once_is_left_alone() {
        for strategy in [WaitStrategy::BusySpin, WaitStrategy::Park] {
            let mut idle = Idle::new(Waits::from(strategy));
            assert!((0..10 * TRIAL).all(|_| !period(&mut idle, 1)));
        }
    }
}
