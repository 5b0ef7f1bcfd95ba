//! Real threads that run one at a time, in an order drawn from a seed: for scenarios too large for loom.
//!
//! ```text
//!   thread A: … atomic operation ─► point(): draws; goes on, or hands the turn to another thread
//!   thread B: waits for its turn ──────────────────────────────────────┘
//! ```
//!
//! Every operation of this module's types is a point at which the turn may pass to another thread; what
//! would block (a lock, a join, a sleep) passes it on until it is free. The threads are the system's, so that
//! thread-locals, crossbeam-epoch and arc-swap are the real ones (shuttle would run all of them on one
//! thread). What is drawn depends on the seed alone: the same seed gives the same order as long as the program
//! asks no clock and no address.
//!
//! Guarantees: one thread runs at a time between [`run`]'s begin and end; all asleep is a deadlock and
//! panics, as does a schedule without end. What it does not see: orderings weaker than sequential (loom
//! does), and what threads do while their thread-locals are destroyed, which is outside of the order.

pub(crate) mod thread;
mod types;

use std::cell::Cell;
use std::sync as real;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Points after which a schedule is called endless.
const MOST: u64 = 20_000_000;
/// One point of so many passes the turn on.
const SWITCH: u64 = 4;
/// One look of so many ends a timed sleep.
const TIMEOUT: u64 = 8;

#[cfg(feature = "ext")]
pub(crate) use types::Condvar;
pub(crate) use types::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU64, AtomicUsize, Global, Mutex, MutexGuard, OnceLock,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is {
    Ready,
    /// Until woken.
    Asleep,
    Gone,
}

struct Run {
    seed: u64,
    random: u64,
    points: u64,
    turn: usize,
    threads: Vec<Member>,
}

struct Member {
    is: Is,
    /// A wake-up that came before the sleep.
    token: bool,
    /// None: not yet running.
    thread: Option<std::thread::Thread>,
}

static RUN: real::Mutex<Option<Run>> = real::Mutex::new(None);

thread_local! {
    static ME: Cell<Option<usize>> = const { Cell::new(None) };
}

fn me() -> Option<usize> {
    ME.try_with(Cell::get).ok().flatten()
}

impl Run {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }

    /// Another ready thread, if there is one.
    fn other(&mut self, me: usize) -> Option<usize> {
        let ready = |at: usize, run: &Self| at != me && run.threads[at].is == Is::Ready;
        let count = (0..self.threads.len()).filter(|&at| ready(at, self)).count() as u64;
        let nth = self.below(count.max(1)) as usize;
        (0..self.threads.len()).filter(|&at| ready(at, self)).nth(nth)
    }

    fn give_turn(&mut self, to: usize) {
        self.turn = to;
        if let Some(thread) = &self.threads[to].thread {
            thread.unpark();
        }
    }
}

fn with<R>(f: impl FnOnce(&mut Run) -> R) -> Option<R> {
    RUN.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(f)
}

fn wait_for_turn(me: usize) {
    while with(|run| run.turn != me) == Some(true) {
        std::thread::park();
    }
}

/// Passes the turn on: always, if `must` and there is somebody; else now and then.
fn pass(must: bool) {
    let Some(me) = me() else {
        if must {
            std::thread::yield_now();
        }
        return;
    };
    let endless = with(|run| {
        run.points += 1;
        if run.points > MOST {
            return Some(run.seed);
        }
        if (must || run.below(SWITCH) == 0)
            && let Some(next) = run.other(me)
        {
            run.give_turn(next);
        }
        None
    });
    if let Some(Some(seed)) = endless {
        with(|run| run.points = 0);
        panic!("the schedule of seed {seed} does not end");
    }
    wait_for_turn(me);
}

fn point() {
    pass(false);
}

/// Sleeps until woken, if not `timed`.
fn sleep(timed: bool) {
    let Some(me) = me() else { return std::thread::yield_now() };
    loop {
        let over = with(|run| {
            if std::mem::take(&mut run.threads[me].token) || timed && run.below(TIMEOUT) == 0 {
                return Ok(true);
            }
            if !timed {
                run.threads[me].is = Is::Asleep;
                match run.other(me) {
                    Some(next) => run.give_turn(next),
                    None => return Err(run.seed),
                }
            }
            Ok(false)
        });
        match over {
            Some(Ok(false)) if timed => pass(true),
            Some(Ok(false)) => wait_for_turn(me),
            Some(Err(seed)) => panic!("deadlock: all threads sleep, seed {seed}"),
            _ => return,
        }
    }
}

fn wake(at: usize) {
    with(|run| {
        run.threads[at].token = true;
        if run.threads[at].is == Is::Asleep {
            run.threads[at].is = Is::Ready;
        }
    });
    point();
}

/// The calling thread leaves the order.
fn leave(me: usize) {
    with(|run| {
        run.threads[me].is = Is::Gone;
        if let Some(next) = run.other(me) {
            run.give_turn(next);
        }
    });
    ME.set(None);
}

/// Runs `body` and the threads it starts in the order of `seed`, to the end of all of them. One at a time.
///
/// # Panics
/// If `body` does, on a deadlock, and if there is no end.
pub fn run<R>(seed: u64, body: impl FnOnce() -> R) -> R {
    static ONE: real::Mutex<()> = real::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let first = Member { is: Is::Ready, token: false, thread: Some(std::thread::current()) };
    let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    *RUN.lock().unwrap_or_else(PoisonError::into_inner) =
        Some(Run { seed, random, points: 0, turn: 0, threads: vec![first] });
    ME.set(Some(0));
    /// Ends the order, after a panic too.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            if std::thread::panicking() {
                // Those that wait go on without order.
                let run = RUN.lock().unwrap_or_else(PoisonError::into_inner).take();
                run.into_iter()
                    .flat_map(|run| run.threads)
                    .filter_map(|member| member.thread)
                    .for_each(|thread| thread.unpark());
            }
            ME.set(None);
        }
    }
    let end = End;
    let result = body();
    while with(|run| run.threads.iter().filter(|member| member.is != Is::Gone).count() > 1) == Some(true) {
        pass(true);
    }
    RUN.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(end);
    result
}

/// Starts a thread in the order.
///
/// # Panics
/// If the system has no thread.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let handle = thread::Builder::new().spawn(body).expect("a thread");
    move || handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Gives the other threads a turn.
pub fn pause() {
    pass(true);
}

pub(crate) fn raw_fence(order: Ordering) {
    point();
    real::atomic::fence(order);
}

pub(crate) fn spin_loop() {
    pass(true);
}
