//! Caching topics: what is published on one topic changes a cache, and the changes come out on another.
//!
//! ```text
//!   original ─inline─► handler: id()? ─ None ─────────────► cached topic, as it came
//!                        │ Some                                 ▲
//!                        ▼                                      │
//!                      table: change ── announce ── Outlet: CacheUpdate, aggregate, its CacheUpdate
//! ```
//!
//! Guarantees: what is published on the original topic is in the cache when publish returns, and its
//! update on the cached topic, unless another thread is in this handler, or is announcing a change of
//! the same entry, at that time: then that thread goes on with it (G6). [`CachingTopic::publish_sync`]
//! returns when the change is made. Updates come in the order of the changes for each id; between ids
//! too, but for those left to a thread that was announcing over another caching topic. The end: everything published before is cached and announced, then
//! the subscription is done (`g05_unsubscribing_takes_what_was_published_before`).

use std::time::{Duration, Instant};

use super::table::{Announcement, Calculate, Order, Outcome};
use super::{Cache, CacheClear, CacheUpdate, Entity};
use crate::bus::{Completion, Delivery, Forward, Received, Subscription, Topic};
use crate::contain::quietly;
use crate::error::{Closed, JoinError, PublishError, PublishSyncError, SubscribeError};
use crate::message::{AnyMessageType, FilterMode, Message};
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, AtomicUsize, Ordering, thread};

/// Where the updates of one caching topic go.
#[derive(Debug)]
pub(super) struct Outlet {
    cached: Topic,
    original: Topic,
    /// Lives as long as something may come out here.
    _forward: Option<Forward>,
    /// Changes made by our handler and left to other threads, minus those they announced.
    outstanding: AtomicUsize,
    refused: AtomicUsize,
    /// Whether the bus declines the types of updates and of clears.
    declines_updates: bool,
    declines_clears: bool,
}

impl Outlet {
    fn publish(&self, message: Message) -> Result<(), PublishError> {
        let published = self.cached.publish(message);
        if let Err(error) = &published {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if !error.is_closed() {
                tracing::warn!(topic = self.cached.name(), %error, "a cache update was refused");
            }
        }
        published
    }

    /// What is no snapshot, as it came.
    fn pass(&self, message: &Message) {
        let _ = self.publish(message.clone());
    }

    fn publish_update(&self, cache: &Cache, update: CacheUpdate) {
        if self.declines_updates {
            return;
        }
        if self.publish(update.into_message()).is_err_and(|error| !error.is_closed()) {
            cache.0.table.losses().record();
        }
    }

    fn announce(cache: &Cache, announcement: &Announcement<Arc<Self>>) {
        let (outlet, change) = (&announcement.to, &announcement.change);
        let (before, after) = (&change.before, &change.after);
        let publish_update = |entity, old: Option<&Message>, new: Option<&Message>| {
            let update = CacheUpdate {
                key: after.key().clone(),
                entity,
                version: after.version(),
                old: old.cloned(),
                new: new.cloned(),
                begins: before.is_empty(),
                ends: after.is_empty(),
            };
            outlet.publish_update(cache, update);
        };
        publish_update(change.entity, change.old.as_ref(), change.new.as_ref());
        if let (Some(new), Some(publish)) = (&change.calculated, &cache.0.publish_aggregate) {
            quietly(|| publish(&outlet.original, new));
        }
        let same = match (before.aggregate(), after.aggregate()) {
            (None, None) => true,
            (Some(old), Some(new)) => old.same_as(new),
            _ => false,
        };
        if !same {
            publish_update(Entity::Aggregate, before.aggregate(), after.aggregate());
        }
        if announcement.left {
            // Release: who waits for zero sees what was published.
            outlet.outstanding.fetch_sub(1, Ordering::Release);
        }
    }
}

/// A topic whose snapshots are kept in a cache, and the topic that tells what changed.
///
/// Dropping it unsubscribes from the original topic; what it cached stays.
///
/// # Examples
/// ```
/// use stasis_bus::cache::{Cache, CacheUpdate, CachingTopic};
/// use stasis_bus::{Bus, MessageType};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<(&str, u32)>::new(&bus, "device_state")?;
/// let cache = Cache::builder().id(|message| Some(message.payload::<(&str, u32)>()?.0.into())).build();
/// let devices = bus.topic("device:all")?;
/// let caching = CachingTopic::new(&devices, &cache)?;
/// let watch = caching.topic().subscriber().accept(CacheUpdate::message_type()).subscribe(|received| {
///     if let Some(update) = received.payload::<CacheUpdate>() {
///         println!("{} changed", update.id());
///     }
/// })?;
/// devices.publish(state.message(("SIP/100", 1)))?;
/// caching.unsubscribe_and_join(Duration::from_secs(1))?;
/// watch.unsubscribe().wait()?;
/// assert!(cache.get(&state, "SIP/100").is_some());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping a caching topic ends it"]
pub struct CachingTopic {
    subscription: Subscription,
    outlet: Arc<Outlet>,
    cache: Cache,
}

impl CachingTopic {
    /// Caches what is published on `original` from now on. The cached topic is named as in Asterisk: "cache",
    /// a number, and the name of the original topic.
    ///
    /// If the bus declines the type of [`CacheUpdate`], the cache is kept and no update is made; if that of
    /// [`CacheClear`], clears are not heeded.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`] after shutdown.
    #[track_caller]
    pub fn new(original: &Topic, cache: &Cache) -> Result<Self, SubscribeError> {
        Self::make(original, cache, None)
    }

