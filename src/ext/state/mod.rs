//! State manager: managed state per id under an "all" topic.
//!
//! ```text
//!  StatePublisher ─┐ own                    ┌─► topic "<all>/<id>" ─forward─► topic "<all>"
//!  StateSubscriber ┼─► Managed (id) publish ┤
//!  StateTopic      ┤    └ last message      └─► topic "<all>/": notes for `follow`
//!  (id, eid) ──────┘         ▲
//!  registry: id ─weak────────┘              the last owner gone: state, forward and entry are gone
//! ```
//!
//! Guarantees
//! - One managed state per id, whoever creates it at the same time
//!   (`one_id_created_by_four_threads_is_one_state`).
//! - A state lives while a publisher, a subscriber, a topic guard or an implicit publication (id and EID)
//!   of it does, no longer (`g10_*`). Implicit publications are listed, and removed one by one or by node.
//! - The last message is stored before it is published. Reading it never waits for a writer nor holds one
//!   up. Publishers of one id at the same time: subscribers may see their messages in another order than
//!   the state took them; followers never do.
//! - [`StateManager::follow`]: the present state of each id, then every later update of it, in its order,
//!   each once (`follow_*`).
//! - No lock is held while user code runs or while publishing (G7, `g07_*`); a panic of an observer or a
//!   payload's destructor goes no further (G12, `g12_*`).
//!
//! Cost: a publish is a compare-and-swap (an allocation of 32 bytes) on top of the topic's; by id also a
//! look-up without a lock. Making a state, its removal and snapshots take a short lock of the manager.
//!
//! A manager and what it hands out keep their [`Bus`] from ending by its last handle; `Bus::shutdown`
//! ends it all the same.

mod error;
mod follow;
mod implicit;
mod managed;
mod observer;
mod registry;
mod subscriber;

use std::ops::ControlFlow;

pub use error::{StateError, StatePublishError};
pub use follow::{StateChange, StateChangeKind};
pub use implicit::ImplicitPublisher;
pub use managed::{StatePublisher, StateTopic};
pub use observer::{StateObservation, StateObserver};
pub use subscriber::StateSubscriber;

use crate::bus::{Bus, Received, SubscriberBuilder, Subscription, Topic};
use crate::message::{Eid, Message};
use crate::sync::Arc;
use implicit::Implicit;
use managed::Managed;
use registry::Registry;

/// Manages the states of one "all" topic. Handles are cheap to clone; when the last one goes, implicit
/// publications end; publishers and subscribers that are still held go on.
///
/// # Examples
/// ```
/// use stasis_bus::state::StateManager;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let mailbox = MessageType::<u32>::new(&bus, "mwi_state")?;
/// let manager = StateManager::new(&bus, "mwi:all")?;
/// let publisher = manager.add_publisher("100@default")?;
/// publisher.publish(mailbox.message(3))?;
/// let watcher = manager.add_subscriber("100@default")?;
/// assert_eq!(watcher.data().and_then(|message| message.payload::<u32>().copied()), Some(3));
/// drop(publisher);
/// assert_eq!(manager.len(), 1); // the subscriber keeps it
/// drop(watcher);
/// assert!(manager.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct StateManager {
    registry: Arc<Registry>,
    implicit: Arc<Implicit>,
}

impl StateManager {
    /// A manager whose states are forwarded to the topic `name`.
    ///
    /// Managers of one name share the topics, not the states.
    ///
    /// # Errors
    /// [`StateError::NoName`] for an empty name, [`StateError::Closed`] after shutdown,
    /// [`StateError::Type`] if the type of its notes cannot be made.
    pub fn new(bus: &Bus, name: &str) -> Result<Self, StateError> {
        Ok(Self { registry: Arc::new(Registry::new(bus, name)?), implicit: Arc::default() })
    }

    /// The topic all states are forwarded to.
    #[must_use]
    pub fn all_topic(&self) -> &Topic {
        self.registry.all()
    }

    /// The topic of a state, made if there is none, as a guard that keeps the state alive.
    ///
    /// What is published on the topic itself reaches subscribers, but is not the state: for that, use
    /// a publisher.
    ///
    /// # Errors
    /// [`StateError::NoId`] for an empty id, [`StateError::Closed`] after shutdown.
    pub fn topic(&self, id: &str) -> Result<StateTopic, StateError> {
        Ok(StateTopic(self.registry.hold(id)?))
    }

    /// A publisher of this state, made if there is none.
    ///
    /// # Errors
    /// As [`topic`](Self::topic).
    pub fn add_publisher(&self, id: &str) -> Result<StatePublisher, StateError> {
        Ok(StatePublisher(self.registry.hold(id)?))
    }

