//! Who runs the tasks of a taskprocessor: listeners, and the default one with its own thread.
//!
//! ```text
//!   Taskprocessor ─ start, task_pushed(was_empty), emptied, shutdown ─► Listener
//!        ▲                                                                 │
//!        └──────────────────── Runner::execute ◄───────────────────────────┘
//! ```

use std::error::Error;

use super::processor::{Executed, Runner};
use super::queue::Signal;
use crate::exec::affinity;
use crate::sync::{Arc, AtomicBool, Ordering, thread};

/// Decides where and when the tasks of a taskprocessor run. It has no thread of its own: the listener
/// calls [`Runner::execute`] from whatever thread it likes.
///
/// The duty: after `task_pushed` with `was_empty` true, call `execute` until it does not return
/// [`Executed::More`]. A call with false asks for nothing. Callbacks may come on any thread and at the same
/// time; no lock is held while they run; they may push, suspend, execute and drop handles. A panic is
/// reported and contained. A listener may keep the [`Runner`]; both go when the taskprocessor has ended.
///
/// # Examples
/// Tasks run in the thread that pushes:
/// ```
/// use stasis_bus::taskprocessor::{Executed, Listener, Runner, Taskprocessors};
/// struct Inline;
/// impl Listener for Inline {
///     fn task_pushed(&self, runner: &Runner, was_empty: bool) {
///         if was_empty {
///             while runner.execute() == Executed::More {}
///         }
///     }
/// }
/// let processor = Taskprocessors::new().create_with_listener("inline", Inline).unwrap();
/// processor.push(|| println!("here")).unwrap();
/// assert_eq!(processor.size(), 0);
/// ```
pub trait Listener: Send + Sync + 'static {
    /// The taskprocessor is set up; nobody else has it yet.
    ///
    /// # Errors
    /// Refuses: the taskprocessor is not made, `shutdown` is not called.
    fn start(&self, runner: &Runner) -> Result<(), Box<dyn Error + Send + Sync>> {
        let _ = runner;
        Ok(())
    }

    /// A task was pushed. `was_empty`: nothing was waiting nor running before (also true when tasks that a
    /// suspension held back may run again).
    fn task_pushed(&self, runner: &Runner, was_empty: bool);

    /// A task has ended and none is waiting.
    fn emptied(&self, runner: &Runner) {
        let _ = runner;
    }

    /// It has ended and its last task, too. The last call (one that had begun on another thread may still be
    /// running); the listener is dropped after it.
    fn shutdown(&self, runner: &Runner) {
        let _ = runner;
    }
}

/// The default: a thread that runs tasks as they come.
pub(super) struct OwnThread(Arc<Shared>);

struct Shared {
    signal: Signal,
    is_over: AtomicBool,
}

impl OwnThread {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared { signal: Signal::new(), is_over: AtomicBool::new(false) }))
    }
}

impl Listener for OwnThread {
    fn start(&self, runner: &Runner) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (shared, runner) = (Arc::clone(&self.0), runner.clone());
        thread::Builder::new().name(runner.name().into()).spawn(affinity::unbound(move || {
            // Set before the signal, read after it.
            while !shared.is_over.load(Ordering::Relaxed) {
                while runner.execute() == Executed::More {}
                shared.signal.wait();
            }
        }))?;
        Ok(())
    }

    fn task_pushed(&self, _: &Runner, was_empty: bool) {
        if was_empty {
            self.0.signal.set();
        }
    }

    fn shutdown(&self, _: &Runner) {
        self.0.is_over.store(true, Ordering::Relaxed);
        self.0.signal.set();
    }
}
