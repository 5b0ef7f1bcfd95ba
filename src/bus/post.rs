//! The hot half of a subscriber: what a delivery touches of it, on one cache line.
//!
//! ```text
//!   entry of a list ─► Post: id, handler, whose it is, counts      } both among those of the lane (`exec/slab`)
//!                        └─► the handler itself                    }
//! ```
//!
//! Guarantees: on a lane of the bus, none of the lines of posts and handlers (up to 1 KiB) that its deliveries write has
//! anything of another lane's.

use super::any_handler::AnyHandler;
use super::subscriber::PanicPolicy;
use crate::exec::serial::{Serial, TokenId};
use crate::stats::Tally;
use crate::sync::AtomicBool;
use crate::sync::plain::{AtomicU32, Ordering};

/// See the module.
#[repr(align(64))]
pub(crate) struct Post {
    pub(super) id: u64,
    /// None after the final message.
    pub(super) handler: Serial<Option<AnyHandler>>,
    /// Messages handed to it. Written by its runner only.
    pub(super) delivered: Tally,
    // What stands below is written now and then, and fills the line.
    late: AtomicU32,
    panics: AtomicU32,
    /// Times it lost its lane. By the monitor.
    takeovers: AtomicU32,
    /// Unsubscribing has begun.
    pub(super) left: AtomicBool,
    pub(super) on_panic: PanicPolicy,
}

impl Post {
    pub(super) fn new(id: u64, owner: TokenId, handler: AnyHandler, on_panic: PanicPolicy) -> Self {
        Self {
            id,
            handler: Serial::new(owner, Some(handler)),
            delivered: Tally::default(),
            late: AtomicU32::new(0),
            panics: AtomicU32::new(0),
            takeovers: AtomicU32::new(0),
            left: AtomicBool::new(false),
            on_panic,
        }
    }

    /// Messages handed to the handler, without the final one.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// A message has come after the final one.
    #[cold]
    pub(super) fn note_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that came after the final one.
    pub(crate) fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed).into()
    }

    /// The handler has panicked.
    pub(super) fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls of the handler that panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed).into()
    }

    /// It has lost its lane.
    pub(crate) fn note_takeover(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Times it lost its lane.
    pub(crate) fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Relaxed).into()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_post_is_one_line() {
        assert_eq!(size_of::<Post>(), 64);
    }
}
