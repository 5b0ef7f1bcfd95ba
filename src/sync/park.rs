//! Putting a thread to sleep and waking it: one token per thread, as `std::thread::park`.
//!
//! ```text
//!   sleeper: say "I sleep" in a shared word ─► look again ─► sleep(timeout)
//!   waker:   make work ─► take the "I sleep" word ─► wake()
//! ```
//!
//! The token makes a wake-up that comes before the sleep end the sleep at once, so the shared word
//! alone decides who has to wake whom. Guarantees: no lock is taken to wake (a futex on Linux);
//! wake-ups may be spurious, so sleepers loop. Under loom a timeout never passes.

use std::time::Duration;

use super::thread::{self, Thread};

/// A thread that can be woken.
#[derive(Clone, Debug)]
pub(crate) struct Sleeper(Thread);

impl Sleeper {
    /// The calling thread.
    pub(crate) fn current() -> Self {
        Self(thread::current())
    }

    /// That thread.
    pub(crate) fn of(thread: &Thread) -> Self {
        Self(thread.clone())
    }

    /// Ends that thread's present or next sleep. Cost: a system call if it sleeps.
    pub(crate) fn wake(&self) {
        self.0.unpark();
    }
}

/// Sleeps until woken, or for `timeout`. May return early.
pub(crate) fn sleep(timeout: Option<Duration>) {
    #[cfg(loom)]
    {
        let _ = timeout;
        thread::park();
    }
    #[cfg(not(loom))]
    match timeout {
        None => thread::park(),
        Some(limit) => thread::park_timeout(limit),
    }
}