    /// As [`new`](Self::new); what comes out goes to the subscribers of `all_cached` too, to the very last.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn forwarded_to(original: &Topic, cache: &Cache, all_cached: &Topic) -> Result<Self, SubscribeError> {
        Self::make(original, cache, Some(all_cached))
    }

    #[track_caller]
    fn make(original: &Topic, cache: &Cache, all_cached: Option<&Topic>) -> Result<Self, SubscribeError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cached = original.sibling(format!("cache:{number}/{}", original.name()))?;
        let forward = all_cached.map(|all| cached.forward_to(all)).transpose().map_err(|Closed| Closed)?;
        let outlet = Arc::new(Outlet {
            cached,
            original: original.clone(),
            _forward: forward,
            outstanding: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            declines_updates: original.0.declines(CacheUpdate::message_type()),
            declines_clears: original.0.declines(CacheClear::message_type()),
        });
        let handler = {
            let (cache, outlet) = (cache.clone(), Arc::clone(&outlet));
            move |received: &Received<'_>| {
                if !received.is_final() {
                    take(&cache, &outlet, received.message());
                }
            }
        };
        let subscription =
            original.subscriber().name(outlet.cached.name()).delivery(Delivery::Inline).subscribe(handler)?;
        Ok(Self { subscription, outlet, cache: cache.clone() })
    }

    /// The cached topic: cache updates, and everything that is no snapshot as it was published on the
    /// original topic, subscription changes too.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.outlet.cached
    }

    /// The topic whose snapshots are cached.
    #[must_use]
    pub fn original(&self) -> &Topic {
        &self.outlet.original
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Takes this type too, once the filter is selective; clears and subscription changes are accepted with
    /// the first one.
    pub fn accept(&self, kind: &impl AsRef<AnyMessageType>) {
        self.subscription.accept(CacheClear::message_type());
        self.subscription.accept(crate::bus::SubscriptionChange::message_type());
        self.subscription.accept(kind);
    }

    /// Sets the filter mode: [`FilterMode::Selective`] takes accepted types only, the default everything.
    pub fn set_filter_mode(&self, mode: FilterMode) {
        self.subscription.set_filter_mode(mode);
    }

    /// Publishes on the original topic, and returns when the cache has what came of it, whichever thread
    /// made the change.
    ///
    /// # Errors
    /// As [`Topic::publish_sync`].
    pub fn publish_sync(&self, message: Message) -> Result<(), PublishSyncError> {
        self.outlet.original.publish_sync(message, &self.subscription)
    }

    /// Updates and messages the bus refused to take (a queue was full, or the bus is shut down), and changes past
    /// the 1024 of an entry that wait for a thread that announces an earlier one. The cache holds what they would
    /// have told; followers ([`follow`](Self::follow)) begin again.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.outlet.refused.load(Ordering::Relaxed)
    }

    /// Whether nobody has unsubscribed it yet.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.subscription.is_subscribed()
    }

    /// Stops caching: what was published before is still cached and announced. Returns at once; the result
    /// tells when the handler has ended.
    pub fn unsubscribe(&self) -> Completion {
        self.subscription.unsubscribe()
    }

    /// Stops caching, and waits until everything published before is cached and its updates are published;
    /// for `limit` at most.
    ///
    /// # Errors
    /// As [`Subscription::unsubscribe_and_join`](crate::Subscription::unsubscribe_and_join).
    pub fn unsubscribe_and_join(&self, limit: Duration) -> Result<(), JoinError> {
        let start = Instant::now();
        self.subscription.unsubscribe_and_join(limit)?;
        // Acquire: meets the announcers' Release. The handler has ended, so all are counted.
        while self.outlet.outstanding.load(Ordering::Acquire) != 0 {
            if start.elapsed() >= limit {
                return Err(JoinError::Timeout);
            }
            thread::yield_now();
        }
        Ok(())
    }
}

/// Handles one message of the original topic.
fn take(cache: &Cache, outlet: &Arc<Outlet>, message: &Message) {
    let is_clear = message.is(CacheClear::message_type());
    if is_clear && outlet.declines_clears {
        return;
    }
    let cleared = is_clear.then(|| message.payload::<CacheClear>()).flatten();
    let snapshot = cleared.map_or(message, CacheClear::snapshot);
    let entity = cache.entity(snapshot.eid());
    let id = (cache.0.identify)(snapshot).filter(|_| entity != Entity::Aggregate);
    let Some(id) = id else { return outlet.pass(message) };
    let is_aggregate = || {
        let entry = cache.0.table.get(snapshot.type_id(), &id);
        entry.is_some_and(|entry| entry.aggregate().is_some_and(|aggregate| aggregate.same_as(message)))
    };
    if cache.0.calculate.is_some() && is_aggregate() {
        // The aggregate itself, published without the mark: taking it for a snapshot would go round for ever.
        return outlet.pass(message);
    }
    let order = Order {
        kind: snapshot.type_id(),
        id: &id,
        entity,
        new: cleared.is_none().then_some(message),
        origin: outlet.cached.id(),
    };
    let calculate = cache.calculate();
    let calculate = calculate.as_ref().map(|calculate| calculate as &Calculate<'_>);
    let announce = |announcement: &Announcement<Arc<Outlet>>| Outlet::announce(cache, announcement);
    match cache.0.table.change(order, calculate, outlet, &announce) {
        Outcome::Left => drop(outlet.outstanding.fetch_add(1, Ordering::Relaxed)),
        Outcome::Lost => drop(outlet.refused.fetch_add(1, Ordering::Relaxed)),
        Outcome::Nothing | Outcome::Announced => {}
    }
}
