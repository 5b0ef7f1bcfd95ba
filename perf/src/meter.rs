//! When a phase is over, and what it cost.
//!
//! ```text
//!   publishers ── done ─┐
//!   subscribers ─ done ─┴► remaining = 0: that thread reads the clocks, then wakes the coordinator
//! ```
//!
//! The last one reads the clocks itself: the coordinator may be scheduled late when consumers spin.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// Clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    wall: Instant,
    cpu: Duration,
}

impl Sample {
    /// Now. CPU time: user and system, of the whole process.
    pub(crate) fn now() -> Self {
        let total = |usage: Usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(0, total);
        Self { wall: Instant::now(), cpu: Duration::from_micros(cpu.unsigned_abs()) }
    }

    /// Wall and CPU time since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> (Duration, Duration) {
        (self.wall - earlier.wall, self.cpu.saturating_sub(earlier.cpu))
    }
}

/// Counts those who have still to finish a phase.
#[derive(Debug)]
pub(crate) struct Meter {
    remaining: AtomicUsize,
    end: Mutex<Option<Sample>>,
    coordinator: Thread,
}

impl Meter {
    /// A meter for the calling thread to wait on.
    pub(crate) fn new(parties: usize) -> Self {
        Self { remaining: AtomicUsize::new(parties), end: Mutex::new(None), coordinator: thread::current() }
    }

    /// One has finished.
    pub(crate) fn done(&self) {
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(Sample::now());
            self.coordinator.unpark();
        }
    }

    /// Waits until all have; `None` if that takes longer than `limit`.
    pub(crate) fn wait(&self, limit: Duration) -> Option<Sample> {
        let deadline = Instant::now() + limit;
        loop {
            let end = *self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let left = deadline.saturating_duration_since(Instant::now());
            if end.is_some() || left.is_zero() {
                return end;
            }
            thread::park_timeout(left);
        }
    }

    /// How many have not finished.
    pub(crate) fn remaining(&self) -> usize {
        self.remaining.load(Ordering::Acquire)
    }
}

/// Holds threads up until it is opened.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Returns when it is open.
    pub(crate) fn wait(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.opened.wait_while(open, |open| !*open).unwrap_or_else(PoisonError::into_inner));
    }

    /// Opens it for good.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }
}

/// Memory the process has now, in bytes; what the allocator only keeps is given back first.
pub(crate) fn memory() -> u64 {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code)]
    // SAFETY: glibc's, callable at any time from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    resident.unwrap_or(0) * 4096
}
