//! The loom half of [`super`]: loom's primitives, and stand-ins for what loom does not have.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

pub(crate) use loom::cell::UnsafeCell;
pub(crate) use loom::hint::spin_loop;
#[cfg(feature = "ext")]
pub(crate) use loom::sync::Condvar;
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence as raw_fence,
};
pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) mod thread {
    //! `std::thread`, with `is_finished` and a `sleep` that gives the others a turn.

    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    pub(crate) use loom::thread::{Thread, current, park, yield_now};

    /// Time does not pass in a model: lets the others run.
    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    #[derive(Debug)]
    pub(crate) struct JoinHandle<T> {
        thread: loom::thread::JoinHandle<T>,
        /// `std`'s: a poll for the end is not part of a protocol.
        finished: Arc<AtomicBool>,
    }

    impl<T: 'static> JoinHandle<T> {
        pub(crate) fn is_finished(&self) -> bool {
            self.finished.load(Ordering::Acquire)
        }

        pub(crate) fn thread(&self) -> &Thread {
            self.thread.thread()
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            self.thread.join()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Builder(loom::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(loom::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            let finished = Arc::new(AtomicBool::new(false));
            let mark = Arc::clone(&finished);
            let thread = self.0.spawn(move || {
                let value = body();
                super::end_thread();
                mark.store(true, Ordering::Release);
                value
            })?;
            Ok(JoinHandle { thread, finished })
        }
    }
}

/// `std::sync::OnceLock`, with a lock that loom can see through.
#[derive(Debug, Default)]
pub(crate) struct OnceLock<T> {
    is_set: AtomicBool,
    /// Held while the value is made.
    setting: Mutex<()>,
    /// Written once, before `is_set`.
    value: std::cell::UnsafeCell<Option<T>>,
}

// SAFETY: the value is written by the one holder of `setting` that finds it unset, and read only
// after `is_set` was seen.
unsafe impl<T: Send + Sync> Sync for OnceLock<T> {}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { is_set: AtomicBool::new(false), setting: Mutex::new(()), value: std::cell::UnsafeCell::new(None) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `is_set` was seen: nobody writes the value any more.
        unsafe { &*self.value.get() }.as_ref()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("called once"));
        value.map_or(Ok(()), Err)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if !self.is_set.load(Ordering::Acquire) {
            let _setting = super::lock(&self.setting);
            if !self.is_set.load(Ordering::Acquire) {
                let value = init();
                // SAFETY: unset, and this thread holds `setting`: nobody else looks at the value.
                unsafe { *self.value.get() = Some(value) };
                self.is_set.store(true, Ordering::Release);
            }
        }
        self.get().expect("set above")
    }
}

/// A static of one execution. Leaked at its end: loom lets go of statics in any order, and handles
/// of one may reach into another.
pub(crate) struct Global<T: 'static>(pub(crate) loom::lazy_static::Lazy<&'static T>);

impl<T> std::ops::Deref for Global<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: `Global` is made by `global!` only, as a static.
        let lazy: &'static loom::lazy_static::Lazy<&'static T> = unsafe { &*std::ptr::from_ref(&self.0) };
        lazy.get()
    }
}

macro_rules! global {
    ($(#[$attribute:meta])* static $name:ident: $kind:ty = $init:expr;) => {
        $(#[$attribute])*
        static $name: $crate::sync::Global<$kind> = $crate::sync::Global(loom::lazy_static::Lazy {
            init: || Box::leak(Box::new($init)),
            _p: std::marker::PhantomData,
        });
    };
}

/// `std::thread::LocalKey` for loom's threads, with an order of destruction: latest first. (Loom's own
/// thread-locals go in the order of a hash map, another in each execution.)
pub(crate) struct LocalKey<T: 'static>(pub(crate) fn() -> T);

/// The thread is ending and the value gone.
#[derive(Debug)]
pub(crate) struct AccessError;

type Local = Rc<dyn Any>;

#[derive(Default)]
struct Locals {
    /// By address of the key; `None`: gone.
    values: RefCell<Vec<(usize, Option<Local>)>>,
}

loom::thread_local! {
    static LOCALS: Locals = Locals::default();
}

impl<T: 'static> LocalKey<T> {
    pub(crate) fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.try_with(f).expect("the thread-local is alive")
    }

    pub(crate) fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let key = std::ptr::from_ref(self).addr();
        let known = LOCALS.try_with(|locals| {
            locals.values.borrow().iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
        });
        let value = match known {
            Err(_) | Ok(Some(None)) => return Err(AccessError),
            Ok(Some(Some(value))) => value,
            Ok(None) => {
                let value: Local = Rc::new((self.0)());
                LOCALS.with(|locals| locals.values.borrow_mut().push((key, Some(Rc::clone(&value)))));
                value
            }
        };
        Ok(f(value.downcast_ref().expect("the key's type")))
    }
}

/// Destroys the calling thread's locals. Every thread of a model ends with it, the first one too.
pub(crate) fn end_thread() {
    let last = |locals: &Locals| locals.values.borrow_mut().iter_mut().rev().find_map(|(_, value)| value.take());
    while let Some(value) = LOCALS.with(last) {
        drop(value);
    }
}

macro_rules! local {
    ($(static $name:ident: $kind:ty = $init:expr;)*) => {
        $(static $name: $crate::sync::LocalKey<$kind> = $crate::sync::LocalKey(|| $init);)*
    };
}

pub(crate) use {global, local};

/// A clock that stands still.
pub(crate) struct Clock;

impl Clock {
    pub(crate) fn new() -> Self {
        Self
    }

    pub(crate) fn raw(&self) -> u64 {
        1
    }

    pub(crate) fn delta_as_nanos(&self, start: u64, end: u64) -> u64 {
        end.saturating_sub(start)
    }
}
