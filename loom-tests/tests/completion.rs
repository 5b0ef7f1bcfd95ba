//! "It has happened", for threads and tasks.
#![cfg(loom)]

use loom_tests::{Model, Watched, spawn};
use stasis_bus::model::Completion;
use std::sync::Arc;

/// Promise: a thread that waits wakes (else: deadlock), and sees what was done before completing.
/// Mutations: sleeping right after registering; swap in `close` Relaxed.
#[test]
fn a_waiting_thread_wakes() {
    Model::new("a_waiting_thread_wakes").preemptions(3).check(|| {
        let (done, work) = (Completion::new(), Arc::new(Watched::new(0)));
        let worker = {
            let (done, work) = (done.clone(), Arc::clone(&work));
            spawn(move || {
                work.set(1);
                done.complete();
            })
        };
        done.wait();
        assert_eq!(work.get(), 1);
        worker.join().unwrap();
    });
}

/// Promise: all who wait are woken.
/// Mutation: `complete` waking one waiter only.
#[test]
fn all_waiting_threads_wake() {
    Model::new("all_waiting_threads_wake").check(|| {
        let done = Completion::new();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let done = done.clone();
                spawn(move || done.wait())
            })
            .collect();
        done.complete();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// Promise: a task that awaits is woken, even where it registers again meanwhile, and sees what was done.
/// Mutations: waker set after registering; first load in `push` Relaxed (found by this model).
#[test]
fn a_waiting_task_wakes() {
    Model::new("a_waiting_task_wakes").preemptions(3).check(|| {
        let (done, work) = (Completion::new(), Arc::new(Watched::new(0)));
        let worker = {
            let (done, work) = (done.clone(), Arc::clone(&work));
            spawn(move || {
                work.set(1);
                done.complete();
            })
        };
        loom::future::block_on(done.waiting());
        assert_eq!(work.get(), 1);
        worker.join().unwrap();
    });
}

/// Promise: a waiter that gives up takes no other's wake-up with it (else: deadlock).
/// Mutation: those put back while it happens are not woken.
#[test]
fn giving_up_loses_nobody_elses_wake_up() {
    Model::new("giving_up_loses_nobody_elses_wake_up").preemptions(3).check(|| {
        let done = Completion::new();
        // This thread only joins: loom takes a late wake-up for the end of that.
        let threads = [Completion::wait, Completion::wait_in_vain, Completion::complete].map(|act| {
            let done = done.clone();
            spawn(move || act(&done))
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
