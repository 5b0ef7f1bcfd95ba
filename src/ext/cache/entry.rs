//! Entries: all that is known about one id, as it was at one moment.
//!
//! Guarantees: immutable; holding one keeps its messages and delays nobody.

use crate::message::{AnyMessageType, Eid, Message, TypeId};
use crate::sync::Arc;
use crate::sync::map::Equivalent;

/// Entity id of aggregates that are published where the cache hears them again: such a message passes
/// through a caching topic and is not taken for a snapshot.
///
/// # Examples
/// ```
/// use stasis_bus::cache::AGGREGATE;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<u32>::new(&bus, "device_state")?;
/// assert_eq!(state.message_from(3, AGGREGATE).eid(), Some(AGGREGATE));
/// # Ok(()) }
/// ```
pub const AGGREGATE: Eid = Eid([0xff; 6]);

/// What an entry is found by: the type of its snapshots, and their id.
///
/// # Examples
/// ```
/// use stasis_bus::cache::CacheKey;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<u32>::new(&bus, "device_state")?;
/// let key = CacheKey::new(&state, "SIP/100");
/// assert_eq!((key.kind(), key.id()), (state.id(), "SIP/100"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheKey {
    kind: TypeId,
    id: Arc<str>,
}

impl CacheKey {
    /// The key of this type and id.
    #[must_use]
    pub fn new(kind: &impl AsRef<AnyMessageType>, id: &str) -> Self {
        Self::from_parts(kind.as_ref().id(), id)
    }

    pub(super) fn from_parts(kind: TypeId, id: &str) -> Self {
        Self { kind, id: id.into() }
    }

    /// Type of the snapshots.
    #[must_use]
    pub fn kind(&self) -> TypeId {
        self.kind
    }

    /// Id of the snapshots.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// A key that is only looked up.
#[derive(Hash)]
pub(super) struct KeyRef<'a> {
    pub(super) kind: TypeId,
    pub(super) id: &'a str,
}

impl Equivalent<CacheKey> for KeyRef<'_> {
    fn equivalent(&self, key: &CacheKey) -> bool {
        self.kind == key.kind && *self.id == *key.id
    }
}

/// Whose view a snapshot is.
///
/// # Examples
/// ```
/// use stasis_bus::Eid;
/// use stasis_bus::cache::{AGGREGATE, Cache, Entity};
/// let (here, there) = (Eid([1; 6]), Eid([2; 6]));
/// let cache = Cache::builder().local(here).build();
/// assert_eq!((cache.entity(None), cache.entity(Some(here))), (Entity::Local, Entity::Local));
/// assert_eq!((cache.entity(Some(there)), cache.entity(Some(AGGREGATE))), (Entity::Remote(there), Entity::Aggregate));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entity {
    /// This node's.
    Local,
    /// That of another node.
    Remote(Eid),
    /// What all views together amount to, as calculated.
    Aggregate,
}

/// All snapshots of one id: the local one, one for each remote entity, and the aggregate.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CachingTopic};
/// use stasis_bus::{Bus, Eid, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
/// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
/// let devices = bus.topic("device:all")?;
/// let _caching = CachingTopic::new(&devices, &cache)?;
/// let other = Eid([1, 2, 3, 4, 5, 6]);
/// devices.publish(state.message(("SIP/100", 1)))?;
/// devices.publish(state.message_from(("SIP/100", 2), other))?;
/// let entry = cache.entry(&state, "SIP/100").unwrap();
/// assert_eq!(entry.local().unwrap().payload::<(&str, u32)>().unwrap().1, 1);
/// assert_eq!(entry.remote(0).unwrap().eid(), Some(other));
/// assert_eq!((entry.remote(1), entry.aggregate()), (None, None));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CacheEntry {
    key: CacheKey,
    version: u64,
    origin: u64,
    local: Option<Message>,
    remotes: Vec<(Eid, Message)>,
    aggregate: Option<Message>,
}

impl CacheEntry {
    pub(super) fn empty(key: CacheKey) -> Self {
        Self { key, version: 0, origin: 0, local: None, remotes: Vec::new(), aggregate: None }
    }

    /// This entry with one snapshot replaced; `None` takes it out.
    pub(super) fn with(&self, entity: Entity, new: Option<&Message>, version: u64, origin: u64) -> Self {
        let mut entry = Self { version, origin, ..self.clone() };
        match entity {
            Entity::Local => entry.local = new.cloned(),
            Entity::Aggregate => entry.aggregate = new.cloned(),
            Entity::Remote(eid) => {
                let at = entry.remotes.iter().position(|(known, _)| *known == eid);
                match (at, new) {
                    (Some(at), Some(new)) => entry.remotes[at].1 = new.clone(),
                    (Some(at), None) => drop(entry.remotes.remove(at)),
                    (None, Some(new)) => entry.remotes.push((eid, new.clone())),
                    (None, None) => {}
                }
            }
        }
        entry
    }

    pub(super) fn set_aggregate(&mut self, aggregate: Option<Message>) {
        self.aggregate = aggregate;
    }

    /// Whether no snapshot is left; an aggregate alone is no entry.
    pub(super) fn is_empty(&self) -> bool {
        self.local.is_none() && self.remotes.is_empty()
    }

    /// Id of the cached topic that announced this version.
    pub(super) fn origin(&self) -> u64 {
        self.origin
    }

    /// Type and id.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Type of the snapshots.
    #[must_use]
    pub fn kind(&self) -> TypeId {
        self.key.kind
    }

    /// Id of the snapshots.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.key.id
    }

    /// Number of this version: grows with every change of the entry, over its removal too, and is unique
    /// in the cache.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The local snapshot.
    #[must_use]
    pub fn local(&self) -> Option<&Message> {
        self.local.as_ref()
    }

    /// The snapshot of the remote entity of this number, counted in the order they came in.
    #[must_use]
    pub fn remote(&self, index: usize) -> Option<&Message> {
        self.remotes.get(index).map(|(_, message)| message)
    }

    /// All remote snapshots.
    pub fn remotes(&self) -> impl ExactSizeIterator<Item = (Eid, &Message)> {
        self.remotes.iter().map(|(eid, message)| (*eid, message))
    }

    /// The aggregate, if one was calculated. In a calculation: the one so far.
    #[must_use]
    pub fn aggregate(&self) -> Option<&Message> {
        self.aggregate.as_ref()
    }

    /// The snapshot of this entity.
    #[must_use]
    pub fn snapshot(&self, entity: Entity) -> Option<&Message> {
        match entity {
            Entity::Local => self.local(),
            Entity::Aggregate => self.aggregate(),
            Entity::Remote(eid) => self.remotes().find(|(known, _)| *known == eid).map(|(_, message)| message),
        }
    }

    /// The snapshots of all entities: the local one first, no aggregate.
    pub fn snapshots(&self) -> impl Iterator<Item = (Entity, &Message)> {
        let local = self.local().map(|message| (Entity::Local, message));
        local.into_iter().chain(self.remotes().map(|(eid, message)| (Entity::Remote(eid), message)))
    }
}
