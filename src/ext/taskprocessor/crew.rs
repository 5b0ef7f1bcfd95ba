//! The heart of a pool: one queue for all workers, and who is to take from it.
//!
//! ```text
//!   push ─► tasks ─► whichever worker is idle        idle 1  busy 2  starting 0
//!     more tasks wait than workers are idle or starting: grow
//!   worker: take … Task ─► run ─► take … Leave (idle too long, too many, closed)
//! ```
//!
//! Nothing is ever given to a busy worker, so a task waits only while all workers are busy and the pool
//! may not grow.
//!
//! Guarantees: each task is taken once, oldest first; a task that can be taken is (no lost wake-up). One
//! short lock, nothing foreign runs under it. Models: `loom-tests/tests/task_pool.rs`.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard, lock};

/// How a pool grows and shrinks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) minimum: usize,
    pub(crate) maximum: usize,
    /// Workers to add when there are too few.
    pub(crate) increment: usize,
}

#[derive(Debug)]
pub(crate) struct Crew<T> {
    state: Mutex<State<T>>,
    limits: Limits,
    /// Something to take, or to leave for.
    work: Condvar,
    /// A worker left.
    left: Condvar,
}

#[derive(Debug)]
struct State<T> {
    tasks: VecDeque<T>,
    /// All of them: idle, busy, starting.
    workers: usize,
    /// In `take`, waiting. One that is woken counts until it has the lock again.
    idle: usize,
    /// Counted as workers, not yet in `take` for the first time.
    starting: usize,
    /// How many have to leave.
    surplus: usize,
    is_closed: bool,
}

/// What a worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Take<T> {
    Task(T),
    Leave,
}

/// What a push did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Nothing waited before.
    pub(crate) was_empty: bool,
    /// Workers to start; they are counted already.
    pub(crate) start: usize,
}

/// How many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) workers: usize,
    pub(crate) idle: usize,
    pub(crate) active: usize,
    pub(crate) waiting: usize,
}

fn ignore_poison<G>(waited: Result<G, PoisonError<G>>) -> G {
    waited.unwrap_or_else(PoisonError::into_inner)
}

impl<T> Crew<T> {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = State { tasks: VecDeque::new(), workers: 0, idle: 0, starting: 0, surplus: 0, is_closed: false };
        Self { state: Mutex::new(state), limits, work: Condvar::new(), left: Condvar::new() }
    }

    /// Queues a task. `always`: even when closed (work that was accepted before).
    pub(crate) fn push(&self, task: T, always: bool) -> Result<Pushed, T> {
        let mut state = lock(&self.state);
        if state.is_closed && !always {
            return Err(task);
        }
        let was_empty = state.tasks.is_empty();
        state.tasks.push_back(task);
        let start = if state.tasks.len() > state.idle + state.starting {
            let room = self.limits.maximum.saturating_sub(state.workers);
            // A closed pool keeps its promises with one worker if it has none.
            let wanted = if state.is_closed { usize::from(state.workers == 0) } else { self.limits.increment };
            wanted.min(room)
        } else {
            0
        };
        state.workers += start;
        state.starting += start;
        if state.idle > 0 {
            self.work.notify_one();
        }
        Ok(Pushed { was_empty, start })
    }

    /// A worker that was to be started arrives in its thread.
    pub(crate) fn arrive(&self) {
        lock(&self.state).starting -= 1;
    }

    /// A worker could not be started.
    pub(crate) fn not_started(&self) {
        let mut state = lock(&self.state);
        state.starting -= 1;
        state.workers -= 1;
        state.surplus = state.surplus.min(state.workers);
        drop(state);
        self.left.notify_all();
    }

    /// What a worker does next if that is known without waiting. `Leave`: it is no longer counted.
    pub(crate) fn try_take(&self) -> Option<Take<T>> {
        self.look(lock(&self.state), false).ok()
    }

    /// As [`try_take`](Self::try_take), waited for; who waits for `idle_timeout` leaves unless the minimum would
    /// not be kept.
    pub(crate) fn take(&self, idle_timeout: Option<Duration>) -> Take<T> {
        let mut state = lock(&self.state);
        let mut idled_out = false;
        loop {
            state = match self.look(state, idled_out) {
                Ok(next) => return next,
                Err(state) => state,
            };
            state.idle += 1;
            (state, idled_out) = match idle_timeout {
                Some(limit) => {
                    let (state, timeout) = ignore_poison(self.work.wait_timeout(state, limit));
                    (state, timeout.timed_out())
                }
                None => (ignore_poison(self.work.wait(state)), false),
            };
            state.idle -= 1;
        }
    }

    fn look<'a>(
        &self,
        mut state: MutexGuard<'a, State<T>>,
        idled_out: bool,
    ) -> Result<Take<T>, MutexGuard<'a, State<T>>> {
        if state.surplus > 0 {
            state.surplus -= 1;
            return Ok(self.leave(state));
        }
        if let Some(task) = state.tasks.pop_front() {
            return Ok(Take::Task(task));
        }
        if state.is_closed || idled_out && state.workers > self.limits.minimum {
            return Ok(self.leave(state));
        }
        Err(state)
    }

    fn leave(&self, mut state: MutexGuard<'_, State<T>>) -> Take<T> {
        state.workers -= 1;
        drop(state);
        self.left.notify_all();
        Take::Leave
    }

    /// Sets the number of workers, within the maximum. Returns how many to start; too many leave when idle or done.
    pub(crate) fn resize(&self, size: usize) -> usize {
        let mut state = lock(&self.state);
        if state.is_closed {
            return 0;
        }
        let size = size.min(self.limits.maximum);
        let staying = state.workers - state.surplus;
        if size >= staying {
            let kept = state.surplus.min(size - staying);
            state.surplus -= kept;
            let start = size - staying - kept;
            state.workers += start;
            state.starting += start;
            return start;
        }
        state.surplus += staying - size;
        drop(state);
        // All: one woken for a task later could leave instead of taking it.
        self.work.notify_all();
        0
    }

    /// Refuses tasks; workers leave when nothing waits. Returns how many to start so that somebody serves
    /// what waits.
    pub(crate) fn close(&self) -> usize {
        let mut state = lock(&self.state);
        state.is_closed = true;
        let staying = state.workers - state.surplus;
        let start = usize::from(staying == 0 && !state.tasks.is_empty());
        state.workers += start;
        state.starting += start;
        drop(state);
        self.work.notify_all();
        start
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    pub(crate) fn count(&self) -> Count {
        let state = lock(&self.state);
        let idle = state.idle + state.starting;
        Count { workers: state.workers, idle, active: state.workers - idle, waiting: state.tasks.len() }
    }

    /// Waits for a worker to leave, or for `limit`; returns at once if there is none and nothing waits.
    pub(crate) fn wait_for_leaving(&self, limit: Duration) {
        let state = lock(&self.state);
        if state.workers > 0 || !state.tasks.is_empty() {
            drop(self.left.wait_timeout(state, limit));
        }
    }
}
