//! Key index: many subscribers that want one key each, for one delivery a message.
//!
//! ```text
//!   topic ─forward─► index topic ─► one subscription: key of the message ─► table: key ─► its subscribers
//!                        ▲                                                      │ calls these, no others
//!   subscribe, leave ────┴── as messages, in order with the others ─────────────┘
//!   publisher: index.wants(key)?  no ─► not made, not queued
//! ```
//!
//! 25,000 phones that each watch one extension cost a topic 25,000 deliveries or filter tests a message as
//! plain subscriptions; here one delivery and a look-up.
//!
//! # Guarantees
//! - Coming and going stands in the queue among the messages. So, exactly as for a subscription of its own:
//!   what is published after `subscribe` has returned reaches the handler; after unsubscribing comes what was
//!   published before, then one final message, then nothing; then the handler is dropped (G5, `g05_*`).
//! - Order (G2) and one at a time (G4) hold for all subscribers of an index together: they are served by one
//!   subscription. A handler that blocks therefore delays the others of its index (not other subscriptions of
//!   the lane, G8): keep them short, or make several indexes.
//! - Subscribers of one key are called in the order they came. A panic of one is its own (G12).
//! - Handlers may subscribe and unsubscribe, themselves too. Waiting in a handler for the end of a subscriber of
//!   the same index is [`JoinError::OwnHandler`] (G7).
//! - The end of the index, by dropping it or by the bus, is the end of all its subscribers, final messages
//!   included; it keeps neither bus nor publishers waiting (G10).
//!
//! Cost: of a message the key function and one look-up, whatever the number of subscribers; of a key nobody
//! wants, published by [`publish`](KeyIndex::publish) or [`publish_with`](KeyIndex::publish_with), one lock-free
//! look-up and no queue. Of coming and going, a message each; memory see `tests/many.rs`.

mod dispatch;
mod interest;

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use self::dispatch::{Change, Dispatcher, Joining, Seat};
use self::interest::Interest;
use crate::bus::{
    ChangeKind, Completion, Delivery, Forward, Subscription, SubscriptionChange, SubscriptionStats, Topic,
};
use crate::error::{Closed, JoinError, PublishError, SubscribeError};
use crate::exec::completion::{Completion as Done, TaskSlot};
use crate::exec::frames::{WaitError, WaitPlan};
use crate::message::{AnyMessageType, Message, MessageType};
use crate::sync::plain::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, OnceLock};

/// Nobody was subscribed; the handler was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The index has ended, or the bus.
    #[error("the index has ended")]
    Ended,
}

/// What a key has to be.
pub trait Key: Hash + Eq + Clone + Send + Sync + 'static {}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Key for K {}

type KeyOf<K> = Box<dyn Fn(&Message) -> Option<K> + Send + Sync>;

/// What index, subscribers and dispatcher share.
struct Core<K> {
    /// The index topic: what is published here reaches the index alone.
    topic: Topic,
    key: KeyOf<K>,
    interest: Interest<K>,
    /// Id of the one subscription, set before anybody can subscribe.
    subscription: OnceLock<u64>,
    panics: AtomicU64,
}

/// A subscriber as everybody knows it.
struct Ticket<K> {
    id: u64,
    key: K,
    left: AtomicBool,
    done: Done,
}

impl<K: Key> Core<K> {
    /// Begins the end of a subscriber; once.
    fn leave(&self, ticket: &Arc<Ticket<K>>) {
        if ticket.left.swap(true, Ordering::AcqRel) {
            return;
        }
        self.interest.remove(&ticket.key);
        let last = SubscriptionChange::message(&self.topic.0.name, ticket.id, ChangeKind::Unsubscribe);
        // If it is refused the bus ends, and the index with all its subscribers.
        let _ = self.topic.0.publish_control(Change::leave(Arc::clone(ticket), last));
    }
}