    /// A subscriber of this state, made if there is none, without a subscription on its topic.
    ///
    /// # Errors
    /// As [`topic`](Self::topic).
    pub fn add_subscriber(&self, id: &str) -> Result<StateSubscriber, StateError> {
        StateSubscriber::new(self.registry.hold(id)?, |_| Ok(None))
    }

    /// A subscriber of this state with a subscription on its topic, on a lane of the bus.
    ///
    /// # Errors
    /// As [`topic`](Self::topic), and [`StateError::Subscribe`].
    #[track_caller]
    pub fn subscribe_pool(
        &self,
        id: &str,
        handler: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<StateSubscriber, StateError> {
        self.subscribe_with(id, |builder| builder.pool(), handler)
    }

    /// As [`subscribe_pool`](Self::subscribe_pool), with filters, delivery and name as `options` sets them.
    ///
    /// # Errors
    /// As [`subscribe_pool`](Self::subscribe_pool).
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType, state::StateManager};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// # let state = MessageType::<&'static str>::new(&bus, "device_state")?;
    /// # let manager = StateManager::new(&bus, "devicestate:all")?;
    /// let writer = manager.subscribe_with("SIP/100", |builder| builder.mailbox().accept(&state), |received| {
    ///     println!("{:?}", received.payload::<&'static str>());
    /// })?;
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn subscribe_with(
        &self,
        id: &str,
        options: impl FnOnce(SubscriberBuilder<'_>) -> SubscriberBuilder<'_>,
        handler: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<StateSubscriber, StateError> {
        let state = self.registry.hold(id)?;
        let topic = state.topic().clone();
        let builder = options(topic.subscriber());
        StateSubscriber::new(state, |_| Ok(Some(builder.subscribe(handler)?)))
    }

    /// Publishes to a state, made if there is none, and makes (`id`, `eid`) an implicit publisher of it,
    /// until [`remove_publish_by_id`](Self::remove_publish_by_id) or [`remove_node`](Self::remove_node).
    ///
    /// `None` is this node. Prefer [`add_publisher`](Self::add_publisher): it ends by itself.
    ///
    /// # Errors
    /// [`StatePublishError::NoId`] for an empty id, [`StatePublishError::Publish`] as
    /// [`StatePublisher::publish`]. After shutdown no implicit publisher is made.
    pub fn publish_by_id(&self, id: &str, eid: Option<Eid>, message: Message) -> Result<(), StatePublishError> {
        self.implicit.publish(&self.registry, id, eid, message)
    }

    /// Ends an implicit publisher, after publishing `message` as its last if there is one.
    ///
    /// # Errors
    /// [`StatePublishError::NotPublishing`] if (`id`, `eid`) is no implicit publisher: nothing was done.
    /// [`StatePublishError::Publish`] as [`StatePublisher::publish`]; the publisher has ended all the same.
    pub fn remove_publish_by_id(
        &self,
        id: &str,
        eid: Option<Eid>,
        message: Option<Message>,
    ) -> Result<(), StatePublishError> {
        self.implicit.remove(id, eid, message)
    }

    /// Ends all implicit publishers of a node that is gone; how many there were.
    pub fn remove_node(&self, eid: Option<Eid>) -> usize {
        self.implicit.remove_node(eid)
    }

    /// All implicit publishers of this moment, in no order: what has not been removed yet.
    #[must_use]
    pub fn implicit_publishers(&self) -> Vec<ImplicitPublisher> {
        self.implicit.list()
    }

    /// The last message of a state; `None` if there is no such state or nothing was published.
    /// Cost: a look-up without a lock.
    #[must_use]
    pub fn data(&self, id: &str) -> Option<Message> {
        self.registry.find(id)?.data()
    }

    /// Number of states now. May be stale at once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.registry.len()
    }

    /// Whether there is no state now. May be stale at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Watches who subscribes and unsubscribes states, until the returned guard is dropped.
    ///
    /// Those that are subscribed already are not told. An observer may call back into the manager; one
    /// that holds a [`StateManager`] keeps it alive until the guard is dropped.
    pub fn add_observer(&self, observer: impl StateObserver) -> StateObservation {
        self.registry.observers().add(observer)
    }

    /// Calls `visit` for every state of one moment, in no order, with its last message; until it breaks.
    ///
    /// States made meanwhile are not visited; states that end meanwhile live until it returns. No lock is
    /// held: `visit` may do anything, and its panic is the caller's. Cost: O(states) under the manager's
    /// lock, publishing goes on.
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType, state::StateManager};
    /// # use std::ops::ControlFlow;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// # let kind = MessageType::<u32>::new(&bus, "mwi_state")?;
    /// # let manager = StateManager::new(&bus, "mwi:all")?;
    /// manager.publish_by_id("100", None, kind.message(2))?;
    /// let mut sum = 0;
    /// manager.callback_all(|_id, last| {
    ///     sum += last.and_then(|message| message.payload::<u32>().copied()).unwrap_or(0);
    ///     ControlFlow::Continue(())
    /// });
    /// assert_eq!(sum, 2);
    /// # Ok(()) }
    /// ```
    pub fn callback_all(&self, visit: impl FnMut(&str, Option<&Message>) -> ControlFlow<()>) {
        Self::callback(self.registry.snapshot(None).0, visit);
    }

