//! Conformance: serializers on lanes and shutdown groups (threadpool.h, taskpool.h).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Drops, Gate, OpenAtEnd, PATIENCE, bus, eventually, lock, must_end};
use stasis_bus::taskprocessor::{
    CreateError, EndError, PushError, PushWaitError, Serializer, Serializers, ShutdownGroup, TaskPool, Taskprocessors,
};
use stasis_bus::{Bus, Home};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

fn serializers(bus: &Bus) -> (Serializers, Taskprocessors) {
    let registry = Taskprocessors::new();
    (Serializers::new(bus, &registry).unwrap(), registry)
}

fn at(makes: &Serializers, name: &str, lane: usize) -> Serializer {
    makes.serializer_at(name, Home::Lane(lane), None).unwrap()
}

#[test]
fn serializers_share_lanes_and_keep_their_order() {
    let bus = bus(2);
    let (makes, registry) = serializers(&bus);
    let all: Vec<_> = (0..50).map(|_| makes.serializer(registry.sequence_name("call")).unwrap()).collect();
    let logs: Vec<_> = (0..50).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
    for n in 0..40_u32 {
        for (serializer, log) in all.iter().zip(&logs) {
            let log = Arc::clone(log);
            serializer.push(move || log.try_lock().expect("one at a time").push(n)).unwrap();
        }
    }
    for (serializer, log) in all.iter().zip(&logs) {
        assert_eq!(
            serializer.push_wait(|| Serializer::current().unwrap().name().to_owned()).unwrap(),
            serializer.name()
        );
        assert!(lock(log).iter().copied().eq(0..40));
        let stats = serializer.stats();
        assert_eq!((stats.processed, stats.panics, stats.in_queue), (41, 0, 0));
        assert!(!serializer.is_task() && serializer.size() == 0);
    }
    assert_eq!(registry.list().len(), 50);
    assert!(Serializer::current().is_none());
}

#[test]
fn names_are_shared_with_the_registry() {
    let bus = bus(1);
    let (makes, registry) = serializers(&bus);
    let one = makes.serializer("X").unwrap();
    assert!(matches!(makes.serializer("x"), Err(CreateError::NameTaken(_))));
    assert!(matches!(registry.get("x"), Err(CreateError::NameTaken(_))));
    assert!(matches!(makes.serializer(""), Err(CreateError::NoName)));
    assert!(matches!(makes.serializer_at("y", Home::Lane(7), None), Err(CreateError::Unserved(_))));
    drop(one);
    assert!(makes.serializer("x").is_ok());
}

#[test]
fn g07_waiting_inside_tasks_comes_out_or_is_an_error() {
    must_end(|| {
        let bus = bus(2);
        let (makes, _) = serializers(&bus);
        for lanes in [(0, 0), (0, 1)] {
            let (a, b) = (at(&makes, "a", lanes.0), at(&makes, "b", lanes.1));
            let (own, other) = (a.clone(), b.clone());
            let outcome = a.push_wait(move || {
                let refused = own.push_wait(|| 9);
                let own_task = matches!(refused, Err(PushWaitError::OwnTask(f)) if f() == 9);
                let back = own.clone();
                // Run on top of the one that waits, or on the other lane.
                let refused = |error| matches!(error, PushWaitError::OwnTask(_) | PushWaitError::Circular(_));
                let circle = other.push_wait(move || back.push_wait(|| ()).is_err_and(refused));
                (own_task, circle.unwrap(), own.is_task())
            });
            assert_eq!(outcome.unwrap(), (true, true, true), "{lanes:?}");
            assert_eq!((a.size(), b.size()), (0, 0), "nothing is left behind");
        }
    });
}

#[test]
fn g12_a_panicking_task_is_counted() {
    let bus = bus(1);
    let (makes, _) = serializers(&bus);
    let one = makes.serializer("p").unwrap();
    one.push(|| resume_unwind(Box::new("bang"))).unwrap();
    assert!(matches!(one.push_wait(|| -> u8 { resume_unwind(Box::new("bang")) }), Err(PushWaitError::Panicked)));
    assert_eq!(one.push_wait(|| 1).unwrap(), 1);
    assert_eq!((one.stats().panics, one.stats().processed, bus.stats().panics), (2, 3, 0));
}

#[test]
fn a_full_bus_hands_the_task_back_and_everything_accepted_is_run() {
    let bus = Bus::builder().lanes(1).ring_capacity(1024).memory_budget(32 << 10).build().unwrap();
    let (makes, registry) = serializers(&bus);
    let one = makes.serializer("sip/full").unwrap();
    let (gate, drops) = (Gate::new(), Drops::new());
    let _open = OpenAtEnd(gate.clone());
    let held = gate.clone();
    one.push(move || held.pass()).unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut accepted = 0;
    let refused = loop {
        let (ran, token) = (Arc::clone(&ran), drops.token());
        match one.push(move || {
            let _token = token;
            ran.fetch_add(1, Ordering::SeqCst);
        }) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1 << 20, "it is never full");
    };
    assert!(matches!(refused, PushError::Full(_)) && registry.subsystem_alerts("sip") == 1);
    assert_eq!(format!("{refused:?}"), "Full(..)");
    assert!(matches!(one.push_wait(|| ()), Err(PushWaitError::Full(_))));
    gate.open();
    eventually("all accepted are run", || ran.load(Ordering::SeqCst) == accepted);
    eventually("it is empty", || one.size() == 0 && registry.alerts() == 0);
    one.push_task(refused.into_task()).unwrap();
    eventually("the refused one, too", || ran.load(Ordering::SeqCst) == accepted + 1);
    drops.await_all_gone("captures");
}

