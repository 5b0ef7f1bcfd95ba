//! What this thread is in the middle of: handlers on its stack, and the lane it serves.
//!
//! Waiting needs to know both. A handler that waits for itself, or for a handler that waits for it,
//! is told so; a worker that waits inside a handler serves its lane meanwhile (it "helps"), so
//! waiting for another subscription of the same lane, or in a circle over lanes, comes out (G7).
//!
//! Guarantees: `wait_for` returns when the completion is done, or an error; the wait graph is touched
//! only by waits made inside handlers, behind one short lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::completion::Completion;
use crate::sync::{Arc, local, park};

/// A worker as those see it who wait on its thread.
pub(super) trait Helper {
    /// How many handlers wait on this stack already.
    fn depth(&self) -> usize;
    /// Whether one of these frames runs the member.
    fn runs(&self, id: u64) -> bool;
    /// The members in its frames.
    fn running(&self, into: &mut Vec<u64>);
    /// Serves one thing; false if there was nothing.
    fn help(&self) -> bool;
    /// Sleeps until the lane has work, somebody wakes the thread, or the time is over.
    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>);
}

impl<T: Helper> Helper for Arc<T> {
    fn depth(&self) -> usize {
        (**self).depth()
    }
    fn runs(&self, id: u64) -> bool {
        (**self).runs(id)
    }
    fn running(&self, into: &mut Vec<u64>) {
        (**self).running(into);
    }
    fn help(&self) -> bool {
        (**self).help()
    }
    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>) {
        (**self).doze(still_waiting, timeout);
    }
}

local! {
    static WORKER: RefCell<Option<Rc<dyn Helper>>> = const { RefCell::new(None) };
    static DRIVERS: RefCell<Vec<Rc<dyn Helper>>> = const { RefCell::new(Vec::new()) };
    static INLINE: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Makes this thread known as a worker's while the result lives.
pub(super) struct Serving(());

impl Serving {
    pub(super) fn begin(worker: Rc<dyn Helper>) -> Self {
        WORKER.with(|slot| *slot.borrow_mut() = Some(worker));
        Self(())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = WORKER.try_with(|slot| slot.borrow_mut().take());
    }
}

/// Makes this thread known as the one that drives lanes without threads, while the result lives.
#[cfg_attr(not(feature = "ext"), allow(dead_code))]
pub(super) struct Driving(Rc<dyn Helper>);

#[cfg_attr(not(feature = "ext"), allow(dead_code))]
impl Driving {
    pub(super) fn begin(driver: Rc<dyn Helper>) -> Self {
        let _ = DRIVERS.try_with(|drivers| drivers.borrow_mut().push(Rc::clone(&driver)));
        Self(driver)
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let other = |driver: &Rc<dyn Helper>| !std::ptr::addr_eq(Rc::as_ptr(driver), Rc::as_ptr(&self.0));
        let _ = DRIVERS.try_with(|drivers| drivers.borrow_mut().retain(other));
    }
}

/// An inline handler on this thread's stack.
pub(super) struct InlineFrame(());

impl InlineFrame {
    pub(super) fn enter(id: u64) -> Self {
        let _ = INLINE.try_with(|frames| frames.borrow_mut().push(id));
        Self(())
    }
}

impl Drop for InlineFrame {
    fn drop(&mut self) {
        let _ = INLINE.try_with(|frames| frames.borrow_mut().pop());
    }
}

fn worker() -> Option<Rc<dyn Helper>> {
    WORKER.try_with(|slot| slot.borrow().clone()).ok().flatten()
}

fn drivers() -> Vec<Rc<dyn Helper>> {
    DRIVERS.try_with(|drivers| drivers.borrow().clone()).unwrap_or_default()
}

/// Those through whom this thread serves lanes: its worker, if it is one's thread, then its drivers.
fn helpers() -> Vec<Rc<dyn Helper>> {
    worker().into_iter().chain(drivers()).collect()
}

/// Serves one thing of the lanes this thread drives; false if there was nothing, or too much on the stack.
pub(crate) fn drive() -> bool {
    drivers().iter().any(|driver| driver.depth() < DEEPEST && driver.help())
}

/// Whether this thread drives lanes that have no threads.
#[cfg_attr(not(feature = "ext"), allow(dead_code))]
pub(crate) fn is_driver_thread() -> bool {
    DRIVERS.try_with(|drivers| !drivers.borrow().is_empty()).unwrap_or(false)
}

/// Whether an inline handler is on this thread's stack, and with it the publish that called it.
pub(crate) fn is_in_inline_handler() -> bool {
    INLINE.try_with(|frames| !frames.borrow().is_empty()).unwrap_or(false)
}

/// Whether the calling thread serves a lane.
pub(crate) fn is_worker_thread() -> bool {
    worker().is_some()
}

/// Whether the member's handler is on this thread's stack.
pub(crate) fn is_running_here(id: u64) -> bool {
    INLINE.try_with(|frames| frames.borrow().contains(&id)).unwrap_or(false)
        || helpers().iter().any(|helper| helper.runs(id))
}

/// Why waiting cannot end, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitError {
    OwnHandler,
    Circular,
    TooDeep,
    Timeout,
}

