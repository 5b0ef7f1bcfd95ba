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

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync as real;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Points after which a schedule is called endless.
const MOST: u64 = 20_000_000;
/// One point of so many passes the turn on.
const SWITCH: u64 = 4;
/// One look of so many ends a timed sleep.
const TIMEOUT: u64 = 8;

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

pub(crate) mod thread {
    //! `std::thread` in the order.
    use super::{Is, ME, Member, leave, me, pass, wait_for_turn, wake, with};
    use std::time::Duration;

    pub(crate) use std::thread::ThreadId;

    /// A thread that can be woken.
    #[derive(Clone, Debug)]
    pub(crate) struct Thread {
        place: Option<usize>,
        thread: std::thread::Thread,
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            match self.place {
                Some(place) => wake(place),
                None => self.thread.unpark(),
            }
        }

        pub(crate) fn id(&self) -> ThreadId {
            self.thread.id()
        }
    }

    pub(crate) fn current() -> Thread {
        Thread { place: me(), thread: std::thread::current() }
    }

    pub(crate) fn park() {
        super::sleep(false);
    }

    pub(crate) fn park_timeout(_: Duration) {
        super::sleep(true);
    }

    pub(crate) fn sleep(_: Duration) {
        pass(true);
    }

    pub(crate) fn yield_now() {
        pass(true);
    }

    #[derive(Debug)]
    pub(crate) struct JoinHandle<T> {
        handle: std::thread::JoinHandle<T>,
        thread: Thread,
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn thread(&self) -> &Thread {
            &self.thread
        }

        pub(crate) fn is_finished(&self) -> bool {
            super::point();
            let gone = |place: usize| with(|run| run.threads[place].is == Is::Gone).unwrap_or(true);
            self.thread.place.map_or_else(|| self.handle.is_finished(), gone)
        }

        pub(crate) fn join(self) -> std::thread::Result<T> {
            while me().is_some() && !self.is_finished() {
                pass(true);
            }
            self.handle.join()
        }
    }

    #[derive(Debug)]
    pub(crate) struct Builder(std::thread::Builder);

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(std::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub(crate) fn spawn<T: Send + 'static>(
            self,
            body: impl FnOnce() -> T + Send + 'static,
        ) -> std::io::Result<JoinHandle<T>> {
            let join = |run: &mut super::Run| {
                run.threads.push(Member { is: Is::Ready, token: false, thread: None });
                run.threads.len() - 1
            };
            let place = me().and_then(|_| with(join));
            let spawned = self.0.spawn(move || {
                let Some(place) = place else { return body() };
                ME.set(Some(place));
                with(|run| run.threads[place].thread = Some(std::thread::current()));
                wait_for_turn(place);
                /// Leaves after a panic too.
                struct Leaving(usize);
                impl Drop for Leaving {
                    fn drop(&mut self) {
                        leave(self.0);
                    }
                }
                let _leaving = Leaving(place);
                body()
            });
            match spawned {
                Ok(handle) => {
                    let thread = Thread { place, thread: handle.thread().clone() };
                    pass(false);
                    Ok(JoinHandle { handle, thread })
                }
                Err(error) => {
                    place.map(|place| with(|run| run.threads[place].is = Is::Gone));
                    Err(error)
                }
            }
        }
    }
}

macro_rules! atomic {
    ($($name:ident: $value:ty { $($method:ident)* };)*) => {$(
        /// `std`'s, with a point before each operation.
        #[derive(Debug, Default)]
        pub(crate) struct $name(real::atomic::$name);

        #[allow(dead_code)]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                Self(real::atomic::$name::new(value))
            }
            atomic!(operations $value { $($method)* });
        }
    )*};
    (operations $value:ty { $($method:ident)* }) => {
        #[track_caller]
        pub(crate) fn load(&self, order: Ordering) -> $value {
            point();
            self.0.load(order)
        }
        #[track_caller]
        pub(crate) fn store(&self, value: $value, order: Ordering) {
            point();
            self.0.store(value, order);
        }
        pub(crate) fn compare_exchange(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            point();
            self.0.compare_exchange(current, new, success, failure)
        }
        pub(crate) fn compare_exchange_weak(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.compare_exchange(current, new, success, failure)
        }
        $(
            pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                point();
                self.0.$method(value, order)
            }
        )*
    };
}

