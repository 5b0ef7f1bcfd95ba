//! The limit of how deep publishes may be nested, and how often it was met.
//!
//! Handlers that answer each other's messages publish for ever (G9: nobody notices until memory ends). Each
//! answer is one deeper than what it answers ([`depth`](crate::message::depth)), so a limit ends the loop
//! where it is: the publish is refused, with a typed error, and the message handed back.

use super::BusBuilder;
use crate::message::{Message, depth};
use crate::sync::plain::{AtomicU64, Ordering};

/// One per bus.
#[derive(Debug)]
pub(crate) struct FeedbackLimit {
    most: u16,
    refused: AtomicU64,
}

impl FeedbackLimit {
    pub(super) fn new(limit: Option<u16>) -> Self {
        Self { most: limit.unwrap_or(u16::MAX), refused: AtomicU64::new(0) }
    }

    /// Publishes refused so far.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A handler on this thread publishes: the message gets its depth, or comes back. What the bus itself has
    /// to say (`control`) always passes.
    pub(super) fn pass(&self, topic: &str, message: &Message, control: bool) -> Result<(), Message> {
        let depth = depth::current();
        if depth > self.most && !control {
            let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
            if refused.is_power_of_two() {
                let kind = message.type_name();
                tracing::warn!(topic, kind, depth, refused, "handlers answer each other in a circle: publish refused");
            }
            return Err(message.clone());
        }
        message.deepen(depth);
        Ok(())
    }
}

impl BusBuilder {
    /// Refuses a publish inside a handler whose message would be deeper than this: it has come through
    /// `limit` handlers, each publishing from within, and goes through one more
    /// ([`PublishError::Feedback`](crate::PublishError::Feedback)). Ends loops of handlers that answer each
    /// other. `None` (default): no limit. See [`Message::depth`](crate::Message::depth).
    ///
    /// Real systems are a few deep; 32 is a limit that only loops reach.
    #[must_use]
    pub fn feedback_limit(mut self, limit: impl Into<Option<u16>>) -> Self {
        self.feedback_limit = limit.into();
        self
    }
}
