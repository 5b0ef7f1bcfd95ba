//! The calls of a walk: what stands around each of them.
//!
//! ```text
//!   mark: who runs ─► handler ─► mark: nobody ─► signs? ─► the worker looks (`walk`), and may end the walk
//! ```
//!
//! Guarantees: a call is marked for the watchdog from before it begins until after it ends (`hold`). Cost: two stores, a
//! load.
#![allow(unsafe_code)]

use std::ops::ControlFlow;

use super::hold::Hold;
use super::serial::{Alone, Token, TokenId};

/// Calls of handlers that do not run.
pub(crate) struct Calls<'a> {
    hold: &'a Hold,
    token: &'a Token,
    /// Of that token, here to be kept in a register.
    owner: TokenId,
    /// Looks after a call for which there were signs; true: the walk goes on without us.
    after: &'a dyn Fn(u64) -> bool,
}

impl<'a> Calls<'a> {
    /// # Safety
    /// By the holder of the token. Whenever a handler is entered or called through it, it does not run, here or elsewhere,
    /// and nobody else enters it before the call returns.
    #[inline]
    pub(super) unsafe fn new(hold: &'a Hold, token: &'a Token, after: &'a dyn Fn(u64) -> bool) -> Self {
        Self { hold, token, owner: token.id(), after }
    }

    /// For who marks what it enters all the same.
    #[allow(dead_code)] // by models only
    pub(crate) fn token(&self) -> &Token {
        self.token
    }

    /// The right to enter a handler.
    #[inline(always)]
    pub(crate) fn alone(&self) -> Alone<'_> {
        // SAFETY: what `new` was promised.
        unsafe { Alone::new(self.owner) }
    }

    /// Makes the call of the member with this id; break: nothing of the walk is left to do here.
    #[inline(always)]
    pub(crate) fn make(&self, id: u64, call: impl FnOnce()) -> ControlFlow<()> {
        self.hold.enter(id);
        call();
        if !self.hold.leave() && (self.after)(id) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
