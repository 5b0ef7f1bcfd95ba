//! What can go wrong with taskprocessors, serializers and pools.

use std::fmt;
use std::time::Duration;

use super::task::Task;

/// A task was not taken, and here it is again.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::Taskprocessors;
/// let writer = Taskprocessors::new().get("cdr/writer").unwrap();
/// writer.end();
/// match writer.push(|| println!("written after all")) {
///     Err(error) if error.is_ended() => error.into_task().run(),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The taskprocessor or pool has ended, or its bus is shut down.
    #[error("it has ended")]
    Ended(Task),
    /// The bus has no room for it now (serializers on lanes only).
    #[error("a queue of the bus is full and its memory budget is used up")]
    Full(Task),
}

impl PushError {
    /// The task.
    #[must_use]
    pub fn into_task(self) -> Task {
        match self {
            Self::Ended(task) | Self::Full(task) => task,
        }
    }

    /// Whether trying again is pointless.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended(_))
    }
}

impl fmt::Debug for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_ended() { "Ended(..)" } else { "Full(..)" })
    }
}

/// A synchronous push did not bring a result. `F`: the function, where it was not taken.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PushWaitError<F> {
    /// Called from a task of that very taskprocessor, or from one that runs on its stack while it waits: it would
    /// wait for itself.
    #[error("push_wait from the taskprocessor's own task would wait for itself")]
    OwnTask(F),
    /// Called from a task that the other taskprocessor's task is waiting for.
    #[error("push_wait would wait in a circle of tasks")]
    Circular(F),
    /// 128 handlers wait one upon the other on this lane's stack already.
    #[error("too many handlers wait one upon the other")]
    TooDeep(F),
    /// It has ended, or its bus is shut down.
    #[error("it has ended")]
    Ended(F),
    /// The bus has no room for it now (serializers on lanes only).
    #[error("a queue of the bus is full and its memory budget is used up")]
    Full(F),
    /// The function panicked.
    #[error("the task panicked")]
    Panicked,
    /// It was dropped without being run: nobody serves the queue any more.
    #[error("the task was dropped without being run")]
    Dropped,
}

impl<F> PushWaitError<F> {
    /// The function, unless it was taken.
    #[must_use]
    pub fn into_function(self) -> Option<F> {
        match self {
            Self::OwnTask(f) | Self::Circular(f) | Self::TooDeep(f) | Self::Ended(f) | Self::Full(f) => Some(f),
            Self::Panicked | Self::Dropped => None,
        }
    }
}

impl<F> fmt::Debug for PushWaitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnTask(_) => "OwnTask(..)",
            Self::Circular(_) => "Circular(..)",
            Self::TooDeep(_) => "TooDeep(..)",
            Self::Ended(_) => "Ended(..)",
            Self::Full(_) => "Full(..)",
            Self::Panicked => "Panicked",
            Self::Dropped => "Dropped",
        })
    }
}

/// A taskprocessor, serializer or pool was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// It needs a name.
    #[error("a taskprocessor needs a name")]
    NoName,
    /// There is one of this name, and this call had to make a new one.
    #[error("there is a taskprocessor named '{0}' already")]
    NameTaken(Box<str>),
    /// The registry is shut down.
    #[error("the registry of taskprocessors is shut down")]
    Closed,
    /// The bus or pool it was to run on is shut down, or refused.
    #[error("cannot be served: {0}")]
    Unserved(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The listener refused to start.
    #[error("the listener did not start: {0}")]
    Listener(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Sizes that contradict each other.
    #[error("a pool of at least {minimum} and at most {maximum} threads cannot be")]
    Sizes {
        /// Least threads asked for.
        minimum: usize,
        /// Most threads asked for.
        maximum: usize,
    },
    /// The operating system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// Alert levels were not set: the high one has to be at least 1, and at least the low one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("alert levels cannot be {low} (low) and {high} (high)")]
#[non_exhaustive]
pub struct LevelError {
    /// Low level asked for.
    pub low: usize,
    /// High level asked for.
    pub high: usize,
}

/// What had not ended when the deadline passed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// Name of the taskprocessor, serializer or thread.
    pub name: String,
    /// Where the running task was pushed and for how long it has been running, if one is.
    pub running: Option<(String, Duration)>,
    /// Tasks that wait.
    pub waiting: usize,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.name)?;
        if let Some((location, time)) = &self.running {
            write!(f, " runs the task pushed at {location} for {time:.1?}")?;
        }
        if self.waiting > 0 {
            write!(f, " ({} waiting)", self.waiting)?;
        }
        Ok(())
    }
}

/// Waiting for an end came to nothing. What was begun (a shutdown) goes on.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::{EndError, Taskprocessors};
/// use std::time::Duration;
/// let writer = Taskprocessors::new().get("cdr/writer").unwrap();
/// let late = writer.join(Duration::ZERO).unwrap_err(); // nobody has ended it
/// assert!(matches!(&late, EndError::Timeout(_)) && late.unfinished()[0].name == "cdr/writer");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// Called from a task that would have to end first.
    #[error("waiting for the end of a task from within it")]
    OwnTask,
    /// The deadline passed; these had not ended.
    #[error("the deadline passed before all had ended: {}", list(.0))]
    Timeout(Vec<Unfinished>),
}

impl EndError {
    /// What had not ended. Empty if called from an own task.
    #[must_use]
    pub fn unfinished(&self) -> &[Unfinished] {
        match self {
            Self::OwnTask => &[],
            Self::Timeout(unfinished) => unfinished,
        }
    }
}

fn list(all: &[Unfinished]) -> String {
    all.iter().map(Unfinished::to_string).collect::<Vec<_>>().join("; ")
}
