//! Topic pools: topics by name under one topic that gets all that is published on them.
//!
//! ```text
//!   get("SIP/100") ─► topic "devices/SIP/100" ─forward─► pooled topic "devices"
//!        pool: name ─► forward (which holds both topics)
//! ```
//!
//! # Guarantees
//! - One name, one topic: short and fully qualified name (`<pooled topic>/<name>`) mean the same everywhere.
//! - When `get` has returned, what is published on the topic reaches the pooled topic's subscribers; when
//!   `delete` has returned, it does not (unless a `get` of that name runs).
//! - The pool's lock is a leaf: topics and forwards are made and ended outside it, so there is no order of
//!   locks to get wrong (`many_threads_get_delete_and_ask`); destructors of users never run under it (G7).
//! - A pool holds its topics and forwards, nothing holds the pool or the bus's handle: dropping the pool cancels
//!   the forwards (G10), and memory is given back (`a_hundred_thousand_topics_leave_nothing`).
//!
//! Cost: `get` of a topic that is there one short lock and a look-up; making and deleting one O(subscribers of
//! the pooled topic), whatever the number of topics.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;

use crate::bus::{Bus, BusCore, Forward, Topic, give_back};
use crate::error::Closed;
use crate::sync::{Arc, Mutex, lock};

/// A pool or one of its topics was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The bus is shut down.
    #[error("the bus is shut down")]
    Closed,
    /// A topic of a pool needs a name.
    #[error("a topic of a pool needs a name")]
    NoName,
    /// The topic to pool under belongs to another bus.
    #[error("the pooled topic belongs to another bus")]
    OtherBus,
}

impl From<Closed> for PoolError {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

/// A pool of topics: see the [module](self).
///
/// Dropping it cancels the forwards; topics live on while somebody else holds or listens to them.
///
/// # Examples
/// ```
/// use stasis_bus::topic_pool::TopicPool;
/// use stasis_bus::{Bus, MessageType};
/// use std::sync::mpsc;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let all = bus.topic("devices")?;
/// let pool = TopicPool::new(&bus, &all)?;
/// let state = MessageType::<&'static str>::new(&bus, "device_state")?;
/// let (seen, states) = mpsc::channel();
/// let _listener = all.subscriber().accept(&state).subscribe(move |received| {
///     if let Some(state) = received.payload::<&'static str>() {
///         seen.send(*state).unwrap();
///     }
/// })?;
/// let phone = pool.get("SIP/100")?;
/// assert_eq!(phone.name(), "devices/SIP/100");
/// phone.publish(state.message("INUSE"))?;
/// assert_eq!(states.recv()?, "INUSE");
/// assert!(pool.delete("devices/SIP/100") && !pool.exists("SIP/100"));
/// # Ok(()) }
/// ```
pub struct TopicPool {
    /// Where topics are made. Not the bus's handle: a pool in a handler must not keep its bus open.
    bus: Arc<BusCore>,
    pooled: Topic,
    /// By short name. A leaf: nothing is made or ended under it.
    topics: Mutex<HashMap<Box<str>, Forward>>,
}

impl TopicPool {
    /// A pool without topics, under `pooled`. Keeps `pooled` alive, and not the bus.
    ///
    /// # Errors
    /// [`PoolError::OtherBus`] if `pooled` is not a topic of `bus`.
    pub fn new(bus: &Bus, pooled: &Topic) -> Result<Self, PoolError> {
        if !Arc::ptr_eq(&bus.core, &pooled.0.bus) {
            return Err(PoolError::OtherBus);
        }
        Ok(Self { bus: Arc::clone(&bus.core), pooled: pooled.clone(), topics: Mutex::default() })
    }

    /// The topic that gets everything.
    #[must_use]
    pub fn pooled_topic(&self) -> &Topic {
        &self.pooled
    }

    /// The name without the pooled topic's.
    fn short<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.pooled.name()).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name)
    }

    /// The topic of this name; made, and forwarded to the pooled topic, if the pool has none. If the bus has a
    /// topic `<pooled topic>/<name>` already, that one is taken in: a topic that was deleted while somebody
    /// listens to it comes back with its listeners.
    ///
    /// # Errors
    /// [`PoolError::NoName`] for an empty name, [`PoolError::Closed`] if one would have to be made after shutdown.
    #[track_caller]
    pub fn get(&self, name: impl AsRef<str>) -> Result<Topic, PoolError> {
        let location = Location::caller();
        let name = self.short(name.as_ref());
        if name.is_empty() {
            return Err(PoolError::NoName);
        }
        if let Some(forward) = lock(&self.topics).get(name) {
            return Ok(forward.from().clone());
        }
        let topic = self.bus.make_topic(&format!("{}/{name}", self.pooled.name()), None, location)?;
        let forward = topic.forward_to(&self.pooled)?;
        let mut topics = lock(&self.topics);
        // Somebody was quicker: it is the same topic, as names are unique, and one forward is enough.
        let spare = if topics.contains_key(name) { Some(forward) } else { topics.insert(name.into(), forward) };
        drop(topics);
        drop(spare);
        Ok(topic)
    }

    /// Takes the topic of this name out and cancels its forward; false if there was none. The topic lives on
    /// while somebody else holds or listens to it.
    pub fn delete(&self, name: impl AsRef<str>) -> bool {
        let name = self.short(name.as_ref());
        let mut topics = lock(&self.topics);
        let forward = topics.remove(name);
        give_back(&mut topics);
        drop(topics);
        // Cancelled here, outside the lock.
        forward.is_some()
    }

    /// Whether the pool has a topic of this name. May be stale at once.
    #[must_use]
    pub fn exists(&self, name: impl AsRef<str>) -> bool {
        let name = self.short(name.as_ref());
        lock(&self.topics).contains_key(name)
    }

    /// Number of topics. May be stale at once.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.topics).len()
    }

    /// Whether there is no topic. May be stale at once.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for TopicPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPool").field("pooled", &self.pooled).field("topics", &self.len()).finish()
    }
}
