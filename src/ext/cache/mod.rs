//! Caches: the last snapshot of everything that has an id, and a topic that tells what changed.
//!
//! ```text
//!   original topic ─► CachingTopic (inline) ── change ──► Cache: (type, id) ─► entry
//!                          │                               local │ remote, remote, … │ aggregate
//!                          ▼                                  ▲
//!   cached topic: CacheUpdate { old, new }, and everything    └─ get, dump: wait for nobody
//!                 that is no snapshot as it came
//! ```
//!
//! Guarantees:
//! - Readers never block writers, nor the other way round; no lock anywhere
//!   (`readers_dump_while_four_threads_update_and_clear`).
//! - An entry is there while it has a snapshot, and leaves nothing behind; finding and removing one is
//!   O(1) (`random_operations_agree_with_a_simple_model`, fuzz target `cache`).
//! - Each change is one step, and its update is published with what was and what is. Updates of one
//!   (type, id) are published in the order of the changes, over all caching topics of the cache
//!   (`updates_of_one_key_chain_over_two_caching_topics`; models: `loom-tests/tests/cache.rs`).
//! - A panic of a calculation or of an aggregate's publisher changes nothing but the aggregate
//!   (`a_panicking_calculation_keeps_the_aggregate`).
//!
//! Cost: a lookup is a hash and two loads; a change two compare-and-swaps and a few small allocations; a
//! dump walks all entries. Memory: snapshots go when they are replaced or removed
//! (`g10_snapshots_go_when_they_are_replaced_or_removed`); the empty slot of a removed entry is
//! reclaimed with the map's next changes, and the map's table keeps the size of its fullest time.

mod caching_topic;
mod entry;
mod source;
mod table;
mod update;

use std::borrow::Cow;

pub use caching_topic::CachingTopic;
pub use entry::{AGGREGATE, CacheEntry, CacheKey, Entity};
pub use source::CacheSource;
pub use update::{CacheClear, CacheUpdate};

use crate::bus::Topic;
use crate::contain::quietly;
use crate::message::{AnyMessageType, Eid, Message};
use crate::sync::Arc;
use caching_topic::Outlet;
use table::Table;

type Identify = dyn Fn(&Message) -> Option<Cow<'_, str>> + Send + Sync;
type Calculate = table::Calculate<'static>;
type PublishAggregate = dyn Fn(&Topic, &Message) + Send + Sync;

struct CacheInner {
    table: Table<Arc<Outlet>>,
    identify: Box<Identify>,
    local: Option<Eid>,
    calculate: Option<Box<Calculate>>,
    publish_aggregate: Option<Box<PublishAggregate>>,
}

/// A cache of snapshots. Handles are cheap to clone; many caching topics may fill one cache.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CachingTopic};
/// use stasis_bus::{Bus, MessageType};
/// struct DeviceState {
///     device: String,
///     in_use: bool,
/// }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<DeviceState>::new(&bus, "device_state")?;
/// let cache = Cache::builder()
///     .id(|message| Some(message.payload::<DeviceState>()?.device.as_str().into()))
///     .build();
/// let devices = bus.topic("device:all")?;
/// let _caching = CachingTopic::new(&devices, &cache)?;
/// devices.publish(state.message(DeviceState { device: "SIP/100".into(), in_use: true }))?;
/// let known = cache.get(&state, "SIP/100").unwrap();
/// assert!(known.payload::<DeviceState>().unwrap().in_use);
/// assert_eq!(cache.dump(Some(&state)).len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cache(Arc<CacheInner>);

impl Cache {
    /// Starts making a cache.
    pub fn builder() -> CacheBuilder {
        CacheBuilder { identify: None, local: None, calculate: None, publish_aggregate: None }
    }

    /// The local snapshot of this type and id.
    #[must_use]
    pub fn get(&self, kind: &impl AsRef<AnyMessageType>, id: &str) -> Option<Message> {
        self.entry(kind, id)?.local().cloned()
    }

