//! What still comes to a lane that has ended: publishers were in the middle when its last member left.
//!
//! ```text
//!   publisher: pin ── load list ┄┄┄┄┄┄┄┄┄┄┄┄┄┄ push ── unpin
//!   lane:             member leaves, lane ends ─► retired ┄┄┄┄ grace period ─► queue emptied
//! ```
//!
//! The lane lives on as long as somebody has a handle of the subscription, and so does its queue: without this
//! it would keep such messages. They came too late (the member is off the lists, its final message was handled),
//! so they are dropped. Nobody pushes after the grace period: who pins later finds lists without the member.
//!
//! Guarantees: a message that came too late goes when the grace period is over, its destructor run where
//! retired values are dropped, and its panic is caught. Model: `loom-tests/tests/lane.rs`.

use super::lane::Member;
use super::part::Dispatch;
use super::worker::Worker;
use crate::contain::quietly;
use crate::ring::Consumer;

/// Empties the queue when it is dropped.
struct Late<M: Member>(Consumer<Dispatch<M>>);

impl<M: Member> Drop for Late<M> {
    fn drop(&mut self) {
        while let Some(dispatch) = self.0.pop() {
            // Its list may be gone: only the message is looked at.
            let (message, _) = dispatch.open();
            quietly(|| drop(message));
        }
    }
}

impl<M: Member> Worker<M> {
    /// The lane has ended: lets go of its queue when nobody pushes any more. The last thing a worker does.
    pub(super) fn let_go(&self) {
        let core = self.core.borrow_mut().take();
        if let Some(core) = core {
            self.reclaimer.retire(Late(core.consumer));
        }
    }
}
