//! Snapshots, pins and what is retired.

use std::time::{Duration, Instant};

use crate::sync::Arc;
use crate::{pinned, reclaim, snapshot};

pub struct SnapshotCell<T>(snapshot::SnapshotCell<T>);

impl<T> SnapshotCell<T> {
    pub fn new(value: T) -> Self {
        Self(snapshot::SnapshotCell::new(Arc::new(value)))
    }
    /// Looks at the value of this moment, as a publisher does.
    pub fn look<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.0.load())
    }
    pub fn swap(&self, value: T) -> Arc<T> {
        self.0.swap(Arc::new(value))
    }
}

/// What publishers read: [`crate::pinned`].
pub struct PinnedCell<T>(pinned::PinnedCell<T>);

impl<T: Send + Sync + 'static> PinnedCell<T> {
    pub fn new(value: T) -> Self {
        Self(pinned::PinnedCell::new(Arc::new(value)))
    }
    /// Looks at the value of this moment, as a publisher does.
    pub fn look<R>(&self, pin: &Pin, f: impl FnOnce(&T) -> R) -> R {
        f(self.0.load_pinned(&pin.0))
    }
    /// Replaces the value and retires the old one.
    pub fn swap(&self, value: T, reclaimer: &Reclaimer) {
        self.0.swap(Arc::new(value)).retire(&reclaimer.0);
    }
}

#[derive(Clone)]
pub struct Reclaimer(pub(super) Arc<reclaim::Reclaimer>);

impl Reclaimer {
    pub fn new() -> Self {
        Self(reclaim::Reclaimer::new())
    }
    pub fn retire(&self, value: impl Send + 'static) {
        self.0.retire(value);
    }
    pub fn tick(&self) {
        self.0.tick();
    }
    /// What whoever comes to the control path does with lists that lanes are done with.
    pub fn drop_ready(&self) {
        self.0.drop_ready();
    }
    pub fn is_pending(&self) -> bool {
        self.0.is_pending()
    }
}

pub struct Pin(#[allow(dead_code)] reclaim::Pin);

pub fn pin() -> Pin {
    Pin(reclaim::pin())
}

/// Waits until all that are pinned now have unpinned.
pub fn synchronize() {
    assert!(reclaim::synchronize(Instant::now() + Duration::from_secs(1000)), "no deadline in a model");
}
