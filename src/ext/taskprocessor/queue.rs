//! The heart of a taskprocessor: a queue whose tasks run one at a time, whoever runs them.
//!
//! ```text
//!   push ─► tasks ─► begin ─► (run, no lock) ─► finish ─┐
//!             ▲ was_empty: wake the runner        More ──┘ again
//!   suspend: begin finds nothing to do     unsuspend: wakes the runner if tasks wait
//! ```
//!
//! The duty that keeps it going: whoever is woken (`true` from [`push`](TaskQueue::push),
//! [`unsuspend`](TaskQueue::unsuspend), [`close`](TaskQueue::close) or [`Finish::wake`]) runs tasks until
//! there is no `More`. Others may run tasks as they like: a runner that was turned away meanwhile is
//! woken again.
//!
//! Guarantees: FIFO, one task at a time, no task is left without a runner on its way. One short lock, nothing foreign
//! runs under it. Models: `loom-tests/tests/task_pool.rs`.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex, lock};

#[derive(Debug)]
pub(crate) struct TaskQueue<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    tasks: VecDeque<T>,
    is_executing: bool,
    is_suspended: bool,
    /// Refuses tasks.
    is_ended: bool,
    /// Somebody found a task running and left.
    turned_away: bool,
}

impl<T> State<T> {
    fn has_work(&self) -> bool {
        !self.is_suspended && !self.tasks.is_empty()
    }
}

/// What [`TaskQueue::begin`] found.
#[derive(Debug)]
pub(crate) enum Begin<T> {
    /// Run it, then [`TaskQueue::finish`].
    Task(T),
    Empty,
    Suspended,
    /// A task is running.
    Busy,
}

/// What is to be done after a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// Nothing is left.
    pub(crate) is_empty: bool,
    pub(crate) is_suspended: bool,
    /// A runner went away meanwhile and has to be woken.
    pub(crate) wake: bool,
    /// That was the last task of an ended queue. Said once.
    pub(crate) is_over: bool,
}

/// What ending leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Close {
    /// Tasks wait that a suspension held back.
    pub(crate) wake: bool,
    /// There is nothing left to run. Said once, here or by [`Finish::is_over`].
    pub(crate) is_over: bool,
}

impl<T> TaskQueue<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State {
            tasks: VecDeque::new(),
            is_executing: false,
            is_suspended: false,
            is_ended: false,
            turned_away: false,
        }))
    }

    /// Queues a task. True: it was empty and nothing was running, wake the runner.
    pub(crate) fn push(&self, task: T) -> Result<bool, T> {
        let mut state = lock(&self.0);
        if state.is_ended {
            return Err(task);
        }
        let was_empty = !state.is_executing && state.tasks.is_empty();
        state.tasks.push_back(task);
        Ok(was_empty)
    }

    pub(crate) fn begin(&self) -> Begin<T> {
        let mut state = lock(&self.0);
        if state.is_executing {
            state.turned_away = true;
            return Begin::Busy;
        }
        if state.is_suspended {
            return Begin::Suspended;
        }
        match state.tasks.pop_front() {
            Some(task) => {
                state.is_executing = true;
                Begin::Task(task)
            }
            None => Begin::Empty,
        }
    }

    /// The task of the last `begin` is over.
    pub(crate) fn finish(&self) -> Finish {
        let mut state = lock(&self.0);
        state.is_executing = false;
        let turned_away = std::mem::take(&mut state.turned_away);
        let is_empty = state.tasks.is_empty();
        Finish {
            is_empty,
            is_suspended: state.is_suspended,
            wake: turned_away && state.has_work(),
            is_over: is_empty && state.is_ended,
        }
    }

    /// No task begins from now on. Without effect after the end.
    pub(crate) fn suspend(&self) {
        let mut state = lock(&self.0);
        state.is_suspended = !state.is_ended;
    }

    /// True: tasks wait and nothing is running, wake the runner.
    pub(crate) fn unsuspend(&self) -> bool {
        let mut state = lock(&self.0);
        let was_suspended = std::mem::take(&mut state.is_suspended);
        was_suspended && !state.is_executing && state.has_work()
    }

    pub(crate) fn is_suspended(&self) -> bool {
        lock(&self.0).is_suspended
    }

    pub(crate) fn is_executing(&self) -> bool {
        lock(&self.0).is_executing
    }

    pub(crate) fn is_ended(&self) -> bool {
        lock(&self.0).is_ended
    }

    /// Refuses tasks from now on; those that wait still run, suspended or not.
    pub(crate) fn close(&self) -> Close {
        let mut state = lock(&self.0);
        if std::mem::replace(&mut state.is_ended, true) {
            return Close::default();
        }
        let was_suspended = std::mem::take(&mut state.is_suspended);
        let is_idle = !state.is_executing;
        Close { wake: was_suspended && is_idle && state.has_work(), is_over: is_idle && state.tasks.is_empty() }
    }

    /// Looks at the task that has waited longest.
    pub(crate) fn oldest<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        lock(&self.0).tasks.front().map(look)
    }

    /// Empties it without running anything.
    pub(crate) fn take_all(&self) -> VecDeque<T> {
        std::mem::take(&mut lock(&self.0).tasks)
    }
}

/// Wakes the one thread that waits here; a wake-up that comes before is kept.
#[derive(Debug)]
pub(crate) struct Signal {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn new() -> Self {
        Self { is_set: Mutex::new(false), changed: Condvar::new() }
    }

    pub(crate) fn set(&self) {
        *lock(&self.is_set) = true;
        self.changed.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut is_set = lock(&self.is_set);
        while !*is_set {
            is_set = self.changed.wait(is_set).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *is_set = false;
    }
}
