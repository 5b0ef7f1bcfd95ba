//! A value read without locks and replaced whole: arc-swap, or its naive twin under loom.
//!
//! ```text
//!   publishers: load() ─► guard on the value of this moment
//!   control:    swap(new) ─► the old value, still valid for those who hold a guard
//! ```
//!
//! Guarantees: `load` is wait-free in production (6-9 ns) and sees every `swap` that happened
//! before it; a guard keeps its value alive. The twin ([`model`] under loom, which cannot see
//! arc-swap) is a mutex around an `Arc`; `twin_and_arc_swap_agree` runs one contract over both.

use crate::sync::Arc;

#[cfg(not(loom))]
pub(crate) use self::real::SnapshotCell;
#[cfg(loom)]
pub(crate) use self::twin::SnapshotCell;

#[cfg(not(loom))]
mod real {
    use super::Arc;

    /// A swappable `Arc<T>`.
    pub(crate) struct SnapshotCell<T>(arc_swap::ArcSwap<T>);

    impl<T> SnapshotCell<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Self(arc_swap::ArcSwap::new(value))
        }

        /// The value of this moment.
        #[inline]
        pub(crate) fn load(&self) -> impl std::ops::Deref<Target = Arc<T>> + use<T> {
            self.0.load()
        }

        /// Replaces the value and returns the old one.
        pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
            self.0.swap(value)
        }

        /// Replaces the value if it is still `current`. Whether it was.
        #[cfg(feature = "ext")]
        pub(crate) fn replace(&self, current: &Arc<T>, value: Arc<T>) -> bool {
            Arc::ptr_eq(&self.0.compare_and_swap(current, value), current)
        }
    }
}

#[cfg(any(loom, test))]
mod twin {
    use super::Arc;
    use crate::sync::{Mutex, lock};

    /// The twin: same interface, a lock inside.
    pub(crate) struct SnapshotCell<T>(Mutex<Arc<T>>);

    /// What `load` gives.
    pub(crate) struct Guard<T>(Arc<T>);

    impl<T> std::ops::Deref for Guard<T> {
        type Target = Arc<T>;
        fn deref(&self) -> &Arc<T> {
            &self.0
        }
    }

    impl<T> SnapshotCell<T> {
        pub(crate) fn new(value: Arc<T>) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn load(&self) -> Guard<T> {
            Guard(Arc::clone(&lock(&self.0)))
        }

        pub(crate) fn swap(&self, value: Arc<T>) -> Arc<T> {
            std::mem::replace(&mut *lock(&self.0), value)
        }

        #[cfg(feature = "ext")]
        pub(crate) fn replace(&self, current: &Arc<T>, mut value: Arc<T>) -> bool {
            let mut place = lock(&self.0);
            let same = Arc::ptr_eq(&place, current);
            if same {
                std::mem::swap(&mut *place, &mut value);
            }
            drop(place);
            same
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    macro_rules! contract {
        ($cell:path) => {{
            use $cell as Cell;
            let cell = Cell::new(Arc::new(0u64));
            let before = cell.load();
            assert_eq!(*cell.swap(Arc::new(1)), 0);
            assert_eq!((**before, **cell.load()), (0, 1));
            let weak = Arc::downgrade(&*before);
            drop(before);
            assert!(weak.upgrade().is_none(), "a value goes with its last guard");
            #[cfg(feature = "ext")]
            {
                let now = Arc::clone(&*cell.load());
                assert!(!cell.replace(&Arc::new(1), Arc::new(9)), "an equal value is not the same one");
                assert!(cell.replace(&now, Arc::new(1)) && !cell.replace(&now, Arc::new(9)));
                assert_eq!(**cell.load(), 1);
            }
            // Values never go back, and a swap before a load is seen by it.
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut last = 0;
                    while last < 1000 {
                        let now = **cell.load();
                        assert!(now >= last);
                        last = now;
                    }
                });
                for n in 2..=1000 {
                    assert_eq!(*cell.swap(Arc::new(n)), n - 1);
                    assert_eq!(**cell.load(), n);
                }
                reader.join().unwrap();
            });
        }};
    }

    #[test]
    fn twin_and_arc_swap_agree() {
        contract!(super::real::SnapshotCell);
        contract!(super::twin::SnapshotCell);
    }
}
