//! Keeping a panic of foreign code where it belongs: reported, and no further.
//!
//! Handlers are caught where they are called (`bus/subscriber.rs`); everything else that is not ours
//! and runs on our threads - destructors of payloads, handlers and formatters, wakers - goes through
//! [`quietly`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code whose panic must not take the caller down.
pub(crate) fn quietly(f: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(f)) {
        report_panic("a destructor or waker", &*panic);
        discard(panic);
    }
}

/// Tells the log about a panic. The log is foreign code too.
pub(crate) fn report_panic(of: &str, panic: &(dyn Any + Send)) {
    let tell = || tracing::error!(panic = said(panic), "{of} panicked; the bus goes on");
    if let Err(again) = catch_unwind(AssertUnwindSafe(tell)) {
        discard(again);
    }
}

/// The text a panic carried.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)")
}

/// Drops what a panic carried; if that panics too, leaks it.
pub(crate) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(move || drop(panic))) {
        std::mem::forget(again);
    }
}
