//! How many subscribers want a key, for publishers to look at without a lock.
//!
//! A count that has come to zero is closed, then taken out of the map; who wants the key meanwhile makes a new
//! one. Guarantees: between `add` and `remove` of a subscriber `has` is true; nobody waits.

use super::Key;
use crate::sync::Arc;
use crate::sync::map::SharedMap;
use crate::sync::plain::{AtomicUsize, Ordering};

/// Nobody can be added to the count any more.
const CLOSED: usize = usize::MAX;

pub(super) struct Interest<K> {
    counts: SharedMap<K, AtomicUsize>,
    keys: AtomicUsize,
}

impl<K: Key> Interest<K> {
    pub(super) fn new() -> Self {
        Self { counts: SharedMap::new(), keys: AtomicUsize::new(0) }
    }

    pub(super) fn add(&self, key: &K) {
        loop {
            let count = self.counts.get_or_insert(key.clone(), Arc::new(AtomicUsize::new(0)));
            let more = |now: usize| (now != CLOSED).then(|| now + 1);
            match count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more) {
                Ok(0) => {
                    self.keys.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Ok(_) => return,
                // Not waiting for who closed it.
                Err(_) => drop(self.counts.remove_same(key, &count)),
            }
        }
    }

    pub(super) fn remove(&self, key: &K) {
        let Some(count) = self.counts.get(key) else { return };
        let less = |now: usize| Some(if now == 1 { CLOSED } else { now - 1 });
        if count.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(1) {
            self.counts.remove_same(key, &count);
            self.keys.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn has(&self, key: &K) -> bool {
        self.counts.get(key).is_some_and(|count| !matches!(count.load(Ordering::Acquire), 0 | CLOSED))
    }

    pub(super) fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }
}
