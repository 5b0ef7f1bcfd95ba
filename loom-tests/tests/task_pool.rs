//! The two queues of taskprocessors: one task at a time (suspend, unsuspend, push, end), and one queue for
//! the workers of a pool (idle, wake, grow, leave).
//!
//! They use nothing but `crate::sync`, so the files themselves are compiled here, over loom's locks.
#![cfg(loom)]

mod sync {
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap()
    }
}

#[allow(dead_code)]
#[path = "../../src/ext/taskprocessor/crew.rs"]
mod crew;
#[allow(dead_code)]
#[path = "../../src/ext/taskprocessor/queue.rs"]
mod queue;

use crew::{Crew, Limits, Take};
use loom_tests::{Model, Watched, spawn};
use queue::{Begin, Signal, TaskQueue};
use std::sync::Arc;

/// What a task does.
#[derive(Debug)]
enum Job {
    Write(u32),
    /// Ends the runner.
    Stop,
}

/// A taskprocessor with its own thread, as `listener.rs` and `processor.rs` put it together.
struct Processor {
    queue: TaskQueue<Job>,
    signal: Signal,
    seen: Watched,
}

impl Processor {
    fn new() -> Arc<Self> {
        Arc::new(Self { queue: TaskQueue::new(), signal: Signal::new(), seen: Watched::new(0) })
    }

    fn push(&self, job: Job) {
        if self.queue.push(job).unwrap() {
            self.signal.set();
        }
    }

    fn unsuspend(&self) {
        if self.queue.unsuspend() {
            self.signal.set();
        }
    }

    /// Runs one; whether more wait, and whether it was the last.
    fn execute(&self) -> (bool, bool) {
        match self.queue.begin() {
            Begin::Task(job) => {
                let mut is_last = false;
                match job {
                    // Not atomic: two tasks at once, or one that does not see the other, fail the model.
                    Job::Write(digit) => self.seen.set(self.seen.get() * 10 + digit),
                    Job::Stop => is_last = true,
                }
                let finish = self.queue.finish();
                if finish.wake {
                    self.signal.set();
                }
                (!finish.is_empty && !finish.is_suspended, is_last || finish.is_over)
            }
            Begin::Empty | Begin::Suspended | Begin::Busy => (false, false),
        }
    }

    /// The thread: serves until the last task.
    fn serve(&self) {
        loop {
            match self.execute() {
                (_, true) => return,
                (true, _) => {}
                (false, _) => self.signal.wait(),
            }
        }
    }
}

/// Promise: a task pushed while another thread suspends and lifts the suspension is run (else: deadlock).
/// Mutations: `unsuspend` never waking; `push` waking only while a task runs.
#[test]
fn a_suspension_strands_no_task() {
    Model::new("a_suspension_strands_no_task").preemptions(3).check(|| {
        let processor = Processor::new();
        let suspender = {
            let processor = Arc::clone(&processor);
            spawn(move || {
                processor.queue.suspend();
                processor.unsuspend();
            })
        };
        let pusher = {
            let processor = Arc::clone(&processor);
            spawn(move || processor.push(Job::Stop))
        };
        processor.serve();
        suspender.join().unwrap();
        pusher.join().unwrap();
    });
}

/// Promise: tasks of two pushers run one at a time, each seeing what the one before did; none is lost.
/// Mutation: `push` waking only while a task runs.
#[test]
fn tasks_of_two_pushers_run_one_at_a_time() {
    Model::new("tasks_of_two_pushers_run_one_at_a_time").preemptions(3).check(|| {
        let processor = Processor::new();
        let pusher = {
            let processor = Arc::clone(&processor);
            spawn(move || processor.push(Job::Write(1)))
        };
        let server = {
            let processor = Arc::clone(&processor);
            spawn(move || processor.serve())
        };
        processor.push(Job::Write(2));
        pusher.join().unwrap();
        processor.push(Job::Stop);
        server.join().unwrap();
        assert!([12, 21].contains(&processor.seen.get()));
    });
}

/// Promise: somebody else who runs a task takes nothing from the runner: a runner that is turned away is
/// woken again, and no two tasks run at once.
/// Mutations: `finish` not waking who was turned away; `begin` not looking at `is_executing`.
#[test]
fn a_runner_that_was_turned_away_is_woken() {
    Model::new("a_runner_that_was_turned_away_is_woken").preemptions(3).check(|| {
        let processor = Processor::new();
        let server = {
            let processor = Arc::clone(&processor);
            spawn(move || processor.serve())
        };
        processor.push(Job::Write(1));
        processor.push(Job::Write(2));
        // Whatever this gets, it does not come back for more.
        processor.execute();
        processor.push(Job::Stop);
        server.join().unwrap();
        assert_eq!(processor.seen.get(), 12);
    });
}

/// Promise: a suspended queue that ends runs what it accepted; the end is said once, after the last task.
/// Mutations: `close` not waking; `close` not lifting the suspension.
#[test]
fn an_end_lifts_a_suspension() {
    Model::new("an_end_lifts_a_suspension").preemptions(3).check(|| {
        let processor = Processor::new();
        let server = {
            let processor = Arc::clone(&processor);
            spawn(move || processor.serve())
        };
        processor.queue.suspend();
        processor.push(Job::Write(1));
        let close = processor.queue.close();
        assert!(!close.is_over, "a task is waiting or running");
        if close.wake {
            processor.signal.set();
        }
        assert!(processor.queue.push(Job::Stop).is_err());
        server.join().unwrap();
        assert_eq!(processor.seen.get(), 1);
    });
}

