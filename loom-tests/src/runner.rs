//! Runs models within bounds that stand in the code.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A model: what to run, and how far.
///
/// The bound is the number of times a thread may be interrupted in one execution; all executions
/// within it are run. There is no limit in time or number: loom would count reaching one as a pass.
#[derive(Debug)]
pub struct Model {
    name: &'static str,
    preemptions: usize,
}

impl Model {
    /// A model whose threads are interrupted twice at most.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, preemptions: 2 }
    }

    /// Another bound.
    #[must_use]
    pub fn preemptions(self, preemptions: usize) -> Self {
        Self { preemptions, ..self }
    }

    /// Runs the model and says how many executions it had.
    ///
    /// # Panics
    /// If an execution does, or if there was one execution only: then nothing was explored.
    pub fn check(self, execution: impl Fn() + Send + Sync + 'static) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(self.preemptions);
        builder.max_branches = 20_000;
        builder.max_permutations = None;
        builder.max_duration = None;
        builder.checkpoint_file = None;
        let start = Instant::now();
        builder.check(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            execution();
            stasis_bus::model::end_thread();
        });
        let count = count.load(Ordering::Relaxed);
        println!("{}: {count} executions, bound {}, {:.1?}", self.name, self.preemptions, start.elapsed());
        assert!(count > 1, "{} explored nothing", self.name);
    }
}

/// Starts a thread of a model: as `loom::thread::spawn`, with the engine's thread-locals destroyed at its end.
pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> loom::thread::JoinHandle<T> {
    loom::thread::spawn(move || {
        let value = body();
        stasis_bus::model::end_thread();
        value
    })
}

/// A number threads share without synchronising: an access that is not ordered after the writes before
/// it fails the model.
#[derive(Debug)]
pub struct Watched(loom::cell::UnsafeCell<u32>);

#[allow(unsafe_code)]
// SAFETY: loom runs one thread at a time, and checks that accesses are ordered.
unsafe impl Send for Watched {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    /// A number.
    #[must_use]
    pub fn new(n: u32) -> Self {
        Self(loom::cell::UnsafeCell::new(n))
    }

    /// Reads it.
    #[must_use]
    #[allow(unsafe_code)]
    pub fn get(&self) -> u32 {
        self.0.with(|n| {
            // SAFETY: loom fails the model if a write is not ordered before.
            unsafe { *n }
        })
    }

    /// Writes it.
    #[allow(unsafe_code)]
    pub fn set(&self, to: u32) {
        self.0.with_mut(|n| {
            // SAFETY: loom fails the model if another access is not ordered before.
            unsafe { *n = to }
        });
    }
}

/// Counts the drops of its probes.
#[derive(Clone, Debug, Default)]
pub struct Drops(Arc<AtomicUsize>);

/// Something whose drop is counted.
#[derive(Debug)]
pub struct Probe(Drops);

impl Drops {
    /// No drop so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something to be dropped once.
    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe(self.clone())
    }

    /// Drops so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}
