//! The only place that names the primitives threads meet on: `std` in production, loom in models.
//!
//! ```text
//!  ring, snapshot, exec, bus ──► crate::sync ──► std::sync::atomic, std::thread
//!                                           └──► loom (cfg(loom))
//! ```
//!
//! Guarantees: none of its own; every item behaves as the `std` item of the same name. `Arc` is
//! always `std`'s (loom's knows no weak or unsized pointers); statics are always `std`'s (loom's
//! atomics cannot be built in constants), which is why no protocol that is modelled lives in one.

pub(crate) mod backoff;
pub(crate) mod fence;
pub(crate) mod park;
pub(crate) mod stack;
pub(crate) mod thread_slot;

pub(crate) use std::sync::{Arc, Weak};

#[cfg(loom)]
pub(crate) use self::model::*;
#[cfg(not(loom))]
pub(crate) use self::real::*;

/// Atomics that are `std`'s even under loom: statics and counters no protocol depends on.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
}

#[cfg(not(loom))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence as raw_fence};
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use std::thread;

    /// `std::cell::UnsafeCell` with loom's access methods.
    #[derive(Debug, Default)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }
        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod model {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence as raw_fence};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
    pub(crate) use loom::thread;
}

/// Locks a mutex whether or not a panicking thread held it: what our locks guard is consistent at
/// every point where foreign code could panic, because none runs under them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}
