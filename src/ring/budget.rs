//! The ring memory of one bus, shared by all its rings and taken a segment at a time.
//!
//! Guarantees: `try_take` never goes beyond the limit; `force` does (control work and messages
//! already claimed must find a place); everything taken is given back. Touched once per segment,
//! never per message. Lock-free.

use crate::sync::plain::{AtomicUsize, Ordering};

/// Bytes of ring memory that may be in use at a time.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    /// Takes `bytes` if they are within the limit.
    pub(crate) fn try_take(&self, bytes: usize) -> bool {
        // Relaxed: only the sum matters, no memory is published through it.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= self.limit)
            })
            .is_ok()
    }

    /// Takes `bytes` whatever the limit says.
    pub(crate) fn force(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives `bytes` back.
    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether more is in use than the limit says.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.used() > self.limit
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}
