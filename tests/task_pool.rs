//! Conformance: pools of threads and their serializers (threadpool.h, taskpool.h).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{Drops, Gate, OpenAtEnd, PATIENCE, eventually, lock, must_end, next};
use stasis_bus::taskprocessor::{
    CreateError, EndError, PoolListener, PushWaitError, TaskPool, Taskprocessor, Taskprocessors,
};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

/// Keeps so many threads of the pool busy until the gate opens; returns when they are.
fn block(pool: &TaskPool, tasks: usize, gate: &Gate) {
    let (tell, told) = channel();
    for _ in 0..tasks {
        let (gate, tell) = (gate.clone(), tell.clone());
        pool.push(move || {
            tell.send(()).unwrap();
            gate.pass();
        })
        .unwrap();
        next(&told);
    }
}

#[test]
fn a_pool_begins_with_its_initial_size_and_grows_on_demand() {
    let pool = TaskPool::builder("p").initial_size(2).max_size(5).auto_increment(2).build().unwrap();
    assert_eq!((pool.name(), pool.size(), pool.queue_size()), ("p", 2, 0));
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    block(&pool, 2, &gate);
    assert_eq!(pool.size(), 2, "enough for two");
    block(&pool, 1, &gate);
    assert_eq!(pool.size(), 4, "two more");
    block(&pool, 2, &gate);
    assert_eq!(pool.size(), 5, "the maximum");
    pool.push(|| ()).unwrap();
    assert_eq!((pool.size(), pool.queue_size()), (5, 1));
    gate.open();
    eventually("the queue is empty", || pool.queue_size() == 0);
}

#[test]
fn a_task_never_waits_behind_a_busy_executor() {
    // The original gave new work to an executor inside a long task while others idled (its issue 2074).
    must_end(|| {
        let pool = TaskPool::builder("p").initial_size(4).max_size(4).build().unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        for busy in 1..4 {
            block(&pool, 1, &gate);
            eventually("the others idle", || pool.idle() == 4 - busy);
            // Ever again, whatever thread gets it: it must not be one of the busy ones.
            for _ in 0..200 {
                pool.push_wait(|| ()).unwrap();
            }
        }
        let serializer = pool.serializer("s").unwrap();
        for _ in 0..200 {
            serializer.push_wait(|| ()).unwrap();
        }
    });
}

#[test]
fn a_blocked_pool_grows_rather_than_lets_a_task_wait() {
    must_end(|| {
        let pool = TaskPool::builder("p").max_size(0).build().unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        block(&pool, 30, &gate);
        assert_eq!(pool.push_wait(|| 1).unwrap(), 1);
        assert!(pool.size() > 30);
    });
}

#[test]
fn idle_threads_leave_down_to_the_minimum() {
    let pool = TaskPool::builder("p").minimum_size(1).idle_timeout(Duration::from_millis(1)).build().unwrap();
    assert_eq!(pool.size(), 1, "the minimum is there from the start");
    let gate = Gate::new();
    block(&pool, 5, &gate);
    assert!(pool.size() >= 5);
    gate.open();
    eventually("idle threads left", || pool.size() == 1);
    for _ in 0..2000 {
        thread::yield_now();
        assert!(pool.size() >= 1, "the minimum stays");
    }
    assert_eq!(pool.push_wait(|| 7).unwrap(), 7);
    let none = TaskPool::builder("p").initial_size(3).idle_timeout(Duration::from_millis(1)).build().unwrap();
    eventually("a pool may shrink to nothing", || none.size() == 0);
    assert_eq!(none.push_wait(|| 7).unwrap(), 7);
}

#[test]
fn threads_that_are_not_needed_leave_though_each_is_used_now_and_then() {
    must_end(|| {
        let pool = TaskPool::builder("p").idle_timeout(Duration::from_millis(100)).build().unwrap();
        let gate = Gate::new();
        block(&pool, 12, &gate);
        gate.open();
        // Tasks come all the time, one after the other: no thread idles long, and two or three would do.
        eventually("most threads leave", || {
            pool.push_wait(|| ()).unwrap();
            pool.size() <= 4
        });
    });
}

#[test]
fn set_size_grows_and_shrinks() {
    let pool = TaskPool::builder("p").auto_increment(0).max_size(4).idle_timeout(Duration::ZERO).build().unwrap();
    pool.push(|| ()).unwrap();
    assert_eq!((pool.size(), pool.queue_size()), (0, 1), "growing is left to the user");
    pool.set_size(9).unwrap();
    eventually("it runs", || pool.size() == 4 && pool.queue_size() == 0);
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    block(&pool, 4, &gate);
    pool.set_size(1).unwrap();
    pool.set_size(2).unwrap();
    gate.open();
    eventually("busy ones leave when done", || pool.size() == 2);
    pool.set_size(0).unwrap();
    eventually("all leave", || pool.size() == 0);
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    pool.push(move || {
        count.fetch_add(1, Ordering::SeqCst);
    })
    .unwrap();
    pool.shutdown(PATIENCE).unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 1, "an ended pool keeps its promises");
}

