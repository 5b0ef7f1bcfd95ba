//! Taking a lane over from a worker whose thread is stuck in a handler.
//!
//! ```text
//!   stuck thread: handler of A …………………………………………… returns ─► A's mailbox ─► a spare
//!   lane:   D1: A  │taken│ B  C   D2: (A: mailbox) B  C   D3: …            A is back
//!   spare:          └─────► the rest of the walk, then the lane, for good
//! ```
//!
//! What goes with the lane is moved to a new worker: the queue, control entries, what stands aside, the
//! rest of the open walk. What is on the stuck thread's stack stays there: its message, and the list it
//! walks (kept alive for it). Every member on that stack, the one that runs and those that wait further
//! down, gets a mailbox; what stood aside for it goes there first.
//!
//! Guarantees: no message is lost, repeated or overtaken (G2, G3, G5), no handler runs twice at a time
//! (G4). Model: `loom-tests/tests/takeover.rs`.
#![allow(unsafe_code)]

use std::time::Duration;

use super::hold::{NO_MEMBER, Seen};
use super::lane::Member;
use super::serial::Token;
use super::walk::Rest;
use super::worker::Worker;
use crate::sync::Arc;

impl<M: Member> Worker<M> {
    /// What runs now.
    pub(crate) fn look(&self) -> Seen {
        self.hold.look()
    }

    /// The lane's next worker, if that call still runs; the job is to [`run`](Self::run) it. `quick`: calls
    /// shorter than that bring a member back to its lane.
    pub(crate) fn take_over(&self, seen: Seen, quick: Duration) -> Option<Arc<Self>> {
        // Inside, the thread that runs this worker is in foreign code, or waits for us: its cells are ours.
        self.hold.take(seen, || {
            let mut core = self.core.borrow_mut().take()?;
            let on_stack = self.waiting.borrow().iter().copied().chain([seen.id]).collect::<Vec<_>>();
            for id in on_stack.into_iter().filter(|&id| id != 0 && id != NO_MEMBER) {
                let waiting = core.deferred.remove(&id).unwrap_or_default();
                let mailbox = self.lane.open_mailbox(id, quick, waiting, self.finishing.get() == id);
                self.left_behind.borrow_mut().push(Arc::clone(&mailbox));
                // One it was served from before, closed and not taken back yet.
                if let Some(closed) = core.away.insert(id, mailbox) {
                    self.lane.mailbox_closed(&closed);
                }
            }
            let walks = self.walks.borrow();
            let open = &walks[..self.depth.get()];
            for walk in open {
                // SAFETY: the lane has not passed the dispatch, so its list is alive.
                let held = walk.target.get().map(|target| unsafe { target.keep() });
                walk.kept.replace(held);
            }
            let rest = open.last().filter(|walk| !walk.finished.replace(true)).and_then(|walk| {
                let message = walk.message.borrow().clone()?;
                Some(Rest { message, target: walk.target.get()?, after: walk.cursor.get() })
            });
            // SAFETY: the new worker leaves the members on the old one's stack alone until their mailboxes
            // are closed, and the old one touches no others.
            let token = unsafe { Token::again(self.lane.token_id()) };
            let (reclaimer, spares) = (Arc::clone(&self.reclaimer), self.spares.clone());
            let next = Self::with_core(Arc::clone(&self.lane), core, token, self.wait, reclaimer, spares);
            next.stop.set(self.stop.get());
            next.ended.set(self.ended.get());
            next.rest.set(rest);
            Some(next)
        })?
    }
}