fn limits(maximum: usize) -> Limits {
    Limits { minimum: 0, maximum, increment: 1 }
}

/// A worker that runs one task after the other, until it has to leave.
fn work(crew: &Crew<u32>, inside: impl Fn(u32)) {
    let mut next = crew.arrive();
    while let Take::Task(task) = next.unwrap_or_else(|| crew.take(None)) {
        inside(task);
        next = crew.try_take();
    }
}

/// Promise: a push against a worker that goes idle is taken (else: deadlock), and a close lets it leave.
/// Mutations: `push` not notifying; `close` not notifying.
#[test]
fn a_push_wakes_an_idle_worker() {
    Model::new("a_push_wakes_an_idle_worker").preemptions(3).check(|| {
        let crew = Arc::new(Crew::new(limits(1)));
        assert_eq!(crew.resize(1), 1);
        let taken = Signal::new();
        let taken = Arc::new(taken);
        let worker = {
            let (crew, taken) = (Arc::clone(&crew), Arc::clone(&taken));
            spawn(move || work(&crew, |_| taken.set()))
        };
        assert_eq!(crew.push(1, false).unwrap().start, 0);
        taken.wait();
        assert_eq!(crew.close(), 0);
        worker.join().unwrap();
        assert_eq!(crew.count().workers, 0);
    });
}

/// Promise: with one of two workers inside a task that ends only after the next one is done, the other worker takes
/// the next one (else: deadlock).
/// Mutations: `look` leaving a closed pool while tasks wait; `close` not notifying.
#[test]
fn the_idle_worker_takes_it() {
    Model::new("the_idle_worker_takes_it").check(|| {
        let crew = Arc::new(Crew::new(limits(2)));
        assert_eq!(crew.resize(2), 2);
        let done = Arc::new(Signal::new());
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (crew, done) = (Arc::clone(&crew), Arc::clone(&done));
                spawn(move || work(&crew, |task| if task == 1 { done.wait() } else { done.set() }))
            })
            .collect();
        crew.push(1, false).unwrap();
        crew.push(2, false).unwrap();
        assert_eq!(crew.close(), 0);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// Promise: with all workers busy a push asks for another one, wherever the first is on its way (else: deadlock).
/// Mutations: growing only if the queue was empty and nobody idle; `starting` not counted.
#[test]
fn a_push_behind_a_busy_worker_grows_the_pool() {
    Model::new("a_push_behind_a_busy_worker_grows_the_pool").check(|| {
        let crew = Arc::new(Crew::new(limits(2)));
        let done = Arc::new(Signal::new());
        let start = |count: usize| {
            assert!(count <= 1);
            (0..count)
                .map(|_| {
                    let (crew, done) = (Arc::clone(&crew), Arc::clone(&done));
                    spawn(move || work(&crew, |task| if task == 1 { done.wait() } else { done.set() }))
                })
                .collect::<Vec<_>>()
        };
        let mut workers = start(crew.push(1, false).unwrap().start);
        assert_eq!(workers.len(), 1);
        let second = crew.push(2, false).unwrap().start;
        assert_eq!(second, 1, "a busy or starting worker is not there for two");
        workers.extend(start(second));
        assert_eq!(crew.close(), 0);
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!((crew.count().workers, crew.count().waiting), (0, 0));
    });
}

/// Promise: a pool that shrinks while a task is pushed does not lose the wake-up for it: whoever stays takes it
/// (else: deadlock).
/// Mutations: `resize` not notifying; `push` not notifying.
#[test]
fn a_shrinking_pool_loses_no_wake_up() {
    Model::new("a_shrinking_pool_loses_no_wake_up").check(|| {
        let crew = Arc::new(Crew::new(limits(2)));
        assert_eq!(crew.resize(2), 2);
        let done = Arc::new(Signal::new());
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (crew, done) = (Arc::clone(&crew), Arc::clone(&done));
                spawn(move || work(&crew, |_| done.set()))
            })
            .collect();
        let shrinker = {
            let crew = Arc::clone(&crew);
            spawn(move || crew.resize(1))
        };
        crew.push(1, false).unwrap();
        done.wait();
        shrinker.join().unwrap();
        crew.close();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

/// Promise: a push against a worker that is told to leave is taken by it or by one that is started (else: deadlock).
/// Mutation: `is_short` counting on those that leave.
#[test]
fn a_push_counts_on_nobody_who_leaves() {
    Model::new("a_push_counts_on_nobody_who_leaves").preemptions(3).check(|| {
        let crew = Arc::new(Crew::new(limits(2)));
        assert_eq!(crew.resize(1), 1);
        let done = Arc::new(Signal::new());
        let start = || {
            let (crew, done) = (Arc::clone(&crew), Arc::clone(&done));
            spawn(move || work(&crew, |_| done.set()))
        };
        let mut workers = vec![start()];
        assert_eq!(crew.resize(0), 0);
        workers.extend((0..crew.push(1, false).unwrap().start).map(|_| start()));
        done.wait();
        assert_eq!(crew.close(), 0);
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!((crew.count().workers, crew.count().waiting), (0, 0));
    });
}