#[test]
fn a_task_pushed_while_threads_are_told_to_leave_counts_on_none_of_them() {
    must_end(|| {
        let pool = TaskPool::builder("p").max_size(4).idle_timeout(Duration::ZERO).build().unwrap();
        for round in 0..500 {
            // They idle, and have been told, and may not have heard.
            pool.set_size(round % 4 + 1).unwrap();
            pool.set_size(0).unwrap();
            assert_eq!(pool.push_wait(move || round).unwrap(), round);
        }
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        block(&pool, 1, &gate);
        pool.set_size(0).unwrap();
        assert_eq!(pool.push_wait(|| 7).unwrap(), 7, "not behind the one that leaves when it is done");
        pool.set_size(4).unwrap();
        eventually("three idle", || pool.idle() == 3);
        pool.set_size(1).unwrap();
        // Each of the two ends when the other one has begun.
        let both = Arc::new(Barrier::new(3));
        for _ in 0..2 {
            let both = Arc::clone(&both);
            pool.push(move || {
                both.wait();
            })
            .unwrap();
        }
        both.wait();
    });
}

#[test]
fn a_pool_set_to_nothing_runs_what_waits_and_leaves() {
    must_end(|| {
        let pool = TaskPool::builder("p").initial_size(2).max_size(2).idle_timeout(Duration::from_millis(1)).build();
        let pool = pool.unwrap();
        let gate = Gate::new();
        let _open = OpenAtEnd(gate.clone());
        block(&pool, 2, &gate);
        let (tell, told) = channel();
        for n in 0..10 {
            let tell = tell.clone();
            pool.push(move || tell.send(n).unwrap()).unwrap();
        }
        pool.set_size(0).unwrap();
        gate.open();
        assert_eq!((0..10).map(|_| next(&told)).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>(), "in order: by one");
        eventually("the last one leaves", || pool.size() == 0);
    });
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    assert!(matches!(TaskPool::builder("").build(), Err(CreateError::NoName)));
    let wrong = TaskPool::builder("p").minimum_size(3).max_size(2).build();
    assert!(matches!(wrong, Err(CreateError::Sizes { minimum: 3, maximum: 2 })));
    assert!(TaskPool::builder("p").initial_size(3).max_size(2).build().is_err());
    assert_eq!(TaskPool::builder("p").minimum_size(3).initial_size(1).build().unwrap().size(), 3);
}

