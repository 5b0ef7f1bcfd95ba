//! Caches and topic pools of a recording, done again with ours and compared line by line.
//!
//! ```text
//!   ct  c ─► caching topic over a topic, one cache     what each message did: inserted, updated, removed, nothing
//!   cg cd ─► look-up, dump                              what they found
//!   po pg pd ─► topic pool                              what there was, what it is called, which topic it is
//! ```
//!
//! A trace has no payloads, so the id of a snapshot is where it was published: each device, mailbox and
//! endpoint has a topic of its own; for a subscription change it is the subscription. These run on a bus of
//! their own, in the order of lines: the main run has the topics and forwards already.
//! Not compared, because the trace does not say it: ids of look-ups that found nothing, aggregates, and the
//! state manager, for which there are no lines (its topics are in the main run like all others).

use super::plan::{Origin, Plan};
use super::trace::{Change, Op, Trace};
use stasis_bus::cache::{Cache, CacheClear, CacheUpdate, CachingTopic};
use stasis_bus::topic_pool::TopicPool;
use stasis_bus::{Bus, Message, MessageType, Pinning, Topic};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Differences kept as text, at most.
const EXAMPLES: usize = 6;

/// What came of it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Parts {
    /// Messages that went through a cache, and look-ups and dumps that could be compared.
    pub(crate) cache_changes: u64,
    pub(crate) cache_lookups: u64,
    /// Look-ups of which the trace does not say enough.
    pub(crate) cache_unknown: u64,
    pub(crate) cache_differences: u64,
    pub(crate) pool_operations: u64,
    pub(crate) pool_differences: u64,
    pub(crate) examples: Vec<String>,
}

impl Parts {
    /// Does them all again.
    pub(crate) fn of(plan: &Plan) -> Result<Parts, stasis_bus::BuildError> {
        let bus = Bus::builder().name("parts").lanes(1).pinning(Pinning::Off).watchdog(None).build()?;
        let mut parts = Parts::default();
        let mut caches = Caches::new(plan, &bus);
        let mut pools = Pools { bus: &bus, pools: HashMap::new(), topics: HashMap::new() };
        let tells_changes = plan.trace.records.iter().any(|record| matches!(record.op, Op::Cached { .. }));
        for record in &plan.trace.records {
            let difference = match record.op {
                Op::Caching { topic, original, cache } => caches.caching(topic, original, cache),
                Op::Cached { topic, message, change } => {
                    parts.cache_changes += 1;
                    caches.change(topic, message, change)
                }
                Op::CacheGet { cache, ty, message } => match caches.get(cache, ty, message) {
                    None => {
                        parts.cache_unknown += 1;
                        continue;
                    }
                    Some(same) => {
                        parts.cache_lookups += 1;
                        same
                    }
                },
                Op::CacheDump { .. } if !tells_changes => {
                    // Such a trace leaves out what the caches did.
                    parts.cache_unknown += 1;
                    continue;
                }
                Op::CacheDump { cache, ty, entries } => {
                    parts.cache_lookups += 1;
                    caches.dump(cache, ty, entries)
                }
                Op::Pool { topic } => {
                    parts.pool_operations += 1;
                    pools.make(&plan.trace, topic)
                }
                Op::PoolGet { parent, topic, existed } => {
                    parts.pool_operations += 1;
                    pools.get(&plan.trace, parent, topic, existed)
                }
                Op::PoolDrop { parent, topic } => {
                    parts.pool_operations += 1;
                    pools.delete(&plan.trace, parent, topic)
                }
                _ => continue,
            };
            if let Err(difference) = difference {
                let pools = matches!(record.op, Op::Pool { .. } | Op::PoolGet { .. } | Op::PoolDrop { .. });
                *if pools { &mut parts.pool_differences } else { &mut parts.cache_differences } += 1;
                if parts.examples.len() < EXAMPLES {
                    parts.examples.push(format!("line {}: {difference}", record.line));
                }
            }
        }
        Ok(parts)
    }

    pub(crate) fn differences(&self) -> u64 {
        self.cache_differences + self.pool_differences
    }
}

/// A snapshot: its id, and its number in the trace.
#[derive(Debug)]
struct Snapshot {
    id: String,
    message: u32,
}

