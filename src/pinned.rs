//! A snapshot as publishers read it: a bare pointer that a pin keeps valid.
//!
//! ```text
//!   control:    swap(new) ─► arc-swap, then the pointer ─► Unlinked ── retire ─► reclaimer
//!   publishers: pin ── load: one load ── use ── unpin
//! ```
//!
//! arc-swap owns the value and serves those who are not pinned; its guard costs a publisher two writes
//! that synchronise and about 90 instructions, and a publisher is pinned anyway. What a swap takes out can only be
//! given to the reclaimer, which drops it when everybody who was pinned then has unpinned.
//!
//! Guarantees: `load` is one load, sees every `swap` that happened before it, and what it gives lives as
//! long as the pin. Model: `loom-tests/tests/reclaim.rs`, `a_pinned_snapshot_lives_while_it_is_read`.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::Deref;

use crate::reclaim::{Pin, Reclaimer};
use crate::snapshot::SnapshotCell;
use crate::sync::{Arc, AtomicPtr, Ordering};

/// A swappable `Arc<T>` with a way to read it that counts nothing.
pub(crate) struct PinnedCell<T> {
    owner: SnapshotCell<T>,
    /// What `owner` holds, or held until a moment ago.
    now: AtomicPtr<T>,
}

/// What was swapped out: somebody may be reading it. Leaks if it is not retired.
pub(crate) struct Unlinked<T>(ManuallyDrop<Arc<T>>);

impl<T> PinnedCell<T> {
    pub(crate) fn new(value: Arc<T>) -> Self {
        let now = AtomicPtr::new(Arc::as_ptr(&value).cast_mut());
        Self { owner: SnapshotCell::new(value), now }
    }

    /// The value of this moment, as long as the caller stays pinned.
    #[inline]
    pub(crate) fn load_pinned<'a>(&'a self, _pin: &'a Pin) -> &'a T {
        // Acquire: meets the Release in `swap`.
        let now = self.now.load(Ordering::Acquire);
        // SAFETY: the pointer of an `Arc` that `owner` holds, or that `swap` took out of it after this thread
        // pinned (one taken out before was no longer in `now`): it is dropped by the reclaimer only, after
        // this pin. `owner` itself lives as long as `self`.
        unsafe { &*now }
    }

    /// The value of this moment, kept alive by the guard.
    pub(crate) fn load(&self) -> impl Deref<Target = Arc<T>> + use<T> {
        self.owner.load()
    }

    /// Replaces the value. One thread at a time: the caller holds the lock of those who write.
    pub(crate) fn swap(&self, value: Arc<T>) -> Unlinked<T> {
        let now = Arc::as_ptr(&value).cast_mut();
        let old = self.owner.swap(value);
        // Release: publishes the value; meets the Acquire in `load_pinned`.
        self.now.store(now, Ordering::Release);
        Unlinked(ManuallyDrop::new(old))
    }
}

impl<T: Send + Sync + 'static> Unlinked<T> {
    /// Drops the value when nobody who is pinned now can be reading it.
    pub(crate) fn retire(self, reclaimer: &Arc<Reclaimer>) {
        reclaimer.retire(ManuallyDrop::into_inner(self.0));
    }
}
