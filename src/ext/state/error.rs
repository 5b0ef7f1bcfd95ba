//! What can go wrong with managed states.

use std::fmt;

use crate::error::{Closed, PublishError, SubscribeError, TypeError};
use crate::message::Message;

/// A manager, publisher, subscriber or follower was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The bus is shut down.
    #[error("the bus is shut down")]
    Closed,
    /// A manager's topic needs a name.
    #[error("a state manager needs the name of its topic")]
    NoName,
    /// A state needs an id.
    #[error("a state needs an id")]
    NoId,
    /// The type of the manager's own notes could not be made.
    #[error("cannot make the type of state notes: {0}")]
    Type(#[from] TypeError),
    /// The subscription could not be made.
    #[error(transparent)]
    Subscribe(SubscribeError),
    /// A queue that had to take the present states is full.
    #[error("a queue is full and the memory budget of the bus is used up")]
    Full,
}

impl From<Closed> for StateError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<SubscribeError> for StateError {
    fn from(error: SubscribeError) -> Self {
        match error {
            SubscribeError::Closed => Self::Closed,
            other => Self::Subscribe(other),
        }
    }
}

/// A publish by id did not do all it should; the message is handed back.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatePublishError {
    /// A state needs an id. Nothing was done.
    #[error("a state needs an id")]
    NoId(Message),
    /// There is no implicit publisher of this id and EID to be removed. Nothing was done.
    #[error("there is no implicit publisher of this id and node")]
    NotPublishing(Option<Message>),
    /// As [`StatePublisher::publish`](super::StatePublisher::publish) fails.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl StatePublishError {
    /// The message, if there was one.
    #[must_use]
    pub fn into_message(self) -> Option<Message> {
        match self {
            Self::NoId(message) => Some(message),
            Self::NotPublishing(message) => message,
            Self::Publish(error) => Some(error.into_message()),
        }
    }
}

impl fmt::Debug for StatePublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoId(_) => f.write_str("NoId(..)"),
            Self::NotPublishing(_) => f.write_str("NotPublishing(..)"),
            Self::Publish(error) => error.fmt(f),
        }
    }
}
