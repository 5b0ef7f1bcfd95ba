//! The ring: push, pop, growth, recycling, the full mark.
#![cfg(loom)]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use loom_tests::{Drops, Model, Probe, spawn};
use stasis_bus::model::{Budget, Consumer, ring};
use std::sync::Arc;

/// Pops the next entry, waiting for it.
fn next(consumer: &mut Consumer<Probe>) -> usize {
    loop {
        if let Some(item) = consumer.pop() {
            return item.1;
        }
        thread::yield_now();
    }
}

/// Promise: a slot's two words and what they point to are complete when the consumer sees them.
/// Mutations: store of `first` in `put` Relaxed; load of `first` in `take` Relaxed.
#[test]
fn an_entry_is_seen_whole() {
    Model::new("an_entry_is_seen_whole").preemptions(3).check(|| {
        let drops = Drops::new();
        let (ring, mut consumer) = ring(1, 2, 2, &Budget::new(0));
        let probe = drops.probe();
        let producer = spawn(move || ring.push(probe, 7));
        assert_eq!(next(&mut consumer), 7);
        assert_eq!(drops.count(), 1);
        assert!(consumer.pop().is_none());
        assert!(!producer.join().unwrap(), "nobody sleeps");
    });
}

/// Promise: if one push returned before another began, on one thread or by way of another word, it comes out
/// first; none is lost, none comes twice.
/// Mutation: `claim` as a load and a store.
#[test]
fn a_push_that_returned_first_comes_out_first() {
    Model::new("a_push_that_returned_first_comes_out_first").check(|| {
        let drops = Drops::new();
        let (ring, mut consumer) = ring(1, 2, 2, &Budget::new(0));
        let said = Arc::new(AtomicBool::new(false));
        let (one, two) = (drops.probe(), drops.probe());
        let first = {
            let (ring, said) = (ring.clone(), Arc::clone(&said));
            spawn(move || {
                ring.push(one, 1);
                said.store(true, Ordering::Release);
                ring.push(two, 2);
            })
        };
        let three = drops.probe();
        let second = spawn(move || {
            let after = said.load(Ordering::Acquire);
            ring.push(three, 3);
            after
        });
        let got = [next(&mut consumer), next(&mut consumer), next(&mut consumer)];
        first.join().unwrap();
        let after = second.join().unwrap();
        let at = |number| got.iter().position(|&other| other == number).expect("not lost");
        assert!(at(1) < at(2), "{got:?}");
        assert!(!after || at(1) < at(3), "{got:?}");
        assert!(consumer.pop().is_none());
        assert_eq!(drops.count(), 3);
    });
}

/// Promise: segments are read to their end, cleared and granted again while producers push; nothing is lost
/// or doubled over more than a lap of the directory.
/// Mutations: `limit` loaded Relaxed; `advance` Relaxed; the emptied cell not stored; `clear` left out.
#[test]
fn segments_are_used_again() {
    Model::new("segments_are_used_again").check(|| {
        let drops = Drops::new();
        // One slot a segment: every pop leaves one, every push needs one.
        let (ring, mut consumer) = ring(0, 2, 2, &Budget::new(0));
        let probes: Vec<_> = (0..5).map(|_| drops.probe()).collect();
        let producer = spawn(move || {
            for (number, probe) in probes.into_iter().enumerate() {
                ring.push(probe, number);
            }
        });
        for number in 0..5 {
            assert_eq!(next(&mut consumer), number);
        }
        producer.join().unwrap();
        assert!(consumer.pop().is_none());
        assert_eq!(drops.count(), 5);
    });
}

/// Promise: producers that run out of granted positions grow the ring together, each entry finds its place,
/// and what was taken from the budget is given back.
/// Mutations: the exchange in `install` as a store; `advance` before the segment is placed.
#[test]
fn two_producers_grow_at_once() {
    Model::new("two_producers_grow_at_once").check(|| {
        let drops = Drops::new();
        let budget = Budget::new(0);
        let (ring, mut consumer) = ring(0, 3, 2, &budget);
        let before = budget.used();
        for number in 0..2 {
            ring.push(drops.probe(), number);
        }
        let producers: Vec<_> = (0..2)
            .map(|at| {
                let (ring, probe) = (ring.clone(), drops.probe());
                spawn(move || ring.push(probe, 10 + at))
            })
            .collect();
        let mut got = vec![next(&mut consumer)];
        for producer in producers {
            producer.join().unwrap();
        }
        got.extend((1..4).map(|_| next(&mut consumer)));
        got.sort_unstable();
        assert_eq!(got, [0, 1, 10, 11]);
        assert_eq!(drops.count(), 4);
        assert!(consumer.pop().is_none());
        // Everything was read: what is beyond the base goes with the next segments that are left.
        for number in 0..4 {
            ring.push(drops.probe(), number);
            assert_eq!(next(&mut consumer), number);
        }
        assert!(budget.used() <= before + before / 2, "{} of {before}", budget.used());
        drop((ring, consumer));
        assert_eq!(budget.used(), 0);
    });
}

/// Promise: entries that nobody read are dropped with the ring, once.
/// Mutation: `Segments::drop` starting one too late.
#[test]
fn unread_entries_are_dropped_once() {
    Model::new("unread_entries_are_dropped_once").preemptions(3).check(|| {
        let drops = Drops::new();
        let budget = Budget::new(0);
        let (ring, mut consumer) = ring(1, 2, 2, &budget);
        let probes = [drops.probe(), drops.probe(), drops.probe()];
        let producer = {
            let ring = ring.clone();
            spawn(move || {
                for probe in probes {
                    ring.push(probe, 0);
                }
            })
        };
        let _ = consumer.pop();
        drop(consumer);
        producer.join().unwrap();
        // Last here: loom does not see what `Arc` synchronises.
        drop(ring);
        assert_eq!((drops.count(), budget.used()), (3, 0));
    });
}

/// Promise: the full mark does not stay when there is room again: either the producer that sets it sees the
/// room, or the consumer that makes it sees the mark.
/// Mutations: fence in `keep_room` left out; fence in `pop` left out.
#[test]
fn full_does_not_stay() {
    Model::new("full_does_not_stay").preemptions(3).check(|| {
        let drops = Drops::new();
        let (ring, mut consumer) = ring(0, 2, 2, &Budget::new(0));
        ring.push(drops.probe(), 0);
        let producer = {
            let (ring, probe) = (ring.clone(), drops.probe());
            spawn(move || ring.push(probe, 1))
        };
        assert_eq!(next(&mut consumer), 0);
        producer.join().unwrap();
        assert!(!ring.is_full(), "one entry waits, and a segment is free");
        drop(consumer);
    });
}
