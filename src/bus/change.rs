//! Subscription changes: the bus's own message about who comes and goes.

use crate::error::TypeError;
use crate::message::{Message, MessageType};
use crate::sync::{Arc, OnceLock, global};

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
    static TYPE: OnceLock<MessageType<SubscriptionChange>> = OnceLock::new();
}

fn make_type() -> Result<MessageType<SubscriptionChange>, TypeError> {
    MessageType::builder("stasis_subscription_change_type").register(Arc::default())
}

impl SubscriptionChange {
    /// The type of these messages: one for all buses of the process.
    ///
    /// # Panics
    /// If no bus has been built yet and 65,536 other types are alive.
    #[must_use]
    pub fn message_type() -> &'static MessageType<Self> {
        TYPE.get_or_init(|| {
            make_type().unwrap_or_else(|error| panic!("cannot register the bus's own message type: {error}"))
        })
    }

    /// Id of the subscription as text: topic and number.
    #[must_use]
    pub fn unique_id(&self) -> String {
        unique_id(&self.topic, self.subscription)
    }

    /// Makes the type if it is not made yet.
    pub(super) fn prepare() -> Result<(), TypeError> {
        if TYPE.get().is_none() {
            // Somebody else may have been faster; then ours goes again.
            let _ = TYPE.set(make_type()?);
        }
        Ok(())
    }

    pub(crate) fn message(topic: &Arc<str>, subscription: u64, kind: ChangeKind) -> Message {
        Self::message_type().message(Self { topic: Arc::clone(topic), subscription, kind })
    }
}

/// Id of a subscription as text.
pub(super) fn unique_id(topic: &str, subscription: u64) -> String {
    format!("{topic}-{subscription}")
}
