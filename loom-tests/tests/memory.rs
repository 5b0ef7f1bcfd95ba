//! Message memory that goes back to its publisher.
#![cfg(loom)]

use loom::sync::atomic::{AtomicBool, Ordering};
use loom_tests::{Drops, Model, Watched, live_blocks, spawn};
use stasis_bus::model::{flush, gather_on_this_thread, message_type, span_of_two};
use std::sync::Arc;

/// Runs a model after which no block may be left.
fn check(name: &'static str, preemptions: usize, execution: impl Fn() + Send + Sync + 'static) {
    let before = live_blocks();
    Model::new(name).preemptions(preemptions).check(execution);
    assert_eq!(live_blocks() - before, 0, "message memory is left behind");
}

/// Says on one thread, and waits on another, that something has happened, without synchronising anything.
/// (Loom remembers one last access of each object, so it would not by itself try every order of loads.)
fn flag() -> (impl FnOnce() + Send, impl FnOnce()) {
    let flag = Arc::new(AtomicBool::new(false));
    let other = Arc::clone(&flag);
    let wait = move || {
        while !flag.load(Ordering::Relaxed) {
            loom::thread::yield_now();
        }
    };
    (move || other.store(true, Ordering::Relaxed), wait)
}

/// Promise (delicate point 10): a block that another thread hands over is used again by its publisher, only
/// after its last reference is gone; payloads are dropped once; the publisher's end leaves nothing.
/// Mutations: exchange in `hand_over` Relaxed; swap in `take_incoming` Relaxed.
#[test]
fn a_block_comes_back_to_its_publisher() {
    check("a_block_comes_back_to_its_publisher", 3, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let message = kind.message(drops.probe());
        let (gone, seen) = flag();
        let lane = spawn(move || {
            drop(message);
            gone();
        });
        seen();
        let again = kind.message(drops.probe());
        assert!(again.payload::<loom_tests::Probe>().is_some());
        drop(again);
        lane.join().unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: two references dropped at once: the last one, and only it, frees.
/// Mutation: `refs` counted down Relaxed.
#[test]
fn the_last_reference_frees() {
    check("the_last_reference_frees", 3, || two_references(false));
}

/// The same where one is gone before the other goes.
/// Mutation: `refs` loaded Relaxed in `drop`.
#[test]
fn the_sole_reference_frees() {
    check("the_sole_reference_frees", 3, || two_references(true));
}

fn two_references(one_after_the_other: bool) {
    let kind = message_type("n");
    let message = kind.message(Payload(Watched::new(0)));
    let other = message.clone();
    let (gone, seen) = flag();
    let reader = spawn(move || {
        assert_eq!(other.payload::<Payload>().unwrap().0.get(), 0);
        drop(other);
        gone();
    });
    if one_after_the_other {
        seen();
    }
    drop(message);
    reader.join().unwrap();
}

/// Writes when it is dropped: every read must come before.
struct Payload(Watched);

impl Drop for Payload {
    fn drop(&mut self) {
        self.0.set(1);
    }
}

/// Promise: the publisher ends while its blocks are on their way: handed over before it closes, they are
/// freed by it; after, by the lane, which frees the pool's shared part too; neither is done twice.
/// Mutations: closing without taking what was returned; CLOSED not looked for after a failed exchange; swap
/// to CLOSED Release only.
#[test]
fn a_publisher_that_ends_leaves_nothing() {
    check("a_publisher_that_ends_leaves_nothing", 3, || {
        let drops = Drops::new();
        let probes = [drops.probe(), drops.probe()];
        let kind = message_type("n");
        let (send, receive) = loom::sync::mpsc::channel();
        let publisher = {
            let kind = kind.clone();
            spawn(move || probes.into_iter().for_each(|probe| send.send(kind.message(probe)).unwrap()))
        };
        // The publisher may be anywhere from its first message to its end.
        drop(receive.recv().unwrap());
        drop(receive.recv().unwrap());
        publisher.join().unwrap();
        assert_eq!(drops.count(), 2);
    });
}

/// Promise: a lane gathers blocks and hands a batch over with one exchange, when it flushes or ends.
/// Mutation: `Outbox::drop` not flushing.
#[test]
fn a_batch_comes_back_whole() {
    check("a_batch_comes_back_whole", 3, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let messages = [kind.message(drops.probe()), kind.message(drops.probe()), kind.message(drops.probe())];
        let lane = spawn(move || {
            gather_on_this_thread();
            let [first, second, third] = messages;
            drop(first);
            drop(second);
            flush();
            drop(third);
        });
        drop(kind.message(drops.probe()));
        lane.join().unwrap();
        drop(kind.message(drops.probe()));
        assert_eq!(drops.count(), 5);
    });
}

/// Promise: blocks of one span given up at once by two threads: it is freed once, by the last, after the last uses of both.
/// Mutation: blocks counted down Relaxed.
#[test]
fn a_span_goes_with_its_last_block() {
    check("a_span_goes_with_its_last_block", 3, || {
        let [mine, other] = span_of_two();
        let uses = Arc::new([Watched::new(0), Watched::new(0)]);
        let give_up = |block: stasis_bus::model::Block, number: usize| {
            let uses = Arc::clone(&uses);
            move || {
                uses[number].set(1);
                let is_last = block.give_up();
                if is_last {
                    assert_eq!(uses.each_ref().map(Watched::get), [1, 1]);
                }
                is_last
            }
        };
        let thread = spawn(give_up(other, 1));
        let last = give_up(mine, 0)();
        assert!(thread.join().unwrap() != last);
    });
}

/// Promise: a message beyond those that a pool has memory for with care comes back to its publisher as well; if that ends
/// meanwhile, its end gives up what is left of the span, and whoever drops the message last gives up the rest.
/// Mutations: `Supply::drop` keeping what is left; blocks gathered for a span given up without counting.
#[test]
fn a_burst_leaves_nothing() {
    check("a_burst_leaves_nothing", 2, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let probes = [drops.probe(), drops.probe(), drops.probe(), drops.probe(), drops.probe()];
        let (send, receive) = loom::sync::mpsc::channel();
        let publisher = {
            let kind = kind.clone();
            spawn(move || {
                // In models a pool has three, and spans of two blocks beyond.
                let [first, second, third, beyond, last] = probes.map(|probe| kind.message(probe));
                send.send((beyond, last)).unwrap();
                drop((first, second, third));
            })
        };
        gather_on_this_thread();
        drop(receive.recv().unwrap());
        flush();
        publisher.join().unwrap();
        assert_eq!(drops.count(), 5);
    });
}

/// The same where a block of the span was never used.
#[test]
fn a_burst_that_ends_early_leaves_nothing() {
    check("a_burst_that_ends_early_leaves_nothing", 2, || {
        let drops = Drops::new();
        let kind = message_type("n");
        let probes = [drops.probe(), drops.probe(), drops.probe(), drops.probe()];
        let (send, receive) = loom::sync::mpsc::channel();
        let publisher = spawn(move || {
            let [first, second, third, beyond] = probes.map(|probe| kind.message(probe));
            send.send(beyond).unwrap();
            drop((first, second, third));
        });
        drop(receive.recv().unwrap());
        publisher.join().unwrap();
        assert_eq!(drops.count(), 4);
    });
}
