//! A walk: one message to all members of a list that accept it, one after the other.
//!
//! ```text
//!   walk ─► give_all: member, enter, call, leave ─► member, … ─► message dropped
//!              │ signs after a call: deferred work, the rest done by a helper, the lane lost
//!              │ panic: caught here, reported, on with the next member
//! ```
//!
//! Walks nest: a handler that waits helps, and what it serves is a walk deeper on the same stack.
//!
//! Guarantees: each member once, in order; a panic is that member's alone (G12); cost a member 3-5 ns.
#![allow(unsafe_code)]

use std::cell::{Cell, OnceCell, RefCell};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::audience::{Audience, Entry};
use super::calls::Calls;
use super::hold::NO_MEMBER;
use super::lane::Member;
use super::mailbox::Deferred;
use super::part::{Held, Target};
use super::worker::Worker;
use crate::contain::{discard, quietly, report_panic};
use crate::message::Message;
use crate::message::depth::InHandler;
use crate::sync::Arc;

/// Rows of at least so many are long.
const LONG: usize = 16;

/// A walk in progress; the n-th handler on the stack is called from the n-th of these.
pub(super) struct Walk<M: Member> {
    pub(super) message: RefCell<Option<Message>>,
    pub(super) target: Cell<Option<Target<M>>>,
    /// A helper, or whoever took the lane over, has the rest.
    pub(super) finished: Cell<bool>,
    /// Keeps the list alive when the lane that would is lost.
    pub(super) kept: RefCell<Option<Arc<Held<M>>>>,
}

impl<M: Member> Default for Walk<M> {
    fn default() -> Self {
        Self {
            message: RefCell::new(None),
            target: Cell::new(None),
            finished: Cell::new(false),
            kept: RefCell::default(),
        }
    }
}

/// The walks of a worker by their depth on its stack, kept for use again: each keeps the one above it.
pub(super) struct Walks<M: Member> {
    walk: Walk<M>,
    above: OnceCell<Box<Self>>,
}

impl<M: Member> Default for Walks<M> {
    fn default() -> Self {
        Self { walk: Walk::default(), above: OnceCell::new() }
    }
}

impl<M: Member> Walks<M> {
    /// The walk at that depth; zero is the lowest.
    #[inline]
    pub(super) fn at(&self, depth: usize) -> &Walk<M> {
        &(0..depth).fold(self, |walks, _| walks.above.get_or_init(Box::default)).walk
    }

    /// The lowest `depth` ones.
    pub(super) fn lowest(&self, depth: usize) -> Vec<&Walk<M>> {
        (0..depth).map(|depth| self.at(depth)).collect()
    }
}

/// Where a walk goes on.
pub(super) struct Rest<M: Member> {
    pub(super) message: Message,
    pub(super) target: Target<M>,
    /// Id of the member that has had it last.
    pub(super) after: u64,
}

