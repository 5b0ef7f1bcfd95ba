//! Atomics, locks and cells that may pass the turn on.

use std::ops::{Deref, DerefMut};
use std::sync as real;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

#[cfg(feature = "ext")]
use super::{TIMEOUT, with};
use super::{pass, point};
use crate::sync::lock;

macro_rules! atomic {
    ($($name:ident: $value:ty { $($method:ident)* };)*) => {$(
        /// `std`'s, with a point before each operation.
        #[derive(Debug, Default)]
        pub(crate) struct $name(real::atomic::$name);

        #[allow(dead_code)]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(real::atomic::$name::new(value))
            }
            atomic!(operations $value { $($method)* });
        }
    )*};
    (operations $value:ty { $($method:ident)* }) => {
        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> $value {
            point();
            self.0.load(order)
        }
        #[track_caller]
        pub(crate) fn store(&self, value: $value, order: Ordering) {
            point();
            self.0.store(value, order);
        }
        pub(crate) fn compare_exchange(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            point();
            self.0.compare_exchange(current, new, success, failure)
        }
        pub(crate) fn compare_exchange_weak(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.compare_exchange(current, new, success, failure)
        }
        $(
            pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                point();
                self.0.$method(value, order)
            }
        )*
    };
}

atomic! {
    AtomicBool: bool { swap fetch_or fetch_and };
    AtomicIsize: isize { swap fetch_add fetch_sub };
    AtomicU64: u64 { swap fetch_add fetch_sub fetch_or fetch_and fetch_max };
    AtomicUsize: usize { swap fetch_add fetch_sub fetch_or fetch_and fetch_max };
}

/// `std`'s, with a point before each operation.
#[derive(Debug, Default)]
pub(crate) struct AtomicPtr<T>(real::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(real::atomic::AtomicPtr::new(value))
    }
    atomic!(operations *mut T { swap });
}

/// `std`'s, whose lock passes the turn on; poisoning is ignored.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(real::Mutex<T>);

/// Access to what a [`Mutex`] holds.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    guard: real::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(real::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> real::LockResult<MutexGuard<'_, T>> {
        point();
        loop {
            match self.0.try_lock() {
                Ok(guard) => return Ok(MutexGuard { mutex: self, guard }),
                Err(real::TryLockError::Poisoned(error)) => {
                    return Ok(MutexGuard { mutex: self, guard: error.into_inner() });
                }
                Err(real::TryLockError::WouldBlock) => pass(true),
            }
        }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// `std`'s; every notification wakes all, and a limit is over at random.
#[cfg(feature = "ext")]
#[derive(Debug, Default)]
pub(crate) struct Condvar(real::atomic::AtomicU64);

/// Whether a wait took too long.
#[cfg(feature = "ext")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOut(bool);

#[cfg(feature = "ext")]
impl TimedOut {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

#[cfg(feature = "ext")]
impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(real::atomic::AtomicU64::new(0))
    }

    pub(crate) fn notify_one(&self) {
        self.notify_all();
    }

    pub(crate) fn notify_all(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        point();
    }

    fn until<'a, T>(&self, guard: MutexGuard<'a, T>, timed: bool) -> (MutexGuard<'a, T>, TimedOut) {
        let (before, mutex) = (self.0.load(Ordering::Relaxed), guard.mutex);
        drop(guard);
        let mut over = false;
        while self.0.load(Ordering::Relaxed) == before && !over {
            pass(true);
            over = timed && with(|run| run.below(TIMEOUT) == 0).unwrap_or(true);
        }
        (mutex.lock().unwrap_or_else(PoisonError::into_inner), TimedOut(over))
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> real::LockResult<MutexGuard<'a, T>> {
        Ok(self.until(guard, false).0)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: std::time::Duration,
    ) -> real::LockResult<(MutexGuard<'a, T>, TimedOut)> {
        Ok(self.until(guard, true))
    }

    /// Takes its time.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: std::time::Duration,
        mut is_early: impl FnMut(&mut T) -> bool,
    ) -> real::LockResult<(MutexGuard<'a, T>, TimedOut)> {
        while is_early(&mut guard) {
            guard = self.until(guard, false).0;
        }
        Ok((guard, TimedOut(false)))
    }
}

/// `std`'s, whose wait for another thread passes the turn on.
#[derive(Debug, Default)]
pub(crate) struct OnceLock<T> {
    value: real::OnceLock<T>,
    /// Held while the value is made.
    setting: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { value: real::OnceLock::new(), setting: Mutex::new(()) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        point();
        self.value.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("called once"));
        value.map_or(Ok(()), Err)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _setting = lock(&self.setting);
            if self.value.get().is_none() {
                let _ = self.value.set(init());
            }
        }
        self.value.get().expect("set above")
    }
}

/// `std::sync::LazyLock`, as [`OnceLock`].
pub(crate) struct Global<T> {
    value: OnceLock<T>,
    init: fn() -> T,
}

impl<T> Global<T> {
    pub(crate) const fn new(init: fn() -> T) -> Self {
        Self { value: OnceLock::new(), init }
    }
}

impl<T> Deref for Global<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.get_or_init(self.init)
    }
}
