//! The only place that names the primitives threads meet on: `std` in production, loom in models.
//!
//! ```text
//!  ring, snapshot, exec, bus ──► crate::sync ──► std::sync::atomic, std::thread
//!                                           ├──► loom (cfg(loom))
//!                                           └──► one thread at a time, from a seed (cfg(stasis_schedule))
//! ```
//!
//! Guarantees: none of its own; every item behaves as the `std` item of the same name. `Arc` is
//! always `std`'s (loom's knows no weak or unsized pointers). A static whose insides threads meet on
//! is declared with [`global!`], a thread-local with [`local!`]: loom makes them anew for each
//! execution. What models make smaller (segment sizes, table sizes) goes through [`scaled`].

pub(crate) mod backoff;
pub(crate) mod cores;
pub(crate) mod fence;
#[cfg(feature = "ext")]
pub(crate) mod map;
#[cfg(not(any(loom, stasis_tsan)))]
mod membarrier;
#[cfg(loom)]
mod model;
pub(crate) mod park;
pub(crate) mod prefetch;
#[cfg(stasis_schedule)]
pub(crate) mod schedule;
pub(crate) mod stack;
pub(crate) mod thread_slot;

pub(crate) use std::sync::{Arc, Weak};

#[cfg(loom)]
pub(crate) use self::model::*;
#[cfg(not(loom))]
pub(crate) use self::real::*;
#[cfg(all(stasis_schedule, feature = "ext"))]
pub(crate) use self::schedule::Condvar;
// These stand before the ones of `real`.
#[cfg(stasis_schedule)]
pub(crate) use self::schedule::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Global, Mutex, MutexGuard, OnceLock, raw_fence,
    spin_loop, thread,
};

/// Atomics that are `std`'s even under loom: statics and counters no protocol depends on.
pub(crate) mod plain {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

#[cfg(not(loom))]
#[cfg_attr(stasis_schedule, allow(unused_imports))]
mod real {
    pub(crate) use std::hint::spin_loop;
    #[cfg(feature = "ext")]
    pub(crate) use std::sync::Condvar;
    pub(crate) use std::sync::atomic::{
        AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence as raw_fence,
    };
    pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};
    pub(crate) use std::thread;

    pub(crate) use quanta::Clock;
    pub(crate) use std::sync::LazyLock as Global;

    /// Declares a static that is made when first used.
    macro_rules! global {
        ($(#[$attribute:meta])* static $name:ident: $kind:ty = $init:expr;) => {
            $(#[$attribute])*
            static $name: $crate::sync::Global<$kind> = $crate::sync::Global::new(|| $init);
        };
    }

    /// Declares thread-locals, made by a constant (`const`) or when first used.
    macro_rules! local {
        () => {};
        (static $name:ident: $kind:ty = const $init:block; $($rest:tt)*) => {
            std::thread_local! { static $name: $kind = const $init }
            $crate::sync::local! { $($rest)* }
        };
        (static $name:ident: $kind:ty = $init:expr; $($rest:tt)*) => {
            std::thread_local! { static $name: $kind = $init }
            $crate::sync::local! { $($rest)* }
        };
    }

    pub(crate) use {global, local};

    /// Threads do it themselves.
    #[cfg(fuzzing)]
    pub(crate) fn end_thread() {}

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

/// `production`, or `model` where loom would have to look at every object of it.
pub(crate) const fn scaled(production: usize, model: usize) -> usize {
    if cfg!(loom) { model } else { production }
}

/// Locks a mutex whether or not a panicking thread held it: what our locks guard is consistent at
/// every point where foreign code could panic, because none runs under them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.lock() {
        Ok(guard) => guard,
        Err(poisoned) => poisoned.into_inner(),
    }
}

/// Waits on `condvar` while `waiting` says so, for `limit` at most. Under loom the limit never passes.
#[cfg(feature = "ext")]
pub(crate) fn wait_while<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    limit: std::time::Duration,
    waiting: impl FnMut(&mut T) -> bool,
) -> MutexGuard<'a, T> {
    use std::sync::PoisonError;
    #[cfg(not(loom))]
    return condvar.wait_timeout_while(guard, limit, waiting).unwrap_or_else(PoisonError::into_inner).0;
    #[cfg(loom)]
    {
        let _ = limit;
        let (mut guard, mut waiting) = (guard, waiting);
        while waiting(&mut guard) {
            guard = condvar.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        guard
    }
}
