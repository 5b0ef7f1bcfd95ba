//! Retiring a lane's part of a snapshot in two steps.
#![cfg(loom)]

use loom::cell::Cell;
use loom_tests::{Drops, Model, Probe, spawn};
use stasis_bus::model::{Part, Reclaimer, SnapshotCell, lane, message_type, pin};
use std::sync::{Arc, Mutex};

type Log = Arc<Mutex<Vec<usize>>>;

/// A handler that writes down what it gets (99: the final message) and is not called twice at once.
fn writer(log: &Log, probe: Probe) -> impl FnMut(&stasis_bus::Message, bool) + Send + 'static + use<> {
    let (log, inside) = (Arc::clone(log), Cell::new(0));
    move |message, is_final| {
        let _ = &probe;
        inside.set(inside.get() + 1);
        let number = if is_final { 99 } else { message.payload::<usize>().copied().unwrap_or(7) };
        log.lock().unwrap().push(number);
    }
}

/// Promise: snapshot swap versus publish. A publisher pushes through the list it found while control swaps it
/// and lets it go; the retiring stands behind what was pushed, and the members go when the lane has passed.
/// Mutation: the list dropped instead of retired.
#[test]
fn a_list_lives_until_its_lane_has_passed_it() {
    Model::new("a_list_lives_until_its_lane_has_passed_it").check(|| swap_against_publish(false));
}

/// The same with the lane's worker running meanwhile.
/// Mutation: the list dropped instead of retired.
#[test]
fn a_list_lives_while_its_lane_runs() {
    Model::new("a_list_lives_while_its_lane_runs").check(|| swap_against_publish(true));
}

fn swap_against_publish(lane_runs: bool) {
    let (log, drops) = (Log::default(), Drops::new());
    let reclaimer = Reclaimer::new();
    let (lane, end) = lane();
    let listener = lane.listener(writer(&log, drops.probe()));
    let kind = message_type::<usize>("n");
    let cell = Arc::new(SnapshotCell::new(vec![lane.part(&[listener])]));
    let publisher = {
        let (cell, message) = (Arc::clone(&cell), kind.message(1));
        spawn(move || {
            let pin = pin();
            let pushed = cell.look(|parts: &Vec<Part>| parts.iter().map(|part| part.push(message.clone())).count());
            drop(pin);
            pushed
        })
    };
    let mut end = Some(end);
    let worker = lane_runs.then(|| end.take()).flatten().map(|end| spawn(move || end.run(&Reclaimer::new())));
    reclaimer.retire(cell.swap(Vec::new()));
    let pushed = publisher.join().unwrap();
    // Mostly enough, and without giving the worker a turn.
    (0..3).for_each(|_| reclaimer.tick());
    while reclaimer.is_pending() {
        reclaimer.tick();
        loom::thread::yield_now();
    }
    assert!(lane.stop());
    match worker {
        Some(worker) => worker.join().unwrap(),
        None => end.expect("kept").run(&reclaimer),
    }
    assert_eq!(log.lock().unwrap().len(), pushed);
    assert_eq!(drops.count(), 1, "the member went with its list");
}

/// Promise G2: what a handler publishes when it has got a message comes behind that message on every lane, also while
/// the publish of the message is still going on.
/// Mutation: each place filled as soon as it is taken.
#[test]
fn an_answer_comes_behind_its_question() {
    Model::new("an_answer_comes_behind_its_question").check(|| {
        let (log, drops) = (Log::default(), Drops::new());
        let ((asked, asked_end), (told, told_end)) = (lane(), lane());
        let witness = told.part(&[told.listener(writer(&log, drops.probe()))]);
        let kind = message_type::<usize>("n");
        let relay = asked.listener({
            let (witness, answer) = (witness.clone(), kind.message(2));
            move |_, is_final| {
                if !is_final {
                    witness.push(answer.clone());
                }
            }
        });
        let parts = [asked.part(&[relay]), witness];
        let worker = spawn(move || asked_end.run(&Reclaimer::new()));
        Part::push_each(&parts, kind.message(1));
        drop(parts);
        assert!(asked.stop());
        worker.join().unwrap();
        assert!(told.stop());
        told_end.run(&Reclaimer::new());
        assert_eq!(*log.lock().unwrap(), [1, 2]);
        assert_eq!(drops.count(), 1);
    });
}

