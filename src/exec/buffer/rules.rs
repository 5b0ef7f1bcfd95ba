//! What a subscription says about its own queue: how much may wait, for how long, and what goes first.

use std::fmt;
use std::time::Duration;

use crate::message::Message;
use crate::sync::Arc;

/// What a message is about: a channel, a device. Two messages with equal keys are about the same thing.
///
/// Cost: a number is free; a text is copied (one allocation a message).
///
/// # Examples
/// ```
/// use stasis_bus::Key;
/// assert_eq!(Key::from("SIP/100"), Key::from(String::from("SIP/100")));
/// assert_ne!(Key::from(100), Key::from("100"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Name);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name {
    Number(u64),
    Text(Box<str>),
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self(Name::Number(number))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(Name::Text(text.into()))
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(Name::Text(text.into()))
    }
}

/// What happens to messages that a subscription is too slow for.
///
/// Every policy but [`Spill`](Self::Spill) gives the subscription a queue of its own, in which at most `limit`
/// messages wait (1 at least). The message its handler has in hand is not counted. Every message that is not
/// delivered is counted, by cause: [`Drops`](crate::Drops). The final message always comes, and so do answers
/// to `publish_sync`.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Key, MessageType, Overflow};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(u64, bool)>::new(&bus, "device_state")?;
/// let devices = bus.topic("devicestate:all")?;
/// // A wallboard wants the latest state of each device, not its history.
/// let board = devices
///     .subscriber()
///     .overflow(Overflow::Conflate {
///         key: |message| message.payload::<(u64, bool)>().map(|(device, _)| Key::from(*device)),
///         limit: 10_000,
///     })
///     .subscribe(|received| drop(received.payload::<(u64, bool)>()))?;
/// for n in 0..100 {
///     devices.publish(state.message((n % 3, n % 2 == 0)))?;
/// }
/// board.unsubscribe().wait()?;
/// let stats = board.stats();
/// assert_eq!(stats.accepted, stats.delivered + stats.dropped.total());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Nothing is dropped: messages wait as long as the bus's memory budget lasts, then publishes are refused
    /// (default).
    #[default]
    Spill,
    /// What comes while `limit` messages wait is dropped.
    DropNewest {
        /// Messages that may wait.
        limit: usize,
    },
    /// The message that has waited longest makes room.
    DropOldest {
        /// Messages that may wait.
        limit: usize,
    },
    /// A message takes the place of the waiting one with the same key, so that the latest value of each key is
    /// delivered. It keeps that place: a key that changes all the time is delivered as soon as any other. So
    /// order holds per key (G2), while a later value may come before an earlier message of another key. Messages
    /// without key are never conflated. Should `limit` messages wait all the same, the oldest makes room.
    Conflate {
        /// What the message is about. Called in the publisher, once a message, under no lock; if it panics, the
        /// message has no key.
        key: fn(&Message) -> Option<Key>,
        /// Messages that may wait.
        limit: usize,
    },
    /// Publishing fails with [`PublishError::Full`](crate::PublishError::Full) while `limit` messages wait; no
    /// subscription gets the message, and the publisher has it back. What the bus itself says (subscription
    /// changes) comes above the limit.
    Fail {
        /// Messages that may wait.
        limit: usize,
    },
    /// As [`DropOldest`](Self::DropOldest), and the next message says how many were lost before it
    /// ([`Received::lagged`](crate::Received::lagged)), so that the subscriber can get its state anew.
    Lag {
        /// Messages that may wait.
        limit: usize,
    },
}

impl Overflow {
    /// Messages that may wait, if that is bounded.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        match *self {
            Self::Spill => None,
            Self::DropNewest { limit }
            | Self::DropOldest { limit }
            | Self::Conflate { limit, .. }
            | Self::Fail { limit }
            | Self::Lag { limit } => Some(limit),
        }
    }
}

/// What a message is about.
type KeyOf = Arc<dyn Fn(&Message) -> Option<Key> + Send + Sync>;

/// Which messages go first.
#[derive(Clone)]
pub(crate) struct Priority {
    pub(crate) key: KeyOf,
    pub(crate) is_control: Arc<dyn Fn(&Message) -> bool + Send + Sync>,
}

/// All a subscription says about its queue.
#[derive(Clone, Default)]
pub(crate) struct Rules {
    pub(crate) overflow: Overflow,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) priority: Option<Priority>,
}

impl Rules {
    /// Whether they ask for a queue of its own.
    pub(crate) fn ask_for_a_queue(&self) -> bool {
        !matches!(self.overflow, Overflow::Spill) || self.time_to_live.is_some() || self.priority.is_some()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("overflow", &self.overflow)
            .field("time_to_live", &self.time_to_live)
            .field("priority", &self.priority.is_some())
            .finish()
    }
}
