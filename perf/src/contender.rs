//! What a contender has to do to be measured.

use std::ops::Range;

use crate::subscriber::Subscriber;

/// Queue entries every contender may hold per consumer.
pub(crate) const CAPACITY: usize = 4096;
/// Subscribers that get a thread each; of more, two threads share the work.
const OWN_THREADS: usize = 8;

/// A scenario's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
}

/// How a peer's subscribers are shared out to threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A thread each up to eight, else two threads.
    Own,
    /// One thread for up to eight, as a lane of ours does. Differs from `Own` for 2 to 8 only.
    Shared,
}

impl Layout {
    /// Number of consumer threads.
    pub(crate) fn threads(self, subscribers: usize) -> usize {
        match self {
            _ if subscribers > OWN_THREADS => 2,
            Self::Own => subscribers,
            Self::Shared => subscribers.min(1),
        }
    }

    /// Whether measuring this layout says something new.
    pub(crate) fn fits(self, shape: Shape) -> bool {
        self == Self::Own || (2..=OWN_THREADS).contains(&shape.subscribers)
    }

    /// Ending of a contender's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::Shared => ", one thread",
        }
    }
}

/// One publisher. Called by its own thread; dropped there at the end.
pub(crate) trait Publish: Send {
    /// Makes and publishes the messages with these numbers, waiting while queues are full.
    fn publish(&mut self, numbers: Range<u64>);
}

/// A contender at work.
pub(crate) struct Running {
    /// As many as the shape says.
    pub(crate) publishers: Vec<Box<dyn Publish>>,
    /// Called when the publishers are gone: returns when every subscriber was dropped.
    pub(crate) stop: Box<dyn FnOnce()>,
}

/// A way to get messages from publishers to subscribers.
pub(crate) trait Contender: Sync {
    /// Name in the table.
    fn name(&self) -> String;
    /// Whether it can do this, and is worth measuring at it.
    fn fits(&self, shape: Shape) -> bool;
    /// Whether messages may be lost (they are counted then).
    fn is_lossy(&self) -> bool {
        false
    }
    /// Sets everything up; what this costs is not measured.
    fn start(&self, shape: Shape, subscribers: Vec<Subscriber>) -> Running;
}
