//! Which topics there are: by name, in many small maps, so that nobody waits for long.
//!
//! ```text
//!   topic("a") ──► hash ──► shard 17   one short lock
//!   listing    ──► shard 0, then 1, … 63, each locked for its own part only
//! ```
//!
//! Guarantees: a name stands for one living topic; a listing has every topic that lived from its beginning to
//! its end (others may be in it or not). Making a topic waits for a listing of 1/64 of the topics at
//! most. Publishing takes none of these locks
//! (`tests/health.rs`: `g13_publishing_and_making_topics_go_on_while_others_look`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::topic::TopicInner;
use crate::sync::{Arc, Mutex, MutexGuard, Weak, lock, scaled};

/// Maps. A power of two.
const SHARDS: usize = scaled(64, 1);
/// Entries above which a map gives memory back.
const FEW: usize = 32;

type Shard = HashMap<Arc<str>, Weak<TopicInner>>;

/// See the module.
#[derive(Debug)]
pub(super) struct Names {
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Shard> {
        lock(&self.shards[self.hasher.hash_one(name) as usize % SHARDS])
    }

    /// The topic of this name, if somebody holds it.
    pub(super) fn find(&self, name: &str) -> Option<Arc<TopicInner>> {
        self.shard(name).get(name).and_then(Weak::upgrade)
    }

    /// The topic of this name; made if there is none.
    pub(super) fn find_or_make(&self, name: &str, make: impl FnOnce(Arc<str>) -> TopicInner) -> Arc<TopicInner> {
        let mut shard = self.shard(name);
        if let Some(topic) = shard.get(name).and_then(Weak::upgrade) {
            return topic;
        }
        let name: Arc<str> = name.into();
        let topic = Arc::new(make(Arc::clone(&name)));
        shard.insert(name, Arc::downgrade(&topic));
        topic
    }

    /// The topic's last reference is gone.
    pub(super) fn forget(&self, topic: &TopicInner) {
        let mut shard = self.shard(&topic.name);
        if shard.get(&topic.name).is_some_and(|known| std::ptr::eq(known.as_ptr(), topic)) {
            shard.remove(&topic.name);
            if shard.capacity() > FEW && shard.len() < shard.capacity() / 8 {
                let keep = 2 * shard.len();
                shard.shrink_to(keep);
            }
        }
    }

    /// All topics somebody holds, in no order.
    pub(super) fn list(&self) -> Vec<Arc<TopicInner>> {
        let mut topics = Vec::new();
        for shard in &self.shards {
            // Outside the lock: making room may take long.
            let expected = lock(shard).len();
            topics.reserve(expected);
            topics.extend(lock(shard).values().filter_map(Weak::upgrade));
        }
        topics
    }
}
