//! The stack that is taken whole and closed for good.
#![cfg(loom)]

use loom_tests::{Drops, Model, Watched, spawn};
use stasis_bus::model::Stack;
use std::sync::Arc;

fn value(n: u32) -> Box<Watched> {
    let cell = Box::new(Watched::new(0));
    cell.set(n);
    cell
}

/// Promise: what was pushed before a take is taken, once, oldest first, with all that was in it.
/// Mutations: exchange in `push` Relaxed; exchange in `take` Relaxed; `unlink` not reversed.
#[test]
fn values_are_taken_once_in_order() {
    Model::new("values_are_taken_once_in_order").preemptions(3).check(|| {
        let stack = Arc::new(Stack::new());
        let pusher = {
            let stack = Arc::clone(&stack);
            spawn(move || {
                for n in 1..=2 {
                    stack.push(value(n)).unwrap();
                }
            })
        };
        stack.push(value(10)).unwrap();
        let mut got: Vec<u32> = stack.take().iter().map(|cell| cell.get()).collect();
        pusher.join().unwrap();
        got.extend(stack.take().iter().map(|cell| cell.get()));
        let from_pusher: Vec<_> = got.iter().copied().filter(|&n| n < 10).collect();
        assert_eq!((from_pusher, got.len()), (vec![1, 2], 3), "{got:?}");
        assert!(!stack.is_marked());
    });
}

/// Promise: a push against a close either comes back or is among what close returns; afterwards the stack
/// stays closed, and who sees it closed sees what the closer did before.
/// Mutations: swap in `close` Relaxed; `is_closed` Relaxed; first load in `push` Relaxed.
#[test]
fn a_push_against_a_close_is_not_lost() {
    Model::new("a_push_against_a_close_is_not_lost").preemptions(3).check(|| {
        let drops = Drops::new();
        let stack = Arc::new(Stack::new());
        let done = Arc::new(value(0));
        let pusher = {
            let (stack, probe, done) = (Arc::clone(&stack), (drops.probe(), value(1)), Arc::clone(&done));
            spawn(move || {
                let back = stack.push(probe).is_err();
                if back || stack.is_closed() {
                    assert_eq!(done.get(), 9, "seen with the closing");
                }
                back
            })
        };
        done.set(9);
        let taken = stack.close();
        taken.iter().for_each(|(_, cell)| assert_eq!(cell.get(), 1));
        let back = pusher.join().unwrap();
        assert_eq!(taken.len() + usize::from(back), 1);
        assert!(stack.push((drops.probe(), value(2))).is_err());
        assert!(stack.take().is_empty() && stack.is_closed());
        drop(taken);
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: two takers share the values between them; none is lost in an exchange that failed.
/// Mutation: `take` as a load and a store.
#[test]
fn two_takers_share() {
    Model::new("two_takers_share").check(|| {
        let stack = Arc::new(Stack::new());
        stack.push(value(1)).unwrap();
        let other = {
            let stack = Arc::clone(&stack);
            spawn(move || stack.take().len())
        };
        let pusher = {
            let stack = Arc::clone(&stack);
            spawn(move || stack.push(value(2)).is_ok())
        };
        let mine = stack.take().len();
        let theirs = other.join().unwrap();
        assert!(pusher.join().unwrap());
        assert_eq!(mine + theirs + stack.close().len(), 2);
    });
}