/// Takes the messages of a key. Closures that take `&KeyReceived` do.
pub trait KeyHandler<K>: Send + 'static {
    /// Called for each message of the key, the final one included.
    fn handle(&mut self, received: &KeyReceived<'_, K>);
}

impl<K, F: FnMut(&KeyReceived<'_, K>) + Send + 'static> KeyHandler<K> for F {
    fn handle(&mut self, received: &KeyReceived<'_, K>) {
        self(received);
    }
}

/// A message as the handler of a key gets it. Dereferences to the [`Message`].
pub struct KeyReceived<'a, K> {
    message: &'a Message,
    ticket: &'a Arc<Ticket<K>>,
    core: &'a Arc<Core<K>>,
    is_final: bool,
}

impl<K: Key> KeyReceived<'_, K> {
    /// The message. The final one is a [`SubscriptionChange`].
    #[must_use]
    pub fn message(&self) -> &Message {
        self.message
    }

    /// The key subscribed to.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.ticket.key
    }

    /// Whether this is the final message: nothing comes after it.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Unsubscribes the subscriber that receives: what was published before still comes, then the final message.
    pub fn unsubscribe(&self) {
        self.core.leave(self.ticket);
    }
}

impl<K> Deref for KeyReceived<'_, K> {
    type Target = Message;
    fn deref(&self) -> &Message {
        self.message
    }
}

impl<K> fmt::Debug for KeyReceived<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyReceived").field("message", self.message).field("is_final", &self.is_final).finish()
    }
}

/// An index of a topic's messages by key: see the [module](self). Dropping it ends all its subscribers.
///
/// # Examples
/// ```
/// use stasis_bus::key_index::KeyIndex;
/// use stasis_bus::{Bus, MessageType};
/// use std::sync::mpsc;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let all = bus.topic("devicestate:all")?;
/// let state = MessageType::<(&'static str, u32)>::new(&bus, "device_state")?;
/// let index = KeyIndex::new(&all, &state, |message| Some(message.payload::<(&'static str, u32)>()?.0))?;
/// let (seen, states) = mpsc::channel();
/// let watch = index.subscribe("SIP/100", move |received| {
///     if let Some((_, state)) = received.payload::<(&'static str, u32)>() {
///         seen.send(*state).unwrap();
///     }
/// })?;
/// all.publish(state.message(("SIP/200", 1)))?; // one look-up
/// all.publish(state.message(("SIP/100", 2)))?;
/// assert_eq!(states.recv()?, 2);
/// assert!(index.wants(&"SIP/100") && !index.wants(&"SIP/200"));
/// watch.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
#[must_use = "dropping an index ends all its subscribers"]
pub struct KeyIndex<K: Key> {
    core: Arc<Core<K>>,
    subscription: Subscription,
    _forward: Option<Forward>,
}

impl<K: Key> KeyIndex<K> {
    /// An index of the messages of `kind` on `topic`. `key` gives a message's key, in the index's lane and in
    /// publishers who use [`publish`](Self::publish); messages without key go to nobody.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`] after shutdown.
    #[track_caller]
    pub fn new(
        topic: &Topic,
        kind: &impl AsRef<AnyMessageType>,
        key: impl Fn(&Message) -> Option<K> + Send + Sync + 'static,
    ) -> Result<Self, SubscribeError> {
        let mut index = Self::apart(topic, kind, Delivery::default(), key)?;
        index._forward = Some(topic.forward_to(&index.core.topic).map_err(|Closed| SubscribeError::Closed)?);
        Ok(index)
    }

