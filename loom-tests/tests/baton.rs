//! The baton, and inline delivery on it.
#![cfg(loom)]

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom_tests::{Drops, Model, spawn};
use stasis_bus::model::{Baton, Inline, message_type};
use std::sync::{Arc, Mutex};

/// Promise: one holder at a time; who announces work either does it or leaves it to the holder; none is left;
/// a holder sees what its predecessor did to the state (loom watches the cell).
/// Mutations: `announce` Relaxed; `done_one` Relaxed; `try_take` Relaxed; `done_one` never going on.
#[test]
fn one_at_a_time_and_nothing_left() {
    Model::new("one_at_a_time_and_nothing_left").preemptions(3).check(|| {
        let baton = Arc::new(Baton::new(0));
        let run = |baton: &Baton<usize>| {
            let mut holder = baton.announce();
            while let Some(mut right) = holder {
                right.with(|done| *done += 1);
                holder = right.done_one();
            }
        };
        let other = {
            let baton = Arc::clone(&baton);
            spawn(move || run(&baton))
        };
        let mut mine = 0;
        if let Some(mut right) = baton.try_take() {
            right.with(|done| *done += 1);
            mine = 1;
            let mut holder = right.done_one();
            while let Some(mut right) = holder {
                right.with(|done| *done += 1);
                holder = right.done_one();
            }
        }
        other.join().unwrap();
        let mut right = baton.try_take().expect("nobody has it");
        assert_eq!(right.with(|done| *done), 1 + mine);
        assert!(right.done_one().is_none());
    });
}

/// Promise: what was announced is visible to the holder that does it.
/// Mutations: Release of `announce` left out; Acquire of `done_one` left out.
#[test]
fn announced_work_is_seen() {
    Model::new("announced_work_is_seen").preemptions(3).check(|| {
        let baton = Arc::new(Baton::new(()));
        let queued = Arc::new(AtomicUsize::new(0));
        let serve = |queued: &AtomicUsize, mut holder: Option<stasis_bus::model::Holder<'_, ()>>| {
            while let Some(right) = holder {
                assert!(queued.load(Ordering::Relaxed) > 0, "announced, so it is there");
                queued.fetch_sub(1, Ordering::Relaxed);
                holder = right.done_one();
            }
        };
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (baton, queued) = (Arc::clone(&baton), Arc::clone(&queued));
                spawn(move || {
                    queued.fetch_add(1, Ordering::Relaxed);
                    serve(&queued, baton.announce());
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(queued.load(Ordering::Relaxed), 0);
    });
}

/// What an inline subscription saw: payloads, and 99 for the final message.
type Log = Arc<Mutex<Vec<usize>>>;

fn listener(log: &Log) -> Inline {
    let log = Arc::clone(log);
    // Read and written in two steps: two threads in it at once would lose an entry, and loom would
    // say that the accesses are not ordered.
    let inside = loom::cell::Cell::new(0);
    Inline::new(move |message, is_final| {
        inside.set(inside.get() + 1);
        let number = if is_final { 99 } else { *message.payload::<usize>().unwrap() };
        log.lock().unwrap().push(number);
    })
}

/// Promises G2, G3, G4 for inline delivery: two publishers, each in its order, each message once, one call at
/// a time.
/// Mutation: `try_take` giving the baton to everyone.
#[test]
fn inline_messages_come_once_and_in_order() {
    Model::new("inline_messages_come_once_and_in_order").check(|| {
        let log = Log::default();
        let inline = listener(&log);
        let kind = message_type::<usize>("n");
        let other = {
            let (inline, first, second) = (inline.clone(), kind.message(1), kind.message(2));
            spawn(move || {
                inline.deliver(&first);
                inline.deliver(&second);
            })
        };
        inline.deliver(&kind.message(11));
        inline.deliver(&kind.message(12));
        other.join().unwrap();
        let log = log.lock().unwrap();
        let of = |from: usize| log.iter().copied().filter(|n| n / 10 == from).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), log.len()), (vec![1, 2], vec![11, 12], 4), "{log:?}");
    });
}

/// Promise G2, for a handler that publishes to itself while another publisher is between queueing and
/// announcing: what it publishes when it is back comes after that.
/// Mutation: calling directly although something waits.
#[test]
fn a_nested_message_is_not_overtaken() {
    Model::new("a_nested_message_is_not_overtaken").check(|| {
        let log = Log::default();
        let slot: Arc<Mutex<Option<Inline>>> = Arc::default();
        let kind = message_type::<usize>("n");
        let (main, here) = (loom::thread::current().id(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let inline = {
            let nested_here = Arc::clone(&here);
            let (log, slot, nested) = (Arc::clone(&log), Arc::clone(&slot), kind.message(2));
            Inline::new(move |message, _| {
                let number = *message.payload::<usize>().unwrap();
                log.lock().unwrap().push(number);
                if number == 1 {
                    let me = slot.lock().unwrap().clone().unwrap();
                    me.deliver(&nested);
                    nested_here.store(loom::thread::current().id() == main, Ordering::Relaxed);
                }
            })
        };
        *slot.lock().unwrap() = Some(inline.clone());
        let other = {
            let (inline, message) = (inline.clone(), kind.message(20));
            spawn(move || inline.deliver(&message))
        };
        inline.deliver(&kind.message(1));
        inline.deliver(&kind.message(3));
        other.join().unwrap();
        slot.lock().unwrap().take();
        let log = log.lock().unwrap();
        let mine: Vec<_> = log.iter().copied().filter(|&n| n < 10).collect();
        assert_eq!((mine.len(), log.len()), (3, 4), "{log:?}");
        if here.load(Ordering::Relaxed) {
            assert_eq!(mine, [1, 2, 3], "{log:?}");
        }
    });
}

/// Promise G5 inline: messages published before come, then the final one, then nothing; the racing one is
/// delivered before or counted as late; the handler is dropped once.
/// Mutations: `try_take` giving the baton to everyone; the final message served as an ordinary one.
#[test]
fn the_final_message_is_last() {
    Model::new("the_final_message_is_last").check(|| {
        let log = Log::default();
        let drops = Drops::new();
        let inline = {
            let (log, probe) = (Arc::clone(&log), drops.probe());
            Inline::new(move |message, is_final| {
                let _ = &probe;
                let number = if is_final { 99 } else { *message.payload::<usize>().unwrap() };
                log.lock().unwrap().push(number);
            })
        };
        let kind = message_type::<usize>("n");
        let racing = {
            let (inline, message) = (inline.clone(), kind.message(5));
            spawn(move || inline.deliver(&message))
        };
        inline.deliver(&kind.message(1));
        inline.finish(kind.message(0));
        racing.join().unwrap();
        let log = log.lock().unwrap();
        assert_eq!(log.iter().filter(|&&n| n == 1).count(), 1);
        assert_eq!(log.last(), Some(&99), "{log:?}");
        assert_eq!((log.len() as u64 + inline.late(), drops.count()), (3, 1));
    });
}
