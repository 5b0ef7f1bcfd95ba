//! Taking a lane over from a thread that is in a handler: order, exactly once, one at a time.
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
        // A place where the other thread may come in.
        loom::thread::yield_now();
        inside.set(inside.get() + 1);
        let number = if is_final { 99 } else { *message.payload::<usize>().unwrap() };
        log.lock().unwrap().push(number);
    }
}

/// Promises G2, G3, G4, G5 over a take-over: whenever it comes, before, in or after a call, each of two
/// members gets both messages in order and the final one last, and no handler is entered twice.
/// Mutations: `leave` or `take` without its fence; `is_lost` not waiting for the verdict; `take` not comparing
/// what runs; the rest of the walk not taken over; a final message not diverted.
#[test]
fn a_lane_is_taken_over_whenever_it_may_be() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    static LEFT: AtomicUsize = AtomicUsize::new(0);
    Model::new("a_lane_is_taken_over_whenever_it_may_be").check(|| {
        let logs = [Log::default(), Log::default()];
        let (lane, end) = lane();
        let members = [lane.listener(writer(&logs[0])), lane.listener(writer(&logs[1]))];
        let part = lane.part(&members);
        let kind = message_type::<usize>("n");
        part.push(kind.message(1));
        part.push(kind.message(2));
        for member in &members {
            assert!(lane.finish(member, kind.message(0)));
        }
        assert!(lane.stop());
        let worker = end.worker(&Reclaimer::new());
        let thread = {
            let worker = worker.clone();
            spawn(move || worker.run())
        };
        let next = worker.take_over();
        let taken = next.is_some();
        if let Some(next) = next {
            assert!(!next.run(), "nobody takes it from the new worker");
        }
        assert_eq!(thread.join().unwrap(), taken, "the worker knows whether it has lost the lane");
        for log in &logs {
            assert_eq!(log.lock().unwrap().clone(), [1, 2, 99]);
        }
        if taken { &TAKEN } else { &LEFT }.fetch_add(1, Ordering::Relaxed);
    });
    assert!(TAKEN.load(Ordering::Relaxed) > 0 && LEFT.load(Ordering::Relaxed) > 0);
}

/// Promise G5 and G3: what comes while the member is away goes to its mailbox, what comes after it is back over
/// the lane, in order; a notice says that all before it was served.
/// Mutations: `take_back` forgetting a mailbox that is open; a closed mailbox that takes pushes; the stuck member
/// not put away.
#[test]
fn a_member_comes_back_in_order() {
    Model::new("a_member_comes_back_in_order").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let member = lane.listener(writer(&log));
        let part = lane.part(std::slice::from_ref(&member));
        let kind = message_type::<usize>("n");
        part.push(kind.message(1));
        let worker = end.worker(&Reclaimer::new());
        let thread = {
            let worker = worker.clone();
            spawn(move || worker.run())
        };
        let next = worker.take_over();
        part.push(kind.message(2));
        let served = Completion::new();
        lane.notify(&member, &served);
        part.push(kind.message(3));
        assert!(lane.stop());
        if let Some(next) = next {
            assert!(!next.run());
        }
        thread.join().unwrap();
        assert!(served.is_done());
        assert_eq!(log.lock().unwrap().clone(), [1, 2, 3]);
    });
}

/// Who looks at a worker sees it in a call whose message is there, or nothing. What the worker serves is not disturbed:
/// neither the rest of the walk, for which a second member is there, nor the messages after it, nor a take-over right
/// after the look, if there is one.
fn looked_at(name: &'static str, is_taken_over: bool) {
    let counts = Arc::new([const { AtomicUsize::new(0) }; 4]);
    let [seen, missed, taken, left] = [0, 1, 2, 3];
    let count = Arc::clone(&counts);
    Model::new(name).check(move || {
        let logs = [Log::default(), Log::default()];
        let (lane, end) = lane();
        let members = [lane.listener(writer(&logs[0])), lane.listener(writer(&logs[1]))];
        let part = lane.part(&members);
        let kind = message_type::<usize>("n");
        part.push(kind.message(1));
        part.push(kind.message(2));
        assert!(lane.stop());
        let worker = end.worker(&Reclaimer::new());
        let thread = {
            let worker = worker.clone();
            spawn(move || worker.run())
        };
        let look = worker.peek();
        if let Some(name) = &look {
            assert_eq!(name.as_deref(), Some("n"));
        }
        let next = is_taken_over.then(|| worker.take_over()).flatten();
        let is_lost = next.is_some();
        if let Some(next) = next {
            assert!(!next.run(), "nobody takes it from the new worker");
        }
        assert_eq!(thread.join().unwrap(), is_lost, "the worker knows whether it has lost the lane");
        for log in &logs {
            assert_eq!(log.lock().unwrap().clone(), [1, 2]);
        }
        count[if look.is_some() { seen } else { missed }].fetch_add(1, Ordering::Relaxed);
        if look.is_some() {
            count[if is_lost { taken } else { left }].fetch_add(1, Ordering::Relaxed);
        }
    });
    let count = |at: usize| counts[at].load(Ordering::Relaxed);
    assert!(count(seen) > 0 && count(missed) > 0 && count(left) > 0);
    assert_eq!(count(taken) > 0, is_taken_over, "of those that were looked at");
}

/// Mutation: the sign of a look taken for a loss. (Its fence left out, not comparing what runs, and `leave` not waiting
/// for who looks, are not noticed here, since what is looked at is no object of loom's; the code is that of `take`,
/// where `a_lane_is_taken_over_whenever_it_may_be` notices all three.)
#[test]
fn a_worker_that_is_looked_at_goes_on() {
    looked_at("a_worker_that_is_looked_at_goes_on", false);
}

/// Mutation: the sign of a loss taken off with that of a look.
#[test]
fn a_worker_is_taken_over_after_a_look() {
    looked_at("a_worker_is_taken_over_after_a_look", true);
}
