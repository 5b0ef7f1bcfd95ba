//! "One at a time" as a type: what only the present runner may touch.
//!
//! ```text
//!   Token   one per runner; whoever has it is the runner (a lane's worker, the holder of a baton)
//!   Serial  a cell that opens to the token it was made for, and to nobody twice at once
//!   Baton   the right to run, handed from thread to thread by a counter of things to do
//! ```
//!
//! Guarantees: a handler never runs on two threads at once, nor inside itself (G4): the token can
//! neither be copied nor shared, so holding it is proof; that nobody is in is marked, or known ([`Alone`]). Cost of entering and leaving: a compare and two stores, or
//! the compare alone for who knows that nobody is in.
//! Model: `loom-tests/tests/baton.rs`.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::sync::plain;
use crate::sync::{AtomicUsize, Ordering, UnsafeCell};

/// Proof of being the one runner. Not `Sync`, not `Clone`.
#[derive(Debug)]
pub(crate) struct Token {
    id: TokenId,
    _one_thread: PhantomData<Cell<()>>,
}

/// Names a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TokenId(u64);

impl Token {
    pub(crate) fn new() -> Self {
        static NEXT: plain::AtomicU64 = plain::AtomicU64::new(0);
        Self { id: TokenId(NEXT.fetch_add(1, plain::Ordering::Relaxed)), _one_thread: PhantomData }
    }

    /// The same token once more, for a lane that goes from thread to thread (`takeover`).
    ///
    /// # Safety
    /// No two threads use tokens of one id for the same member at a time.
    pub(super) unsafe fn again(id: TokenId) -> Self {
        Self { id, _one_thread: PhantomData }
    }

    pub(crate) fn id(&self) -> TokenId {
        self.id
    }
}

/// Proof of holding the token, and that nobody is in what is entered with it: that need not be marked.
pub(crate) struct Alone<'a> {
    token: &'a Token,
    /// Of that token, to be kept in a register.
    id: TokenId,
}

impl<'a> Alone<'a> {
    /// # Safety
    /// Nobody is in the value that is entered with it, nor enters it before whoever did has left. `id` is the token's.
    #[inline(always)]
    pub(super) unsafe fn new(token: &'a Token, id: TokenId) -> Self {
        Self { token, id }
    }
}

impl Deref for Alone<'_> {
    type Target = Token;
    fn deref(&self) -> &Token {
        self.token
    }
}

/// A value for the holder of one token.
pub(crate) struct Serial<T> {
    /// Touched by the token's holder only, while `owner` says [`INSIDE`] or nobody else is to be there ([`Alone`]).
    value: std::cell::UnsafeCell<T>,
    /// The token's number, or [`INSIDE`]. Written by the token's holder only, at each entering that is marked.
    owner: plain::AtomicU64,
}

/// Instead of a token's number: its holder is in.
const INSIDE: u64 = u64::MAX;

// SAFETY: the value is touched only by the holder of the owner token, which is one thread at a
// time for one member (`Token::again`, `Alone`), and passing the token between threads synchronises.
unsafe impl<T: Send> Sync for Serial<T> {}

impl<T> Serial<T> {
    pub(crate) fn new(owner: TokenId, value: T) -> Self {
        Self { owner: plain::AtomicU64::new(owner.0), value: std::cell::UnsafeCell::new(value) }
    }

    /// The value; `None` if somebody is in already.
    ///
    /// # Panics
    /// If the token is another runner's.
    #[inline(always)]
    pub(crate) fn enter<'a>(&'a self, token: &'a Token) -> Option<Entered<'a, T>> {
        self.enter_as(token.id)
    }

    /// As [`enter`](Self::enter), leaving no mark (but in builds with debug assertions).
    #[inline(always)]
    pub(crate) fn enter_alone<'a>(&'a self, alone: Alone<'a>) -> Option<Entered<'a, T, false>> {
        self.enter_as(alone.id)
    }