/// Handlers that may wait one upon the other on a worker's stack.
const DEEPEST: usize = 128;

/// Who waits for whom, for waits made inside handlers: member id to the ids waited for.
static WAITS: Mutex<Option<HashMap<u64, Vec<u64>>>> = Mutex::new(None);

/// The edges of one wait; gone with it.
pub(crate) struct WaitPlan {
    waiters: Vec<u64>,
    target: u64,
}

impl WaitPlan {
    /// Announces that the handlers on this thread are going to wait for `target`.
    pub(crate) fn announce(target: u64) -> Result<Self, WaitError> {
        if is_running_here(target) {
            return Err(WaitError::OwnHandler);
        }
        let mut waiters = INLINE.try_with(|frames| frames.borrow().clone()).unwrap_or_default();
        for helper in helpers() {
            if helper.depth() >= DEEPEST {
                return Err(WaitError::TooDeep);
            }
            helper.running(&mut waiters);
        }
        if !waiters.is_empty() {
            let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
            let waits = waits.get_or_insert_default();
            if reaches(waits, target, &waiters) {
                return Err(WaitError::Circular);
            }
            for &waiter in &waiters {
                waits.entry(waiter).or_default().push(target);
            }
        }
        Ok(Self { waiters, target })
    }

    /// Waits until `completion` is done, serving this thread's lane meanwhile if it is a worker's.
    pub(crate) fn wait(&self, completion: &Completion, timeout: Option<Duration>) -> Result<(), WaitError> {
        // A limit beyond what the clock can say is none.
        let deadline = timeout.and_then(|limit| Instant::now().checked_add(limit));
        let helpers = helpers();
        let mut registered = None;
        while !completion.is_done() {
            let helped = helpers.iter().any(|helper| helper.help());
            let left = match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) if !completion.is_done() => {
                    registered.into_iter().for_each(|sleeper| completion.give_up(sleeper));
                    return Err(WaitError::Timeout);
                }
                left => left,
            };
            if helped {
                continue;
            }
            if registered.is_none() {
                // Looks once more after registering: it may have happened in between.
                registered = Some(completion.wake_thread());
                continue;
            }
            // A driver dozes for moments only, so that a worker's lane is looked at too.
            match helpers.last() {
                Some(helper) => helper.doze(&|| !completion.is_done(), left),
                None => park::sleep(left),
            }
        }
        Ok(())
    }
}

fn reaches(waits: &HashMap<u64, Vec<u64>>, from: u64, any_of: &[u64]) -> bool {
    let mut open = vec![from];
    let mut seen = Vec::new();
    while let Some(id) = open.pop() {
        if any_of.contains(&id) {
            return true;
        }
        if !seen.contains(&id) {
            seen.push(id);
            open.extend(waits.get(&id).into_iter().flatten());
        }
    }
    false
}

impl Drop for WaitPlan {
    fn drop(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waits = WAITS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waits) = waits.as_mut() else { return };
        for waiter in &self.waiters {
            if let Some(targets) = waits.get_mut(waiter) {
                if let Some(at) = targets.iter().position(|&target| target == self.target) {
                    targets.swap_remove(at);
                }
                if targets.is_empty() {
                    waits.remove(waiter);
                }
            }
        }
    }
}
