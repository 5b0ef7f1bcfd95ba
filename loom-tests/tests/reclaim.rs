//! Grace periods: what is retired goes after the pins of that time.
#![cfg(loom)]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom_tests::{Drops, Model, Probe, Watched, spawn};
use stasis_bus::model::{PinnedCell, Reclaimer, SnapshotCell, full_fence, pin, synchronize};
use std::sync::Arc;

/// A value that notices when it is read after its end.
struct Retired {
    alive: Arc<Watched>,
    _probe: Probe,
}

impl Drop for Retired {
    fn drop(&mut self) {
        self.alive.set(0);
    }
}

/// Promise: what a pinned thread found in the snapshot is not dropped before it unpins, and is dropped once
/// in the end.
/// Mutation: `tick` dropping the batch at once.
#[test]
fn a_pin_holds_off_the_drop() {
    Model::new("a_pin_holds_off_the_drop").check(|| {
        let drops = Drops::new();
        let reclaimer = Reclaimer::new();
        let alive = Arc::new(Watched::new(1));
        let first = Retired { alive: Arc::clone(&alive), _probe: drops.probe() };
        let cell = Arc::new(SnapshotCell::new(Some(alive)));
        // Orders nothing, but has loom try both orders: a step of the reader between finding the value and reading
        // it, and one of the dropping thread behind the drop.
        let step = Arc::new(AtomicBool::new(false));
        let reader = {
            let (cell, step) = (Arc::clone(&cell), Arc::clone(&step));
            spawn(move || {
                let pin = pin();
                if let Some(alive) = cell.look(Clone::clone) {
                    step.store(true, Ordering::Relaxed);
                    assert_eq!(alive.get(), 1);
                }
                drop(pin);
            })
        };
        cell.swap(None);
        reclaimer.retire(first);
        reclaimer.tick();
        step.load(Ordering::Relaxed);
        reader.join().unwrap();
        while reclaimer.is_pending() {
            reclaimer.tick();
            loom::thread::yield_now();
        }
        assert_eq!(drops.count(), 1);
    });
}

/// A value that says so when it is read after its end.
struct Snapshot {
    alive: Watched,
    number: u64,
    _probe: Probe,
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.alive.set(0);
    }
}

/// Promise: what a publisher reads by its bare pointer lives until it unpins, is whole, and goes once in the end; a
/// swap that came before is seen.
/// Mutations: `now` stored or loaded Relaxed; `retire` dropping the value at once; `swap` leaving `now` as it is.
#[test]
fn a_pinned_snapshot_lives_while_it_is_read() {
    Model::new("a_pinned_snapshot_lives_while_it_is_read").check(|| {
        let drops = Drops::new();
        let reclaimer = Reclaimer::new();
        let snapshot = |number| Snapshot { alive: Watched::new(1), number, _probe: drops.probe() };
        let cell = Arc::new(PinnedCell::new(snapshot(1)));
        let reader = {
            let cell = Arc::clone(&cell);
            spawn(move || {
                let pin = pin();
                let number = cell.look(&pin, |snapshot| {
                    assert_eq!(snapshot.alive.get(), 1);
                    snapshot.number
                });
                assert!(number == 1 || number == 2);
                drop(pin);
            })
        };
        cell.swap(snapshot(2), &reclaimer);
        let here = pin();
        assert_eq!(cell.look(&here, |snapshot| snapshot.number), 2);
        drop(here);
        reclaimer.tick();
        reader.join().unwrap();
        while reclaimer.is_pending() {
            reclaimer.tick();
            loom::thread::yield_now();
        }
        assert_eq!(drops.count(), 1);
    });
}

/// Promise: a grace period waits for who was pinned before "closed" was written; who pins later sees "closed"
/// (delicate point 1, the shutdown of a bus).
/// Mutations: `synchronize` returning at once; the publisher looking at "closed" before pinning;
/// crossbeam-epoch unmodelled (`--cfg crossbeam_loom` left out).
#[test]
fn a_pin_holds_off_a_grace_period() {
    Model::new("a_pin_holds_off_a_grace_period").check(|| {
        let closed = Arc::new(AtomicBool::new(false));
        let work = Arc::new(Watched::new(1));
        let publisher = {
            let (closed, work) = (Arc::clone(&closed), Arc::clone(&work));
            spawn(move || {
                let pin = pin();
                if !closed.load(Ordering::Acquire) {
                    assert_eq!(work.get(), 1, "the grace period has passed");
                }
                drop(pin);
            })
        };
        closed.store(true, Ordering::Release);
        full_fence();
        synchronize();
        work.set(0);
        publisher.join().unwrap();
    });
}
