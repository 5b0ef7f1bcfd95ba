//! Every public error. Each says what happened as a lowercase phrase; those of a publish hand the
//! message back.

use std::fmt;
use std::time::Duration;

use crate::message::Message;

/// The bus is shut down (or shutting down): nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bus is shut down")]
pub struct Closed;

/// A message type was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TypeError {
    /// The configuration of the bus declines types of this name: do without it.
    #[error("message type '{0}' is declined by the configuration of the bus")]
    Declined(Box<str>),
    /// A type needs a name.
    #[error("a message type needs a name")]
    NoName,
    /// More than 65,536 types are alive.
    #[error("more than 65536 message types are alive")]
    TooMany,
}

/// A formatter of a message type panicked: the message has no such form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{formatter} of message type '{type_name}' panicked: {said}")]
pub struct FormatError {
    /// Which one: `to_json`, `to_ami` or `to_event`.
    pub formatter: &'static str,
    /// Name of the message's type.
    pub type_name: Box<str>,
    /// What the panic said.
    pub said: String,
}

/// A bus was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// At least one lane is needed, at most 256 are possible.
    #[error("a bus has 1 to 256 lanes, not {0}")]
    Lanes(usize),
    /// The budget is smaller than the rings it has to hold.
    #[error("memory budget of {budget} bytes is below the {needed} bytes of the lanes' rings")]
    Budget {
        /// Bytes given.
        budget: usize,
        /// Bytes needed.
        needed: usize,
    },
    /// The bus's own message type could not be made.
    #[error("cannot make the type of subscription changes: {0}")]
    Type(#[from] TypeError),
    /// The operating system refused a thread.
    #[error("cannot start the thread of a lane: {0}")]
    Thread(#[source] std::io::Error),
}

/// A subscription was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The bus is shut down.
    #[error("the bus is shut down")]
    Closed,
    /// There is no lane of this number.
    #[error("there is no lane {asked}, the bus has {lanes}")]
    NoSuchLane {
        /// Number asked for.
        asked: usize,
        /// Number of lanes.
        lanes: usize,
    },
    /// An inline subscription has no queue of its own to which an overflow policy, time to live or priority
    /// could apply.
    #[error("an inline subscription has no queue of its own")]
    NoQueue,
    /// The limit of the overflow policy is zero.
    #[error("a queue in which no message may wait delivers nothing")]
    NoRoom,
    /// The operating system refused a thread for a dedicated subscription.
    #[error("cannot start the thread of a dedicated subscription: {0}")]
    Thread(#[source] std::io::Error),
}

impl From<Closed> for SubscribeError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A message was not published: nobody got it, and here it is again.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The bus is shut down.
    #[error("the bus is shut down")]
    Closed(Message),
    /// A queue that had to take it is full: it has reached its limit, or the memory budget of the bus is used up.
    #[error("a queue is full")]
    Full(Message),
    /// It came through more handlers, one publishing from within the other, than
    /// [`BusBuilder::feedback_limit`](crate::BusBuilder::feedback_limit) allows.
    #[error("the message has been published from handler to handler too often")]
    Feedback(Message),
}

impl PublishError {
    /// The message.
    #[must_use]
    pub fn into_message(self) -> Message {
        match self {
            Self::Closed(message) | Self::Full(message) | Self::Feedback(message) => message,
        }
    }

    /// Whether the bus is shut down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Whether a queue was full; trying again later may help.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether it went round in circles.
    #[must_use]
    pub fn is_feedback(&self) -> bool {
        matches!(self, Self::Feedback(_))
    }
}

impl fmt::Debug for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed(..)",
            Self::Full(_) => "Full(..)",
            Self::Feedback(_) => "Feedback(..)",
        })
    }
}

/// A synchronous publish did not do what it says.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishSyncError {
    /// Not published; see [`PublishError`].
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Called from the handler that would have to take the message: it can never return.
    /// Not published.
    #[error("publish_sync from the subscription's own handler would wait for itself")]
    OwnHandler(Message),
    /// Called from a handler that the target's handler is waiting for. Not published.
    #[error("publish_sync would wait in a circle of handlers")]
    Circular(Message),
    /// 128 handlers wait one upon the other on this lane's stack already. Not published.
    #[error("too many handlers wait one upon the other")]
    TooDeep(Message),
}

impl PublishSyncError {
    /// The message.
    #[must_use]
    pub fn into_message(self) -> Message {
        match self {
            Self::Publish(error) => error.into_message(),
            Self::OwnHandler(message) | Self::Circular(message) | Self::TooDeep(message) => message,
        }
    }
}

impl fmt::Debug for PublishSyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Publish(error) => error.fmt(f),
            Self::OwnHandler(_) => f.write_str("OwnHandler(..)"),
            Self::Circular(_) => f.write_str("Circular(..)"),
            Self::TooDeep(_) => f.write_str("TooDeep(..)"),
        }
    }
}

/// Waiting for the end of a subscription came to nothing; the subscription is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Called from the handler of the subscription: it can never end while this call waits.
    #[error("join from the subscription's own handler would wait for itself")]
    OwnHandler,
    /// Called from a handler that the subscription's handler is waiting for.
    #[error("join would wait in a circle of handlers")]
    Circular,
    /// 128 handlers wait one upon the other on this lane's stack already.
    #[error("too many handlers wait one upon the other")]
    TooDeep,
    /// The deadline passed first.
    #[error("the deadline passed before the final message was handled")]
    Timeout,
}

/// A subscription that kept the bus from ending in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Unique id of the subscription.
    pub subscription: String,
    /// Topic it was subscribed to.
    pub topic: String,
    /// Where it was subscribed.
    pub location: String,
    /// Whether its handler was running when the deadline passed (else it waits behind another one).
    pub running: bool,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = if self.running { "its handler is running" } else { "its messages are waiting" };
        write!(f, "{} on '{}' (subscribed at {}): {doing}", self.subscription, self.topic, self.location)
    }
}

/// The bus did not end within the deadline. It is closed; what still runs is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownError {
    pub(crate) deadline: Duration,
    pub(crate) culprits: Vec<Culprit>,
}

impl ShutdownError {
    /// Who kept it.
    #[must_use]
    pub fn culprits(&self) -> &[Culprit] {
        &self.culprits
    }
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bus did not end within {:?}", self.deadline)?;
        for culprit in &self.culprits {
            write!(f, "; {culprit}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ShutdownError {}
