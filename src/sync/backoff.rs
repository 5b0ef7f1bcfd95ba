//! Waiting a moment for another thread that is between two instructions: spin, then yield.
//!
//! Used where the wait is bounded by a few instructions of a running thread (a slot claimed but not
//! yet written). Guarantees: never sleeps, never returns a verdict; cost 1 to 64 pauses a call,
//! then one `sched_yield`. Sleeping for work is [`crate::sync::park`].

use super::{spin_loop, thread};

/// Exponential spin, then yield.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    step: u32,
}

impl Backoff {
    /// Steps that spin; later ones give the core away.
    const SPIN_STEPS: u32 = 6;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Waits once, longer than the time before.
    pub(crate) fn snooze(&mut self) {
        if self.step < Self::SPIN_STEPS && !cfg!(loom) {
            for _ in 0..1u32 << self.step {
                spin_loop();
            }
            self.step += 1;
        } else {
            thread::yield_now();
        }
    }
}
