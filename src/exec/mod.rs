//! Taskprocessors: who runs what, where, one thing at a time.
//!
//! ```text
//!   lane      ring + control stack + one worker thread, pinned       (Delivery::Lane, Dedicated)
//!   inline    the publishing thread, by baton                        (Delivery::Inline)
//!   serial    what only the present runner may touch
//!   frames    what a thread is in the middle of; waiting inside handlers
//! ```
//!
//! Guarantees: serial per member (G4), in order (G2), the final message last (G5); no user code
//! under a lock, in a ring operation or while pinned; nothing here knows topics.

pub(crate) mod affinity;
pub(crate) mod audience;
pub(crate) mod completion;
pub(crate) mod frames;
pub(crate) mod inline;
pub(crate) mod lane;
pub(crate) mod part;
pub(crate) mod serial;
pub(crate) mod wait;
pub(crate) mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code (destructors, mostly) whose panic must not take the caller down: it is
/// reported and goes no further.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        report_panic("a destructor", &*panic);
        discard(panic);
    }
}

/// Tells the log about a panic.
pub(crate) fn report_panic(of: &str, panic: &(dyn std::any::Any + Send)) {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    tracing::error!(panic = said, "{of} panicked; the bus goes on");
}

/// Drops what a panic carried; if that panics too, leaks it.
pub(crate) fn discard(panic: Box<dyn std::any::Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
        std::mem::forget(again);
    }
}
