//! Congestion: which queues are too long or too old, told by subsystem and by how much it matters.
//!
//! ```text
//!   depth or age ──────╱╲────── high: congested, told once
//!                ─────╱──╲───── low:  no longer, told once (depth and age both)
//!   queue ─► subsystem "cdr"  +1       admission: bus.is_congested(High)?  one load
//!         └► criticality Low  +1                  congestion.is_congested()  one load
//! ```
//!
//! A queue is a lane's (any subscription may ride on it: no subsystem, [`Criticality::High`]), that of a
//! subscription with a thread or a queue of its own, or that of one whose handler got stuck (the subscription's
//! scope). The bus's
//! monitor looks at them while lanes are busy, every half watchdog period; publishing pays nothing.
//!
//! Guarantees: each crossing is told once, those of a queue in order, by another thread than the monitor's
//! (`tests/congestion.rs`: `each_crossing_is_told_once`); counts are right before it is told; a queue that goes
//! is no longer congested (`a_queue_that_goes_is_no_longer_congested`).

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use super::Bus;
use crate::sync::plain::{AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, lock};

/// How much it matters that a subscription keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Criticality {
    /// Nobody waits for it: call records, statistics.
    Low,
    /// Default.
    #[default]
    Normal,
    /// Calls depend on it. What all lanes count as.
    High,
}

/// Levels between which a queue becomes congested and recovers. By depth, by age, or both.
///
/// # Examples
/// ```
/// use stasis_bus::WaterMarks;
/// use std::time::Duration;
/// let marks = WaterMarks::none().depth(450, 500).age(Duration::from_millis(100), Duration::from_secs(1));
/// assert_eq!(WaterMarks::stasis(), WaterMarks::none().depth(450, 500));
/// # assert_ne!(marks, WaterMarks::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaterMarks {
    depth: Option<(u64, u64)>,
    age: Option<(Duration, Duration)>,
}

impl WaterMarks {
    /// Never congested.
    #[must_use]
    pub const fn none() -> Self {
        Self { depth: None, age: None }
    }

    /// As for a taskprocessor of Stasis: congested at 500 entries, recovered at 450.
    #[must_use]
    pub const fn stasis() -> Self {
        Self::none().depth(450, 500)
    }

    /// Entries that wait. A low level above the high one counts as the high one, a high one of 0 as 1.
    #[must_use]
    pub const fn depth(mut self, low: u64, high: u64) -> Self {
        let high = if high == 0 { 1 } else { high };
        self.depth = Some((if low < high { low } else { high - 1 }, high));
        self
    }

    /// How long the oldest entry has waited. A low level above the high one counts as the high one.
    #[must_use]
    pub fn age(mut self, low: Duration, high: Duration) -> Self {
        self.age = Some((low.min(high), high));
        self
    }

    /// Whether a queue is congested, after it was (`before`) or not.
    pub(super) fn judge(&self, before: bool, depth: u64, age: Option<Duration>) -> bool {
        let age = age.unwrap_or_default();
        self.depth.is_some_and(|(low, high)| if before { depth > low } else { depth >= high })
            || self.age.is_some_and(|(low, high)| if before { age > low } else { age >= high })
    }
}

impl Default for WaterMarks {
    /// Congested when the oldest entry has waited a second, recovered at half of that, whatever the depth: how
    /// many entries are too many depends on how fast they are served.
    fn default() -> Self {
        Self::none().age(Duration::from_millis(500), Duration::from_secs(1))
    }
}

/// A queue has become congested, or has recovered. For [`BusBuilder::on_congestion`](crate::BusBuilder::on_congestion).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LevelChange {
    /// Name of the lane, or name and unique id of the subscription.
    pub queue: String,
    /// Of the subscription; empty for a lane or if it has none.
    pub subsystem: String,
    /// Of the subscription; [`Criticality::High`] for a lane.
    pub criticality: Criticality,
    /// Congested, or recovered.
    pub is_congested: bool,
    /// Entries that waited at that moment.
    pub depth: u64,
    /// How long the oldest had waited at least.
    pub oldest: Option<Duration>,
}

/// What the queues of a subsystem share.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) name: Box<str>,
    congested: AtomicUsize,
    marks: Mutex<Option<WaterMarks>>,
}

/// Where a subscription belongs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) criticality: Criticality,
}

impl Place {
    /// Whether nothing was said.
    pub(super) fn is_default(&self) -> bool {
        self.scope.is_none() && self.criticality == Criticality::default()
    }

