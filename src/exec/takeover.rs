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
use super::lane::{Member, Running};
use super::serial::Token;
use super::walk::Rest;
use super::worker::Worker;
use crate::sync::Arc;

impl<M: Member> Worker<M> {
    /// What runs now.
    pub(crate) fn look(&self) -> Seen {
        self.hold.look()
    }

    /// Who runs, and what it was given; the lane stays here. None: that call has ended.
    pub(crate) fn describe(&self, seen: Seen) -> Option<Running<M>> {
        self.hold.peek(seen, || self.running_of(seen.id))
    }

    /// The call of a member on this stack. Under the hold's protocol only.
    fn running_of(&self, id: u64) -> Running<M> {
        let open = self.walks.lowest(self.depth.get());
        let call = open.iter().enumerate().find_map(|(depth, walk)| {
            let target = walk.target.get().filter(|_| self.called(depth, Some(id)) == Some(id))?;
            // SAFETY: the lane has not passed the dispatch, so its list is alive.
            let audience = unsafe { target.audience() };
            let message = walk.message.borrow();
            let message_type = message.as_ref().map(|message| message.type_name_for_report().into());
            Some((Arc::downgrade(audience.get(id)?.member()), message_type))
        });
        // Whoever serves a guest holds it: what is upgraded here is not the last reference.
        let guest = || {
            let (_, member) = self.guests.borrow().iter().find(|(guest, _)| *guest == id)?.clone();
            let message_type = member.upgrade().and_then(|member| member.serving());
            Some((member, message_type))
        };
        let (member, message_type) = call.or_else(guest).unwrap_or_default();
        Running { id, member, message_type }
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
                let over = self.finishing.get() == id;
                let mailbox = self.lane.open_mailbox(self.running_of(id), quick, waiting, over);
                self.left_behind.borrow_mut().push(Arc::clone(&mailbox));
                // One it was served from before, closed and not taken back yet.
                if let Some(closed) = core.away.insert(id, mailbox) {
                    self.lane.mailbox_closed(&closed);
                }
            }
            let open = self.walks.lowest(self.depth.get());
            for walk in &open {
                // SAFETY: the lane has not passed the dispatch, so its list is alive.
                let held = walk.target.get().map(|target| unsafe { target.keep() });
                walk.kept.replace(held);
            }
            let rest = open.last().filter(|walk| !walk.finished.replace(true)).and_then(|walk| {
                let message = walk.message.borrow().clone()?;
                let after = self.called(open.len() - 1, Some(seen.id))?;
                Some(Rest { message, target: walk.target.get()?, after })
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
