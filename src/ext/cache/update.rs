//! The two messages of a cache: updates it publishes, clears it obeys.

use super::entry::{CacheKey, Entity};
use crate::message::{AnyMessageType, Message, MessageType, TypeId};
use crate::sync::{Arc, global};

global! {
    static UPDATE: MessageType<CacheUpdate> = MessageType::builder("stasis_cache_update_type")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type of cache updates: {error}"));
}

global! {
    static CLEAR: MessageType<CacheClear> = MessageType::builder("stasis_cache_clear_type")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type of cache clears: {error}"));
}

/// Payload of the message a caching topic publishes for each change: what was, and what is.
///
/// Updates of one id come in the order they were applied, over all caching topics of the cache, and
/// chain: `old` is the `new` of the update before it that has the same entity.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CacheUpdate, CachingTopic};
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
/// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
/// let devices = bus.topic("device:all")?;
/// let caching = CachingTopic::new(&devices, &cache)?;
/// let watch = caching.topic().subscriber().accept(CacheUpdate::message_type()).subscribe(|received| {
///     if let Some(update) = received.payload::<CacheUpdate>() {
///         println!("{}: {:?} -> {:?}", update.id(), update.old_snapshot(), update.new_snapshot());
///     }
/// })?;
/// devices.publish(state.message(("SIP/100", 1)))?;
/// watch.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CacheUpdate {
    pub(super) key: CacheKey,
    pub(super) entity: Entity,
    pub(super) version: u64,
    pub(super) old: Option<Message>,
    pub(super) new: Option<Message>,
    pub(super) begins: bool,
    pub(super) ends: bool,
}

impl CacheUpdate {
    /// The type of these messages: one for all buses of the process.
    ///
    /// # Panics
    /// If it cannot be made because 65,536 types are alive.
    #[must_use]
    pub fn message_type() -> &'static MessageType<Self> {
        &UPDATE
    }

    pub(super) fn into_message(self) -> Message {
        UPDATE.message(self)
    }

    /// Type and id of the snapshots.
    #[must_use]
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// Type of the snapshots.
    #[must_use]
    pub fn kind(&self) -> TypeId {
        self.key.kind()
    }

    /// Whether the snapshots are of this type.
    #[must_use]
    pub fn is_of(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        self.kind() == kind.as_ref().id()
    }

    /// Id of the snapshots.
    #[must_use]
    pub fn id(&self) -> &str {
        self.key.id()
    }

    /// Whose snapshots these are.
    #[must_use]
    pub fn entity(&self) -> Entity {
        self.entity
    }

    /// The snapshot before; `None`: there was none.
    #[must_use]
    pub fn old_snapshot(&self) -> Option<&Message> {
        self.old.as_ref()
    }

    /// The snapshot now; `None`: it was removed.
    #[must_use]
    pub fn new_snapshot(&self) -> Option<&Message> {
        self.new.as_ref()
    }

    /// Version of the entry after this change; see [`CacheEntry::version`](super::CacheEntry::version). The
    /// update of the aggregate has that of the snapshot that led to it.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the change made the entry: nothing was known of this id before.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// Whether the change removed the entry: nothing is known of this id any more.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.ends
    }
}

/// Payload of the message that has a caching topic remove a snapshot.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CacheClear, CachingTopic};
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
/// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
/// let devices = bus.topic("device:all")?;
/// let _caching = CachingTopic::new(&devices, &cache)?;
/// devices.publish(state.message(("SIP/100", 1)))?;
/// let known = cache.get(&state, "SIP/100").unwrap();
/// devices.publish(CacheClear::message(known))?;
/// assert!(cache.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CacheClear {
    snapshot: Message,
}

impl CacheClear {
    /// The type of these messages: one for all buses of the process.
    ///
    /// # Panics
    /// If it cannot be made because 65,536 types are alive.
    #[must_use]
    pub fn message_type() -> &'static MessageType<Self> {
        &CLEAR
    }

    /// A message that removes what a caching topic has of this snapshot's type, id and entity; any snapshot
    /// with these will do.
    #[must_use]
    pub fn message(snapshot: Message) -> Message {
        CLEAR.message(Self { snapshot })
    }

    /// The snapshot that says what to remove.
    #[must_use]
    pub fn snapshot(&self) -> &Message {
        &self.snapshot
    }
}
