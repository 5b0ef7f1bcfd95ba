//! One managed state: its topic, its last message, and who keeps it.
//!
//! ```text
//!   publish v2:  tell followers v1 if nobody has yet ─► compare-and-swap v1 → v2 ─► tell v2 ─► publish
//! ```
//!
//! Followers drop a version they have had. A version is stored only after the one before it was told, by
//! its own publisher or by this one: so the first note of each version comes in order and none is left
//! out, without a lock.
//!
//! Guarantees: a failed compare-and-swap means that another publisher went on; a reader never waits.
//! The message that a new one replaces is dropped outside all locks, its destructor contained.

use super::follow::{Note, Present};
use super::registry::Registry;
use crate::bus::{Forward, Topic};
use crate::contain::quietly;
use crate::error::PublishError;
use crate::message::Message;
use crate::snapshot::SnapshotCell;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, fence};

/// A version of a state.
pub(super) struct Version {
    /// Zero: nothing published yet.
    number: u64,
    message: Option<Message>,
    /// Followers have been told.
    told: AtomicBool,
}

/// See the module.
pub(super) struct Managed {
    registry: Arc<Registry>,
    id: Arc<str>,
    /// Number of this life of the id, from 1.
    life: u64,
    topic: Topic,
    _forward: Forward,
    last: SnapshotCell<Version>,
    /// Explicit subscribers.
    subscribers: AtomicUsize,
}

impl Managed {
    pub(super) fn new(registry: Arc<Registry>, id: Arc<str>, life: u64, topic: Topic, forward: Forward) -> Self {
        let nothing = Version { number: 0, message: None, told: AtomicBool::new(true) };
        Self {
            registry,
            id,
            life,
            topic,
            _forward: forward,
            last: SnapshotCell::new(Arc::new(nothing)),
            subscribers: AtomicUsize::new(0),
        }
    }

    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn is_subscribed(&self) -> bool {
        // Relaxed: a figure of this moment.
        self.subscribers.load(Ordering::Relaxed) > 0
    }

    pub(super) fn subscribed(&self) {
        self.subscribers.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn unsubscribed(&self) {
        self.subscribers.fetch_sub(1, Ordering::Relaxed);
    }

    /// The last message.
    pub(super) fn data(&self) -> Option<Message> {
        self.last.load().message.clone()
    }

    /// The last message as followers get it.
    pub(super) fn present(&self) -> Present {
        self.present_of(&self.last.load())
    }

    fn present_of(&self, version: &Version) -> Present {
        Present { id: Arc::clone(&self.id), life: self.life, version: version.number, message: version.message.clone() }
    }

    pub(super) fn publish(&self, message: Message) -> Result<(), PublishError> {
        if self.registry.is_closed() {
            return Err(PublishError::Closed(message));
        }
        let told = loop {
            let now = Arc::clone(&self.last.load());
            let before = self.tell(&now);
            let next = Version { number: now.number + 1, message: Some(message.clone()), told: AtomicBool::new(false) };
            let next = Arc::new(next);
            let is_stored = before.is_ok() && self.last.replace(&now, Arc::clone(&next));
            // Perhaps the last reference to the message before.
            quietly(|| drop(now));
            match before {
                Ok(()) if is_stored => break self.tell(&next),
                Ok(()) => {}
                Err(error) if error.is_closed() => return Err(PublishError::Closed(message)),
                Err(_) => return Err(PublishError::Full(message)),
            }
        };
        match told {
            // Subscribers of the topic know, followers do not: the next publish tells them.
            Err(error) if error.is_full() => self.topic.publish(message.clone()).and(Err(PublishError::Full(message))),
            _ => self.topic.publish(message),
        }
    }

    /// Tells followers a version, unless somebody has done so.
    fn tell(&self, version: &Arc<Version>) -> Result<(), PublishError> {
        // Acquire: meets the Release below; the note is in the queues then.
        if version.told.load(Ordering::Acquire) {
            return Ok(());
        }
        // Meets the fence in `follow`: either we see the follower, or its snapshot holds this version.
        fence::full();
        if self.registry.notes().wants(self.registry.note()) {
            self.registry.tell(Note::Update(self.present_of(version)))?;
        }
        version.told.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.registry.forget(self);
        let nothing = Version { number: 0, message: None, told: AtomicBool::new(true) };
        let last = self.last.swap(Arc::new(nothing));
        if self.registry.notes().wants(self.registry.note()) {
            self.registry.tell_removal(Note::Removed { id: Arc::clone(&self.id), life: self.life });
        }
        quietly(|| drop(last));
    }
}

impl std::fmt::Debug for Managed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Managed").field("id", &self.id).field("life", &self.life).finish_non_exhaustive()
    }
}

/// Publishes to one state, which lives at least as long. Cheap to clone.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType, state::StateManager};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<&'static str>::new(&bus, "device_state")?;
/// let manager = StateManager::new(&bus, "devicestate:all")?;
/// let publisher = manager.add_publisher("SIP/100")?;
/// publisher.publish(state.message("INUSE"))?;
/// assert_eq!((publisher.id(), publisher.topic().name()), ("SIP/100", "devicestate:all/SIP/100"));
/// assert!(publisher.data().is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a state ends with its last publisher or subscriber"]
pub struct StatePublisher(pub(super) Arc<Managed>);

impl StatePublisher {
    /// Id of the state.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.id()
    }

    /// Topic of the state.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.0.topic()
    }

    /// The last message of the state.
    #[must_use]
    pub fn data(&self) -> Option<Message> {
        self.0.data()
    }

    /// Makes `message` the state and publishes it on the state's topic.
    ///
    /// Whoever gets the message finds it, or a later one, as the state. Never waits; order and cost as
    /// [`Topic::publish`], plus a compare-and-swap.
    ///
    /// # Errors
    /// [`PublishError::Closed`] after shutdown. [`PublishError::Full`] if a queue is full and the memory
    /// budget is used up: the message may be the state all the same, but not everybody was told, so
    /// publish again.
    pub fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.0.publish(message)
    }
}

/// The topic of a state, and a guard: the state lives at least as long. Dereferences to the [`Topic`].
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, state::StateManager};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let manager = StateManager::new(&bus, "mwi:all")?;
/// let topic = manager.topic("100")?;
/// assert_eq!((topic.name(), manager.len()), ("mwi:all/100", 1));
/// drop(topic);
/// assert!(manager.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a state ends with its last owner"]
pub struct StateTopic(pub(super) Arc<Managed>);

impl std::ops::Deref for StateTopic {
    type Target = Topic;
    fn deref(&self) -> &Topic {
        self.0.topic()
    }
}
