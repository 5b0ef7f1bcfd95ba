//! Letting go of what publishers may still be looking at. The only file that names crossbeam-epoch.
//!
//! ```text
//!  publisher:  pin ── load snapshot ── push to lanes ── unpin
//!  control:    swap snapshot ── retire(old) ─┐
//!                                            ▼ epoch: every publisher of that time has unpinned
//!                                         ready ── dropped by a control call or an idle lane,
//!                                                  never by a publisher, never while pinned
//! ```
//!
//! The collector is our own, not the one that hosts and other crates pin: a thread that is pinned there keeps
//! nothing of ours, may shut a bus down, and what was deferred there is not run by our publishers.
//!
//! Publishing happens pinned, so a grace period ([`synchronize`]) tells shutdown that no publisher
//! is between reading "open" and its last push; and a retired snapshot is dropped only when nobody
//! can be reading it, by a thread that can afford it.
//!
//! Guarantees: a retired value is dropped once, after all pins of the time of retiring ended; on a
//! quiet bus too, because idle lanes tick while something is pending. Pinning costs 3-4 ns, takes no
//! lock and never waits. Models: `loom-tests/tests/reclaim.rs`.

use std::time::{Duration, Instant};

use crate::contain::quietly;
use crate::sync::plain::AtomicUsize;
use crate::sync::stack::ClosableStack;
use crate::sync::{Arc, AtomicBool, Ordering, thread};

// Loom's statics are taken apart by who made them: only that library can keep a collector in one.
#[cfg(loom)]
use crossbeam_epoch::pin as enter;
#[cfg(not(loom))]
use own::enter;

#[cfg(not(loom))]
mod own {
    use crossbeam_epoch::{Collector, Guard, LocalHandle};

    use crate::sync::{global, local};

    global! {
        static COLLECTOR: Collector = Collector::new();
    }
    local! {
        static HANDLE: LocalHandle = COLLECTOR.register();
    }

    #[inline]
    pub(super) fn enter() -> Guard {
        // A thread that is ending has no handle any more.
        HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| COLLECTOR.register().pin())
    }
}

/// Keeps what this thread reads from being dropped.
pub(crate) struct Pin(#[allow(dead_code)] crossbeam_epoch::Guard);

/// Pins the calling thread until the result is dropped. No user code may run meanwhile.
#[inline]
pub(crate) fn pin() -> Pin {
    Pin(enter())
}

type Retired = Box<dyn Send>;

/// Values waiting for their grace period; one per bus.
pub(crate) struct Reclaimer {
    retired: ClosableStack<Retired>,
    ready: ClosableStack<Vec<Retired>>,
    /// Retired or handed over, and not dropped yet. A hint: nothing is published through it.
    pending: AtomicUsize,
}

/// Retired values that make a tick worth its price.
pub(crate) const BATCH: usize = 32;

impl Reclaimer {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { retired: ClosableStack::new(), ready: ClosableStack::new(), pending: AtomicUsize::new(0) })
    }

    /// Drops `value` after a grace period. Not to be called while pinned or under a lock whose
    /// holders the destructor may need.
    pub(crate) fn retire(self: &Arc<Self>, value: impl Send + 'static) {
        let before = self.pending.fetch_add(1, Ordering::Relaxed);
        if let Err(value) = self.retired.push(Box::new(value)) {
            drop(value);
        }
        if before % BATCH == BATCH - 1 {
            self.tick();
        }
    }

    /// Takes what may be dropped at once, but not by the caller: a lane that frees what the control path allocated
    /// fights with it for the allocator (a subscribe and unsubscribe took twice as long). It is dropped with what
    /// was retired.
    pub(crate) fn hand_over(&self, values: impl Send + 'static) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        if let Err(values) = self.ready.push(vec![Box::new(values)]) {
            drop(values);
        }
    }

    /// Whether something waits.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) > 0
    }

    /// Starts the grace period of what was retired, and drops what has passed it. A few calls some
    /// time apart bring everything to its end.
    pub(crate) fn tick(self: &Arc<Self>) {
        let batch: Vec<_> = self.retired.take().collect();
        let guard = enter();
        if !batch.is_empty() {
            let reclaimer = Arc::clone(self);
            // Runs on whatever thread collects, a publisher perhaps: so it only hands over.
            guard.defer(move || {
                if let Err(batch) = reclaimer.ready.push(batch) {
                    drop(batch);
                }
            });
        }
        guard.flush();
        drop(guard);
        self.drop_ready();
    }

    /// Drops what was handed over, and what has passed its grace period.
    pub(crate) fn drop_ready(&self) {
        for value in self.ready.take().flatten() {
            quietly(|| drop(value));
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Reclaimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reclaimer").field("pending", &self.pending).finish_non_exhaustive()
    }
}

/// Waits until every thread that is pinned now has unpinned. False if `deadline` came first.
///
/// Must not be called while pinned.
pub(crate) fn synchronize(deadline: Instant) -> bool {
    let passed = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&passed);
    enter().defer(move || mark.store(true, Ordering::Release));
    let mut pause = Duration::from_micros(1);
    loop {
        enter().flush();
        if passed.load(Ordering::Acquire) {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(1));
    }
}
