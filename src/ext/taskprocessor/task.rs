//! Tasks, and which of them are on this thread's stack.
//!
//! ```text
//!   push(f) ─► Task { f, where, when } ─► run: frame on the stack ─► f(local) ─► frame off
//! ```
//!
//! Guarantees: a task is run once or dropped once; a panic stays with it (G12).

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::time::Instant;

use crate::contain::{discard, quietly, report_panic};
use crate::sync::{Arc, local};

type Local = Option<Arc<dyn Any + Send + Sync>>;

/// The value that tasks of a taskprocessor share, as
/// [`Taskprocessor::push_local`](super::Taskprocessor::push_local) hands it over.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::Taskprocessors;
/// let writer = Taskprocessors::new().get("cdr/writer").unwrap();
/// writer.set_local(String::from("/var/log/cdr"));
/// let (tell, told) = std::sync::mpsc::channel();
/// writer.push_local(move |local| tell.send(local.get::<String>().cloned()).unwrap()).unwrap();
/// assert_eq!(told.recv().unwrap().as_deref(), Some("/var/log/cdr"));
/// ```
#[derive(Clone, Default)]
pub struct LocalData(pub(super) Local);

impl LocalData {
    /// The value, if one was set and is of this type.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.as_deref().and_then(|data| data.downcast_ref())
    }
}

impl fmt::Debug for LocalData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "LocalData(..)" } else { "LocalData(none)" })
    }
}

/// Something to be run once. Comes back with an error; [`run`](Self::run) it, or push it again.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::{Task, Taskprocessors};
/// let processor = Taskprocessors::new().get("cdr").unwrap();
/// processor.end();
/// let error = processor.push(|| println!("late")).unwrap_err();
/// error.into_task().run(); // here, then
/// ```
pub struct Task {
    body: Box<dyn FnOnce(&LocalData) + Send>,
    pub(super) location: &'static Location<'static>,
    pub(super) pushed: Instant,
}

impl Task {
    /// A task.
    #[must_use]
    #[track_caller]
    pub fn new(body: impl FnOnce() + Send + 'static) -> Self {
        Self::with_local(move |_| body())
    }

    /// A task that gets the local data of its taskprocessor.
    #[must_use]
    #[track_caller]
    pub fn with_local(body: impl FnOnce(&LocalData) + Send + 'static) -> Self {
        Self { body: Box::new(body), location: Location::caller(), pushed: Instant::now() }
    }

    /// Where it was made.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Runs it here and now, without local data.
    ///
    /// # Panics
    /// If it does.
    pub fn run(self) {
        (self.body)(&LocalData::default());
    }

    /// Runs it; a panic is reported and told by `false`.
    pub(super) fn run_contained(self, data: &LocalData) -> bool {
        let (body, location) = (self.body, self.location);
        match catch_unwind(AssertUnwindSafe(move || body(data))) {
            Ok(()) => true,
            Err(panic) => {
                report_panic(&format!("the task pushed at {location}"), &*panic);
                discard(panic);
                false
            }
        }
    }

    /// Drops it without running it.
    pub(super) fn drop_quietly(self) {
        quietly(|| drop(self));
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("location", &self.location).finish_non_exhaustive()
    }
}

/// A taskprocessor (serializer, pool) whose task is on the stack.
#[derive(Clone)]
struct Frame {
    id: u64,
    owner: Arc<dyn Any + Send + Sync>,
}

local! {
    static FRAMES: RefCell<Vec<Frame>> = const { RefCell::new(Vec::new()) };
}

/// The owner's task is on this thread's stack while this lives.
pub(super) struct Running(());

impl Running {
    pub(super) fn enter(id: u64, owner: Arc<dyn Any + Send + Sync>) -> Self {
        let _ = FRAMES.try_with(|frames| frames.borrow_mut().push(Frame { id, owner }));
        Self(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let frame = FRAMES.try_with(|frames| frames.borrow_mut().pop());
        // Not while the stack is borrowed: the last reference may be here.
        quietly(|| drop(frame));
    }
}

/// Whether a task of `id` is on this thread's stack.
pub(super) fn is_running_here(id: u64) -> bool {
    FRAMES.try_with(|frames| frames.borrow().iter().any(|frame| frame.id == id)).unwrap_or(false)
}

/// Ids of all tasks' owners on this thread's stack.
pub(super) fn running_here() -> Vec<u64> {
    FRAMES.try_with(|frames| frames.borrow().iter().map(|frame| frame.id).collect()).unwrap_or_default()
}

/// The innermost owner, if it is a `T`.
pub(super) fn current<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let innermost = FRAMES.try_with(|frames| frames.borrow().last().cloned()).ok()??;
    innermost.owner.downcast::<T>().ok()
}