/// What the caching topic published last.
type Seen = Arc<Mutex<Option<Change>>>;

struct Caches<'a> {
    trace: &'a Trace,
    bus: &'a Bus,
    /// Where each message was published first, and for which subscription it is a change.
    published: HashMap<u32, (u32, Origin)>,
    caches: HashMap<u32, Cache>,
    /// Caching topics by their topic, with the number of their cache.
    caching: HashMap<u32, (CachingTopic, Topic, u32)>,
    types: HashMap<u32, MessageType<Snapshot>>,
    seen: Seen,
    /// Keeps the listeners.
    listeners: Vec<stasis_bus::Subscription>,
}

impl<'a> Caches<'a> {
    fn new(plan: &'a Plan, bus: &'a Bus) -> Self {
        let mut published = HashMap::new();
        for publish in &plan.publishes {
            published.entry(publish.message).or_insert((publish.topic, publish.origin));
        }
        Self {
            trace: &plan.trace,
            bus,
            published,
            caches: HashMap::new(),
            caching: HashMap::new(),
            types: HashMap::new(),
            seen: Seen::default(),
            listeners: Vec::new(),
        }
    }

    fn cache(&mut self, cache: u32) -> Cache {
        let make = || {
            Cache::builder()
                .id(|message: &Message| message.payload::<Snapshot>().map(|it| Cow::Borrowed(it.id.as_str())))
                .build()
        };
        self.caches.entry(cache).or_insert_with(make).clone()
    }

    fn kind(&mut self, ty: u32) -> Result<MessageType<Snapshot>, String> {
        if let Some(kind) = self.types.get(&ty) {
            return Ok(kind.clone());
        }
        let name = self.trace.types.get(ty).map_or("type", |info| info.name.as_str());
        let kind = MessageType::new(self.bus, name).map_err(|error| error.to_string())?;
        self.types.insert(ty, kind.clone());
        Ok(kind)
    }

    fn caching(&mut self, topic: u32, original: u32, cache: u32) -> Result<(), String> {
        let cache_number = cache;
        let cache = self.cache(cache);
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let original = self.bus.topic(format!("{original}>{topic}")).map_err(|error| text(&error))?;
        let caching = CachingTopic::new(&original, &cache).map_err(|error| text(&error))?;
        let seen = Arc::clone(&self.seen);
        let listener = caching
            .topic()
            .subscriber()
            .no_mailbox()
            .accept(CacheUpdate::message_type())
            .subscribe(move |received| {
                if let Some(update) = received.payload::<CacheUpdate>() {
                    let change = match (update.old_snapshot(), update.new_snapshot()) {
                        (None, Some(_)) => Change::Inserted,
                        (Some(_), Some(_)) => Change::Updated,
                        (Some(_), None) => Change::Removed,
                        (None, None) => Change::Nothing,
                    };
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
                }
            })
            .map_err(|error| text(&error))?;
        self.listeners.push(listener);
        self.caching.insert(topic, (caching, original, cache_number));
        Ok(())
    }

    /// The id of a message's snapshot, and whether it takes one away.
    fn id(&self, message: u32) -> Option<(String, bool)> {
        let (topic, origin) = self.published.get(&message)?;
        Some(match origin {
            Origin::Subscribed(sub) => (format!("subscription {sub}"), false),
            Origin::Unsubscribed(sub) => (format!("subscription {sub}"), true),
            Origin::Recorded => {
                let ty = self.trace.type_of(message);
                let name = self.trace.types.get(ty).map_or("", |info| info.name.as_str());
                (format!("topic {topic}"), name == "stasis_cache_clear_type")
            }
        })
    }

