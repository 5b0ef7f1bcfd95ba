//! Listeners with a queue of their own.

use super::{Completion, Handle, Listener};
use crate::exec::buffer::Buffer;
use crate::exec::buffer::rules::{Overflow, Rules};
use crate::exec::lane::{self, Member};
use crate::message::Message;
use crate::ring;
use crate::sync::Arc;

impl Listener {
    /// With a queue of its own, in which `limit` messages may wait; the oldest goes.
    pub(super) fn with_queue(lane: &Arc<lane::Lane<Self>>, limit: usize, handle: Handle) -> Arc<Self> {
        let rules = Rules { overflow: Overflow::DropOldest { limit }, ..Rules::default() };
        let buffer = Buffer::new(rules, Arc::new(ring::Budget::new(1 << 20)));
        let mut listener = Self::new(lane.token_id(), handle);
        Arc::get_mut(&mut listener).expect("new").own = Some((buffer, Arc::clone(lane)));
        lane.member_joins();
        listener
    }
    fn queue_if(self: &Arc<Self>, queue: impl FnOnce(&Buffer) -> bool) {
        let (buffer, _) = self.own.as_ref().expect("has a queue");
        if queue(buffer) {
            Arc::clone(self).queue_turn();
        }
    }
    /// Into its own queue.
    pub fn push(self: &Arc<Self>, message: Message) {
        self.queue_if(|buffer| buffer.push(message, true));
    }
    /// Its final message, into its own queue.
    pub fn push_final(self: &Arc<Self>, message: Message) {
        self.queue_if(|buffer| buffer.finish(message));
    }
    /// A notice, into its own queue.
    pub fn push_notice(self: &Arc<Self>, completion: &Completion) {
        self.queue_if(|buffer| buffer.notify(Arc::clone(&completion.0)));
    }
    /// Messages accepted, handed out, dropped, late, and waiting.
    pub fn account(&self) -> [u64; 5] {
        let (counts, waiting) = self.own.as_ref().expect("has a queue").0.look();
        [counts.accepted, counts.handed, counts.oldest, counts.late, waiting]
    }
}
