//! "It has happened", for threads and tasks.
#![cfg(loom)]

use loom_tests::{Model, Watched, spawn};
use stasis_bus::model::Completion;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

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
/// Mutation: first load in `push` Relaxed (found by this model).
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

/// Promise: a task that has moved, and looks again with another waker, is told at once or woken by that waker.
/// Mutation: no look after the waker is in its slot.
#[test]
fn a_task_that_moves_is_woken_where_it_is() {
    Model::new("a_task_that_moves_is_woken_where_it_is").preemptions(3).check(|| {
        let done = Completion::new();
        let worker = {
            let done = done.clone();
            spawn(move || done.complete())
        };
        let places = [Arc::new(Woken::default()), Arc::new(Woken::default())];
        let mut waiting = pin!(done.waiting());
        let told = places.iter().any(|place| {
            let waker = Waker::from(Arc::clone(place));
            waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        });
        worker.join().unwrap();
        assert!(told || places[1].0.load(Ordering::Relaxed), "neither told nor woken");
    });
}

/// A waker that says that it was used.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
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
