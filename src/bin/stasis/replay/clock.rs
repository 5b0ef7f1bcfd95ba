//! Time of a run in nanoseconds.
//!
//! The operating system's monotonic clock, not the bare time stamp counter: it is read in order
//! with the instructions around it, so that a stamp taken after a publish is never earlier than
//! the publish. The check of order depends on that.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Nanoseconds since the start, at least 1.
    pub(crate) fn now(self) -> u64 {
        self.elapsed().as_nanos() as u64 + 1
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
