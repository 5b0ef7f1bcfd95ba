//! "It has happened": waited for by threads and by tasks, one word large.
//!
//! ```text
//!   waiters push themselves ─► stack ◄─ close() by the one who completes, who wakes them all
//! ```
//!
//! Guarantees: no wake-up is lost (a waiter that comes too late finds the stack closed; model:
//! `loom-tests/tests/completion.rs`); everything done before completing is seen after waiting; who gives up
//! waiting leaves nothing behind (`tests/waiting.rs`: `g09_waits_that_end_early_leave_nothing_behind`).

use std::task::{Context, Poll, Waker};

use crate::contain::quietly;
use crate::sync::park::Sleeper;
use crate::sync::stack::ClosableStack;
use crate::sync::{Arc, Mutex, lock};

/// A task's waker, replaced as the task moves.
#[derive(Debug, Default)]
pub(crate) struct TaskSlot(Mutex<Option<Waker>>);

impl TaskSlot {
    /// Remembers the waker to use from now on.
    pub(crate) fn set(&self, waker: &Waker) {
        // Cloning and dropping a waker is foreign code: not under the lock.
        let new = waker.clone();
        let old = lock(&self.0).replace(new);
        drop(old);
    }

    /// Forgets the waker: the task does not wait any more.
    fn clear(&self) {
        let old = lock(&self.0).take();
        drop(old);
    }
}

enum Waiter {
    Thread(Arc<Sleeper>),
    Task(Arc<TaskSlot>),
}

impl Waiter {
    fn wake(self) {
        match self {
            Self::Thread(sleeper) => sleeper.wake(),
            Self::Task(slot) => {
                let waker = lock(&slot.0).take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
    }
}

/// Something that happens once.
pub(crate) struct Completion(ClosableStack<Waiter>);

impl Completion {
    pub(crate) fn new() -> Self {
        Self(ClosableStack::new())
    }

    /// Whether it has happened.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_closed()
    }

    /// It has happened: wakes all who wait.
    pub(crate) fn complete(&self) {
        for waiter in self.0.close() {
            quietly(|| waiter.wake());
        }
    }

    /// Has the calling thread woken when it happens, until [`forget_thread`](Self::forget_thread).
    pub(crate) fn wake_thread(&self) -> Arc<Sleeper> {
        let sleeper = Arc::new(Sleeper::current());
        let _ = self.0.push(Waiter::Thread(Arc::clone(&sleeper)));
        sleeper
    }

    /// The thread does not wait any more. (It may wait elsewhere on its stack: that is another waiter.)
    pub(crate) fn forget_thread(&self, sleeper: &Arc<Sleeper>) {
        self.forget(|waiter| matches!(waiter, Waiter::Thread(other) if Arc::ptr_eq(other, sleeper)));
    }

    /// The task does not wait any more.
    pub(crate) fn forget_task(&self, slot: &Arc<TaskSlot>) {
        slot.clear();
        self.forget(|waiter| matches!(waiter, Waiter::Task(other) if Arc::ptr_eq(other, slot)));
    }

    /// Takes one waiter out. It may happen while the others are in our hands: then we wake them.
    fn forget(&self, is_it: impl Fn(&Waiter) -> bool) {
        for waiter in self.0.take() {
            if is_it(&waiter) {
                continue;
            }
            if let Err(waiter) = self.0.push(waiter) {
                quietly(|| waiter.wake());
            }
        }
    }

    /// Has a task woken when it happens; false if it has happened.
    fn wake_task(&self, slot: &Arc<TaskSlot>) -> bool {
        self.0.push(Waiter::Task(Arc::clone(slot))).is_ok()
    }

    /// A task's look: ready, or its waker is kept in `task` (none at first) and woken when it happens.
    pub(crate) fn poll(&self, task: &mut Option<Arc<TaskSlot>>, context: &Context<'_>) -> Poll<()> {
        if self.is_done() {
            return Poll::Ready(());
        }
        match task {
            Some(slot) => slot.set(context.waker()),
            None => {
                let slot = Arc::new(TaskSlot::default());
                slot.set(context.waker());
                if !self.wake_task(&slot) {
                    return Poll::Ready(());
                }
                *task = Some(slot);
            }
        }
        // It may have happened before the waker was in its slot.
        if self.is_done() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Completion").field("done", &self.is_done()).finish()
    }
}
