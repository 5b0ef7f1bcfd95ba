//! What a worker does for others when it has nothing to do, and what it keeps until then.
//!
//! ```text
//!   nothing to do ─► settle: message memory goes back to its publishers
//!   … for a while ─► tidy: lists nobody pushes to any more are freed, what others have retired, empty slabs
//!   32 such lists ─► handed to whoever comes to the control path next
//! ```
//!
//! A worker frees such lists only when nothing has come for a while: they were allocated by threads that
//! subscribe, and who frees what another thread is allocating waits with it for the allocator's lock.
//!
//! Guarantees: a list goes when its lane has passed it and no walk is open; at most a batch waits for a lane to
//! become idle.

use super::lane::{Control, Member};
use super::worker::{Core, Worker};
use crate::message;
use crate::reclaim::BATCH;
use crate::sync::scaled;

/// Lists that are handed over together.
const LISTS: usize = scaled(BATCH, 1);

impl<M: Member> Core<M> {
    fn take_retired(&mut self) -> Vec<Control<M>> {
        if self.retired.is_empty() {
            return Vec::new();
        }
        // Of its last size: growing it takes the lock of the allocator again and again.
        let next = Vec::with_capacity(self.retired.len().min(LISTS));
        std::mem::replace(&mut self.retired, next)
    }
}

impl<M: Member> Worker<M> {
    /// What a worker does at once when it has nothing to do.
    pub(super) fn settle(&self) {
        message::flush();
        if self.some_away.get() {
            self.take_back();
        }
    }

    /// What a worker does for others when nothing has come for a while; false: the lane was lost meanwhile.
    pub(super) fn tidy(&self) -> bool {
        self.settle();
        // Foreign code: a thread that subscribes may have the lock, and freeing takes a while.
        if self.lane.slabs().is_untidy() && !self.foreign(|| self.lane.slabs().sweep()) {
            return false;
        }
        if self.depth.get() == 0 {
            let retired = self.with(Core::take_retired);
            if !retired.is_empty() && !self.foreign(|| drop(retired)) {
                return false;
            }
        }
        !self.reclaimer.is_pending() || self.foreign(|| self.reclaimer.tick())
    }

    pub(super) fn is_untidy(&self) -> bool {
        self.reclaimer.is_pending() || self.lane.slabs().is_untidy() || self.with(|core| !core.retired.is_empty())
    }

    /// Keeps a list nobody pushes to any more until it can go: not while a walk is open, and best in one with others.
    pub(super) fn retire(&self, list: Control<M>) {
        let may_go = self.depth.get() == 0;
        let batch = self.with(|core| {
            core.retired.push(list);
            (may_go && core.retired.len() >= LISTS).then(|| core.take_retired())
        });
        if let Some(batch) = batch {
            self.reclaimer.hand_over(batch);
        }
    }

    /// Members whose mailboxes are closed are served here again.
    #[cold]
    pub(super) fn take_back(&self) {
        self.with(|core| {
            core.away.retain(|_, mailbox| {
                let closed = mailbox.is_closed();
                if closed {
                    self.lane.mailbox_closed(mailbox);
                }
                !closed
            });
            self.some_away.set(!core.away.is_empty());
        });
    }
}