#[test]
fn threads_call_at_their_start_and_end() {
    let (starts, ends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (started, ended) = (Arc::clone(&starts), Arc::clone(&ends));
    let pool = TaskPool::builder("p")
        .initial_size(3)
        .thread_start(move || {
            started.fetch_add(1, Ordering::SeqCst);
            resume_unwind(Box::new("bang"))
        })
        .thread_end(move || {
            ended.fetch_add(1, Ordering::SeqCst);
            resume_unwind(Box::new("bang"))
        })
        .build()
        .unwrap();
    pool.push_wait(|| ()).unwrap();
    pool.shutdown(PATIENCE).unwrap();
    eventually("each thread called twice", || {
        let count = starts.load(Ordering::SeqCst);
        count >= 3 && ends.load(Ordering::SeqCst) == count
    });
}

#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<Vec<String>>>);

impl PoolListener for Watcher {
    fn state_changed(&self, pool: &TaskPool, active: usize, idle: usize) {
        assert!(pool.size() <= 2 && active + idle <= 2);
        lock(&self.0).push("state".into());
    }
    fn task_pushed(&self, pool: &TaskPool, was_empty: bool) {
        // A listener may grow the pool itself.
        pool.set_size(2).unwrap();
        lock(&self.0).push(format!("pushed {was_empty}"));
    }
    fn emptied(&self, _: &TaskPool) {
        lock(&self.0).push("emptied".into());
        resume_unwind(Box::new("bang"))
    }
    fn shutdown(&self) {
        lock(&self.0).push("shutdown".into());
    }
}

#[test]
fn a_listener_hears_of_everything_and_may_grow_the_pool() {
    let watcher = Watcher::default();
    let pool = TaskPool::builder("p").auto_increment(0).max_size(2).listener(watcher.clone()).build().unwrap();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    block(&pool, 2, &gate);
    pool.push(|| ()).unwrap();
    pool.push(|| ()).unwrap();
    gate.open();
    eventually("all is done", || lock(&watcher.0).contains(&"emptied".to_owned()));
    pool.shutdown(PATIENCE).unwrap();
    eventually("the last call", || lock(&watcher.0).last().is_some_and(|last| last == "shutdown"));
    let heard = lock(&watcher.0).clone();
    let count = |what: &str| heard.iter().filter(|heard| *heard == what).count();
    assert_eq!((count("pushed true"), count("pushed false"), count("shutdown")), (3, 1, 1), "{heard:?}");
    assert!(count("state") >= 4);
}

#[test]
fn g12_a_panicking_task_ends_neither_thread_nor_pool() {
    let pool = TaskPool::builder("p").initial_size(1).max_size(1).build().unwrap();
    let name = pool.push_wait(|| thread::current().name().unwrap().to_owned()).unwrap();
    assert_eq!(name, "p-1");
    pool.push(|| resume_unwind(Box::new("bang"))).unwrap();
    assert!(matches!(pool.push_wait(|| -> u8 { resume_unwind(Box::new("bang")) }), Err(PushWaitError::Panicked)));
    assert_eq!(pool.push_wait(|| thread::current().name().unwrap().to_owned()).unwrap(), name);
    eventually("counted", || pool.panics() == 2 && pool.processed() == 4);
}

#[test]
fn g11_shutdown_runs_what_was_accepted_and_names_what_still_runs() {
    let pool = TaskPool::builder("db").max_size(1).build().unwrap();
    let drops = Drops::new();
    let gate = Gate::new();
    let _open = OpenAtEnd(gate.clone());
    block(&pool, 1, &gate);
    let token = drops.token();
    pool.push(move || drop(token)).unwrap();
    let error = pool.shutdown(Duration::from_millis(1)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("'db-1' runs the task pushed at tests/task_pool.rs") && text.contains("(1 waiting)"),
        "{text}"
    );
    let refused = pool.push(|| ()).unwrap_err();
    assert!(refused.is_ended());
    refused.into_task().run();
    assert!(matches!(pool.push_wait(|| 1), Err(PushWaitError::Ended(_))));
    assert!(matches!(pool.serializer("s"), Err(CreateError::Unserved(_))));
    gate.open();
    pool.shutdown(PATIENCE).unwrap();
    drops.assert_all_gone("the accepted task");
    assert_eq!(pool.size(), 0);
    pool.shutdown(Duration::ZERO).unwrap();
}

#[test]
fn g11_shutdown_from_an_own_task_is_an_error_and_ends_it_all_the_same() {
    must_end(|| {
        let pool = TaskPool::builder("p").build().unwrap();
        let own = pool.clone();
        assert_eq!(pool.push_wait(move || own.shutdown(Duration::MAX)).unwrap(), Err(EndError::OwnTask));
        pool.shutdown(PATIENCE).unwrap();
    });
}

#[test]
fn g10_the_last_handle_may_go_in_an_own_task() {
    let pool = TaskPool::builder("p").build().unwrap();
    let drops = Drops::new();
    let gate = Gate::new();
    for _ in 0..20 {
        let (own, token, gate) = (pool.clone(), drops.token(), gate.clone());
        pool.push(move || {
            gate.pass();
            drop((own, token));
        })
        .unwrap();
    }
    drop(pool);
    gate.open();
    drops.await_all_gone("accepted tasks are run");
}

#[test]
fn g07_tasks_that_wait_for_tasks_of_their_pool_come_out() {
    must_end(|| {
        let pool = TaskPool::builder("p").max_size(1).build().unwrap();
        let inner = pool.clone();
        assert_eq!(pool.push_wait(move || inner.push_wait(|| 1).unwrap() + 1).unwrap(), 2);
        // All threads wait for serializers whose jobs are behind them in the queue.
        let (a, b) = (pool.serializer("a").unwrap(), pool.serializer("b").unwrap());
        let target = b.clone();
        let sum = a.push_wait(move || (1..=20).map(|n| target.push_wait(move || n).unwrap()).sum::<u32>());
        assert_eq!(sum.unwrap(), 210);
        let (inside, other) = (a.clone(), b.clone());
        let circle = a.push_wait(move || {
            assert!(matches!(inside.push_wait(|| ()), Err(PushWaitError::OwnTask(_))));
            let back = inside.clone();
            // Run on top of the one that waits, or by another thread.
            let refused = |error| matches!(error, PushWaitError::OwnTask(_) | PushWaitError::Circular(_));
            other.push_wait(move || back.push_wait(|| ()).is_err_and(refused)).unwrap()
        });
        assert!(circle.unwrap());
        // Suspended meanwhile: what waits comes out when somebody lifts it.
        b.suspend();
        let target = b.clone();
        let waiter = a.clone();
        let thread = thread::spawn(move || waiter.push_wait(move || target.push_wait(|| 5).unwrap()).unwrap());
        eventually("it waits", || b.size() == 1);
        b.unsuspend();
        assert_eq!(thread.join().unwrap(), 5);
    });
}

#[test]
fn a_serializer_runs_its_tasks_in_order_on_any_thread() {
    let pool = TaskPool::builder("p").initial_size(4).max_size(4).build().unwrap();
    let all: Vec<_> = (0..20).map(|n| pool.serializer(format!("s/{n}")).unwrap()).collect();
    let logs: Vec<_> = (0..20).map(|_| Arc::new(Mutex::new(Vec::new()))).collect();
    for n in 0..100_usize {
        for (serializer, log) in all.iter().zip(&logs) {
            let log = Arc::clone(log);
            serializer
                .push(move || {
                    let mut log = log.try_lock().expect("one at a time");
                    log.push((n, Taskprocessor::current().map(|one| one.name().to_owned())));
                })
                .unwrap();
        }
    }
    for (serializer, log) in all.iter().zip(&logs) {
        serializer.push_wait(|| ()).unwrap();
        let log = lock(log);
        assert!(log.iter().map(|(n, _)| *n).eq(0..100) && serializer.stats().panics == 0);
        assert!(log.iter().all(|(_, name)| name.as_deref() == Some(serializer.name())));
    }
}

#[test]
fn serializers_are_listed_and_named_once() {
    let registry = Taskprocessors::new();
    let pool = TaskPool::builder("p").registry(&registry).build().unwrap();
    let serializer = pool.serializer("pjsip/a").unwrap();
    assert!(matches!(pool.serializer("PJSIP/A"), Err(CreateError::NameTaken(_))));
    assert_eq!(registry.find("pjsip/a").unwrap().name(), "pjsip/a");
    serializer.suspend();
    serializer.set_alert_levels(Some(0), 2).unwrap();
    (0..2).for_each(|_| serializer.push(|| ()).unwrap());
    assert_eq!((registry.subsystem_alerts("pjsip"), registry.list()[0].in_queue), (1, 2));
    serializer.unsuspend();
    eventually("the alert is cleared", || registry.alerts() == 0);
    drop(serializer);
    assert!(registry.list().is_empty());
}

#[test]
fn a_serializer_keeps_its_pool() {
    let pool = TaskPool::builder("p").build().unwrap();
    let serializer = pool.serializer("s").unwrap();
    drop(pool);
    assert_eq!(serializer.push_wait(|| 3).unwrap(), 3);
}

#[test]
fn serializers_end_with_a_shutdown_and_lose_nothing() {
    for _ in 0..20 {
        let pool = TaskPool::builder("p").max_size(2).build().unwrap();
        let all: Vec<_> = (0..4).map(|n| pool.serializer(format!("s{n}")).unwrap()).collect();
        all[3].suspend();
        let ran = Arc::new(AtomicUsize::new(0));
        let pushers: Vec<_> = all
            .iter()
            .map(|one| {
                let (one, ran) = (one.clone(), Arc::clone(&ran));
                thread::spawn(move || {
                    let push = |_: &usize| {
                        let ran = Arc::clone(&ran);
                        one.push(move || {
                            ran.fetch_add(1, Ordering::SeqCst);
                        })
                        .is_ok()
                    };
                    (0..100).filter(push).count()
                })
            })
            .collect();
        pool.shutdown(PATIENCE).unwrap();
        let accepted: usize = pushers.into_iter().map(|pusher| pusher.join().unwrap()).sum();
        assert_eq!(ran.load(Ordering::SeqCst), accepted);
        assert!(all[0].push(|| ()).is_err());
    }
}

#[test]
fn pushes_from_many_threads_are_all_run_while_the_pool_breathes() {
    let pool = TaskPool::builder("p").max_size(8).idle_timeout(Duration::from_micros(50)).build().unwrap();
    let ran = Arc::new(AtomicUsize::new(0));
    let per_thread = common::stress(2000);
    let pushers: Vec<_> = (0..3)
        .map(|_| {
            let (pool, ran) = (pool.clone(), Arc::clone(&ran));
            thread::spawn(move || {
                for n in 0..per_thread {
                    let ran = Arc::clone(&ran);
                    pool.push(move || {
                        ran.fetch_add(1, Ordering::Relaxed);
                    })
                    .unwrap();
                    if n % 50 == 0 {
                        pool.set_size(n % 7).unwrap();
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    pool.shutdown(PATIENCE).unwrap();
    assert_eq!(ran.load(Ordering::Relaxed), 3 * per_thread);
}
