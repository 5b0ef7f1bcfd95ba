//! Message types: kept by handles and messages, let go with the last of both.
#![cfg(loom)]

use loom_tests::{Drops, Model, spawn};
use stasis_bus::model::formatted_type;

/// Promise G1: a message keeps its type usable after the last handle is gone; the type's detail is dropped
/// once, with the last of handles and messages, whichever it is, and its number is free then.
/// Mutations: fence in `leave` left out; fences in `close` and `try_free` left out; `leave` not looking at
/// `closed`; `try_free` not asking for `living`.
#[test]
fn the_last_of_handles_and_messages_lets_go() {
    Model::new("the_last_of_handles_and_messages_lets_go").preemptions(3).check(|| {
        let drops = Drops::new();
        let probe = drops.probe();
        let kind = formatted_type("n", move |n| {
            let _ = &probe;
            Some(n.to_string())
        });
        let id = kind.id();
        let message = kind.message(7);
        let reader = spawn(move || {
            assert_eq!(message.to_json().as_deref(), Some("7"));
            drop(message);
        });
        drop(kind);
        reader.join().unwrap();
        assert_eq!(drops.count(), 1);
        assert_eq!(formatted_type("m", |_| None).id(), id, "the number is used again");
    });
}

/// Promise: a handle cloned and dropped on another thread neither frees the type early nor keeps it.
/// Mutation: `Clone` not counting.
#[test]
fn handles_on_two_threads_let_go_once() {
    Model::new("handles_on_two_threads_let_go_once").preemptions(3).check(|| {
        let drops = Drops::new();
        let probe = drops.probe();
        let kind = formatted_type("n", move |_| {
            let _ = &probe;
            None
        });
        let other = {
            let kind = kind.clone();
            spawn(move || {
                let message = kind.message(1);
                drop(kind);
                message
            })
        };
        drop(kind);
        let message = other.join().unwrap();
        assert_eq!(drops.count(), 0);
        drop(message);
        assert_eq!(drops.count(), 1);
    });
}
