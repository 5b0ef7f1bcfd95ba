//! Feedback: handlers that publish what makes them run again.
//!
//! ```text
//!   A handles "state", publishes "hint"  ─► B handles "hint", publishes "state" ─► A …
//!   depth 0 ─────────────► 1 ─────────────────────────────► 2 ────────────────► 3 … limit: refused
//! ```
//!
//! The bus counts, for each message, through how many handlers it has come
//! ([`Message::depth`]). [`BusBuilder::feedback_limit`](crate::BusBuilder::feedback_limit) refuses what is too
//! deep on the whole bus; a [`FeedbackGuard`] does it for one publisher, with a callback, or only tells.
//!
//! # Guarantees
//! - A message published inside a handler, on whatever thread and after whatever take-over, is one deeper than
//!   the message handled (`a_chain_of_handlers_counts`); so a loop meets the limit, whatever types and topics
//!   it goes through (`a_loop_of_two_handlers_ends`).
//! - What a handler hands to another thread which publishes it starts at zero: such a loop is not seen.
//! - Refused: nobody got it, the error hands it back.
//!
//! Cost: of a publish outside handlers one thread-local load; inside, one atomic maximum on the message.

use std::fmt;

use crate::bus::Topic;
use crate::contain::quietly;
use crate::error::PublishError;
use crate::message::{self, Message};
use crate::sync::plain::{AtomicU64, Ordering};

/// Depth of what the calling thread publishes now: zero outside handlers, else one more than the depth of the
/// message that is handled.
#[must_use]
pub fn depth() -> u16 {
    message::depth::current()
}

/// What becomes of a message that is too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TooDeep {
    /// It is not published (default).
    #[default]
    Refuse,
    /// It is published; the callback is told.
    Warn,
}

type Notice = Box<dyn Fn(&Message, u16) + Send + Sync>;

/// A topic to publish on from within handlers, with a limit of depth of its own.
///
/// # Examples
/// ```
/// use stasis_bus::feedback::{FeedbackGuard, TooDeep};
/// use stasis_bus::{Bus, MessageType};
/// use std::sync::{Arc, mpsc};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("devicestate:all")?;
/// let state = MessageType::<u32>::new(&bus, "device_state")?;
/// let (seen, alarm) = mpsc::channel();
/// let guard = FeedbackGuard::new(&topic, 8, TooDeep::Refuse, move |_, depth| seen.send(depth).unwrap());
/// let kind = state.clone();
/// // Answers each state with a state: for ever, without the limit.
/// let answers = topic.subscriber().accept(&state).subscribe(move |received| {
///     if let Some(n) = received.payload::<u32>() {
///         let _ = guard.publish(kind.message(n + 1));
///     }
/// })?;
/// topic.publish(state.message(0))?;
/// assert_eq!(alarm.recv()?, 9);
/// # drop(answers);
/// # Ok(()) }
/// ```
pub struct FeedbackGuard {
    topic: Topic,
    limit: u16,
    action: TooDeep,
    notice: Notice,
    met: AtomicU64,
}

impl FeedbackGuard {
    /// A guard for publishing on `topic`. `notice` is called, in the publishing thread, with each message
    /// deeper than `limit` and its depth; a panic of it is contained.
    #[must_use]
    pub fn new(
        topic: &Topic,
        limit: u16,
        action: TooDeep,
        notice: impl Fn(&Message, u16) + Send + Sync + 'static,
    ) -> Self {
        Self { topic: topic.clone(), limit, action, notice: Box::new(notice), met: AtomicU64::new(0) }
    }

    /// Publishes, unless it is too deep.
    ///
    /// # Errors
    /// [`PublishError::Feedback`], else as [`Topic::publish`].
    pub fn publish(&self, message: Message) -> Result<(), PublishError> {
        let depth = depth();
        if depth > self.limit {
            self.met.fetch_add(1, Ordering::Relaxed);
            quietly(|| (self.notice)(&message, depth));
            if self.action == TooDeep::Refuse {
                return Err(PublishError::Feedback(message));
            }
        }
        self.topic.publish(message)
    }

    /// Messages so far that were too deep.
    #[must_use]
    pub fn too_deep(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// Where it publishes.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }
}

impl fmt::Debug for FeedbackGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedbackGuard")
            .field("topic", &self.topic)
            .field("limit", &self.limit)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}
