//! Sleeping and waking: the mark in the tail word.
#![cfg(loom)]

use loom::thread;
use loom_tests::{Drops, Model, spawn};
use stasis_bus::model::{Budget, Consumer, Sleeper, Stack, ring, sleep};
use std::sync::Arc;

/// Sleeps as a lane's worker does, unless `work` says there is some.
fn doze<T: Send>(consumer: &mut Consumer<T>, work: impl Fn() -> bool) {
    if !consumer.try_mark_asleep() {
        thread::yield_now();
        return;
    }
    if !work() {
        sleep();
    }
    consumer.cancel_sleep();
}

/// Promise: a push that finds the consumer asleep wakes it (a lost wake-up is a deadlock here).
/// Mutation: mark set without comparing the position.
#[test]
fn a_push_wakes_the_consumer() {
    Model::new("a_push_wakes_the_consumer").preemptions(3).check(|| {
        let drops = Drops::new();
        let (ring, mut consumer) = ring(1, 2, 2, &Budget::new(0));
        let sleeper = Sleeper::current();
        let probes = [drops.probe(), drops.probe()];
        let producer = spawn(move || {
            for probe in probes {
                if ring.push(probe, 0) {
                    sleeper.wake();
                }
            }
        });
        let mut got = 0;
        while got < 2 {
            match consumer.pop() {
                Some(_) => got += 1,
                None => doze(&mut consumer, || false),
            }
        }
        producer.join().unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: of two producers that find the consumer asleep one wakes it, and both entries come.
/// Mutation: `push` not taking the mark.
#[test]
fn one_of_two_pushes_wakes() {
    Model::new("one_of_two_pushes_wakes").check(|| {
        let drops = Drops::new();
        let (ring, mut consumer) = ring(1, 2, 2, &Budget::new(0));
        let sleeper = Sleeper::current();
        let producers: Vec<_> = (0..2)
            .map(|number| {
                let (ring, sleeper, probe) = (ring.clone(), sleeper.clone(), drops.probe());
                spawn(move || {
                    if ring.push(probe, number) {
                        sleeper.wake();
                    }
                })
            })
            .collect();
        let mut got = 0;
        while got < 2 {
            match consumer.pop() {
                Some(_) => got += 1,
                None => doze(&mut consumer, || false),
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: work that is announced beside the ring (a control entry on the stack) is either seen by the look
/// after marking, or its maker sees the mark and wakes.
/// Mutations: `try_mark_asleep` Relaxed; `take_sleep_mark` Relaxed.
#[test]
fn no_wake_up_is_lost() {
    Model::new("no_wake_up_is_lost").preemptions(3).check(|| {
        let (ring, mut consumer) = ring::<()>(1, 2, 2, &Budget::new(0));
        let controls = Arc::new(Stack::new());
        let sleeper = Sleeper::current();
        let control = {
            let (ring, controls) = (ring.clone(), Arc::clone(&controls));
            spawn(move || {
                controls.push(5).unwrap();
                if ring.take_sleep_mark() {
                    sleeper.wake();
                }
            })
        };
        while !controls.is_marked() {
            doze(&mut consumer, || controls.is_marked());
        }
        assert_eq!(controls.take(), [5]);
        control.join().unwrap();
    });
}
