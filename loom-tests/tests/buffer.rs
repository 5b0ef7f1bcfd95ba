//! A member's own queue and the turns in which its lane serves it: no message without a turn, no two turns at a
//! time, over a take-over too.
#![cfg(loom)]

use loom_tests::{Model, spawn};
use stasis_bus::model::{Completion, Reclaimer, lane, message_type};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

type Log = Arc<Mutex<Vec<usize>>>;

/// Writes down the numbers; loom sees it if two threads are in it at a time.
fn writer(log: &Log) -> impl FnMut(&stasis_bus::Message, bool) + Send + 'static + use<> {
    let (log, inside) = (Arc::clone(log), loom::cell::Cell::new(0));
    move |message, is_final| {
        inside.set(inside.get() + 1);
        loom::thread::yield_now();
        inside.set(inside.get() + 1);
        log.lock().unwrap().push(if is_final { 99 } else { *message.payload::<usize>().unwrap() });
    }
}

/// Promises G2, G3, G5: two publishers and a lane that serves meanwhile. Whatever comes between the queue running
/// empty and the next push, each message is served or counted, the final one comes (a lost turn is a deadlock
/// here) and is the last, and a notice comes after what was pushed before it.
/// Mutations: the turn given up outside of the lock that found nothing; a push that finds a turn running not
/// leaving it anything to do (`goes_on` always false); `change` never asking for a turn again.
#[test]
fn a_push_always_finds_a_turn() {
    Model::new("a_push_always_finds_a_turn").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let member = lane.queued(2, writer(&log));
        let kind = message_type::<usize>("n");
        let server = spawn(move || end.run(&Reclaimer::new()));
        let publisher = {
            let (member, message) = (Arc::clone(&member), kind.message(5));
            spawn(move || member.push(message))
        };
        member.push(kind.message(1));
        let served = Completion::new();
        member.push_notice(&served);
        publisher.join().unwrap();
        member.push_final(kind.message(0));
        assert!(lane.stop());
        server.join().unwrap();
        assert!(served.is_done());
        let seen = log.lock().unwrap().clone();
        assert!(matches!(seen[..], [1, 5, 99] | [5, 1, 99]), "{seen:?}");
        assert_eq!(member.account(), [2, 2, 0, 0, 0]);
    });
}

/// Promises G3, G5: pushing against the final message: before it, or late and counted.
/// Mutation: `finish` not closing the store.
#[test]
fn a_push_against_the_final_message_is_served_or_late() {
    Model::new("a_push_against_the_final_message_is_served_or_late").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let member = lane.queued(1, writer(&log));
        let kind = message_type::<usize>("n");
        let server = spawn(move || end.run(&Reclaimer::new()));
        let publisher = {
            let (member, message) = (Arc::clone(&member), kind.message(5));
            spawn(move || member.push(message))
        };
        member.push_final(kind.message(0));
        publisher.join().unwrap();
        assert!(lane.stop());
        server.join().unwrap();
        let [accepted, handed, dropped, late, waiting] = member.account();
        assert_eq!((accepted, handed + dropped + late + waiting), (1, 1));
        let seen = log.lock().unwrap().clone();
        assert!(matches!((&seen[..], late), ([5, 99], 0) | ([99], 1)), "{seen:?} {late}");
    });
}

/// Promises G2, G3, G4, G5 over a take-over: whenever the lane is taken from the thread in the middle of a turn,
/// the turn goes on, here or in the mailbox, and no handler is entered twice.
/// Mutations: a turn that ends with the lane (lost); `serve_turn` not diverting.
#[test]
fn a_turn_survives_a_take_over() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    Model::new("a_turn_survives_a_take_over").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let member = lane.queued(4, writer(&log));
        let kind = message_type::<usize>("n");
        member.push(kind.message(1));
        member.push(kind.message(2));
        member.push_final(kind.message(0));
        assert!(lane.stop());
        let worker = end.worker(&Reclaimer::new());
        let thread = {
            let worker = worker.clone();
            spawn(move || worker.run())
        };
        let next = worker.take_over();
        let taken = next.is_some();
        let second = next.map(|next| spawn(move || next.run()));
        assert_eq!(thread.join().unwrap(), taken);
        // A lane that sleeps while its last member ends in a mailbox finds out when its nap ends; in a model no time
        // passes.
        let _ = lane.stop();
        if let Some(second) = second {
            assert!(!second.join().unwrap(), "nobody takes it from the new worker");
        }
        assert_eq!(log.lock().unwrap().clone(), [1, 2, 99]);
        assert_eq!(member.account(), [2, 2, 0, 0, 0]);
        if taken { &TAKEN } else { &LEFT }.fetch_add(1, Ordering::Relaxed);
    });
    assert!(TAKEN.load(Ordering::Relaxed) > 0 && LEFT.load(Ordering::Relaxed) > 0);
}
