//! Explicit subscribers: they keep a state, and may have a subscription on its topic.

use std::time::Duration;

use super::error::StateError;
use super::managed::Managed;
use crate::bus::{Completion, Subscription, Topic};
use crate::error::JoinError;
use crate::message::Message;
use crate::sync::Arc;

/// A subscriber of one state, which lives at least as long. Dropping it unsubscribes, without waiting.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType, state::StateManager};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let kind = MessageType::<u32>::new(&bus, "mwi_state")?;
/// let manager = StateManager::new(&bus, "mwi:all")?;
/// let subscriber = manager.subscribe_pool("100", |received| drop(received.payload::<u32>()))?;
/// assert!(subscriber.data().is_none());
/// manager.add_publisher("100")?.publish(kind.message(1))?;
/// assert!(subscriber.data().is_some());
/// subscriber.unsubscribe_and_join(Duration::from_secs(5))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping a subscriber unsubscribes it"]
pub struct StateSubscriber {
    state: Arc<Managed>,
    subscription: Option<Subscription>,
}

impl StateSubscriber {
    /// Counts as a subscriber before `subscribe` runs, so that a handler finds its state subscribed.
    pub(super) fn new(
        state: Arc<Managed>,
        subscribe: impl FnOnce(&Managed) -> Result<Option<Subscription>, StateError>,
    ) -> Result<Self, StateError> {
        state.subscribed();
        match subscribe(&state) {
            Ok(subscription) => {
                let subscriber = Self { state, subscription };
                subscriber.state.registry().observers().subscribed(&subscriber);
                Ok(subscriber)
            }
            Err(error) => {
                state.unsubscribed();
                Err(error)
            }
        }
    }

    /// Id of the state.
    #[must_use]
    pub fn id(&self) -> &str {
        self.state.id()
    }

    /// Topic of the state.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.state.topic()
    }

    /// The last message of the state; `None` if nothing was published yet. Never waits.
    #[must_use]
    pub fn data(&self) -> Option<Message> {
        self.state.data()
    }

    /// The subscription on the state's topic, if it was made with one.
    #[must_use]
    pub fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_ref()
    }

    /// Unsubscribes; the end of its subscription, if it has one, to wait for. The same as dropping it.
    /// The state may go at once, before what is on its way has been handled.
    pub fn unsubscribe(self) -> Option<Completion> {
        self.subscription.as_ref().map(Subscription::unsubscribe)
    }

    /// Unsubscribes, waits for the final message, for `limit` at most, and only then lets the state go.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe_and_join`]; it is unsubscribed in any case.
    pub fn unsubscribe_and_join(self, limit: Duration) -> Result<(), JoinError> {
        self.subscription.as_ref().map_or(Ok(()), |subscription| subscription.unsubscribe_and_join(limit))
    }
}

impl Drop for StateSubscriber {
    fn drop(&mut self) {
        if let Some(subscription) = &self.subscription {
            subscription.unsubscribe();
        }
        self.state.unsubscribed();
        self.state.registry().observers().unsubscribed(self);
    }
}
