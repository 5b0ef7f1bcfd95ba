//! The time stamp of messages: read cheaply, converted when somebody looks.
//!
//! A [`Timestamp`] holds the raw count of the processor's invariant time stamp counter (through
//! quanta; the operating system's monotonic clock where there is none). Guarantees: reading costs
//! about 10 ns and never blocks; stamps of one thread never go back; conversion to wall-clock time
//! uses one anchor per process, so two stamps keep their distance whatever the wall clock does.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::sync::Clock;

struct Anchor {
    clock: Clock,
    raw: u64,
    wall: SystemTime,
}

static ANCHOR: OnceLock<Anchor> = OnceLock::new();

fn anchor() -> &'static Anchor {
    ANCHOR.get_or_init(|| {
        let clock = Clock::new();
        Anchor { raw: clock.raw(), wall: SystemTime::now(), clock }
    })
}

/// Starts the clock (the first reading calibrates it, which takes some milliseconds).
pub(crate) fn start() {
    let _ = anchor();
}

/// When a message was made.
///
/// # Examples
/// ```
/// use stasis_bus::Timestamp;
/// let earlier = Timestamp::now();
/// let later = Timestamp::now();
/// assert!(later.since(earlier) < std::time::Duration::from_secs(60));
/// assert_eq!(earlier.since(later), std::time::Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Now. Cost: about 10 ns where the processor has an invariant time stamp counter.
    #[inline]
    #[must_use]
    pub fn now() -> Self {
        Self(anchor().clock.raw())
    }

    /// As a plain number.
    #[inline]
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    /// What [`raw`](Self::raw) gave.
    #[inline]
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Time passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(anchor().clock.delta_as_nanos(earlier.0, self.0))
    }

    /// Time passed until now.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// The wall-clock time, by the clock as it stood when the process first made a message.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        let anchor = anchor();
        if self.0 >= anchor.raw {
            anchor.wall + Duration::from_nanos(anchor.clock.delta_as_nanos(anchor.raw, self.0))
        } else {
            anchor.wall - Duration::from_nanos(anchor.clock.delta_as_nanos(self.0, anchor.raw))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// As on a machine whose processors disagree: the later stamp is the smaller one.
    #[test]
    fn a_clock_that_goes_back_makes_no_time_negative() {
        let now = Timestamp::now();
        for earlier in [Timestamp(now.0 - 1), Timestamp(now.0 / 2), Timestamp(0)] {
            assert_eq!(earlier.since(now), Duration::ZERO);
            assert!(earlier.to_system_time() <= now.to_system_time());
        }
        for later in [Timestamp(now.0 + (1 << 50)), Timestamp(u64::MAX)] {
            assert_eq!(later.elapsed(), Duration::ZERO, "a message from the future is new, never too old");
            assert!(later.to_system_time() > now.to_system_time());
        }
    }
}
