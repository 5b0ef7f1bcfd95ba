//! "It has happened": waited for by threads and by tasks, one word large.
//!
//! ```text
//!   waiters push themselves ─► stack ◄─ close() by the one who completes, who wakes them all
//!   who gives up: takes all, puts back those that still wait; if it has happened meanwhile, wakes them
//! ```
//!
//! Guarantees: no wake-up is lost (a waiter that comes too late finds the stack closed; model:
//! `loom-tests/tests/completion.rs`); everything done before completing is seen after waiting; who gives up
//! leaves nothing behind, however often.

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
    /// Whether nobody else has it: who waited has given up.
    fn is_left(&self) -> bool {
        match self {
            Self::Thread(sleeper) => Arc::strong_count(sleeper) == 1,
            Self::Task(slot) => Arc::strong_count(slot) == 1,
        }
    }

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

    /// Has the calling thread woken when it happens, unless it has happened. To be kept while it waits, and then
    /// [given up](Self::give_up).
    pub(crate) fn wake_thread(&self) -> Arc<Sleeper> {
        let sleeper = Arc::new(Sleeper::current());
        let _ = self.0.push(Waiter::Thread(Arc::clone(&sleeper)));
        sleeper
    }

    /// The thread does not wait any more.
    pub(crate) fn give_up(&self, sleeper: Arc<Sleeper>) {
        drop(sleeper);
        self.forget_left();
    }

    /// The task does not wait any more.
    pub(crate) fn give_up_task(&self, slot: Arc<TaskSlot>) {
        slot.clear();
        drop(slot);
        self.forget_left();
    }

    /// Takes those out that have given up. Cost: O(waiters).
    #[cold]
    fn forget_left(&self) {
        for waiter in self.0.take().filter(|waiter| !waiter.is_left()) {
            if let Err(waiter) = self.0.push(waiter) {
                // It has happened while we had this one.
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_leaves_nothing_behind_and_others_stay() {
        let done = Completion::new();
        let stays = done.wake_thread();
        for _ in 0..10 {
            done.give_up(done.wake_thread());
            let mut task = None;
            assert!(done.poll(&mut task, &Context::from_waker(Waker::noop())).is_pending());
            done.give_up_task(task.unwrap());
        }
        assert_eq!(done.0.take().count(), 1);
        drop(stays);
    }
}