    /// As [`new`](Self::new), but what is published on `topic` does not reach it: only what is published on the
    /// index ([`publish`](Self::publish)) or its [`topic`](Self::topic). `delivery`: where handlers run.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`](crate::SubscriberBuilder::subscribe).
    #[track_caller]
    pub fn apart(
        topic: &Topic,
        kind: &impl AsRef<AnyMessageType>,
        delivery: Delivery,
        key: impl Fn(&Message) -> Option<K> + Send + Sync + 'static,
    ) -> Result<Self, SubscribeError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{}/index:{}", topic.name(), NEXT.fetch_add(1, Ordering::Relaxed));
        let own = topic.sibling(name).map_err(|Closed| SubscribeError::Closed)?;
        let core = Arc::new(Core {
            topic: own.clone(),
            key: Box::new(key),
            interest: Interest::new(),
            subscription: OnceLock::new(),
            panics: AtomicU64::new(0),
        });
        let subscription = own
            .subscriber()
            .name("key index")
            .delivery(delivery)
            .accept(kind)
            .accept(Change::message_type())
            .subscribe_handler(Dispatcher::new(&core))?;
        let _ = core.subscription.set(subscription.id());
        Ok(Self { core, subscription, _forward: None })
    }

    /// Subscribes to a key. Publishes that begin when this has returned reach the handler.
    ///
    /// # Errors
    /// [`KeyError::Ended`].
    pub fn subscribe(
        &self,
        key: impl Into<K>,
        handler: impl FnMut(&KeyReceived<'_, K>) + Send + 'static,
    ) -> Result<KeySubscription<K>, KeyError> {
        self.subscribe_handler(key, handler)
    }

    /// As [`subscribe`](Self::subscribe), with a [`KeyHandler`].
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_handler(
        &self,
        key: impl Into<K>,
        handler: impl KeyHandler<K>,
    ) -> Result<KeySubscription<K>, KeyError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if !self.subscription.is_subscribed() {
            return Err(KeyError::Ended);
        }
        let ticket = Arc::new(Ticket {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            key: key.into(),
            left: AtomicBool::new(false),
            done: Done::new(),
        });
        // Wanted from before the first message that it has to get.
        self.core.interest.add(&ticket.key);
        let seat = Seat { ticket: Arc::clone(&ticket), handler: Box::new(handler) };
        let joining = Joining::new(seat, &self.core);
        self.core.topic.0.publish_control(Change::join(joining)).map_err(|_| KeyError::Ended)?;
        Ok(KeySubscription { ticket, core: Arc::clone(&self.core) })
    }

    /// Whether a subscriber wants this key. May be stale at once; never false for one who subscribed before.
    /// Cost: a lock-free look-up.
    #[must_use]
    pub fn wants(&self, key: &K) -> bool {
        self.core.interest.has(key)
    }

    /// Publishes to the subscribers of the message's key alone, if there are any: false if not, and then nothing
    /// was queued. Not for messages that are published on the indexed topic too: they would come twice.
    ///
    /// # Errors
    /// As [`Topic::publish`].
    pub fn publish(&self, message: Message) -> Result<bool, PublishError> {
        match (self.core.key)(&message) {
            Some(key) if self.wants(&key) => self.core.topic.publish(message).map(|()| true),
            _ if self.core.topic.0.bus.is_closed() => Err(PublishError::Closed(message)),
            _ => Ok(false),
        }
    }

    /// As [`publish`](Self::publish), with a message that is made only if somebody wants the key.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_with<P: Send + Sync + 'static>(
        &self,
        key: &K,
        kind: &MessageType<P>,
        payload: impl FnOnce() -> P,
    ) -> Result<bool, PublishError> {
        if !self.wants(key) && !self.core.topic.0.bus.is_closed() {
            return Ok(false);
        }
        self.core.topic.publish(kind.message(payload())).map(|()| true)
    }

    /// The index's own topic: what is published here, or forwarded, reaches the index.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.core.topic
    }

    /// Keys somebody wants now.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.core.interest.len()
    }

    /// Handler calls that panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.core.panics.load(Ordering::Relaxed)
    }

    /// Figures of the one subscription: what it was delivered, coming and going of subscribers included.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        self.subscription.stats()
    }

    /// Ends the index: what was published before comes, then each subscriber's final message.
    pub fn unsubscribe(&self) -> Completion {
        self.subscription.unsubscribe()
    }
}

impl<K: Key> fmt::Debug for KeyIndex<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyIndex").field("topic", &self.core.topic).field("keys", &self.keys()).finish()
    }
}

