//! A lane and its worker: order, control entries at their place, sleeping, stopping.
#![cfg(loom)]

use loom_tests::{Drops, Model, spawn};
use stasis_bus::model::{Completion, Reclaimer, lane, message_type};
use std::sync::{Arc, Mutex};

type Log = Arc<Mutex<Vec<usize>>>;

fn writer(log: &Log) -> impl FnMut(&stasis_bus::Message, bool) + Send + 'static + use<> {
    let (log, inside) = (Arc::clone(log), loom::cell::Cell::new(0));
    move |message, is_final| {
        inside.set(inside.get() + 1);
        let number = if is_final { 99 } else { *message.payload::<usize>().unwrap() };
        log.lock().unwrap().push(number);
    }
}

/// Promise: pushes and a stop wake the worker wherever it is on its way to sleep (else: deadlock), and all
/// that was pushed before the stop is served before it, in order.
/// Mutations: `doze` not looking at the controls; `control` not taking the mark.
#[test]
fn a_worker_wakes_and_stops_behind_its_work() {
    Model::new("a_worker_wakes_and_stops_behind_its_work").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let part = lane.part(&[lane.listener(writer(&log))]);
        let kind = message_type::<usize>("n");
        let worker = spawn(move || end.run(&Reclaimer::new()));
        part.push(kind.message(1));
        part.push(kind.message(2));
        assert!(lane.stop());
        worker.join().unwrap();
        assert_eq!(log.lock().unwrap().clone(), [1, 2]);
        assert!(!lane.stop(), "an ended lane hands control entries back");
    });
}

/// Promise G11: a stopped lane ends when its last member has ended, which may have been served elsewhere (take-over).
/// Mutations: `doze` not looking at the members; `member_left` waking nobody.
#[test]
fn a_stopped_lane_ends_with_its_last_member() {
    Model::new("a_stopped_lane_ends_with_its_last_member").check(|| {
        let (lane, end) = lane();
        lane.member_joins();
        let worker = spawn(move || end.run(&Reclaimer::new()));
        assert!(lane.stop());
        lane.member_left();
        worker.join().unwrap();
    });
}

/// Promise G5: the final message comes behind everything published before it and is the last; a racing
/// publish comes before it or is late; the handler is dropped once.
/// Mutation: control entries at position zero.
#[test]
fn the_final_message_is_last() {
    Model::new("the_final_message_is_last").check(|| {
        let (log, drops) = (Log::default(), Drops::new());
        let (lane, end) = lane();
        let listener = {
            let (mut write, probe) = (writer(&log), drops.probe());
            lane.listener(move |message, is_final| {
                let _ = &probe;
                write(message, is_final);
            })
        };
        let part = lane.part(std::slice::from_ref(&listener));
        let kind = message_type::<usize>("n");
        let racing = {
            let (part, message) = (part.clone(), kind.message(5));
            spawn(move || part.push(message))
        };
        let worker = spawn(move || end.run(&Reclaimer::new()));
        part.push(kind.message(1));
        assert!(lane.finish(&listener, kind.message(0)));
        racing.join().unwrap();
        drop(part);
        assert!(lane.stop());
        worker.join().unwrap();
        let log = log.lock().unwrap();
        assert_eq!(log.last(), Some(&99), "{log:?}");
        assert_eq!(log.iter().filter(|&&n| n == 1).count(), 1);
        assert_eq!((log.len() as u64 + listener.late(), drops.count()), (3, 1));
    });
}

/// Promise: a notice says that everything before it was served; one that comes to a lane that ends is served
/// or handed back, never lost.
/// Mutations: the worker not closing its stack; closing it and dropping what it gives.
#[test]
fn a_notice_is_never_lost() {
    Model::new("a_notice_is_never_lost").check(|| {
        let log = Log::default();
        let (lane, end) = lane();
        let listener = lane.listener(writer(&log));
        let part = lane.part(std::slice::from_ref(&listener));
        let kind = message_type::<usize>("n");
        let worker = spawn(move || end.run(&Reclaimer::new()));
        let stopper = {
            let lane = lane.clone();
            spawn(move || lane.stop())
        };
        let served = Completion::new();
        lane.notify(&listener, &served);
        served.wait();
        assert!(stopper.join().unwrap());
        // Not beside the stopper: a node at the address of one that was freed would make the next execution another one.
        drop(part);
        worker.join().unwrap();
        drop(kind);
    });
}
