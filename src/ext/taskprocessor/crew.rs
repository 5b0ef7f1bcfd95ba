//! The heart of a pool: one queue for all workers, and who is to take from it.
//!
//! ```text
//!   push ─► tasks ─► whichever worker is idle        idle 1  busy 2  starting 0
//!     more tasks wait than workers are idle or starting: grow
//!   worker: take … Task ─► run ─► take … Leave (idle too long, too many, closed)
//! ```
//!
//! Nothing is ever given to a busy worker, so a task waits only while all workers are busy and the pool
//! may not grow. Workers told to leave are not counted on: a push keeps one of them if it would otherwise start one.
//!
//! Guarantees: each task is taken once, oldest first; a task that can be taken is (no lost wake-up). One
//! short lock, nothing foreign runs under it. Models: `loom-tests/tests/task_pool.rs`.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

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
    /// Counted as workers, not yet arrived.
    starting: usize,
    /// How many of those idle or starting have to leave.
    free_surplus: usize,
    /// How many of the busy ones have to leave, when done.
    busy_surplus: usize,
    /// Since when `least_idle` is counted.
    since: Instant,
    /// Fewest that were idle since then whenever a task was taken.
    least_idle: usize,
    is_closed: bool,
}

impl<T> State<T> {
    /// Idle or starting.
    fn free(&self) -> usize {
        self.idle + self.starting
    }

    /// Workers that are not to leave.
    fn staying(&self) -> usize {
        self.workers - self.free_surplus - self.busy_surplus
    }

    /// Tasks wait for which no worker is idle or on its way.
    fn is_short(&self) -> bool {
        self.tasks.len() > self.free() - self.free_surplus
    }

    /// Whether one more worker than needed has been there for this long: so it does not matter in which order idle
    /// ones are woken.
    fn is_spare(&mut self, limit: Duration) -> bool {
        if self.since.elapsed() < limit {
            return false;
        }
        if self.least_idle > 0 {
            self.least_idle -= 1;
            return true;
        }
        (self.since, self.least_idle) = (Instant::now(), self.idle);
        false
    }

    /// So many more workers, `maximum` at most: those about to leave stay, the rest is to be started.
    fn grow(&mut self, wanted: usize, maximum: usize) -> usize {
        let kept = self.free_surplus.min(wanted);
        self.free_surplus -= kept;
        let start = (wanted - kept).min(maximum.saturating_sub(self.workers));
        self.busy_surplus -= self.busy_surplus.min(wanted - kept - start);
        self.workers += start;
        self.starting += start;
        start
    }
}

/// Where a worker comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Task,
    /// It was idle or starting.
    Free,
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
        let state = State {
            tasks: VecDeque::new(),
            workers: 0,
            idle: 0,
            starting: 0,
            free_surplus: 0,
            busy_surplus: 0,
            since: Instant::now(),
            least_idle: 0,
            is_closed: false,
        };
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
        let start = if state.is_short() {
            // A closed pool keeps its promises with one worker if it has none.
            let wanted = if state.is_closed { usize::from(state.staying() == 0) } else { self.limits.increment };
            state.grow(wanted, self.limits.maximum)
        } else {
            0
        };
        if state.idle > 0 {
            self.work.notify_one();
        }
        Ok(Pushed { was_empty, start })
    }

    /// A worker that was to be started arrives in its thread: what it does first, if that is known.
    pub(crate) fn arrive(&self) -> Option<Take<T>> {
        let mut state = lock(&self.state);
        state.starting -= 1;
        self.look(state, From::Free, false).ok()
    }

    /// A worker could not be started.
    pub(crate) fn not_started(&self) {
        let mut state = lock(&self.state);
        state.starting -= 1;
        state.workers -= 1;
        state.free_surplus = state.free_surplus.min(state.free());
        drop(state);
        self.left.notify_all();
    }

    /// What a worker that has done its task does next if that is known without waiting. `Leave`: it is no longer counted.
    pub(crate) fn try_take(&self) -> Option<Take<T>> {
        self.look(lock(&self.state), From::Task, false).ok()
    }

    /// As [`try_take`](Self::try_take), waited for; who waits for `idle_timeout`, or was not needed for so long,
    /// leaves unless the minimum would not be kept.
    pub(crate) fn take(&self, idle_timeout: Option<Duration>) -> Take<T> {
        let mut state = lock(&self.state);
        let may_leave = state.workers > self.limits.minimum && state.tasks.is_empty() && state.busy_surplus == 0;
        if may_leave && idle_timeout.is_some_and(|limit| state.is_spare(limit)) {
            return self.leave(state);
        }
        let (mut from, mut idled_out) = (From::Task, false);
        loop {
            state = match self.look(state, from, idled_out) {
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
            from = From::Free;
        }
    }

    fn look<'a>(
        &self,
        mut state: MutexGuard<'a, State<T>>,
        from: From,
        idled_out: bool,
    ) -> Result<Take<T>, MutexGuard<'a, State<T>>> {
        let State { free_surplus, busy_surplus, .. } = &mut *state;
        let surplus = if from == From::Free { free_surplus } else { busy_surplus };
        if *surplus > 0 {
            *surplus -= 1;
            return Ok(self.leave(state));
        }
        if let Some(task) = state.tasks.pop_front() {
            state.least_idle = state.least_idle.min(state.idle);
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

    /// Sets the number of workers, within the maximum. Returns how many to start; too many leave when idle or done,
    /// but for one while tasks wait in a pool that would start one for them.
    pub(crate) fn resize(&self, size: usize) -> usize {
        let mut state = lock(&self.state);
        if state.is_closed {
            return 0;
        }
        let least = usize::from(self.limits.increment > 0 && !state.tasks.is_empty());
        let size = size.max(least).min(self.limits.maximum);
        let staying = state.staying();
        if size >= staying {
            let kept = state.busy_surplus.min(size - staying);
            state.busy_surplus -= kept;
            return state.grow(size - staying - kept, usize::MAX);
        }
        let leaving = staying - size;
        let free = leaving.min(state.free() - state.free_surplus);
        state.free_surplus += free;
        state.busy_surplus += leaving - free;
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
        let wanted = usize::from(state.staying() == 0 && !state.tasks.is_empty());
        let start = state.grow(wanted, usize::MAX);
        drop(state);
        self.work.notify_all();
        start
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed
    }

    pub(crate) fn count(&self) -> Count {
        let state = lock(&self.state);
        let idle = state.free();
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
