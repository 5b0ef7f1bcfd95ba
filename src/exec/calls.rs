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

use super::audience::Entry;
use super::hold::Hold;
use super::lane::Member;
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
    /// By the holder of the token. Whenever a member is called through it, its handler does not run, here or elsewhere, and
    /// nobody else calls it before the call returns.
    #[inline]
    pub(super) unsafe fn new(hold: &'a Hold, token: &'a Token, after: &'a dyn Fn(u64) -> bool) -> Self {
        Self { hold, token, owner: token.id(), after }
    }

    /// The right to enter the handler of a member that is called through it, or is to be.
    ///
    /// # Safety
    /// The caller is not in it already, and is out of it before it enters it again.
    #[inline(always)]
    pub(crate) unsafe fn alone(&self) -> Alone<'_> {
        // SAFETY: others are not in it (what `new` was promised), and the caller is not (what it promises).
        unsafe { Alone::new(self.token, self.owner) }
    }

    /// Makes the call of the member with this id; break: nothing of the walk is left to do here.
    #[inline(always)]
    pub(crate) fn make(&self, id: u64, call: impl FnOnce()) -> ControlFlow<()> {
        self.hold.enter(id);
        call();
        if !self.hold.leave() && (self.after)(id) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Hands a member the message; break: as [`make`](Self::make).
    #[inline(always)]
    pub(crate) fn deliver<'m, M: Member>(&self, entry: &'m Entry<M>, call: &mut M::Call<'m>) -> ControlFlow<()> {
        let post = entry.post();
        // SAFETY: entered nowhere else here.
        let alone = unsafe { self.alone() };
        self.make(M::id_of(post), || entry.member().deliver_alone(post, alone, call))
    }
}