#[test]
fn dropping_the_last_handle_runs_what_was_pushed() {
    let bus = bus(1);
    let (makes, registry) = serializers(&bus);
    let (gate, ran) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let _open = OpenAtEnd(gate.clone());
    let one = makes.serializer("end").unwrap();
    let (held, own) = (gate.clone(), one.clone());
    one.push(move || {
        held.pass();
        drop(own); // the last one
        assert!(Serializer::current().is_none());
    })
    .unwrap();
    for _ in 0..10 {
        let ran = Arc::clone(&ran);
        one.push(move || {
            ran.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    }
    let end = one.release();
    gate.open();
    end.wait_timeout(PATIENCE).unwrap();
    assert_eq!((ran.load(Ordering::SeqCst), registry.list().len(), bus.stats().subscriptions), (10, 0, 0));
}

#[test]
fn a_shut_down_bus_hands_tasks_back() {
    let bus = bus(1);
    let (makes, _) = serializers(&bus);
    let one = makes.serializer("x").unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    one.push(move || {
        count.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    bus.shutdown(PATIENCE).unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 1, "what was accepted is run");
    assert!(one.push(|| ()).unwrap_err().is_ended());
    assert!(matches!(one.push_wait(|| ()), Err(PushWaitError::Ended(_))));
    assert!(matches!(makes.serializer("y"), Err(CreateError::Unserved(_))));
    assert_eq!(one.size(), 0);
}

#[test]
fn g03_a_shutdown_among_pushes_loses_no_accepted_task() {
    for _ in 0..20 {
        let bus = bus(2);
        let (makes, _) = serializers(&bus);
        let ran = Arc::new(AtomicUsize::new(0));
        let drops = Drops::new();
        let pushers: Vec<_> = (0..3)
            .map(|n| {
                let (one, ran, drops) = (makes.serializer(format!("s{n}")).unwrap(), Arc::clone(&ran), drops.clone());
                thread::spawn(move || {
                    let push = |_: &usize| {
                        let (ran, token) = (Arc::clone(&ran), drops.token());
                        one.push(move || {
                            let _token = token;
                            ran.fetch_add(1, Ordering::SeqCst);
                        })
                        .is_ok()
                    };
                    (0..200).filter(push).count()
                })
            })
            .collect();
        bus.shutdown(PATIENCE).unwrap();
        let accepted: usize = pushers.into_iter().map(|pusher| pusher.join().unwrap()).sum();
        eventually("accepted tasks are run", || ran.load(Ordering::SeqCst) == accepted);
        drops.await_all_gone("captures");
    }
}

#[test]
fn a_group_waits_for_its_members_and_names_who_is_left() {
    let bus = bus(2);
    let (makes, _) = serializers(&bus);
    let pool = TaskPool::builder("p").build().unwrap();
    let group = ShutdownGroup::new();
    group.join(Duration::ZERO).unwrap();
    assert!(group.is_empty());
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let lane = makes.serializer_in("lane", &group).unwrap();
    let blocked = pool.serializer_in("blocked", &group).unwrap();
    let quick = pool.serializer_in("quick", &group).unwrap();
    assert_eq!((group.len(), group.names()), (3, vec!["lane".to_owned(), "blocked".to_owned(), "quick".to_owned()]));
    let held = gate.clone();
    blocked.push(move || held.pass()).unwrap();
    assert_eq!(group.join(Duration::ZERO).unwrap_err().unfinished().len(), 3, "nobody has let go");
    drop((lane, blocked, quick));
    eventually("the others end", || group.names() == ["blocked"]);
    let error = group.join(Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.to_string(), "the deadline passed before all had ended: 'blocked'");
    gate.open();
    group.join(PATIENCE).unwrap();
    assert_eq!(group.len(), 0);
}

#[test]
fn g07_joining_the_group_from_a_member_is_an_error() {
    must_end(|| {
        let bus = bus(1);
        let (makes, _) = serializers(&bus);
        let group = ShutdownGroup::new();
        let pool = TaskPool::builder("p").build().unwrap();
        let (inside, also) = (group.clone(), group.clone());
        let lane = makes.serializer_in("lane", &group).unwrap();
        assert_eq!(lane.push_wait(move || inside.join(Duration::MAX)).unwrap(), Err(EndError::OwnTask));
        let pooled = pool.serializer_in("pooled", &group).unwrap();
        assert_eq!(pooled.push_wait(move || also.join(Duration::MAX)).unwrap(), Err(EndError::OwnTask));
    });
}

#[test]
fn a_member_that_could_not_be_made_is_no_member() {
    let bus = bus(1);
    let (makes, _) = serializers(&bus);
    let group = ShutdownGroup::new();
    let _one = makes.serializer("x").unwrap();
    assert!(makes.serializer_in("x", &group).is_err() && makes.serializer_in("", &group).is_err());
    let pool = TaskPool::builder("p").build().unwrap();
    pool.shutdown(PATIENCE).unwrap();
    assert!(pool.serializer_in("y", &group).is_err());
    bus.shutdown(PATIENCE).unwrap();
    assert!(makes.serializer_in("z", &group).is_err());
    group.join(PATIENCE).unwrap();
}
