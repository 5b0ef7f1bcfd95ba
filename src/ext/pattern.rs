//! Cache pattern: a topic, its cached twin, and the "all" topics above them.
//!
//! ```text
//!   CachePattern "channel:all"       topic ◄─────────────┐         cached topic ◄──────────┐
//!                                      │                 │ forward        ▲                │ forward
//!                                    cache ◄─── changes ─┼──────── CachingTopic of single ─┤
//!   CacheSingle "channel:1"          topic ──────────────┴─ inline ─► cached topic ────────┘
//!   sink                             the same without the two forwards
//! ```
//!
//! Guarantees: what is published on a single's topic reaches the subscribers of the all topic, its cache
//! updates those of the all cached topic, each once, to the very last (`the_last_update_reaches_the_top`);
//! one cache for all. Dropping a single takes out its forwards and its caching, and leaves nothing
//! (`g10_ten_thousand_singles_leave_nothing`); entries stay until they are cleared.

use std::borrow::Cow;
use std::time::Duration;

use crate::bus::{Bus, Completion, Forward, Topic};
use crate::error::{Closed, JoinError, PublishSyncError, SubscribeError};
use crate::ext::cache::{Cache, CacheSource, CachingTopic};
use crate::ext::follow::Follow;
use crate::message::{AnyMessageType, FilterMode, Message};
use crate::sync::plain::{AtomicU64, Ordering};

/// The "all" side: a topic of everything, a topic of all cache updates, and the cache.
///
/// # Examples
/// ```
/// use stasis_bus::pattern::CachePattern;
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "endpoint_state")?;
/// let endpoints = CachePattern::all(&bus, "endpoint:all", |message| {
///     Some(message.payload::<(&str, u32)>()?.0.into())
/// })?;
/// let endpoint = endpoints.single("endpoint:SIP/100")?;
/// endpoint.topic().publish(state.message(("SIP/100", 1)))?;
/// assert!(endpoints.cache().get(&state, "SIP/100").is_some());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CachePattern {
    topic: Topic,
    cached: Topic,
    cache: Cache,
}

impl CachePattern {
    /// A pattern whose all topic has this name, with a new cache of this id function. The all cached topic
    /// is named as in Asterisk: "cache_pattern", a number, and that name.
    ///
    /// # Errors
    /// [`Closed`] after shutdown.
    #[track_caller]
    pub fn all(
        bus: &Bus,
        name: impl AsRef<str>,
        id: impl Fn(&Message) -> Option<Cow<'_, str>> + Send + Sync + 'static,
    ) -> Result<Self, Closed> {
        Self::with_cache(bus, name, &Cache::builder().id(id).build())
    }

    /// As [`all`](Self::all), with a cache made elsewhere: one with aggregates, for instance.
    ///
    /// # Errors
    /// As [`all`](Self::all).
    #[track_caller]
    pub fn with_cache(bus: &Bus, name: impl AsRef<str>, cache: &Cache) -> Result<Self, Closed> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let topic = bus.topic(name)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cached = topic.sibling(format!("cache_pattern:{number}/{}", topic.name()))?;
        Ok(Self { topic, cached, cache: cache.clone() })
    }

    /// Where everything published on the singles' topics arrives.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Where everything published on the singles' cached topics arrives.
    #[must_use]
    pub fn topic_cached(&self) -> &Topic {
        &self.cached
    }

    /// The cache of all singles and sinks.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Follows the cache: its entries, then every update that reaches the all cached topic. (What sinks
    /// change does not.)
    pub fn follow(&self) -> Follow<CacheSource> {
        Follow::new(&self.cached, CacheSource::new(&self.cache))
    }

    /// A topic of this name with a cached twin, both forwarded to the all topics.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`] after shutdown.
    #[track_caller]
    pub fn single(&self, name: impl AsRef<str>) -> Result<CacheSingle, SubscribeError> {
        let topic = self.topic.sibling(name)?;
        let caching = CachingTopic::forwarded_to(&topic, &self.cache, &self.cached)?;
        let forward = topic.forward_to(&self.topic)?;
        Ok(CacheSingle { caching, forward: Some(forward) })
    }

    /// A topic of this name with a cached twin, neither forwarded: for messages of other singles that are to
    /// be gathered without going to the all topics twice.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`] after shutdown.
    #[track_caller]
    pub fn sink(&self, name: impl AsRef<str>) -> Result<CacheSingle, SubscribeError> {
        let topic = self.topic.sibling(name)?;
        Ok(CacheSingle { caching: CachingTopic::new(&topic, &self.cache)?, forward: None })
    }
}

/// The "one" side: a topic, its cached twin. Dropping it ends caching and forwarding; its topics live while
/// somebody holds them, its entries until they are cleared.
///
/// # Examples
/// ```
/// use stasis_bus::cache::CacheClear;
/// use stasis_bus::pattern::CachePattern;
/// use stasis_bus::{Bus, MessageType};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<&str>::new(&bus, "endpoint_state")?;
/// let endpoints = CachePattern::all(&bus, "endpoint:all", |message| Some((*message.payload::<&str>()?).into()))?;
/// let endpoint = endpoints.single("endpoint:SIP/100")?;
/// endpoint.topic().publish(state.message("SIP/100"))?;
/// endpoint.topic().publish(CacheClear::message(state.message("SIP/100")))?;
/// endpoint.unsubscribe_and_join(Duration::from_secs(1))?;
/// assert!(endpoints.cache().is_empty());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping it ends caching and forwarding"]
pub struct CacheSingle {
    caching: CachingTopic,
    forward: Option<Forward>,
}

impl CacheSingle {
    /// Where to publish, and to subscribe to what is published.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        self.caching.original()
    }

    /// Where cache updates come out.
    #[must_use]
    pub fn topic_cached(&self) -> &Topic {
        self.caching.topic()
    }

    /// The cache of the pattern.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        self.caching.cache()
    }

    /// The caching topic.
    pub fn caching_topic(&self) -> &CachingTopic {
        &self.caching
    }

    /// Whether it is forwarded to the all topics: false for a sink.
    #[must_use]
    pub fn is_forwarded(&self) -> bool {
        self.forward.is_some()
    }

    /// As [`CachingTopic::accept`].
    pub fn accept(&self, kind: &impl AsRef<AnyMessageType>) {
        self.caching.accept(kind);
    }

    /// As [`CachingTopic::set_filter_mode`].
    pub fn set_filter_mode(&self, mode: FilterMode) {
        self.caching.set_filter_mode(mode);
    }

    /// As [`CachingTopic::publish_sync`].
    ///
    /// # Errors
    /// As [`Topic::publish_sync`].
    pub fn publish_sync(&self, message: Message) -> Result<(), PublishSyncError> {
        self.caching.publish_sync(message)
    }

    /// Stops forwarding and caching: what was published before is still cached, and its updates reach the
    /// all cached topic.
    pub fn unsubscribe(mut self) -> Completion {
        self.forward = None;
        self.caching.unsubscribe()
    }

    /// Stops forwarding and caching, and waits as [`CachingTopic::unsubscribe_and_join`].
    ///
    /// # Errors
    /// As [`CachingTopic::unsubscribe_and_join`]; it has ended in any case.
    pub fn unsubscribe_and_join(mut self, limit: Duration) -> Result<(), JoinError> {
        self.forward = None;
        self.caching.unsubscribe_and_join(limit)
    }
}
