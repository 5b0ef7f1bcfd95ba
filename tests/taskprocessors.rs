//! Conformance: taskprocessors, their registry, listeners, alerts (taskprocessor.h).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Counted, Drops, Gate, OpenAtEnd, PATIENCE, eventually, lock, must_end, next};
use proptest::prelude::*;
use stasis_bus::taskprocessor::{
    CreateError, EndError, Executed, Listener, LocalData, PushWaitError, Runner, Task, Taskprocessor, Taskprocessors,
};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

/// Runs nothing: the test calls `execute`.
struct Manual;

impl Listener for Manual {
    fn task_pushed(&self, _: &Runner, _: bool) {}
}

/// Waits until the task that told the test is over and counted.
fn settled(processor: &Taskprocessor) {
    eventually("its task is over", || processor.size() == 0 && !processor.is_executing());
}

fn manual(name: &str) -> Taskprocessor {
    Taskprocessors::new().create_with_listener(name, Manual).unwrap()
}

/// What a listener was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Start,
    Pushed(bool),
    Emptied,
    Shutdown,
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Scribe(Arc<Mutex<Vec<Told>>>);

impl Scribe {
    fn told(&self) -> Vec<Told> {
        std::mem::take(&mut lock(&self.0))
    }
    fn write(&self, told: Told) {
        lock(&self.0).push(told);
    }
}

impl Listener for Scribe {
    fn start(&self, runner: &Runner) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        assert!(!runner.name().is_empty());
        self.write(Told::Start);
        Ok(())
    }
    fn task_pushed(&self, _: &Runner, was_empty: bool) {
        self.write(Told::Pushed(was_empty));
    }
    fn emptied(&self, _: &Runner) {
        self.write(Told::Emptied);
    }
    fn shutdown(&self, _: &Runner) {
        self.write(Told::Shutdown);
    }
}

#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<u64>>>);

impl Order {
    fn task(&self, n: u64) -> impl FnOnce() + Send + 'static {
        let order = self.clone();
        move || lock(&order.0).push(n)
    }
    fn all(&self) -> Vec<u64> {
        lock(&self.0).clone()
    }
}

#[test]
fn get_makes_one_and_find_only_finds() {
    let processors = Taskprocessors::new();
    assert!(processors.find("cdr").is_none());
    let first = processors.get("cdr").unwrap();
    let again = processors.get("cdr").unwrap();
    first.set_local(7_u32);
    again.push_local(|local| assert_eq!(local.get::<u32>(), Some(&7))).unwrap();
    assert_eq!(again.push_wait(|| 1).unwrap(), 1);
    settled(&first);
    assert_eq!(first.stats().processed, 2, "one and the same");
    drop(first);
    assert!(processors.find("cdr").is_some());
    drop(again);
    assert!(processors.find("cdr").is_none(), "it goes with its last handle");
    assert_eq!(processors.get("cdr").unwrap().stats().processed, 0, "another one");
}

#[test]
fn names_are_the_same_in_any_case_and_kept_as_written() {
    let processors = Taskprocessors::new();
    let one = processors.get("PJSIP/Default").unwrap();
    assert_eq!(processors.find("pjsip/default").unwrap().name(), "PJSIP/Default");
    assert!(matches!(processors.create_with_listener("pjsip/DEFAULT", Manual), Err(CreateError::NameTaken(_))));
    assert!(matches!(processors.get(""), Err(CreateError::NoName)));
    assert_eq!(one.subsystem(), "PJSIP");
    assert!(Taskprocessors::new().find("PJSIP/Default").is_none(), "registries share nothing");
}

#[test]
fn sequence_names_count_up_in_hexadecimal() {
    let processors = Taskprocessors::new();
    assert_eq!(processors.sequence_name("stasis/p"), "stasis/p-00000001");
    assert_eq!(processors.next_sequence(), 2);
    (3..=15).for_each(|n| assert_eq!(processors.next_sequence(), n));
    assert_eq!(processors.sequence_name(""), "-00000010");
}