/// Promise: the last of several parts retires the list, behind what was pushed through the others.
/// Mutations: `parts` counted down Relaxed; `Clone` not counting.
#[test]
fn the_last_part_retires() {
    Model::new("the_last_part_retires").check(|| {
        let (log, drops) = (Log::default(), Drops::new());
        let (lane, end) = lane();
        let listener = lane.listener(writer(&log, drops.probe()));
        let kind = message_type::<usize>("n");
        let part = lane.part(&[listener]);
        let other = {
            let (part, message) = (part.clone(), kind.message(1));
            spawn(move || {
                part.push(message);
                drop(part);
            })
        };
        let reclaimer = Reclaimer::new();
        let worker = {
            let reclaimer = reclaimer.clone();
            spawn(move || end.run(&reclaimer))
        };
        drop(part);
        // As soon as the lane has passed the list it may be dropped, by whoever comes.
        reclaimer.drop_ready();
        other.join().unwrap();
        assert!(lane.stop());
        worker.join().unwrap();
        assert_eq!((log.lock().unwrap().clone(), drops.count()), (vec![1], 1));
    });
}

/// Promises G2, G9: what must get through a full queue goes beside it at its place in the order, and its list lives
/// until it was served.
/// Mutations: placed in front of the queue; the queue not full while something is beside it (found by this model).
#[test]
fn what_goes_beside_a_full_queue_keeps_its_place() {
    Model::new("what_goes_beside_a_full_queue_keeps_its_place").preemptions(2).check(|| {
        loom::stop_exploring();
        let (log, drops) = (Log::default(), Drops::new());
        let (lane, end) = lane();
        let listener = lane.listener(writer(&log, drops.probe()));
        let kind = message_type::<usize>("n");
        let part = lane.part(&[listener]);
        let filled = (0..)
            .take_while(|&n| {
                !part.is_full() && {
                    part.push(kind.message(n));
                    true
                }
            })
            .count();
        let publisher = {
            let messages = [101, 102].map(|n| kind.message(n));
            spawn(move || messages.into_iter().all(|message| part.push_through(message)))
        };
        loom::explore();
        let worker = spawn(move || end.run(&Reclaimer::new()));
        assert!(publisher.join().unwrap());
        loom::stop_exploring();
        assert!(lane.stop());
        worker.join().unwrap();
        assert_eq!(log.lock().unwrap().clone(), (0..filled).chain([101, 102]).collect::<Vec<_>>());
        assert_eq!(drops.count(), 1, "the member went with its list");
    });
}

/// Promise G10: what a publisher in the middle pushes to a lane that has ended meanwhile goes when the grace period
/// is over, though the lane itself stays (somebody has a handle of its subscription).
/// Mutations: the queue not let go at the lane's end; emptied at once.
#[test]
fn an_ended_lane_keeps_no_message() {
    Model::new("an_ended_lane_keeps_no_message").check(|| {
        let (log, drops) = (Log::default(), Drops::new());
        let reclaimer = Reclaimer::new();
        let (lane, end) = lane();
        let listener = lane.listener(writer(&log, Drops::new().probe()));
        let late = message_type::<(usize, Probe)>("late");
        let kind = message_type::<usize>("n");
        let cell = Arc::new(SnapshotCell::new(vec![lane.part(std::slice::from_ref(&listener))]));
        let publisher = {
            let (cell, message) = (Arc::clone(&cell), late.message((1, drops.probe())));
            spawn(move || {
                let pin = pin();
                cell.look(|parts: &Vec<Part>| parts.iter().for_each(|part| part.push(message.clone())));
                drop(pin);
            })
        };
        reclaimer.retire(cell.swap(Vec::new()));
        assert!(lane.finish(&listener, kind.message(0)));
        assert!(lane.stop());
        end.run(&reclaimer);
        publisher.join().unwrap();
        while reclaimer.is_pending() {
            reclaimer.tick();
            loom::thread::yield_now();
        }
        assert_eq!(drops.count(), 1, "the message stays in the queue");
        drop(lane);
    });
}
