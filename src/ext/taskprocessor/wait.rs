//! Waiting for the result of a task.
//!
//! ```text
//!   push_wait(f): who is on my stack? who waits for whom? ─► Ticket (queued) ─► Slot ◄─ result
//! ```
//!
//! Guarantees: a wait that could never end is an error before anything is queued, with the function handed back;
//! a task that panics or is dropped ends the wait.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use super::error::PushWaitError;
use super::task;
use crate::sync::{Arc, Condvar, Mutex, lock};

enum State<F, R> {
    Queued(F),
    Running,
    Done(R),
    Panicked,
    Dropped,
    Taken,
}

/// Where the function waits and the result comes.
pub(super) struct Slot<F, R> {
    state: Mutex<State<F, R>>,
    changed: Condvar,
}

/// The queued half: runs the function, or says that it never will be.
pub(super) struct Ticket<F, R>(Arc<Slot<F, R>>);

impl<R, F: FnOnce() -> R> Ticket<F, R> {
    pub(super) fn run(self) {
        let State::Queued(f) = std::mem::replace(&mut *lock(&self.0.state), State::Running) else { return };
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(result) => self.0.set(State::Done(result)),
            Err(panic) => {
                self.0.set(State::Panicked);
                resume_unwind(panic);
            }
        }
    }
}

impl<F, R> Drop for Ticket<F, R> {
    fn drop(&mut self) {
        let dropped = {
            let mut state = lock(&self.0.state);
            let is_open = matches!(*state, State::Queued(_));
            is_open.then(|| std::mem::replace(&mut *state, State::Dropped))
        };
        self.0.changed.notify_all();
        drop(dropped);
    }
}

impl<F, R> Slot<F, R> {
    pub(super) fn new(f: F) -> (Arc<Self>, Ticket<F, R>) {
        let slot = Arc::new(Self { state: Mutex::new(State::Queued(f)), changed: Condvar::new() });
        (Arc::clone(&slot), Ticket(slot))
    }

    fn set(&self, to: State<F, R>) {
        *lock(&self.state) = to;
        self.changed.notify_all();
    }

    /// The function back, if it was never run.
    pub(super) fn reclaim(&self) -> Option<F> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Queued(f) => Some(f),
            other => {
                *state = other;
                None
            }
        }
    }

    /// The result, if it has come.
    pub(super) fn try_result(&self) -> Option<Result<R, PushWaitError<F>>> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Some(Ok(result)),
            State::Panicked => Some(Err(PushWaitError::Panicked)),
            State::Dropped | State::Taken => Some(Err(PushWaitError::Dropped)),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Waits for a change, for `limit` at most if there is one.
    pub(super) fn wait(&self, limit: Option<Duration>) {
        let state = lock(&self.state);
        if !matches!(*state, State::Queued(_) | State::Running) {
            return;
        }
        match limit {
            None => drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)),
            Some(limit) => drop(self.changed.wait_timeout(state, limit)),
        }
    }
}

/// Who waits for whom among taskprocessors: waiter's id to the id waited for.
static WAITS: std::sync::Mutex<Option<HashMap<u64, u64>>> = std::sync::Mutex::new(None);

/// A wait that is going on; its edges are gone with it.
pub(super) struct Waiting(Vec<(u64, Option<u64>)>);

/// Why a wait cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Never {
    OwnTask,
    Circular,
}

impl Waiting {
    /// Announces that the tasks on this thread's stack are going to wait for `target`.
    pub(super) fn announce(target: u64) -> Result<Self, Never> {
        let waiters = task::running_here();
        if waiters.contains(&target) {
            return Err(Never::OwnTask);
        }
        if waiters.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        let edges = waits.get_or_insert_default();
        let mut at = target;
        while let Some(next) = edges.get(&at) {
            if waiters.contains(next) {
                return Err(Never::Circular);
            }
            at = *next;
        }
        Ok(Self(waiters.into_iter().map(|waiter| (waiter, edges.insert(waiter, target))).collect()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(edges) = waits.as_mut() {
            for (waiter, before) in self.0.drain(..).rev() {
                match before {
                    Some(target) => edges.insert(waiter, target),
                    None => edges.remove(&waiter),
                };
            }
        }
    }
}