#[test]
fn threads_that_get_one_name_at_once_get_one_taskprocessor() {
    for _ in 0..20 {
        let processors = Taskprocessors::new();
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (processors, barrier) = (processors.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    let processor = processors.get("same").unwrap();
                    processor.push(|| ()).unwrap();
                    processor
                })
            })
            .collect();
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        all[0].push_wait(|| ()).unwrap();
        settled(&all[0]);
        assert_eq!(all[0].stats().processed, 5);
        assert_eq!(processors.list().len(), 1);
    }
}

#[test]
fn tasks_run_in_order_one_at_a_time() {
    let processor = Taskprocessors::new().get("order").unwrap();
    let inside = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..4_u64)
        .map(|from| {
            let (processor, inside, seen) = (processor.clone(), Arc::clone(&inside), Arc::clone(&seen));
            thread::spawn(move || {
                for n in 0..500_u64 {
                    let (inside, seen) = (Arc::clone(&inside), Arc::clone(&seen));
                    let task = move || {
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        lock(&seen).push((from, n));
                        inside.fetch_sub(1, Ordering::SeqCst);
                    };
                    processor.push(task).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    processor.push_wait(|| ()).unwrap();
    let seen = lock(&seen);
    assert_eq!((seen.len(), processor.stats().panics), (2000, 0));
    for from in 0..4 {
        assert!(seen.iter().filter(|(by, _)| *by == from).map(|(_, n)| *n).eq(0..500), "order of thread {from}");
    }
}

#[test]
fn execute_runs_one_task_and_tells_what_is_left() {
    let processor = manual("manual");
    let order = Order::default();
    assert_eq!(processor.execute(), Executed::Empty);
    processor.push(order.task(1)).unwrap();
    processor.push(order.task(2)).unwrap();
    assert_eq!((processor.size(), processor.execute()), (2, Executed::More));
    assert_eq!(order.all(), [1]);
    assert_eq!((processor.size(), processor.execute()), (1, Executed::Empty));
    assert_eq!(order.all(), [1, 2]);
    let inside = processor.clone();
    processor.push(move || assert_eq!(inside.execute(), Executed::Busy)).unwrap();
    assert_eq!((processor.execute(), processor.stats().panics), (Executed::Empty, 0));
}

#[test]
fn a_listener_is_told_everything_in_order() {
    let processors = Taskprocessors::new();
    let scribe = Scribe::default();
    let processor = processors.create_with_listener("told", scribe.clone()).unwrap();
    assert_eq!(scribe.told(), [Told::Start]);
    processor.push(|| ()).unwrap();
    processor.push(|| ()).unwrap();
    assert_eq!(scribe.told(), [Told::Pushed(true), Told::Pushed(false)]);
    processor.execute();
    assert_eq!(scribe.told(), []);
    processor.execute();
    assert_eq!(scribe.told(), [Told::Emptied]);
    let inside = processor.clone();
    processor.push(move || inside.push(|| ()).unwrap()).unwrap();
    assert_eq!(processor.execute(), Executed::More);
    // The running task counts as in the queue.
    assert_eq!(scribe.told(), [Told::Pushed(true), Told::Pushed(false)]);
    processor.execute();
    drop(processor);
    assert_eq!(scribe.told(), [Told::Emptied, Told::Shutdown]);
}

#[test]
fn a_listener_that_does_not_start_makes_no_taskprocessor() {
    struct Refuses(bool, Counted);
    impl Listener for Refuses {
        fn start(&self, _: &Runner) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            let _ = &self.1;
            if self.0 { Err("no".into()) } else { resume_unwind(Box::new("bang")) }
        }
        fn task_pushed(&self, _: &Runner, _: bool) {}
        fn shutdown(&self, _: &Runner) {
            panic!("it never started");
        }
    }
    let processors = Taskprocessors::new();
    let drops = Drops::new();
    for refuses in [true, false] {
        let made = processors.create_with_listener("x", Refuses(refuses, drops.token()));
        assert!(matches!(made, Err(CreateError::Listener(_))), "{made:?}");
    }
    drops.assert_all_gone("listeners");
    assert!(processors.list().is_empty() && processors.get("x").is_ok());
}

#[test]
fn g07_callbacks_may_use_the_taskprocessor() {
    /// Runs tasks where they are pushed, and does whatever it may in every callback.
    struct Meddler(Taskprocessors);
    impl Meddler {
        fn meddle(&self, runner: &Runner) {
            assert!(runner.size() < 100);
            assert!(self.0.list().len() <= 1);
            if let Some(processor) = runner.taskprocessor() {
                processor.set_alert_levels(None, 2).unwrap();
                processor.set_local(1_u8);
                assert!(self.0.find(runner.name()).is_some());
            }
        }
    }
    impl Listener for Meddler {
        fn task_pushed(&self, runner: &Runner, was_empty: bool) {
            self.meddle(runner);
            if was_empty {
                while runner.execute() == Executed::More {}
            }
        }
        fn emptied(&self, runner: &Runner) {
            self.meddle(runner);
            if let Some(processor) = runner.taskprocessor() {
                processor.suspend();
                processor.unsuspend();
            }
        }
        fn shutdown(&self, runner: &Runner) {
            self.meddle(runner);
            assert!(runner.is_ended() && runner.taskprocessor().is_none());
        }
    }
    must_end(|| {
        let processors = Taskprocessors::new();
        let seen = processors.clone();
        processors.on_alert(move |_| drop(seen.list()));
        let processor = processors.create_with_listener("m", Meddler(processors.clone())).unwrap();
        let order = Order::default();
        for n in 0..10 {
            let (inside, task) = (processor.clone(), order.task(n + 10));
            processor.push(order.task(n)).unwrap();
            processor.push(move || inside.push(task).unwrap()).unwrap();
        }
        assert_eq!(order.all().len(), 20);
        assert_eq!(processor.stats().panics, 0);
        // The callback holds what holds it.
        processors.on_alert(|_| ());
    });
}

#[test]
fn a_panicking_listener_is_contained() {
    struct Bang;
    impl Listener for Bang {
        fn task_pushed(&self, _: &Runner, _: bool) {
            resume_unwind(Box::new("bang"))
        }
        fn emptied(&self, _: &Runner) {
            resume_unwind(Box::new("bang"))
        }
        fn shutdown(&self, _: &Runner) {
            resume_unwind(Box::new("bang"))
        }
    }
    let processor = Taskprocessors::new().create_with_listener("bang", Bang).unwrap();
    processor.push(|| ()).unwrap();
    assert_eq!(processor.execute(), Executed::Empty);
    processor.end();
    processor.join(PATIENCE).unwrap();
}

#[test]
fn local_data_are_those_of_the_moment_a_task_begins() {
    let processor = manual("local");
    let drops = Drops::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = |seen: &Arc<Mutex<Vec<Option<u64>>>>| {
        let seen = Arc::clone(seen);
        move |local: &LocalData| lock(&seen).push(local.get::<(u64, Counted)>().map(|(n, _)| *n))
    };
    processor.push_local(note(&seen)).unwrap();
    processor.execute();
    processor.push_local(note(&seen)).unwrap();
    processor.set_local((1_u64, drops.token()));
    processor.execute();
    processor.set_local((2_u64, drops.token()));
    assert_eq!(drops.dropped(), 1);
    processor.push_local(note(&seen)).unwrap();
    processor.push_local(|local| assert!(local.get::<String>().is_none(), "another type")).unwrap();
    while processor.execute() == Executed::More {}
    assert_eq!((&*lock(&seen), processor.stats().panics), (&vec![None, Some(1), Some(2)], 0));
    drop(processor);
    drops.assert_all_gone("local data");
}

#[test]
fn a_suspended_taskprocessor_begins_nothing() {
    let processor = Taskprocessors::new().get("s").unwrap();
    let order = Order::default();
    processor.suspend();
    assert!(processor.is_suspended() && processor.stats().is_suspended);
    processor.push(order.task(1)).unwrap();
    processor.push(order.task(2)).unwrap();
    assert_eq!(processor.execute(), Executed::Suspended);
    assert_eq!((processor.size(), order.all()), (2, vec![]));
    processor.unsuspend();
    processor.unsuspend();
    assert!(!processor.is_suspended());
    eventually("tasks run again", || order.all() == [1, 2]);
    // By its own task, forth and back.
    let (inside, again) = (processor.clone(), processor.clone());
    processor.push(move || inside.suspend()).unwrap();
    processor.push(order.task(3)).unwrap();
    eventually("suspended by its task", || processor.is_suspended());
    processor.unsuspend();
    eventually("the third", || order.all() == [1, 2, 3]);
    processor
        .push(move || {
            again.suspend();
            again.unsuspend();
        })
        .unwrap();
    processor.push_wait(|| ()).unwrap();
}

#[test]
fn a_listener_is_woken_when_a_suspension_ends() {
    let scribe = Scribe::default();
    let processor = Taskprocessors::new().create_with_listener("told", scribe.clone()).unwrap();
    processor.suspend();
    processor.unsuspend();
    processor.suspend();
    processor.push(|| ()).unwrap();
    assert_eq!(scribe.told(), [Told::Start, Told::Pushed(true)]);
    processor.unsuspend();
    assert_eq!(scribe.told(), [Told::Pushed(true)]);
}

#[test]
fn suspend_then_drop_still_runs_what_was_accepted() {
    let processors = Taskprocessors::new();
    let order = Order::default();
    let processor = processors.get("s").unwrap();
    processor.suspend();
    processor.push(order.task(1)).unwrap();
    drop(processor);
    assert!(processors.find("s").is_none());
    eventually("the accepted task", || order.all() == [1]);
}

#[test]
fn g10_the_last_handle_may_go_in_its_own_task() {
    let processors = Taskprocessors::new();
    let drops = Drops::new();
    let (tell, told) = channel();
    let processor = processors.get("own").unwrap();
    let (own, gate) = (processor.clone(), Gate::new());
    let (token, held) = (drops.token(), gate.clone());
    processor
        .push(move || {
            let _token = token;
            own.push(move || tell.send(Taskprocessor::current().is_none()).unwrap()).unwrap();
            held.pass();
            drop(own); // the last one
        })
        .unwrap();
    drop(processor);
    gate.open();
    assert!(next(&told), "what was pushed before is run, without a handle");
    drops.await_all_gone("the task");
    eventually("the name is free", || processors.find("own").is_none());
}

#[test]
fn g11_a_push_after_the_end_hands_the_task_back() {
    let processors = Taskprocessors::new();
    let processor = processors.get("ended").unwrap();
    let order = Order::default();
    processor.push(order.task(1)).unwrap();
    processor.end();
    processor.end();
    let error = processor.push(order.task(2)).unwrap_err();
    assert!(error.is_ended());
    assert_eq!((format!("{error}"), format!("{error:?}")), ("it has ended".to_owned(), "Ended(..)".to_owned()));
    processor.join(PATIENCE).unwrap();
    assert_eq!(order.all(), [1]);
    let other = processors.get("ended").unwrap();
    other.push_task(error.into_task()).unwrap();
    other.push_wait(|| ()).unwrap();
    assert_eq!(order.all(), [1, 2]);
    let Err(PushWaitError::Ended(f)) = processor.push_wait(|| 5) else { panic!("it has ended") };
    assert_eq!(f(), 5);
    processor.suspend();
    assert!(!processor.is_suspended());
}

#[test]
fn g11_join_waits_for_the_last_task_and_names_it() {
    let processor = Taskprocessors::new().get("slow").unwrap();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let held = gate.clone();
    processor.push(move || held.pass()).unwrap();
    processor.push(|| ()).unwrap();
    processor.end();
    eventually("it is running", || processor.is_executing());
    let error = processor.join(Duration::from_millis(1)).unwrap_err();
    let slow = &error.unfinished()[0];
    assert_eq!((slow.name.as_str(), slow.waiting), ("slow", 1));
    assert!(slow.running.as_ref().unwrap().0.contains("taskprocessors.rs"), "{error}");
    gate.open();
    processor.join(Duration::MAX).unwrap();
}

#[test]
fn g11_shutdown_ends_all_and_names_who_is_late() {
    let processors = Taskprocessors::new();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let all: Vec<_> = (0..5).map(|n| processors.get(format!("p{n}")).unwrap()).collect();
    let held = gate.clone();
    all[3].push(move || held.pass()).unwrap();
    all[4].suspend();
    all[4].push(|| ()).unwrap();
    let error = processors.shutdown(Duration::from_millis(20)).unwrap_err();
    assert!(error.unfinished().iter().any(|one| one.name == "p3"), "{error}");
    gate.open();
    all.iter().for_each(|one| one.join(PATIENCE).unwrap());
    assert!(matches!(processors.get("new"), Err(CreateError::Closed)));
    assert_eq!(all[4].stats().processed, 1);
    processors.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn g07_waiting_for_oneself_is_an_error() {
    must_end(|| {
        let processors = Taskprocessors::new();
        let (a, b) = (processors.get("a").unwrap(), processors.get("b").unwrap());
        let inside = a.clone();
        let own = a
            .push_wait(move || {
                assert!(inside.is_task() && matches!(inside.join(Duration::MAX), Err(EndError::OwnTask)));
                matches!(inside.push_wait(|| 1), Err(PushWaitError::OwnTask(f)) if f() == 1)
            })
            .unwrap();
        assert!(own && !a.is_task());
        let (inner, outer, registry) = (b.clone(), a.clone(), processors.clone());
        let circle = a
            .push_wait(move || {
                assert!(registry.find("a").unwrap().is_task() && !registry.find("b").unwrap().is_task());
                inner.push_wait(move || matches!(outer.push_wait(|| ()), Err(PushWaitError::Circular(_)))).unwrap()
            })
            .unwrap();
        assert!(circle);
        // Waiting along a line is fine, and leaves nothing behind.
        let inner = b.clone();
        assert_eq!(a.push_wait(move || inner.push_wait(|| 2).unwrap()).unwrap(), 2);
        let inner = a.clone();
        assert_eq!(b.push_wait(move || inner.push_wait(|| 3).unwrap()).unwrap(), 3);
    });
}

#[test]
fn push_wait_tells_of_panics_and_of_tasks_that_never_run() {
    let processors = Taskprocessors::new();
    let processor = processors.get("p").unwrap();
    let result = processor.push_wait(|| -> u32 { resume_unwind(Box::new("bang")) });
    assert!(matches!(result, Err(PushWaitError::Panicked)));
    settled(&processor);
    assert_eq!(processor.stats().panics, 1);
    let unserved = manual("unserved");
    let other = unserved.clone();
    let waiter = thread::spawn(move || other.push_wait(|| 1).is_ok());
    eventually("it waits", || unserved.size() == 1);
    assert_eq!(unserved.execute(), Executed::Empty);
    assert!(waiter.join().unwrap());
}

#[test]
fn g12_a_panicking_task_is_counted_and_hurts_nobody() {
    let processor = Taskprocessors::new().get("p").unwrap();
    let order = Order::default();
    for n in 0..10 {
        let task = order.task(n);
        processor
            .push(move || {
                task();
                if n % 2 == 1 {
                    resume_unwind(Box::new("bang"))
                }
            })
            .unwrap();
    }
    processor.push_wait(|| ()).unwrap();
    settled(&processor);
    assert!(order.all().into_iter().eq(0..10));
    assert_eq!((processor.stats().panics, processor.stats().processed), (5, 11));
}

#[test]
fn tasks_and_what_they_hold_are_dropped_once_and_not_under_a_lock() {
    /// Uses its taskprocessor when dropped, as only somebody outside its locks can.
    struct Meddles(Taskprocessor, Taskprocessors, #[allow(dead_code)] Counted);
    impl Drop for Meddles {
        fn drop(&mut self) {
            assert!(self.1.list().len() <= 1);
            let _ = (self.0.size(), self.0.stats(), self.0.push(|| ()));
        }
    }
    must_end(|| {
        let (processors, drops) = (Taskprocessors::new(), Drops::new());
        let processor = processors.get("d").unwrap();
        for _ in 0..10 {
            let held = Meddles(processor.clone(), processors.clone(), drops.token());
            processor.push(move || drop(held)).unwrap();
            let held = Meddles(processor.clone(), processors.clone(), drops.token());
            let unused = move || drop(held);
            drop(Task::new(unused));
            let held = Meddles(processor.clone(), processors.clone(), drops.token());
            processor.push_local(move |_| resume_unwind(Box::new(held))).unwrap();
        }
        eventually("all run", || processor.size() == 0 && !processor.is_executing());
        processor.end();
        let held = Meddles(processor.clone(), processors.clone(), drops.token());
        drop(processor.push(move || drop(held)).unwrap_err());
        processor.join(PATIENCE).unwrap();
        drops.await_all_gone("captures");
    });
    // Never run: dropped with the last one who could.
    let drops = Drops::new();
    let unserved = manual("unserved");
    for _ in 0..5 {
        let token = drops.token();
        unserved.push(move || drop(token)).unwrap();
    }
    drop(unserved);
    drops.assert_all_gone("tasks nobody ran");
}

#[test]
fn the_list_shows_sizes_maxima_and_levels() {
    let processors = Taskprocessors::new();
    let b = processors.create_with_listener("sub/B", Manual).unwrap();
    let _a = processors.create_with_listener("a", Manual).unwrap();
    (0..3).for_each(|_| b.push(|| ()).unwrap());
    b.execute();
    let list = processors.list();
    assert_eq!(list.iter().map(|stats| stats.name.as_str()).collect::<Vec<_>>(), ["a", "sub/B"]);
    let stats = &list[1];
    assert_eq!((stats.processed, stats.in_queue, stats.max_depth), (1, 2, 3));
    assert_eq!((stats.low_water, stats.high_water, stats.is_alerted), (450, 500, false));
    assert_eq!((stats.subsystem(), list[0].subsystem()), ("sub", ""));
    assert!(stats.oldest_wait.is_some() && stats.running.is_none() && list[0].oldest_wait.is_none());
    b.reset_stats();
    assert_eq!((b.stats().processed, b.stats().max_depth), (0, 2));
    assert_eq!(processors.all_taskprocessors().len(), 2);
}

#[test]
fn a_running_task_is_named_with_where_it_was_pushed() {
    let processor = Taskprocessors::new().get("p").unwrap();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    let held = gate.clone();
    let line = line!() + 1;
    processor.push(move || held.pass()).unwrap();
    eventually("it runs", || processor.is_executing() && processor.stats().running.is_some());
    let (location, _) = processor.stats().running.unwrap();
    assert!(location.ends_with(&format!("taskprocessors.rs:{line}:15")), "{location}");
}

#[test]
fn an_alert_is_raised_at_high_and_cleared_at_low_once_each() {
    let processors = Taskprocessors::new();
    let alerts = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&alerts);
    processors.on_alert(move |alert| {
        lock(&log).push((alert.name().to_owned(), alert.subsystem().to_owned(), alert.size(), alert.is_raised()));
    });
    let processor = processors.create_with_listener("sip/x", Manual).unwrap();
    let plain = processors.create_with_listener("plain", Manual).unwrap();
    processor.set_alert_levels(Some(3), 5).unwrap();
    let counts = || (processors.alerts(), processors.subsystem_alerts("sip"), processors.subsystem_alerts("plain"));
    (0..4).for_each(|_| processor.push(|| ()).unwrap());
    assert_eq!((counts(), lock(&alerts).len()), ((0, 0, 0), 0), "below high");
    (0..3).for_each(|_| processor.push(|| ()).unwrap());
    assert_eq!(counts(), (1, 1, 0));
    assert_eq!(processors.alerted_subsystems(), [("sip".into(), 1)]);
    assert!(processor.stats().is_alerted);
    (0..3).for_each(|_| assert_ne!(processor.execute(), Executed::Busy));
    assert_eq!((processor.size(), counts()), (4, (1, 1, 0)), "between the levels nothing changes");
    processor.push(|| ()).unwrap();
    (0..2).for_each(|_| assert_ne!(processor.execute(), Executed::Busy));
    assert_eq!((processor.size(), counts()), (3, (0, 0, 0)));
    plain.set_alert_levels(None, 1).unwrap();
    plain.push(|| ()).unwrap();
    assert_eq!((processors.alerts(), processors.alerted_subsystems().len()), (1, 0), "no subsystem, no count of one");
    drop(plain);
    assert_eq!(processors.alerts(), 0, "it took its alert along");
    let alerts = lock(&alerts).clone();
    assert_eq!(alerts[..2], [("sip/x".into(), "sip".into(), 5, true), ("sip/x".into(), "sip".into(), 3, false)]);
    assert_eq!(alerts.iter().filter(|(name, ..)| name == "sip/x").count(), 2, "once per crossing");
}

#[test]
fn alert_levels_hold_at_once_and_wrong_ones_change_nothing() {
    let processors = Taskprocessors::new();
    let processor = processors.create_with_listener("x", Manual).unwrap();
    (0..10).for_each(|_| processor.push(|| ()).unwrap());
    assert!(processor.set_alert_levels(Some(6), 5).is_err() && processor.set_alert_levels(None, 0).is_err());
    assert_eq!(
        processor.set_alert_levels(Some(6), 5).unwrap_err().to_string(),
        "alert levels cannot be 6 (low) and 5 (high)"
    );
    assert_eq!((processor.stats().low_water, processor.stats().high_water), (450, 500));
    processor.set_alert_levels(None, 10).unwrap();
    assert_eq!((processor.stats().low_water, processors.alerts()), (9, 1));
    processor.set_alert_levels(Some(5), 20).unwrap();
    assert_eq!(processors.alerts(), 1, "10 is between 5 and 20");
    processor.set_alert_levels(Some(10), 20).unwrap();
    assert_eq!(processors.alerts(), 0);
    processor.set_alert_levels(None, usize::MAX).unwrap();
    assert!(processor.stats().low_water > usize::MAX / 10 * 8);
}

#[test]
fn an_alert_callback_may_push_and_panic() {
    let processors = Taskprocessors::new();
    let processor = processors.create_with_listener("x", Manual).unwrap();
    processor.set_alert_levels(Some(1), 2).unwrap();
    let raised = Arc::new(AtomicUsize::new(0));
    let (count, inside) = (Arc::clone(&raised), Arc::new(OnceLock::<Taskprocessor>::new()));
    inside.set(processor.clone()).unwrap();
    processors.on_alert(move |alert| {
        if alert.is_raised() {
            count.fetch_add(1, Ordering::SeqCst);
            inside.get().unwrap().push(|| ()).unwrap();
        }
        resume_unwind(Box::new("bang"))
    });
    (0..2).for_each(|_| processor.push(|| ()).unwrap());
    assert_eq!((raised.load(Ordering::SeqCst), processor.size()), (1, 3));
    while processor.execute() == Executed::More {}
    assert_eq!(processors.alerts(), 0);
    processors.on_alert(|_| ());
}

#[test]
fn current_is_the_taskprocessor_of_the_running_task() {
    let processors = Taskprocessors::new();
    assert!(Taskprocessor::current().is_none());
    let a = processors.get("a").unwrap();
    assert_eq!(a.push_wait(|| Taskprocessor::current().unwrap().name().to_owned()).unwrap(), "a");
}

#[test]
fn a_thousand_taskprocessors_come_and_go() {
    let count = if cfg!(miri) { 10 } else { 1000 };
    let processors = Taskprocessors::new();
    let sum = Arc::new(AtomicUsize::new(0));
    let all: Vec<_> = (0..count).map(|_| processors.get(processors.sequence_name("many/x")).unwrap()).collect();
    for processor in &all {
        let sum = Arc::clone(&sum);
        processor
            .push(move || {
                sum.fetch_add(1, Ordering::SeqCst);
            })
            .unwrap();
    }
    assert_eq!(processors.list().len(), count);
    drop(all);
    eventually("every task ran", || sum.load(Ordering::SeqCst) == count);
    assert!(processors.list().is_empty());
    eventually("every thread let go", || Arc::strong_count(&sum) == 1);
}

#[test]
fn handles_dropped_while_others_push_lose_nothing() {
    for round in 0..50_u64 {
        let processors = Taskprocessors::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (processors, ran, stop) = (processors.clone(), Arc::clone(&ran), Arc::clone(&stop));
                thread::spawn(move || {
                    let mut pushed = 0;
                    for _ in 0..20 {
                        let processor = processors.get("flurry").unwrap();
                        let ran = Arc::clone(&ran);
                        pushed += usize::from(
                            processor
                                .push(move || {
                                    ran.fetch_add(1, Ordering::SeqCst);
                                })
                                .is_ok(),
                        );
                        if stop.load(Ordering::Relaxed) {
                            processor.suspend();
                        }
                    }
                    pushed
                })
            })
            .collect();
        stop.store(round % 2 == 0, Ordering::Relaxed);
        let pushed: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        eventually("what was accepted is run", || ran.load(Ordering::SeqCst) == pushed);
    }
}

/// What the model test does.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push,
    Execute,
    Suspend,
    Unsuspend,
    Levels(usize, usize),
    End,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => Just(Step::Push),
        4 => Just(Step::Execute),
        1 => Just(Step::Suspend),
        1 => Just(Step::Unsuspend),
        1 => (0..5_usize, 1..6_usize).prop_map(|(low, high)| Step::Levels(low, high)),
        1 => Just(Step::End),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Push, execute, suspend against a naive model: results, order, sizes, alerts, what the listener is told.
    #[test]
    fn it_behaves_as_the_naive_model(steps in steps()) {
        let processors = Taskprocessors::new();
        let scribe = Scribe::default();
        let processor = processors.create_with_listener("sub/x", scribe.clone()).unwrap();
        let order = Order::default();
        let (mut queue, mut ran, mut told) = (VecDeque::new(), Vec::new(), vec![Told::Start]);
        let (mut suspended, mut ended, mut raised, mut low, mut high) = (false, false, false, 450, 500);
        for (n, step) in (0_u64..).zip(steps) {
            match step {
                Step::Push => {
                    prop_assert_eq!(processor.push(order.task(n)).is_err(), ended);
                    if !ended {
                        told.push(Told::Pushed(queue.is_empty()));
                        queue.push_back(n);
                        raised |= queue.len() >= high;
                    }
                }
                Step::Execute => {
                    let expected = if suspended {
                        Executed::Suspended
                    } else if let Some(n) = queue.pop_front() {
                        ran.push(n);
                        raised &= queue.len() > low;
                        if queue.is_empty() {
                            told.push(Told::Emptied);
                            if ended {
                                told.push(Told::Shutdown);
                            }
                            Executed::Empty
                        } else {
                            Executed::More
                        }
                    } else {
                        Executed::Empty
                    };
                    prop_assert_eq!(processor.execute(), expected);
                }
                Step::Suspend => {
                    processor.suspend();
                    suspended = !ended;
                }
                Step::Unsuspend => {
                    processor.unsuspend();
                    if std::mem::take(&mut suspended) && !queue.is_empty() {
                        told.push(Told::Pushed(true));
                    }
                }
                Step::Levels(to_low, to_high) => {
                    let is_good = to_low <= to_high;
                    prop_assert_eq!(processor.set_alert_levels(Some(to_low), to_high).is_ok(), is_good);
                    if is_good {
                        (low, high) = (to_low, to_high);
                        raised = queue.len() >= high || raised && queue.len() > low;
                    }
                }
                Step::End => {
                    processor.end();
                    if !std::mem::replace(&mut ended, true) {
                        if std::mem::take(&mut suspended) && !queue.is_empty() {
                            told.push(Told::Pushed(true));
                        } else if queue.is_empty() {
                            told.push(Told::Shutdown);
                        }
                    }
                }
            }
            prop_assert_eq!(processor.size(), queue.len());
            prop_assert_eq!(processor.is_suspended(), suspended);
            prop_assert_eq!((processors.alerts(), processors.subsystem_alerts("sub")), (usize::from(raised), usize::from(raised)));
        }
        prop_assert_eq!(order.all(), ran);
        prop_assert_eq!(scribe.told(), told);
    }
}