    fn change(&mut self, topic: u32, message: u32, recorded: Change) -> Result<(), String> {
        let (id, takes) = self.id(message).ok_or_else(|| format!("message {message} was never published"))?;
        let (_, original, cache) = self.caching.get(&topic).ok_or_else(|| format!("topic {topic} caches nothing"))?;
        let (original, cache) = (original.clone(), self.caches[cache].clone());
        let published = if takes {
            // What a clear message carries is a snapshot of what it takes away.
            let known = cache.entries().into_iter().find(|entry| entry.id() == id);
            let snapshot = known.and_then(|entry| entry.local().cloned());
            match snapshot {
                Some(snapshot) => CacheClear::message(snapshot),
                None => CacheClear::message(self.kind(self.trace.type_of(message))?.message(Snapshot { id, message })),
            }
        } else {
            self.kind(self.trace.type_of(message))?.message(Snapshot { id, message })
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        original.publish(published).map_err(|error| error.to_string())?;
        let ours = self.seen.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Change::Nothing);
        if ours == recorded {
            return Ok(());
        }
        Err(format!("message {message} on caching topic {topic}: {ours:?} here, {recorded:?} recorded"))
    }

    fn get(&mut self, cache: u32, ty: u32, message: u32) -> Option<Result<(), String>> {
        // Aggregates stand beside the snapshots, and their calculation is not in the trace.
        if message == 0 || self.trace.aggregates.contains(&message) {
            return None;
        }
        let (id, _) = self.id(message)?;
        let cache = self.cache(cache);
        let found = match self.kind(ty) {
            Ok(kind) => cache.get(&kind, &id),
            Err(error) => return Some(Err(error)),
        };
        let ours = found.as_ref().and_then(|found| found.payload::<Snapshot>()).map(|snapshot| snapshot.message);
        Some(if ours == Some(message) {
            Ok(())
        } else {
            Err(format!("look-up found {ours:?} here, message {message} in the recording"))
        })
    }

    fn dump(&mut self, cache: u32, ty: u32, entries: u32) -> Result<(), String> {
        let cache = self.cache(cache);
        let ours = if ty == 0 { cache.dump(None).len() } else { cache.dump(Some(&self.kind(ty)?)).len() };
        if ours == entries as usize { Ok(()) } else { Err(format!("dump has {ours} entries here, {entries} recorded")) }
    }
}

struct Pools<'a> {
    bus: &'a Bus,
    pools: HashMap<u32, TopicPool>,
    /// Ours for each of the trace's, while a pool has it.
    topics: HashMap<u32, Topic>,
}

impl Pools<'_> {
    fn name(trace: &Trace, topic: u32) -> &str {
        trace.topics.get(topic).map_or("", |info| info.name.as_str())
    }

    fn make(&mut self, trace: &Trace, topic: u32) -> Result<(), String> {
        let pooled = self.bus.topic(Self::name(trace, topic)).map_err(|error| error.to_string())?;
        self.pools.insert(topic, TopicPool::new(self.bus, &pooled).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn get(&mut self, trace: &Trace, parent: u32, topic: u32, existed: bool) -> Result<(), String> {
        let pool = self.pools.get(&parent).ok_or_else(|| format!("topic {parent} has no pool"))?;
        let full = Self::name(trace, topic);
        let short = full.strip_prefix(Self::name(trace, parent)).and_then(|rest| rest.strip_prefix('/'));
        let short = short.ok_or_else(|| format!("'{full}' is not named after its pool"))?;
        let (there, ours) = (pool.exists(short), pool.get(short).map_err(|error| error.to_string())?);
        if ours.name() != full {
            return Err(format!("'{}' here, '{full}' recorded", ours.name()));
        }
        let same = self.topics.insert(topic, ours.clone()).is_none_or(|before| before == ours);
        match (there == existed, same) {
            (true, true) => Ok(()),
            (false, _) => Err(format!("'{full}' existed: {there} here, {existed} recorded")),
            (_, false) => Err(format!("'{full}' is another topic than before")),
        }
    }

    fn delete(&mut self, trace: &Trace, parent: u32, topic: u32) -> Result<(), String> {
        let pool = self.pools.get(&parent).ok_or_else(|| format!("topic {parent} has no pool"))?;
        if topic == 0 {
            // The trace does not say which name was not there.
            return Ok(());
        }
        self.topics.remove(&topic);
        let full = Self::name(trace, topic);
        if !pool.delete(full) {
            return Err(format!("'{full}' was not in the pool here"));
        }
        if pool.exists(full) { Err(format!("'{full}' is still in the pool")) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "parts_tests.rs"]
mod tests;
