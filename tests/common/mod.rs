//! What the tests share: small buses, a log of what a handler saw, gates, drop counters, a guard
//! against hanging. Nothing here sleeps.
#![allow(dead_code)]

pub(crate) mod operations;
pub(crate) mod storm;

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use stasis_bus::{Bus, ChangeKind, Delivery, Home, MessageType, Pinning, Received, SubscriptionChange};

/// Every way a handler can be run.
pub(crate) const DELIVERIES: [Delivery; 3] = [Delivery::Lane(Home::Affinity), Delivery::Dedicated, Delivery::Inline];

/// How long a test waits for what must come before it is called hanging. Not a performance limit.
/// Under the thread sanitizer everything takes ten times as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if cfg!(stasis_tsan) { 600 } else { 60 });

/// A bus for tests.
pub(crate) fn bus(lanes: usize) -> Bus {
    Bus::builder().name("test").lanes(lanes).pinning(Pinning::Off).build().unwrap()
}

/// The type most tests publish.
pub(crate) fn number(bus: &Bus) -> MessageType<u64> {
    MessageType::new(bus, "number").unwrap()
}

/// `size`, times what `STASIS_STRESS` says, a little under miri.
pub(crate) fn stress(size: usize) -> usize {
    let factor = std::env::var("STASIS_STRESS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    if cfg!(miri) { size.div_ceil(100) } else { size * factor }
}

/// Small random numbers from a seed, the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }
}

/// What a handler saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Value(u64),
    Change(ChangeKind, u64),
    Final,
}

/// What a handler saw, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A handler that writes down everything.
    pub(crate) fn handler(&self) -> impl FnMut(&Received<'_>) + Send + 'static {
        let log = self.clone();
        move |received| log.write(received)
    }

    /// Writes down what a handler got.
    pub(crate) fn write(&self, received: &Received<'_>) {
        let seen = if received.is_final() {
            Seen::Final
        } else if let Some(change) = received.payload::<SubscriptionChange>() {
            Seen::Change(change.kind, change.subscription)
        } else {
            Seen::Value(*received.payload::<u64>().expect("tests publish numbers"))
        };
        lock(&self.0).push(seen);
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        lock(&self.0).clone()
    }

    /// The numbers alone.
    pub(crate) fn values(&self) -> Vec<u64> {
        self.all().into_iter().filter_map(|seen| if let Seen::Value(n) = seen { Some(n) } else { None }).collect()
    }

    /// How many final messages came, and whether nothing came after them.
    pub(crate) fn assert_ended(&self) {
        let seen = self.all();
        let finals = seen.iter().filter(|seen| **seen == Seen::Final).count();
        assert_eq!((finals, seen.last()), (1, Some(&Seen::Final)), "one final message, at the end: {seen:?}");
    }
}

/// Locks whether or not somebody panicked: handlers of tests do.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closed until it is opened, then open for ever.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let (open, timeout) = self.0.1.wait_timeout_while(lock(&self.0.0), PATIENCE, |open| !*open).unwrap();
        assert!(*open && !timeout.timed_out(), "nobody opened the gate");
    }
}

/// Opens a gate when a test ends, by panic too, so that no handler waits behind it for ever.
#[derive(Debug)]
pub(crate) struct OpenAtEnd(pub(crate) Gate);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Counts the [`Counted`] made from it and dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drops(Arc<(AtomicUsize, AtomicUsize)>);

impl Drops {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn token(&self) -> Counted {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Counted { drops: self.clone(), dropped: false }
    }

    pub(crate) fn made(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub(crate) fn dropped(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }

    /// All that were made were dropped.
    #[track_caller]
    pub(crate) fn assert_all_gone(&self, what: &str) {
        assert_eq!(self.dropped(), self.made(), "{what}: dropped (left), made (right)");
    }

    /// As [`assert_all_gone`](Self::assert_all_gone), when the drops may still be on their way on another thread.
    #[track_caller]
    pub(crate) fn await_all_gone(&self, what: &str) {
        eventually(what, || self.dropped() == self.made());
    }
}

/// Something whose end is counted; ending twice is an error.
#[derive(Debug)]
pub(crate) struct Counted {
    drops: Drops,
    dropped: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        assert!(!std::mem::replace(&mut self.dropped, true), "dropped twice");
        self.drops.0.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// A task that counts how often it is woken.
#[derive(Debug, Default)]
pub(crate) struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Task {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    pub(crate) fn woken(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether a waker of it is kept anywhere.
    pub(crate) fn is_kept(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) > 1
    }
}

/// Waits for something no event tells about: yields, looks again, and fails when patience ends.
#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        thread::yield_now();
    }
}

/// What a handler sends, or a failure if it never does.
#[track_caller]
pub(crate) fn next<T>(from: &Receiver<T>) -> T {
    from.recv_timeout(PATIENCE).expect("a handler was never called")
}

/// Runs a test that would hang if the bus did: it fails instead.
#[track_caller]
pub(crate) fn must_end<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = channel::<()>();
    let thread = thread::Builder::new()
        .stack_size(16 << 20)
        .spawn(move || {
            let _done = done;
            test()
        })
        .unwrap();
    match ended.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}