    #[inline(always)]
    fn enter_as<'a, const MARKED: bool>(&'a self, id: TokenId) -> Option<Entered<'a, T, MARKED>> {
        // Relaxed: only the holder of the token with this number ever stores, and hands its stores over with it.
        let owner = self.owner.load(plain::Ordering::Relaxed);
        if owner != id.0 {
            Self::refuse(owner);
            return None;
        }
        if MARKED || cfg!(debug_assertions) {
            self.owner.store(INSIDE, plain::Ordering::Relaxed);
        }
        Some(Entered { cell: self, id, _by_token: PhantomData })
    }

    #[cold]
    #[inline(never)]
    fn refuse(owner: u64) {
        assert!(owner == INSIDE, "entered by a runner it does not belong to");
    }
}

/// Access to a [`Serial`] value. Not `MARKED`: by who was [`Alone`].
pub(crate) struct Entered<'a, T, const MARKED: bool = true> {
    cell: &'a Serial<T>,
    id: TokenId,
    _by_token: PhantomData<&'a Token>,
}

impl<T, const MARKED: bool> Deref for Entered<'_, T, MARKED> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: `owner` was the token's number and is `INSIDE` while this guard lives, or nobody else is there (`Alone`).
        unsafe { &*self.cell.value.get() }
    }
}

impl<T, const MARKED: bool> DerefMut for Entered<'_, T, MARKED> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.cell.value.get() }
    }
}

impl<T, const MARKED: bool> Drop for Entered<'_, T, MARKED> {
    #[inline(always)]
    fn drop(&mut self) {
        if MARKED || cfg!(debug_assertions) {
            self.cell.owner.store(self.id.0, plain::Ordering::Relaxed);
        }
    }
}

/// A right to run that follows the work: whoever adds the first thing to do does all there is.
pub(crate) struct Baton<T> {
    /// Things to do that were announced and not done.
    pending: AtomicUsize,
    token: Token,
    /// Touched by the holder only.
    state: UnsafeCell<T>,
}

// SAFETY: `token` and `state` are reached through `Holder` only, of which there is one at a time
// (`pending` went from zero to one), and passing the right synchronises through `pending`.
unsafe impl<T: Send> Sync for Baton<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Baton<T> {}

impl<T> Baton<T> {
    pub(crate) fn new(state: T) -> Self {
        Self { pending: AtomicUsize::new(0), token: Token::new(), state: UnsafeCell::new(state) }
    }

    pub(crate) fn token_id(&self) -> TokenId {
        self.token.id()
    }

    /// The right to do one thing at once, if nothing else waits or runs.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Holder<'_, T>> {
        // Acquire: meets the Release in `done_one`; the last holder's work is visible.
        self.pending
            .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
            .then_some(Holder { baton: self })
    }

    /// Announces a thing to do that is queued right after. Returns the right if nobody has it.
    #[inline]
    pub(crate) fn announce(&self) -> Option<Holder<'_, T>> {
        // AcqRel: Acquire as above; Release keeps the chain to the next holder. What is queued is published
        // by the queue, on which the holder waits for it.
        (self.pending.fetch_add(1, Ordering::AcqRel) == 0).then_some(Holder { baton: self })
    }
}

/// The right to run. It stands for one thing to do; give it back with [`done_one`](Self::done_one).
pub(crate) struct Holder<'a, T> {
    baton: &'a Baton<T>,
}

impl<'a, T> Holder<'a, T> {
    pub(crate) fn token(&self) -> &Token {
        &self.baton.token
    }

    /// Looks at the state for a moment.
    pub(crate) fn with<R>(&mut self, f: impl FnOnce(&mut T) -> R) -> R {
        self.baton.state.with_mut(|state| {
            // SAFETY: there is one holder, and it is borrowed mutably.
            f(unsafe { &mut *state })
        })
    }

    /// One thing is done. The right again if more was announced: one thing per return.
    #[inline]
    pub(crate) fn done_one(self) -> Option<Self> {
        // AcqRel: Release hands our work to the next holder; Acquire sees what was announced.
        (self.baton.pending.fetch_sub(1, Ordering::AcqRel) != 1).then_some(self)
    }
}