    /// As [`callback_all`](Self::callback_all), for the states that have a [`StateSubscriber`] only.
    pub fn callback_subscribed(&self, visit: impl FnMut(&str, Option<&Message>) -> ControlFlow<()>) {
        let mut states = self.registry.snapshot(None).0;
        states.retain(|state| state.is_subscribed());
        Self::callback(states, visit);
    }

    fn callback(states: Vec<Arc<Managed>>, mut visit: impl FnMut(&str, Option<&Message>) -> ControlFlow<()>) {
        let seen: Vec<_> = states.iter().map(|state| (state, state.data())).collect();
        for (state, last) in seen {
            if visit(state.id(), last.as_ref()).is_break() {
                break;
            }
        }
    }

    /// Subscribes to all states: first the present one of each id, then every later update of any, each
    /// once, and of one id in the order the state took them; and the removal of states.
    ///
    /// "Present" is when this call is made: what is published after it has returned comes as an update.
    /// A removal that is overtaken by a new state of the same id is not told. `options` sets delivery, name
    /// and panic policy; filters are the follower's own. A panic of the handler costs it that one change.
    ///
    /// Order: as [`Topic::publish`], over all ids. Cost: O(states) here, one map entry per id as long as
    /// it lives, one more publish per update.
    ///
    /// # Errors
    /// [`StateError::Subscribe`]; [`StateError::Full`] if there is no room for the present states.
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType};
    /// use stasis_bus::state::{StateChangeKind, StateManager};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// # let kind = MessageType::<u32>::new(&bus, "mwi_state")?;
    /// let manager = StateManager::new(&bus, "mwi:all")?;
    /// manager.publish_by_id("100", None, kind.message(2))?;
    /// let (seen, changes) = std::sync::mpsc::channel();
    /// let _feed = manager.follow(|builder| builder.name("panel"), move |change| {
    ///     seen.send((change.kind(), change.message().and_then(|m| m.payload::<u32>().copied()))).unwrap();
    /// })?;
    /// manager.publish_by_id("100", None, kind.message(3))?;
    /// manager.remove_publish_by_id("100", None, None)?;
    /// assert_eq!(changes.recv()?, (StateChangeKind::Present, Some(2)));
    /// assert_eq!(changes.recv()?, (StateChangeKind::Update, Some(3)));
    /// assert_eq!(changes.recv()?, (StateChangeKind::Removed, None));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn follow(
        &self,
        options: impl FnOnce(SubscriberBuilder<'_>) -> SubscriberBuilder<'_>,
        handler: impl FnMut(&StateChange<'_>) + Send + 'static,
    ) -> Result<Subscription, StateError> {
        let builder = options(self.registry.notes().subscriber());
        follow::follow(&self.registry, None, builder, handler)
    }

    /// As [`follow`](Self::follow), for one id, whether it has a state yet or not: its present state if there
    /// is one, then every later update, its removal, and the states that come after. Does not keep it alive.
    ///
    /// Cost: as there, but for one state at the start. A note of every update of any state is queued for the
    /// follower: for many ids at a time follow all and tell them apart.
    ///
    /// # Errors
    /// As [`follow`](Self::follow), and [`StateError::NoId`].
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType};
    /// use stasis_bus::state::{StateChangeKind, StateManager};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// # let kind = MessageType::<u32>::new(&bus, "mwi_state")?;
    /// let manager = StateManager::new(&bus, "mwi:all")?;
    /// manager.publish_by_id("100", None, kind.message(2))?;
    /// let (seen, changes) = std::sync::mpsc::channel();
    /// let _lamp = manager.follow_id("100", |builder| builder, move |change| {
    ///     seen.send((change.kind(), change.version())).unwrap();
    /// })?;
    /// manager.publish_by_id("200", None, kind.message(7))?;
    /// manager.publish_by_id("100", None, kind.message(3))?;
    /// assert_eq!(changes.recv()?, (StateChangeKind::Present, 1));
    /// assert_eq!(changes.recv()?, (StateChangeKind::Update, 2));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn follow_id(
        &self,
        id: &str,
        options: impl FnOnce(SubscriberBuilder<'_>) -> SubscriberBuilder<'_>,
        handler: impl FnMut(&StateChange<'_>) + Send + 'static,
    ) -> Result<Subscription, StateError> {
        if id.is_empty() {
            return Err(StateError::NoId);
        }
        let builder = options(self.registry.notes().subscriber());
        follow::follow(&self.registry, Some(id), builder, handler)
    }
}
