//! Subscription changes: the bus's own message about who comes and goes.

use crate::error::TypeError;
use crate::message::{Message, MessageType};
use crate::sync::{Arc, global};

/// What happened to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was made.
    Subscribe,
    /// It was unsubscribed. The same message is its final one.
    Unsubscribe,
}

/// Payload of the message that subscribing and unsubscribing publish on the topic.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, ChangeKind, SubscriptionChange};
/// use std::sync::mpsc;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("calls")?;
/// let (seen, changes) = mpsc::channel();
/// let _watcher = topic.subscriber().accept(SubscriptionChange::message_type()).subscribe(move |received| {
///     if let Some(change) = received.payload::<SubscriptionChange>() {
///         seen.send((change.subscription, change.kind)).unwrap();
///     }
/// })?;
/// let other = topic.subscribe(|_| ())?;
/// let (own, _) = changes.recv()?; // a subscription sees its own beginning too
/// assert_ne!(own, other.id());
/// assert_eq!(changes.recv()?, (other.id(), ChangeKind::Subscribe));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SubscriptionChange {
    /// Name of the topic.
    pub topic: Arc<str>,
    /// Id of the subscription.
    pub subscription: u64,
    /// What happened.
    pub kind: ChangeKind,
}

global! {
    static TYPE: MessageType<SubscriptionChange> = MessageType::builder("stasis_subscription_change_type")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the bus's own message type: {error}"));
}

impl SubscriptionChange {
    /// The type of these messages: one for all buses of the process.
    #[must_use]
    pub fn message_type() -> &'static MessageType<Self> {
        &TYPE
    }

    /// Id of the subscription as text: topic and number.
    #[must_use]
    pub fn unique_id(&self) -> String {
        unique_id(&self.topic, self.subscription)
    }

    /// Makes the type if it is not made yet.
    pub(super) fn prepare() -> Result<(), TypeError> {
        // A type made and dropped shows that there is room for ours, so that making it does not panic; it can
        // still lose a race for the last number, and asks for a free number even if ours is made already.
        MessageType::<()>::builder("probe").register(Arc::default())?;
        let _ = Self::message_type();
        Ok(())
    }

    pub(crate) fn message(topic: &Arc<str>, subscription: u64, kind: ChangeKind) -> Message {
        TYPE.message(Self { topic: Arc::clone(topic), subscription, kind })
    }
}

/// Id of a subscription as text.
pub(super) fn unique_id(topic: &str, subscription: u64) -> String {
    format!("{topic}-{subscription}")
}
