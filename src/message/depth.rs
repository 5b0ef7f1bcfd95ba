//! How deep publishes are nested: through how many handlers, one after the other, a message has come.
//!
//! ```text
//!   publish outside a handler: depth 0 ─► handler ─publishes─► depth 1 ─► handler ─publishes─► depth 2 …
//!              this thread's depth: set around a walk, an inline call, a final message
//! ```
//!
//! Guarantees: a message published inside a handler is at least one deeper than the message handled
//! (`tests/feedback.rs`); a thread that is in no handler publishes at depth zero. Cost: outside handlers one
//! thread-local load a publish; two stores a walk, whatever the number of members.

use std::cell::Cell;

use super::Message;
use crate::sync::local;

local! {
    static DEPTH: Cell<u16> = const { Cell::new(0) };
}

/// Depth of what this thread publishes now: zero outside handlers.
#[inline]
pub(crate) fn current() -> u16 {
    DEPTH.with(Cell::get)
}

/// This thread is in handlers of a message while the result lives.
pub(crate) struct InHandler(u16);

impl InHandler {
    #[inline]
    pub(crate) fn of(message: &Message) -> Self {
        let depth = message.depth().saturating_add(1);
        Self(DEPTH.with(|current| current.replace(depth)))
    }
}

impl Drop for InHandler {
    #[inline]
    fn drop(&mut self) {
        DEPTH.with(|current| current.set(self.0));
    }
}