/// A subscriber of one key. Dropping it unsubscribes, without waiting.
#[must_use = "dropping a subscription unsubscribes it"]
pub struct KeySubscription<K: Key> {
    ticket: Arc<Ticket<K>>,
    core: Arc<Core<K>>,
}

impl<K: Key> KeySubscription<K> {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &K {
        &self.ticket.key
    }

    /// Number, unique among subscribers of keys in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.ticket.id
    }

    /// Whether nobody has unsubscribed it, nor the index has ended.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        !self.ticket.left.load(Ordering::Acquire)
    }

    /// Whether the final message was handled and the handler dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ticket.done.is_done()
    }

    /// Unsubscribes: what was published before still comes, then the final message. Returns at once. Calling it
    /// again is harmless.
    pub fn unsubscribe(&self) -> KeyCompletion<K> {
        self.core.leave(&self.ticket);
        self.completion()
    }

    /// The end of the subscriber, whoever brings it.
    #[must_use]
    pub fn completion(&self) -> KeyCompletion<K> {
        KeyCompletion { ticket: Arc::clone(&self.ticket), core: Arc::clone(&self.core), task: None }
    }
}

impl<K: Key> Drop for KeySubscription<K> {
    fn drop(&mut self) {
        self.core.leave(&self.ticket);
    }
}

impl<K: Key + fmt::Debug> fmt::Debug for KeySubscription<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySubscription").field("key", self.key()).field("id", &self.id()).finish_non_exhaustive()
    }
}

/// The end of a subscriber of a key: wait for it, or await it.
///
/// # Examples
/// ```
/// use stasis_bus::key_index::KeyIndex;
/// use stasis_bus::{Bus, MessageType};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let kind = MessageType::<u64>::new(&bus, "call")?;
/// let index = KeyIndex::new(&bus.topic("calls")?, &kind, |message| message.payload::<u64>().copied())?;
/// let call = index.subscribe(7_u64, |_| ())?;
/// call.unsubscribe().wait_timeout(Duration::from_secs(10))?;
/// assert!(call.is_done());
/// # Ok(()) }
/// ```
pub struct KeyCompletion<K: Key> {
    ticket: Arc<Ticket<K>>,
    core: Arc<Core<K>>,
    task: Option<Arc<TaskSlot>>,
}

impl<K: Key> KeyCompletion<K> {
    /// Whether the final message was handled and the handler dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ticket.done.is_done()
    }

    /// Waits for it. In a handler on a lane it serves that lane meanwhile.
    ///
    /// # Errors
    /// [`JoinError::OwnHandler`] in a handler of the same index, [`JoinError::Circular`].
    pub fn wait(&self) -> Result<(), JoinError> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), for `limit` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`JoinError::Timeout`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.wait_until(Some(limit))
    }

    fn wait_until(&self, limit: Option<Duration>) -> Result<(), JoinError> {
        if self.is_done() {
            return Ok(());
        }
        // All subscribers of an index are served by its one subscription.
        let served_by = self.core.subscription.get().copied().unwrap_or_default();
        WaitPlan::announce(served_by).and_then(|plan| plan.wait(&self.ticket.done, limit)).map_err(
            |error| match error {
                WaitError::OwnHandler => JoinError::OwnHandler,
                WaitError::Circular => JoinError::Circular,
                WaitError::TooDeep => JoinError::TooDeep,
                WaitError::Timeout => JoinError::Timeout,
            },
        )
    }
}

impl<K: Key> Drop for KeyCompletion<K> {
    fn drop(&mut self) {
        if let Some(slot) = self.task.take() {
            self.ticket.done.give_up_task(slot);
        }
    }
}

impl<K: Key> Future for KeyCompletion<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.ticket.done.poll(&mut this.task, context)
    }
}

impl<K: Key> fmt::Debug for KeyCompletion<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCompletion").field("done", &self.is_done()).finish_non_exhaustive()
    }
}