    /// The snapshot that came from this entity; `None` asks for the aggregate.
    #[must_use]
    pub fn get_by_eid(&self, kind: &impl AsRef<AnyMessageType>, id: &str, eid: Option<Eid>) -> Option<Message> {
        self.entry(kind, id)?.snapshot(self.entity_or_aggregate(eid)).cloned()
    }

    /// The snapshots of all entities for this type and id, without the aggregate.
    #[must_use]
    pub fn get_all(&self, kind: &impl AsRef<AnyMessageType>, id: &str) -> Vec<Message> {
        self.entry(kind, id)
            .map_or_else(Vec::new, |entry| entry.snapshots().map(|(_, message)| message.clone()).collect())
    }

    /// The whole entry of this type and id, as it is now.
    #[must_use]
    pub fn entry(&self, kind: &impl AsRef<AnyMessageType>, id: &str) -> Option<Arc<CacheEntry>> {
        self.0.table.get(kind.as_ref().id(), id)
    }

    /// All entries, in no order. Each as of a moment within the call: what is there meanwhile is among
    /// them, what comes or goes meanwhile may be. Cost: O(entries).
    #[must_use]
    pub fn entries(&self) -> Vec<Arc<CacheEntry>> {
        self.0.table.entries()
    }

    /// The local snapshots of a type, or of all types. As [`entries`](Self::entries).
    #[must_use]
    pub fn dump(&self, kind: Option<&dyn AsRef<AnyMessageType>>) -> Vec<Message> {
        self.collect(kind, |entry, found| found.extend(entry.local().cloned()))
    }

    /// The snapshots that came from this entity; `None` asks for the aggregates. As
    /// [`entries`](Self::entries).
    #[must_use]
    pub fn dump_by_eid(&self, kind: Option<&dyn AsRef<AnyMessageType>>, eid: Option<Eid>) -> Vec<Message> {
        let entity = self.entity_or_aggregate(eid);
        self.collect(kind, |entry, found| found.extend(entry.snapshot(entity).cloned()))
    }

    /// The snapshots of all entities, without aggregates. As [`entries`](Self::entries).
    #[must_use]
    pub fn dump_all(&self, kind: Option<&dyn AsRef<AnyMessageType>>) -> Vec<Message> {
        self.collect(kind, |entry, found| found.extend(entry.snapshots().map(|(_, message)| message.clone())))
    }

    fn collect(
        &self,
        kind: Option<&dyn AsRef<AnyMessageType>>,
        take: impl Fn(&CacheEntry, &mut Vec<Message>),
    ) -> Vec<Message> {
        let kind = kind.map(|kind| kind.as_ref().id());
        let mut found = Vec::new();
        for entry in self.entries() {
            if kind.is_none_or(|kind| kind == entry.kind()) {
                take(&entry, &mut found);
            }
        }
        found
    }

    /// Number of entries. Cost: O(entries).
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether there is no entry. Cost: O(entries).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A version number: all changes a reader has seen so far have this or a lower one, all that are yet to
    /// be made get a higher one (those being made now: either).
    #[must_use]
    pub fn last_version(&self) -> u64 {
        self.0.table.last_version()
    }

    /// Slots in the table, for tests: as many as entries, when nobody is changing anything.
    #[doc(hidden)]
    #[must_use]
    pub fn slots(&self) -> usize {
        self.0.table.slots()
    }

    /// Which view a message from this entity is. No entity: this node's.
    #[must_use]
    pub fn entity(&self, eid: Option<Eid>) -> Entity {
        match eid {
            Some(AGGREGATE) => Entity::Aggregate,
            Some(eid) if self.0.local != Some(eid) => Entity::Remote(eid),
            _ => Entity::Local,
        }
    }

    fn entity_or_aggregate(&self, eid: Option<Eid>) -> Entity {
        eid.map_or(Entity::Aggregate, |eid| self.entity(Some(eid)))
    }

