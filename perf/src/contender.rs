//! What a contender has to do to be measured.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::plan::Plan;
use crate::subscriber::{Group, Subscriber};

/// Queue entries every contender may hold per consumer.
pub(crate) const CAPACITY: usize = 4096;
/// The same with a queue for each of very many.
const SMALL_CAPACITY: usize = 128;
/// Subscribers that get a thread each; of more, two threads share the work.
pub(crate) const OWN_THREADS: usize = 8;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As fast as it goes.
    Throughput,
    /// The same; every subscriber wants another type.
    Filtered,
    /// The same; the subscribers are this many forwards away.
    Forwards(usize),
    /// The same; another thread subscribes and unsubscribes meanwhile.
    Churn,
    /// A message each period, from intended to actual time.
    Latency { period: Duration, spins: bool },
    /// All into consumers that stand still; then they go on.
    Burst,
}

/// A scenario's shape.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) plan: Arc<Plan>,
    pub(crate) mode: Mode,
    /// Entries of a consumer's queue.
    pub(crate) capacity: usize,
}

impl Shape {
    pub(crate) fn subscribers(&self) -> usize {
        self.plan.subscribers()
    }

    pub(crate) fn topics(&self) -> usize {
        self.plan.topics()
    }

    /// Whether consumers never give their core away.
    pub(crate) fn spins(&self) -> bool {
        matches!(self.mode, Mode::Latency { spins: true, .. })
    }

    /// Nothing that only some can do.
    pub(crate) fn is_plain(&self) -> bool {
        self.topics() == 1 && matches!(self.mode, Mode::Throughput)
    }

    /// What a contender that delivers everything to everybody can do.
    pub(crate) fn suits_rings(&self) -> bool {
        self.subscribers() > 0 && !matches!(self.mode, Mode::Filtered | Mode::Forwards(_) | Mode::Churn)
    }
}

/// How a peer's subscribers are shared out to threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A thread each up to eight, else two threads, each with one queue, whose subscribers it walks itself.
    Own,
    /// One thread for up to eight, as a lane of ours does. Differs from `Own` for 2 to 8 only.
    Shared,
    /// A queue for each subscriber, also of very many: the original's pattern to the letter. The threads are
    /// those of `Own` and go round their queues.
    Queues,
}

impl Layout {
    /// Number of consumer threads.
    pub(crate) fn threads(self, subscribers: usize) -> usize {
        match self {
            _ if subscribers > OWN_THREADS => 2,
            Self::Own | Self::Queues => subscribers,
            Self::Shared => subscribers.min(1),
        }
    }

    /// The subscribers of each consumer thread, and of each of its queues.
    pub(crate) fn share_out(self, subscribers: Vec<Subscriber>) -> Vec<Vec<Group>> {
        let threads = self.threads(subscribers.len());
        let queues = if self == Self::Queues { subscribers.len() } else { threads };
        let mut shares: Vec<Vec<Group>> = (0..threads).map(|_| Vec::new()).collect();
        for (n, group) in Group::split(subscribers, queues).into_iter().enumerate() {
            shares[n % threads].push(group);
        }
        shares
    }

    /// Whether measuring this layout says something new.
    pub(crate) fn fits(self, shape: &Shape) -> bool {
        match self {
            Self::Own => true,
            Self::Shared => shape.is_plain() && (2..=OWN_THREADS).contains(&shape.subscribers()),
            Self::Queues => shape.is_plain() && shape.subscribers() > OWN_THREADS,
        }
    }

    /// Entries of a queue.
    pub(crate) fn capacity(self, shape: &Shape) -> usize {
        if self == Self::Queues { shape.capacity.min(SMALL_CAPACITY) } else { shape.capacity }
    }

    /// The one that a contender's name ends with.
    pub(crate) fn of(name: &str) -> Self {
        [Self::Shared, Self::Queues].into_iter().find(|layout| name.ends_with(layout.suffix())).unwrap_or(Self::Own)
    }

    /// Ending of a contender's name.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Own => "",
            Self::Shared => ", one thread",
            Self::Queues => ", a queue each",
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
    /// Subscribes and unsubscribes once; there in `Mode::Churn`.
    pub(crate) churn: Option<Box<dyn FnMut() + Send>>,
    /// Called when the publishers and the churn are gone: returns when every subscriber was dropped.
    pub(crate) stop: Box<dyn FnOnce()>,
}

/// A way to get messages from publishers to subscribers.
pub(crate) trait Contender: Sync {
    /// Name in the table.
    fn name(&self) -> String;
    /// Whether it can do this, and is worth measuring at it.
    fn fits(&self, shape: &Shape) -> bool;
    /// Whether messages may be lost (they are counted then).
    fn is_lossy(&self) -> bool {
        false
    }
    /// Sets everything up; what this costs is not measured.
    fn start(&self, shape: &Shape, subscribers: Vec<Subscriber>) -> Running;
}
