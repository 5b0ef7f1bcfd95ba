//! The hint: whether anybody accepts a type, without loading the snapshot.
#![cfg(loom)]

use loom_tests::{Model, spawn};
use stasis_bus::model::{Hint, message_type};
use std::sync::Arc;

/// Promise G3: a type that is accepted all the time is covered at every moment, while filters change from
/// "this type" to "everything" and back, and somebody accepts another type besides.
/// Mutations: no second look at the flags; words stored Relaxed; word loaded Relaxed.
#[test]
fn an_accepted_type_is_always_covered() {
    Model::new("an_accepted_type_is_always_covered").preemptions(3).check(|| {
        let (kind, other) = (message_type::<()>("a"), message_type::<()>("b"));
        let hint = Arc::new(Hint::new());
        hint.change(false, &[kind.id()], || ());
        let control = {
            let (hint, kind, other) = (Arc::clone(&hint), kind.clone(), other.clone());
            spawn(move || {
                hint.change(true, &[], || ());
                hint.change(false, &[kind.id(), other.id()], || ());
            })
        };
        assert!(hint.covers(kind.id()));
        assert!(hint.covers(kind.id()));
        control.join().unwrap();
        assert!(hint.covers(other.id()));
    });
}

/// Promise: what a swapped-in snapshot accepts is covered from the swap on, for who knows of the swap.
/// Mutation: `open` not covering everything.
#[test]
fn a_swapped_in_snapshot_is_covered() {
    use loom::sync::atomic::{AtomicBool, Ordering};
    Model::new("a_swapped_in_snapshot_is_covered").preemptions(3).check(|| {
        let kind = message_type::<()>("a");
        let (hint, swapped) = (Arc::new(Hint::new()), Arc::new(AtomicBool::new(false)));
        let control = {
            let (hint, swapped, kind) = (Arc::clone(&hint), Arc::clone(&swapped), kind.clone());
            spawn(move || hint.change(false, &[kind.id()], || swapped.store(true, Ordering::Release)))
        };
        let before = swapped.load(Ordering::Acquire);
        assert!(hint.covers(kind.id()) || !before);
        control.join().unwrap();
        assert!(hint.covers(kind.id()));
    });
}
