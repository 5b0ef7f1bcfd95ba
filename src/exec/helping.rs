//! What a worker does while a handler on its stack waits: it hands its lane to a spare thread, as if the
//! handler had got stuck; without one it serves the lane meanwhile itself.
//!
//! ```text
//!   a handler waits (join, publish_sync) ─► a spare, and work on the lane? ─► it has the lane (`takeover`)
//!                                        ─► else help: the same turns, deeper on this stack
//!     what is for a member whose handler is below on the stack waits in `deferred` until that
//!     handler returns; lists retired meanwhile are freed at the bottom
//! ```
//!
//! A helper first finishes the walk that the waiting handler is part of, from the member after it;
//! when the handler returns, the outer walk sees that there is nothing left of it. These are called
//! from inside a handler: each steps out of it first, so that the lane is not taken over in the middle,
//! and if it has been, there is nothing to help with.
//!
//! Handing over comes first because helping buries the waiting handler: it cannot go on before what was
//! helped with returns, and if that needs a lock which the waiting handler holds, neither ever does
//! (`takeover_more.rs`: `g07_a_handler_may_hold_a_lock_of_its_own_while_it_waits`).
//!
//! Guarantees: order and one at a time as in `worker`. Models: `loom-tests/tests/lane.rs`, `bus.rs`.

use std::time::Duration;

use super::frames::Helper;
use super::lane::Member;
use super::worker::Worker;
use crate::sync::{park, thread};

impl<M: Member> Worker<M> {
    /// Runs engine code in the middle of a handler; the lane may be lost.
    fn outside<R>(&self, f: impl FnOnce(u64, bool) -> R) -> R {
        let id = self.hold.running();
        let holds = self.step_out();
        let result = f(id, holds);
        self.hold.enter(id);
        result
    }

    /// Does something while the handler that runs now counts as waiting; told whether the lane is still here.
    pub(super) fn beside<R>(&self, f: impl FnOnce(bool) -> R) -> R {
        self.outside(|id, holds| {
            self.waiting.borrow_mut().push(id);
            self.helping.set(self.helping.get() + 1);
            let result = f(holds);
            self.helping.set(self.helping.get() - 1);
            self.waiting.borrow_mut().pop();
            result
        })
    }
}

/// Calls shorter than that bring a member that waited back to its lane.
const QUICK: Duration = Duration::from_millis(1);

impl<M: Member> Worker<M> {
    /// Gives the lane to a spare thread, if it has work and there is one: what would be helped with here lies
    /// above the waiting handler on this stack, and could keep it there.
    fn hand_over(&self) -> bool {
        let Some(spares) = &self.spares else { return false };
        let has_work = self.outside(|_, holds| {
            holds
                && !self.ended.get()
                && (self.depth.get().checked_sub(1).is_some_and(|top| !self.walks.at(top).finished.get())
                    || self.lane.has_controls()
                    || self.with(|core| core.has_work()))
        });
        if !has_work || !spares.reserve() {
            return false;
        }
        // As the watchdog would: the handler that runs is in foreign code as far as the lane is concerned.
        let next = self.take_over(self.hold.look(), QUICK);
        next.map(|next| spares.serve_lane(next)).is_some()
    }
}

impl<M: Member> Helper for Worker<M> {
    fn depth(&self) -> usize {
        self.outside(|_, _| self.helping.get())
    }

    fn runs(&self, id: u64) -> bool {
        self.outside(|running, _| running == id || self.is_waiting(id))
    }

    fn running(&self, into: &mut Vec<u64>) {
        self.outside(|running, _| {
            into.extend(self.waiting.borrow().iter().copied());
            into.extend(Some(running).filter(|&id| id != 0));
        });
    }

    fn help(&self) -> bool {
        if self.hand_over() {
            return false;
        }
        self.beside(|holds| {
            if !holds || self.ended.get() {
                return false;
            }
            let top = self.depth.get().checked_sub(1);
            match top.map(|top| (top, self.walks.at(top))).filter(|(_, walk)| !walk.finished.get()) {
                Some((top, walk)) => {
                    // We are the call on top of the stack, and wait.
                    let after = self.called(top, None);
                    debug_assert!(after.is_some(), "a walk that is not finished is in a call");
                    walk.finished.set(true);
                    self.hold.note_work();
                    let message = walk.message.borrow().clone();
                    if let (Some(message), Some(target), Some(_)) = (message, walk.target.get(), after) {
                        self.walk(message, target, after);
                    }
                    true
                }
                None => self.turn(),
            }
        })
    }

    fn doze(&self, still_waiting: &dyn Fn() -> bool, timeout: Option<Duration>) {
        self.outside(|_, holds| {
            if !holds {
                if still_waiting() {
                    park::sleep(timeout);
                }
                return;
            }
            let may_step_aside = self.may_step_aside.get();
            if may_step_aside {
                self.lane.note_core();
            }
            if !self.with(|core| core.consumer.try_mark_asleep()) {
                // A producer is between claiming and writing.
                thread::yield_now();
                return;
            }
            if !self.lane.has_controls() && still_waiting() {
                self.lane.busy.tally.sleeps.add(1);
                park::sleep(timeout);
            }
            self.with(|core| core.consumer.cancel_sleep());
            if may_step_aside {
                self.lane.has_woken();
            }
            self.lane.awake();
        });
    }
}
