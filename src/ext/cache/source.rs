//! Caches as something to follow.

use super::{Cache, CacheEntry, CacheKey, CacheUpdate, CachingTopic, Entity};
use crate::bus::Topic;
use crate::ext::follow::{Current, CurrentEntry, Follow, Losses, Source, Step};
use crate::message::{AnyMessageType, Message};

/// A cache seen from a topic that carries its updates. A follower is given [`CacheUpdate`]s throughout: an
/// entry of the start is one without `old` for each of its snapshots, and for its aggregate.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CacheSource, CachingTopic};
/// use stasis_bus::follow::Follow;
/// use stasis_bus::Bus;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let (one, two) = (bus.topic("device:1")?, bus.topic("device:2")?);
/// let (all, cache) = (bus.topic("device:cached")?, Cache::builder().build());
/// let _first = CachingTopic::forwarded_to(&one, &cache, &all)?;
/// let _second = CachingTopic::forwarded_to(&two, &cache, &all)?;
/// let _following = Follow::new(&all, CacheSource::new(&cache)).subscribe(|_, _| ())?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CacheSource {
    cache: Cache,
    origin: Option<u64>,
}

impl CacheSource {
    /// All of the cache: for a topic to which all its caching topics are forwarded, or the only one.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self { cache: cache.clone(), origin: None }
    }

    /// The entries that this cached topic changed last: for that topic, when others fill the cache too.
    #[must_use]
    pub fn from_topic(cache: &Cache, cached: &Topic) -> Self {
        Self { cache: cache.clone(), origin: Some(cached.id()) }
    }

    fn messages(&self, entry: &CacheEntry) -> Vec<Message> {
        if self.origin.is_some_and(|origin| origin != entry.origin()) {
            return Vec::new();
        }
        let aggregate = entry.aggregate().map(|message| (Entity::Aggregate, message));
        let update = |(entity, new): (Entity, &Message)| CacheUpdate {
            key: entry.key().clone(),
            entity,
            version: entry.version(),
            old: None,
            new: Some(new.clone()),
            begins: true,
            ends: false,
        };
        entry.snapshots().chain(aggregate).map(|snapshot| update(snapshot).into_message()).collect()
    }
}

impl Source for CacheSource {
    type Key = CacheKey;

    fn update_type(&self) -> Option<&AnyMessageType> {
        Some(CacheUpdate::message_type().as_any())
    }

    fn current(&self) -> Current<CacheKey> {
        let entries = self.cache.entries();
        let upto = self.cache.last_version();
        let entries = entries.iter().map(|entry| CurrentEntry {
            key: entry.key().clone(),
            version: entry.version(),
            messages: self.messages(entry),
        });
        Current { entries: entries.collect(), upto }
    }

    fn step(&self, message: &Message) -> Option<Step<CacheKey>> {
        let update = message.payload::<CacheUpdate>()?;
        Some(Step { key: update.key().clone(), version: update.version(), begins: update.begins() })
    }

    fn losses(&self) -> Option<&Losses> {
        Some(self.cache.0.table.losses())
    }
}

impl Follow<CacheSource> {
    /// Gives snapshots of this type only.
    pub fn snapshots_of(self, kind: &impl AsRef<AnyMessageType>) -> Self {
        // The handle keeps the type, so that its number is not used again.
        let kind = kind.as_ref().clone();
        self.filter(move |message| message.payload::<CacheUpdate>().is_none_or(|update| update.is_of(&kind)))
    }
}

impl CachingTopic {
    /// Follows what this topic caches: the entries it changed last, then every update it publishes.
    ///
    /// If another caching topic of the cache changes the same ids, follow a topic to which both are
    /// forwarded instead: updates of one alone do not chain.
    pub fn follow(&self) -> Follow<CacheSource> {
        Follow::new(self.topic(), CacheSource::from_topic(self.cache(), self.topic()))
    }
}
