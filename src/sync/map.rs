//! A map read and changed without locks: papaya, or its naive twin under loom.
//!
//! ```text
//!   get, values ─► Arc<V> ◄─ get_or_insert, remove_same
//! ```
//!
//! Guarantees: `get` and `values` wait for nobody; an entry there during a whole `values` is in its
//! result. A removed `Arc` is let go of when papaya reclaims it, which may be late and on another
//! thread: keep nothing of the user's in a value that is removed. The twin (loom cannot see papaya)
//! is a mutex around a list; `twin_and_papaya_agree` runs one contract over both.

use std::hash::Hash;

pub(crate) use papaya::Equivalent;

use super::Arc;

#[cfg(not(loom))]
pub(crate) use self::real::SharedMap;
#[cfg(loom)]
pub(crate) use self::twin::SharedMap;

#[cfg(not(loom))]
mod real {
    use super::{Arc, Equivalent, Hash};

    /// A concurrent map from `K` to `Arc<V>`.
    pub(crate) struct SharedMap<K, V>(papaya::HashMap<K, Arc<V>>);

    impl<K: Hash + Eq, V> SharedMap<K, V> {
        pub(crate) fn new() -> Self {
            Self(papaya::HashMap::new())
        }

        pub(crate) fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>> {
            self.0.pin().get(key).cloned()
        }

        /// The value of this key; `value` if there is none yet.
        pub(crate) fn get_or_insert(&self, key: K, value: Arc<V>) -> Arc<V> {
            Arc::clone(self.0.pin().get_or_insert(key, value))
        }

        /// Sets the value of this key.
        pub(crate) fn insert(&self, key: K, value: Arc<V>) {
            self.0.pin().insert(key, value);
        }

        /// Removes the key if it still has this value. Whether it did.
        pub(crate) fn remove_same(&self, key: &K, value: &Arc<V>) -> bool {
            matches!(self.0.pin().remove_if(key, |_, found| Arc::ptr_eq(found, value)), Ok(Some(_)))
        }

        pub(crate) fn values(&self) -> Vec<Arc<V>> {
            self.0.pin().values().cloned().collect()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }
    }
}

#[cfg(any(loom, test))]
mod twin {
    use super::{Arc, Equivalent, Hash};
    use crate::sync::{Mutex, lock};

    /// The twin: same interface, a lock and a list inside.
    pub(crate) struct SharedMap<K, V>(Mutex<Vec<(K, Arc<V>)>>);

    impl<K: Hash + Eq, V> SharedMap<K, V> {
        pub(crate) fn new() -> Self {
            Self(Mutex::new(Vec::new()))
        }

        pub(crate) fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>> {
            lock(&self.0).iter().find(|(known, _)| key.equivalent(known)).map(|(_, value)| Arc::clone(value))
        }

        pub(crate) fn insert(&self, key: K, value: Arc<V>) {
            let mut list = lock(&self.0);
            let found = list.iter_mut().find(|(known, _)| *known == key);
            let old = match found {
                Some((_, found)) => Some(std::mem::replace(found, value)),
                None => {
                    list.push((key, value));
                    None
                }
            };
            drop(list);
            drop(old);
        }

        pub(crate) fn len(&self) -> usize {
            lock(&self.0).len()
        }

        pub(crate) fn get_or_insert(&self, key: K, value: Arc<V>) -> Arc<V> {
            let mut list = lock(&self.0);
            if let Some((_, found)) = list.iter().find(|(known, _)| *known == key) {
                return Arc::clone(found);
            }
            list.push((key, Arc::clone(&value)));
            value
        }

        pub(crate) fn remove_same(&self, key: &K, value: &Arc<V>) -> bool {
            let mut list = lock(&self.0);
            let at = list.iter().position(|(known, found)| known == key && Arc::ptr_eq(found, value));
            let removed = at.map(|at| list.swap_remove(at));
            drop(list);
            removed.is_some()
        }

        pub(crate) fn values(&self) -> Vec<Arc<V>> {
            lock(&self.0).iter().map(|(_, value)| Arc::clone(value)).collect()
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[derive(Hash)]
    struct Borrowed<'a>(&'a str);

    impl Equivalent<String> for Borrowed<'_> {
        fn equivalent(&self, key: &String) -> bool {
            self.0 == key
        }
    }

    macro_rules! contract {
        ($map:path) => {{
            use $map as Map;
            let map: Map<String, u32> = Map::new();
            let one = map.get_or_insert("a".into(), Arc::new(1));
            assert!(Arc::ptr_eq(&one, &map.get_or_insert("a".into(), Arc::new(2))), "the first one stays");
            map.get_or_insert("b".into(), Arc::new(3));
            assert_eq!(map.get(&Borrowed("a")).as_deref(), Some(&1));
            assert_eq!(map.get(&Borrowed("c")), None);
            let mut values: Vec<u32> = map.values().iter().map(|value| **value).collect();
            values.sort_unstable();
            assert_eq!(values, [1, 3]);
            assert!(!map.remove_same(&"a".into(), &Arc::new(1)), "an equal value is not the same one");
            assert!(!map.remove_same(&"c".into(), &one));
            assert!(map.remove_same(&"a".into(), &one) && !map.remove_same(&"a".into(), &one));
            assert_eq!((map.get(&Borrowed("a")), map.values().len()), (None, 1));
            assert_eq!(map.len(), 1);
            map.insert("b".into(), Arc::new(4));
            map.insert("d".into(), Arc::new(5));
            assert_eq!(
                (map.get(&Borrowed("b")).as_deref(), map.get(&Borrowed("d")).as_deref(), map.len()),
                (Some(&4), Some(&5), 2)
            );
        }};
    }

    #[test]
    fn twin_and_papaya_agree() {
        contract!(super::real::SharedMap);
        contract!(super::twin::SharedMap);
    }
}