    pub(super) fn subsystem(&self) -> &str {
        self.scope.as_ref().map_or("", |scope| &scope.name)
    }
}

/// Counts and levels of a bus.
#[derive(Debug)]
pub(super) struct Levels {
    /// Congested queues of this criticality or a higher one.
    congested: [AtomicUsize; 3],
    scopes: Mutex<HashMap<Box<str>, Arc<Scope>>>,
    marks: Mutex<WaterMarks>,
}

impl Levels {
    pub(super) fn new(marks: WaterMarks) -> Self {
        Self { congested: Default::default(), scopes: Mutex::default(), marks: Mutex::new(marks) }
    }

    pub(super) fn scope(&self, name: &str) -> Arc<Scope> {
        let mut scopes = lock(&self.scopes);
        if let Some(scope) = scopes.get(name) {
            return Arc::clone(scope);
        }
        let scope = Arc::new(Scope { name: name.into(), congested: AtomicUsize::new(0), marks: Mutex::default() });
        scopes.insert(name.into(), Arc::clone(&scope));
        scope
    }

    pub(super) fn marks_of(&self, place: &Place) -> WaterMarks {
        place.scope.as_ref().and_then(|scope| *lock(&scope.marks)).unwrap_or_else(|| *lock(&self.marks))
    }

    /// A queue has crossed a level.
    pub(super) fn count(&self, place: &Place, is_congested: bool) {
        let change = |count: &AtomicUsize| {
            // Relaxed: counts, written by the monitor under its lock only.
            if is_congested {
                count.fetch_add(1, Ordering::Relaxed)
            } else {
                count.fetch_sub(1, Ordering::Relaxed)
            };
        };
        self.congested[..=place.criticality as usize].iter().for_each(change);
        if let Some(scope) = &place.scope {
            change(&scope.congested);
        }
    }

    pub(super) fn congested(&self, from: Criticality) -> usize {
        self.congested[from as usize].load(Ordering::Relaxed)
    }
}

/// The state of a subsystem, to be kept by whoever admits work for it.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Criticality, Delivery};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let records = bus.topic("cdr:all")?.subscriber()
///     .delivery(Delivery::Dedicated)
///     .subsystem("cdr")
///     .criticality(Criticality::Low)
///     .subscribe(|_| ())?;
/// let cdr = bus.congestion("cdr");
/// assert!(!cdr.is_congested());
/// assert!(!bus.is_congested(Criticality::High)); // whatever "cdr" does: take the call
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Congestion(Arc<Scope>);

impl Congestion {
    /// Whether a queue of the subsystem is congested. Cost: one load.
    #[inline]
    #[must_use]
    pub fn is_congested(&self) -> bool {
        self.queues() > 0
    }

    /// Congested queues of the subsystem. Cost: one load.
    #[inline]
    #[must_use]
    pub fn queues(&self) -> usize {
        self.0.congested.load(Ordering::Relaxed)
    }

    /// Name of the subsystem.
    #[must_use]
    pub fn subsystem(&self) -> &str {
        &self.0.name
    }
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} congested", self.subsystem(), self.queues())
    }
}

impl Bus {
    /// Whether a queue of this criticality or a higher one is congested. For those who admit work. Cost: one load.
    #[inline]
    #[must_use]
    pub fn is_congested(&self, from: Criticality) -> bool {
        self.core.monitor.levels.congested(from) > 0
    }

    /// Congested queues of the bus, whatever their criticality (Stasis: alert count). Cost: one load.
    #[must_use]
    pub fn congested_queues(&self) -> usize {
        self.core.monitor.levels.congested(Criticality::Low)
    }

    /// The state of a subsystem, whether it has subscriptions or not. Cost: a lock and a look into a map; keep it.
    #[must_use]
    pub fn congestion(&self, subsystem: impl AsRef<str>) -> Congestion {
        Congestion(self.core.monitor.levels.scope(subsystem.as_ref()))
    }

    /// Changes the levels of lanes, and of subscriptions whose subsystem has none of its own. They count from the
    /// monitor's next look on.
    pub fn set_water_marks(&self, marks: WaterMarks) {
        *lock(&self.core.monitor.levels.marks) = marks;
    }

    /// Changes the levels of a subsystem's queues; `None`: those of the bus.
    pub fn set_subsystem_water_marks(&self, subsystem: impl AsRef<str>, marks: impl Into<Option<WaterMarks>>) {
        *lock(&self.core.monitor.levels.scope(subsystem.as_ref()).marks) = marks.into();
    }
}