atomic! {
    AtomicBool: bool { swap fetch_or fetch_and };
    AtomicIsize: isize { swap fetch_add fetch_sub };
    AtomicU64: u64 { swap fetch_add fetch_sub fetch_or fetch_and fetch_max };
    AtomicUsize: usize { swap fetch_add fetch_sub fetch_or fetch_and fetch_max };
}

/// `std`'s, with a point before each operation.
#[derive(Debug, Default)]
pub(crate) struct AtomicPtr<T>(real::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(real::atomic::AtomicPtr::new(value))
    }
    atomic!(operations *mut T { swap });
}

/// `std`'s, whose lock passes the turn on; poisoning is ignored.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T: ?Sized>(real::Mutex<T>);

/// Access to what a [`Mutex`] holds.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    guard: real::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(real::Mutex::new(value))
    }
}

impl<T: ?Sized> Mutex<T> {
    pub(crate) fn lock(&self) -> real::LockResult<MutexGuard<'_, T>> {
        point();
        loop {
            match self.0.try_lock() {
                Ok(guard) => return Ok(MutexGuard { mutex: self, guard }),
                Err(real::TryLockError::Poisoned(error)) => {
                    return Ok(MutexGuard { mutex: self, guard: error.into_inner() });
                }
                Err(real::TryLockError::WouldBlock) => pass(true),
            }
        }
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// `std`'s; every notification wakes all, and a limit is over at random.
#[cfg(feature = "ext")]
#[derive(Debug, Default)]
pub(crate) struct Condvar(real::atomic::AtomicU64);

/// Whether a wait took too long.
#[cfg(feature = "ext")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimedOut(bool);

#[cfg(feature = "ext")]
impl TimedOut {
    pub(crate) fn timed_out(self) -> bool {
        self.0
    }
}

#[cfg(feature = "ext")]
impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(real::atomic::AtomicU64::new(0))
    }

    pub(crate) fn notify_one(&self) {
        self.notify_all();
    }

    pub(crate) fn notify_all(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        point();
    }

    fn until<'a, T>(&self, guard: MutexGuard<'a, T>, timed: bool) -> (MutexGuard<'a, T>, TimedOut) {
        let (before, mutex) = (self.0.load(Ordering::Relaxed), guard.mutex);
        drop(guard);
        let mut over = false;
        while self.0.load(Ordering::Relaxed) == before && !over {
            pass(true);
            over = timed && with(|run| run.below(TIMEOUT) == 0).unwrap_or(true);
        }
        (mutex.lock().unwrap_or_else(PoisonError::into_inner), TimedOut(over))
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> real::LockResult<MutexGuard<'a, T>> {
        Ok(self.until(guard, false).0)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        _: std::time::Duration,
    ) -> real::LockResult<(MutexGuard<'a, T>, TimedOut)> {
        Ok(self.until(guard, true))
    }

    /// Takes its time.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _: std::time::Duration,
        mut is_early: impl FnMut(&mut T) -> bool,
    ) -> real::LockResult<(MutexGuard<'a, T>, TimedOut)> {
        while is_early(&mut guard) {
            guard = self.until(guard, false).0;
        }
        Ok((guard, TimedOut(false)))
    }
}

/// `std`'s, whose wait for another thread passes the turn on.
#[derive(Debug, Default)]
pub(crate) struct OnceLock<T> {
    value: real::OnceLock<T>,
    /// Held while the value is made.
    setting: Mutex<()>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { value: real::OnceLock::new(), setting: Mutex::new(()) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        point();
        self.value.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("called once"));
        value.map_or(Ok(()), Err)
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _setting = super::lock(&self.setting);
            if self.value.get().is_none() {
                let _ = self.value.set(init());
            }
        }
        self.value.get().expect("set above")
    }
}

/// `std::sync::LazyLock`, as [`OnceLock`].
pub(crate) struct Global<T> {
    value: OnceLock<T>,
    init: fn() -> T,
}

impl<T> Global<T> {
    pub(crate) const fn new(init: fn() -> T) -> Self {
        Self { value: OnceLock::new(), init }
    }
}

impl<T> Deref for Global<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.get_or_init(self.init)
    }
}