    /// Calculates an aggregate; a panic in it leaves the one there is.
    fn calculate(&self) -> Option<impl Fn(&CacheEntry, Option<&Message>) -> Option<Message> + Send + Sync> {
        let calculate = self.0.calculate.as_ref()?;
        Some(move |entry: &CacheEntry, new: Option<&Message>| {
            let mut result = entry.aggregate().cloned();
            let mut calculated = None;
            quietly(|| calculated = Some(calculate(entry, new)));
            if let Some(calculated) = calculated {
                result = calculated;
            }
            result
        })
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("entries", &self.len()).finish_non_exhaustive()
    }
}

/// A cache in the making.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{AGGREGATE, Cache};
/// use stasis_bus::{Bus, Eid, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let waiting = MessageType::<(&str, u32)>::new(&bus, "mwi_state")?;
/// let sum = waiting.clone();
/// let cache = Cache::builder()
///     .id(|message| Some(message.payload::<(&str, u32)>()?.0.into()))
///     .local(Eid([0, 0, 0, 0, 0, 1]))
///     .aggregate(move |entry, _| {
///         let count = entry.snapshots().map(|(_, message)| message.payload::<(&str, u32)>().unwrap().1).sum();
///         Some(sum.message_from(("all", count), AGGREGATE))
///     })
///     .aggregate_publish(|topic, aggregate| drop(topic.publish(aggregate.clone())))
///     .build();
/// assert!(cache.is_empty());
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct CacheBuilder {
    identify: Option<Box<Identify>>,
    local: Option<Eid>,
    calculate: Option<Box<Calculate>>,
    publish_aggregate: Option<Box<PublishAggregate>>,
}

impl CacheBuilder {
    /// What gives a snapshot its id; `None` for a message that is no snapshot. Without this nothing is
    /// cached. Called for every message, in the publisher; a message for which it panics is not handled.
    pub fn id(mut self, identify: impl Fn(&Message) -> Option<Cow<'_, str>> + Send + Sync + 'static) -> Self {
        self.identify = Some(Box::new(identify));
        self
    }

    /// Entity whose snapshots are local ones, as those without an entity are. Default: the latter alone.
    pub fn local(mut self, eid: Eid) -> Self {
        self.local = Some(eid);
        self
    }

    /// Calculates the aggregate of an entry: called for each change with the entry as it is after it (the
    /// aggregate being the one before) and the new snapshot, `None` after a removal. The same message again
    /// means: unchanged. After the last snapshot is removed it is called too, for the publisher of
    /// aggregates; the result is not kept.
    ///
    /// It may be called again for the same change, when another thread was quicker: no side effects.
    /// If the result is published where a caching topic of the cache hears it, it must be made with entity
    /// [`AGGREGATE`] (or be a message without id), or it would be taken for a snapshot. (The aggregate an
    /// entry has just now is recognised without, so that forgetting this does not go round for ever.)
    pub fn aggregate(
        mut self,
        calculate: impl Fn(&CacheEntry, Option<&Message>) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        self.calculate = Some(Box::new(calculate));
        self
    }

    /// Publishes a new aggregate: called with the topic the caching topic listens to, between the update
    /// of the snapshot and that of the aggregate.
    pub fn aggregate_publish(mut self, publish: impl Fn(&Topic, &Message) + Send + Sync + 'static) -> Self {
        self.publish_aggregate = Some(Box::new(publish));
        self
    }

    /// Makes the cache.
    #[must_use]
    pub fn build(self) -> Cache {
        Cache(Arc::new(CacheInner {
            table: Table::new(),
            identify: self.identify.unwrap_or_else(|| Box::new(|_| None)),
            local: self.local,
            calculate: self.calculate,
            publish_aggregate: self.publish_aggregate,
        }))
    }
}

impl std::fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheBuilder").field("local", &self.local).finish_non_exhaustive()
    }
}