impl<M: Member> Worker<M> {
    /// Gives the message to all members, or to those behind the one with the id `after`.
    #[inline]
    pub(super) fn walk(&self, message: Message, target: Target<M>, after: Option<u64>) {
        let depth = self.depth.get();
        let walk = self.walks.at(depth);
        walk.message.replace(Some(message));
        walk.target.set(Some(target));
        walk.finished.set(false);
        self.depth.set(depth + 1);
        self.hold.step();
        if self.some_away.get() {
            self.take_back();
        }
        let mut kept = true;
        {
            let message = walk.message.borrow();
            let message = message.as_ref().expect("put there above");
            let _depth = InHandler::of(message);
            // SAFETY: we are the lane's worker, and free no list while a walk is open (`control`); who takes
            // the lane from us keeps this list for us.
            let audience = unsafe { target.audience() };
            let mut after = after;
            // Caught once a walk, not once a call.
            while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.give_all(walk, audience, message, after))) {
                // Still that of the handler that has panicked.
                let id = self.hold.running();
                let Some(entry) = audience.get(id) else {
                    debug_assert!(false, "whoever is called stands in the list");
                    report_panic("a walk that ends here", &*panic);
                    discard(panic);
                    break;
                };
                entry.member().panicked(panic);
                after = Some(id);
                if !self.hold.leave() && self.after_call(walk, id) {
                    break;
                }
            }
            if self.hold.has_signs() {
                kept = !self.hold.is_lost();
            }
        }
        let message = walk.message.take();
        if !kept {
            let held = walk.kept.take();
            quietly(|| drop((message, held)));
            return;
        }
        self.depth.set(depth);
        if depth == 0 && !self.has_deferred.get() && self.hold.has_signs() {
            self.hold.forget_work();
        }
        self.foreign(|| drop(message));
    }

    /// Calls the members one after the other. A panic of a handler comes through.
    ///
    /// A function of its own: the loop needs the registers that the walk around it would keep.
    #[inline(never)]
    fn give_all(&self, walk: &Walk<M>, audience: &Audience<M>, message: &Message, after: Option<u64>) {
        // Nothing changes it for the worse in between: who helps inside a call has ended when the call returns, and members
        // become away with a new worker only.
        if self.helping.get() > 0 || self.some_away.get() {
            return self.give_those_here(walk, audience, message, after);
        }
        let mut call = M::call(message);
        let after_call = |id| self.after_call(walk, id);
        // SAFETY: handlers of this lane's members that run do so below on this stack, if they wait, or elsewhere, if
        // the lane was taken from them; there are none of either, and who waits while it is called is left alone by
        // what serves the lane meanwhile.
        let calls = unsafe { Calls::new(&self.hold, &self.token, &after_call) };
        audience.walk(message, after, |row| {
            if row.len() >= LONG {
                return M::deliver_row(row, &calls, &mut call);
            }
            row.iter().try_for_each(|entry| calls.deliver(entry, &mut call))
        });
    }

    /// As [`give_all`](Self::give_all), while some members are served elsewhere.
    #[cold]
    fn give_those_here<'a>(&self, walk: &Walk<M>, audience: &'a Audience<M>, message: &'a Message, after: Option<u64>) {
        let mut call = M::call(message);
        let mut give = |entry: &'a Entry<M>| {
            let (member, post, id) = (entry.member(), entry.post(), M::id_of(entry.post()));
            if self.is_elsewhere(id) {
                let item = Deferred::Message(Arc::clone(member), message.clone());
                if self.divert(id, item).is_ok() {
                    return ControlFlow::Continue(());
                }
            }
            self.hold.enter(id);
            member.deliver(post, &self.token, &mut call);
            if !self.hold.leave() && self.after_call(walk, id) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        audience.walk(message, after, |row| row.iter().try_for_each(&mut give));
    }

    /// The member that has the message of the walk at that depth, if `running` is the call on top of the stack.
    ///
    /// Each open walk has one of the calls on the stack, in their order; the others are those of guests and of foreign
    /// code.
    pub(super) fn called(&self, walk: usize, running: Option<u64>) -> Option<u64> {
        let (waiting, guests) = (self.waiting.borrow(), self.guests.borrow());
        let has_no_walk = |id: &u64| *id == NO_MEMBER || guests.iter().any(|(guest, _)| guest == id);
        waiting.iter().copied().chain(running).filter(|id| !has_no_walk(id)).nth(walk)
    }

    /// What is left to do after a call; true: nothing of the walk, a helper or another worker has it.
    #[cold]
    fn after_call(&self, walk: &Walk<M>, id: u64) -> bool {
        self.call_ended(id) || walk.finished.get()
    }

    /// Serves what was deferred meanwhile; true: the lane was lost.
    #[cold]
    pub(super) fn call_ended(&self, id: u64) -> bool {
        if !self.hold.is_lost() {
            if self.has_deferred.get() {
                self.serve_deferred(id);
            }
            if !self.hold.has_signs() || !self.hold.is_lost() {
                return false;
            }
        }
        // Handlers further down this stack are not to wait for this member: a spare serves it.
        if self.helping.get() > 0
            && let Some(spares) = &self.spares
        {
            let mut left_behind = self.left_behind.borrow_mut();
            if let Some(at) = left_behind.iter().position(|mailbox| mailbox.id() == id) {
                spares.serve_mailbox(Arc::clone(&self.lane), left_behind.swap_remove(at));
            }
        }
        true
    }
}
