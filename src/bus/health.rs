//! What the bus does just now, for those who look after it.
//!
//! ```text
//!   monitor (watchdog's thread, every half period) ─► rows, one a queue ◄── Bus::health() copies them
//!                                                  └► news ─► host's callbacks, log
//! ```
//!
//! Guarantees: looking takes no lock of the data path and no word of it is written but, for a call that lasts,
//! the sign by which its worker is asked to wait while its message's type is read
//! (`tests/health.rs`: `g13_publishing_and_making_topics_go_on_while_others_look`), and, of a subscription with a
//! queue of its own, the lock that a push takes, to copy its counts; nothing here is published on
//! the bus. Times have the resolution of the monitor's looks: a call that is shorter than one is not seen.

use std::fmt;
use std::time::Duration;

use super::congestion::Criticality;
use super::{Bus, BusBuilder, LevelChange, WaterMarks};
use crate::sync::Arc;

/// What a queue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QueueKind {
    /// A lane of the bus.
    Lane,
    /// A subscription with a thread of its own.
    Dedicated,
    /// A subscription whose handler got stuck and is served away from its lane.
    Away,
    /// A subscription with a queue of its own (overflow policy, time to live, priority) on a shared lane. Listed
    /// while something waits there.
    Own,
}

impl fmt::Display for QueueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Lane => "lane",
            Self::Dedicated => "dedicated",
            Self::Away => "away",
            Self::Own => "own",
        })
    }
}

/// A handler call in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executing {
    /// Id of the subscription; `u64::MAX`: a destructor of a payload or handler.
    pub id: u64,
    /// Name (if it has one) and unique id of the subscription.
    pub subscription: String,
    /// Topic it is subscribed to; empty if that is not known.
    pub topic: String,
    /// Where it was subscribed.
    pub location: String,
    /// Type of the message it was given. None: not known, or no message.
    pub message_type: Option<String>,
    /// Since the monitor first saw the call: up to half a watchdog period less than it lasts.
    pub running_for: Duration,
}

impl fmt::Display for Executing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.message_type.as_deref().unwrap_or("?");
        write!(f, "{} has had '{kind}' for {:?}", self.subscription, self.running_for)?;
        if self.location.is_empty() { Ok(()) } else { write!(f, " (subscribed at {})", self.location) }
    }
}

/// A queue and its runner.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueHealth {
    /// Name of the lane, or name and unique id of the subscription.
    pub name: String,
    /// What it belongs to.
    pub kind: QueueKind,
    /// Of the subscription; empty for a lane or if it has none.
    pub subsystem: String,
    /// Of the subscription; [`Criticality::High`] for a lane.
    pub criticality: Criticality,
    /// Entries that wait.
    pub depth: u64,
    /// Most entries that waited, as sampled.
    pub high_water: u64,
    /// How long the oldest has waited at least.
    pub oldest: Option<Duration>,
    /// Whether it is over its levels.
    pub is_congested: bool,
    /// What runs now, if the monitor has seen it.
    pub running: Option<Executing>,
    /// Times the lane was taken over, or the subscription's handler lost its lane.
    pub takeovers: u64,
    /// Handler calls that panicked: of all subscriptions of the lane, or of the subscription.
    pub panics: u64,
}

/// What [`Bus::health`] found. `Display` is a table with a line a queue.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, QueueKind};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().name("pbx").lanes(2).build()?;
/// let health = bus.health();
/// assert_eq!(health.queues.iter().filter(|queue| queue.kind == QueueKind::Lane).count(), 2);
/// println!("{health}");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Lanes in order, then what is away or dedicated, by name.
    pub queues: Vec<QueueHealth>,
    /// Queues over their levels.
    pub congested: usize,
    /// Lanes taken over so far.
    pub takeovers: u64,
    /// Looks at which a lane had to stay with a stuck handler because all spare threads were in use.
    pub takeovers_refused: u64,
    /// Threads beside those that serve lanes, now.
    pub spare_threads: usize,
    /// News the host was not told because its callbacks were too slow.
    pub untold: u64,
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.queues.iter().map(|queue| queue.name.chars().count()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$}  {:9}  {:>8}  {:>8}  {:>10}  {:>5}  {:>6}  {:9}  running",
            "queue", "kind", "waiting", "most", "oldest", "taken", "panics", "level"
        )?;
        for queue in &self.queues {
            let oldest = queue.oldest.map_or_else(|| "-".to_owned(), |age| format!("{age:.1?}"));
            let level = if queue.is_congested { "CONGESTED" } else { "ok" };
            let QueueHealth { name, kind, depth, high_water, takeovers, panics, .. } = queue;
            write!(
                f,
                "{name:width$}  {kind:9}  {depth:>8}  {high_water:>8}  {oldest:>10}  {takeovers:>5}  {panics:>6}  {level:9}  "
            )?;
            match &queue.running {
                Some(running) => writeln!(f, "{running}")?,
                None => writeln!(f, "-")?,
            }
        }
        write!(
            f,
            "{} congested, {} take-overs ({} refused), {} spare threads, {} news untold",
            self.congested, self.takeovers, self.takeovers_refused, self.spare_threads, self.untold
        )
    }
}

/// What became of a handler that keeps running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StuckKind {
    /// It lost its lane: another thread goes on with the others.
    TakenOver,
    /// It keeps its lane from the others: no watchdog, or no spare thread left.
    KeepsLane,
    /// It has returned: its subscription is back on its lane, or the lane goes on.
    Returned,
}

/// A handler has got stuck, or has come back. For [`BusBuilder::on_culprit`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stuck {
    /// What became of it.
    pub kind: StuckKind,
    /// Name of the lane.
    pub lane: String,
    /// The call. For [`StuckKind::Returned`] the one it was told of, `running_for` from then to its return.
    pub executing: Executing,
}

impl Bus {
    /// What runs now, what waits and for how long, what was congested, taken over and has panicked. Cost: the
    /// monitor's look at each lane, dedicated or stuck subscription; never longer because of what publishers and
    /// handlers do, and never of consequence to them.
    #[must_use]
    pub fn health(&self) -> HealthReport {
        let core = &self.core;
        core.monitor.look_now();
        HealthReport {
            queues: core.monitor.rows(),
            congested: self.congested_queues(),
            takeovers: core.homes.watch.takeovers(),
            takeovers_refused: core.homes.watch.refused(),
            spare_threads: core.homes.spares.as_ref().map_or(0, |spares| spares.threads().0),
            untold: core.monitor.untold(),
        }
    }
}

impl BusBuilder {
    /// Called when a handler loses its lane or keeps it for too long, and again when it is back. On a thread of
    /// the bus's own, one call at a time with [`on_congestion`](Self::on_congestion): a callback that blocks holds
    /// up later news only, one that panics is caught. It must not keep the bus ([`Bus`]) alive.
    #[must_use]
    pub fn on_culprit(mut self, callback: impl Fn(&Stuck) + Send + Sync + 'static) -> Self {
        self.callbacks.on_culprit = Some(Arc::new(callback));
        self
    }

    /// Called when a queue becomes congested and when it has recovered, once each. As
    /// [`on_culprit`](Self::on_culprit).
    #[must_use]
    pub fn on_congestion(mut self, callback: impl Fn(&LevelChange) + Send + Sync + 'static) -> Self {
        self.callbacks.on_congestion = Some(Arc::new(callback));
        self
    }

    /// When queues count as congested. Default: [`WaterMarks::default`].
    #[must_use]
    pub fn water_marks(mut self, marks: WaterMarks) -> Self {
        self.water_marks = marks;
        self
    }
}
