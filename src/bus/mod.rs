//! The bus: topics, subscriptions, forwards; and what they share.
//!
//! ```text
//!   Bus ─► BusCore: names ─weak─► topics        control: graph of forwards
//!                   homes: lanes, threads       reclaimer, budget, counters
//! ```
//!
//! Guarantees: many buses may live in one process and share nothing but threads' message memory and
//! type numbers; locks: those of `names` and the control lock, all short, never nested, none on the data path.

mod any_handler;
mod change;
mod congestion;
mod control;
mod feedback;
mod forward;
mod health;
mod homes;
mod last_handle;
mod monitor;
mod names;
mod overflow;
mod patience;
mod post;
mod route;
pub(crate) mod shutdown;
mod stats;
mod subscriber;
pub(crate) mod subscribers;
mod subscription;
mod teller;
mod topic;
mod types;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::panic::Location;
use std::time::Duration;

pub use change::{ChangeKind, SubscriptionChange};
pub use congestion::{Congestion, Criticality, LevelChange, WaterMarks};
pub use forward::Forward;
pub use health::{Executing, HealthReport, QueueHealth, QueueKind, Stuck, StuckKind};
pub use homes::Home;
pub use overflow::Drops;
pub use shutdown::{Alive, ShutdownReport};
pub use stats::{BusStats, LaneStats};
pub use subscriber::{Handler, PanicPolicy, Received};
pub use subscription::{Completion, Delivery, SubscriberBuilder, Subscription, SubscriptionStats};
pub use topic::Topic;

use crate::clock;
use crate::error::{BuildError, Closed, ShutdownError, SubscribeError};
use crate::exec::affinity::Pinning;
use crate::exec::lane::{Lane, LaneEnd, RingSize};
use crate::exec::spares::Spares;
use crate::exec::wait::WaitStrategy;
use crate::exec::watchdog::Watchdog;
use crate::exec::worker::manual::{Driver, Yard};
use crate::exec::worker::{self, WorkerSetup};
use crate::reclaim::Reclaimer;
use crate::ring::Budget;
use crate::stats::{Count, Counters};
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, AtomicBool, Ordering, fence, scaled};
use control::ControlPath;
use feedback::FeedbackLimit;
use homes::Homes;
use last_handle::LastHandle;
use monitor::Monitor;
use names::Names;
use subscriber::{Subscriber, Totals};
use teller::Callbacks;
use topic::TopicInner;

/// Entries a lane's segment holds: 2^n.
const LANE_SLOT_BITS: u32 = scaled(9, 1) as u32;
/// Bytes an entry of a ring takes.
const ENTRY_BYTES: usize = 16;
/// Entries one ring may grow to, whatever the budget says.
const MOST_ENTRIES: usize = 1 << 22;

/// How long a handler may keep its lane.
const DEFAULT_PERIOD: Duration = Duration::from_millis(2);
/// Shorter ones would mostly find threads that the system has put aside.
const SHORTEST_PERIOD: Duration = Duration::from_micros(100);

/// Gives memory back that a map no longer needs. To be called after each removal; O(1) amortised.
pub(crate) fn give_back<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > 1024 && map.len() < map.capacity() / 8 {
        map.shrink_to(2 * map.len());
    }
}

/// Drives the lanes of a bus that has no threads.
#[cfg_attr(not(feature = "ext"), allow(dead_code))]
pub(crate) type LaneDriver = Driver<Subscriber>;

/// What all handles of a bus share.
#[derive(Debug)]
pub(crate) struct BusCore {
    name: String,
    closed: AtomicBool,
    pub(crate) homes: Homes,
    monitor: Arc<Monitor>,
    pub(crate) control: ControlPath,
    pub(crate) counters: Counters,
    pub(crate) reclaimer: Arc<Reclaimer>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) feedback: FeedbackLimit,
    late_type_uses: Arc<AtomicU64>,
    declined_types: HashSet<Box<str>>,
    names: Names,
}

impl BusCore {
    /// Whether publishes are refused.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // Acquire: who sees "closed" sees what the closer did before. Publishers read it pinned.
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        // Meets the fence in pinning: a publisher either sees "closed" or is waited for.
        fence::full();
        self.control.close();
    }

    fn live_topics(&self) -> Vec<Arc<TopicInner>> {
        self.names.list()
    }

    /// The topic of this name; made if there is none.
    pub(crate) fn make_topic(
        self: &Arc<Self>,
        name: &str,
        detail: Option<&str>,
        location: &'static Location<'static>,
    ) -> Result<Topic, Closed> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if self.is_closed() {
            return Err(Closed);
        }
        let topic = self.names.find_or_make(name, |name| {
            let id = NEXT.fetch_add(1, Ordering::Relaxed);
            TopicInner::new(Arc::clone(self), id, name, detail, location)
        });
        Ok(Topic(topic))
    }

    /// In the order they were made: what is done to each in turn is done in the same order in every run.
    fn topics_by_age(&self) -> Vec<Arc<TopicInner>> {
        let mut topics = self.live_topics();
        topics.sort_unstable_by_key(|topic| topic.id);
        topics
    }

    /// The topic's last reference is gone.
    fn forget_topic(&self, topic: &TopicInner) {
        self.names.forget(topic);
    }
}

/// A message bus. Handles are cheap to clone; dropping the last one shuts it down (waiting up to five
/// seconds for handlers; inside a handler: without waiting).
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().name("pbx").lanes(2).build()?;
/// let calls = bus.topic("calls")?;
/// let ring = MessageType::<&'static str>::new(&bus, "ring")?;
/// let subscription = calls.subscribe(|received| {
///     if let Some(who) = received.payload::<&'static str>() {
///         println!("{who} is ringing");
///     }
/// })?;
/// calls.publish(ring.message("SIP/100"))?;
/// drop(subscription); // what was published is still delivered
/// let report = bus.shutdown(Duration::from_secs(1))?;
/// assert!(calls.publish(ring.message("SIP/200")).unwrap_err().is_closed());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Bus {
    pub(crate) core: Arc<BusCore>,
    _last: Arc<LastHandle>,
}

impl Bus {
    /// Starts making a bus.
    #[must_use]
    pub fn builder() -> BusBuilder {
        BusBuilder::default()
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Number of lanes.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.core.homes.lanes.len()
    }

    /// The topic of this name; made if there is none.
    ///
    /// # Errors
    /// [`Closed`] after shutdown.
    #[track_caller]
    pub fn topic(&self, name: impl AsRef<str>) -> Result<Topic, Closed> {
        self.core.make_topic(name.as_ref(), None, Location::caller())
    }

    /// As [`topic`](Self::topic), with a detail for diagnostics if it is made now.
    ///
    /// # Errors
    /// [`Closed`] after shutdown.
    #[track_caller]
    pub fn topic_with_detail(&self, name: impl AsRef<str>, detail: impl AsRef<str>) -> Result<Topic, Closed> {
        self.core.make_topic(name.as_ref(), Some(detail.as_ref()), Location::caller())
    }

    /// The topic of this name, if somebody holds it.
    #[must_use]
    pub fn find_topic(&self, name: impl AsRef<str>) -> Option<Topic> {
        self.core.names.find(name.as_ref()).map(Topic)
    }

    /// All topics somebody holds, the oldest first. Publishing and making topics go on meanwhile; what comes and
    /// goes meanwhile may be in it or not.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.core.topics_by_age().into_iter().map(Topic).collect()
    }

    /// Whether message types of this name are declined: never made on this bus. One look into a hash set.
    #[must_use]
    pub fn declines_type(&self, name: impl AsRef<str>) -> bool {
        self.core.declined_types.contains(name.as_ref())
    }

    /// Whether the bus is shut down or shutting down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Ends the bus: refuses new work, delivers what was accepted, then final messages, then stops the
    /// lanes. Calling it again is harmless.
    ///
    /// # Errors
    /// [`ShutdownError`] naming the subscriptions that were not done when `limit` had passed. The bus is
    /// closed all the same, and lanes end when those handlers return.
    pub fn shutdown(&self, limit: Duration) -> Result<ShutdownReport, ShutdownError> {
        shutdown::shutdown(&self.core, limit)
    }

    /// Figures so far: a moment's view, summed from per-thread counters.
    #[must_use]
    pub fn stats(&self) -> BusStats {
        let core = &self.core;
        let mut stats = BusStats {
            published: core.counters.sum(Count::Published),
            unwanted: core.counters.sum(Count::Unwanted),
            refused: core.counters.sum(Count::Refused),
            feedback: core.feedback.refused(),
            late_type_uses: core.late_type_uses.load(Ordering::Relaxed),
            ring_bytes: core.budget.used(),
            takeovers: core.homes.watch.takeovers(),
            takeovers_refused: core.homes.watch.refused(),
            spare_threads: core.homes.spares.as_ref().map_or(0, |spares| spares.threads().0),
            spare_threads_high_water: core.homes.spares.as_ref().map_or(0, |spares| spares.threads().1),
            ..core.totals.figures()
        };
        for topic in core.live_topics() {
            stats.topics += 1;
            for entry in topic.list.load().iter().filter(|entry| entry.member().is_of(Arc::as_ptr(&topic))) {
                stats.subscriptions += 1;
                entry.member().add_to(&mut stats);
            }
        }
        for subscriber in core.control.leaving() {
            subscriber.add_to(&mut stats);
        }
        stats.lanes = core
            .homes
            .lanes
            .iter()
            .map(|lane| LaneStats {
                depth: lane.depth(),
                high_water: lane.high_water(),
                served: lane.served(),
                sleeps: lane.sleeps(),
                takeovers: lane.takeovers(),
            })
            .collect();
        stats
    }
}

/// A bus in the making.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Pinning, WaitStrategy};
/// let bus = Bus::builder()
///     .name("sbc")
///     .lanes(2)
///     .pinning(Pinning::Off)
///     .wait(WaitStrategy::Park)
///     .ring_capacity(1024)
///     .memory_budget(16 << 20)
///     .decline_type("ast_channel_varset_type")
///     .build()
///     .unwrap();
/// assert_eq!(bus.lanes(), 2);
/// ```
#[derive(Clone, Debug)]
pub struct BusBuilder {
    name: String,
    lanes: Option<usize>,
    pinning: Pinning,
    wait: WaitStrategy,
    ring_capacity: usize,
    memory_budget: usize,
    declined_types: HashSet<Box<str>>,
    watchdog: Option<Duration>,
    spare_threads: usize,
    callbacks: Callbacks,
    water_marks: WaterMarks,
    feedback_limit: Option<u16>,
}

impl Default for BusBuilder {
    fn default() -> Self {
        Self {
            name: "stasis".to_owned(),
            lanes: None,
            pinning: Pinning::default(),
            wait: WaitStrategy::default(),
            ring_capacity: 4096,
            memory_budget: 256 << 20,
            declined_types: HashSet::new(),
            watchdog: Some(DEFAULT_PERIOD),
            spare_threads: 64,
            callbacks: Callbacks::default(),
            water_marks: WaterMarks::default(),
            feedback_limit: None,
        }
    }
}

impl BusBuilder {
    /// Name, seen in thread names and logs. Default: "stasis".
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Number of lanes, 1 to 256. Default: one per core.
    #[must_use]
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// Where lanes run. Where the system refuses, a warning is logged and the lane runs unpinned.
    #[must_use]
    pub fn pinning(mut self, pinning: Pinning) -> Self {
        self.pinning = pinning;
        self
    }

    /// How idle lanes wait.
    #[must_use]
    pub fn wait(mut self, wait: WaitStrategy) -> Self {
        self.wait = wait;
        self
    }

    /// Entries of a lane's queue that are always there (rounded up to 512s, 1024 at least; 16 bytes
    /// each). Default: 4096.
    #[must_use]
    pub fn ring_capacity(mut self, entries: usize) -> Self {
        self.ring_capacity = entries;
        self
    }

    /// Bytes that all queues of the bus may take together before publishes are refused. Messages
    /// themselves are not counted. Default: 256 MiB.
    #[must_use]
    pub fn memory_budget(mut self, bytes: usize) -> Self {
        self.memory_budget = bytes;
        self
    }

    /// How long a handler may keep its lane from the others (default: 2 ms, down to 100 us). Then another
    /// thread goes on with the lane; the handler's own subscription waits for it in a queue of its own, and
    /// comes back when it has been quick again. The same with one whose calls are shorter, but together keep what
    /// the others wait for from being served for that long. `None`: never; a handler that blocks then blocks its lane.
    #[must_use]
    pub fn watchdog(mut self, period: impl Into<Option<Duration>>) -> Self {
        self.watchdog = period.into().map(|period| period.max(SHORTEST_PERIOD));
        self
    }

    /// Threads at most that take lanes over and serve what got stuck (default: 64). They are made when needed.
    #[must_use]
    pub fn spare_threads(mut self, most: usize) -> Self {
        self.spare_threads = most;
        self
    }

    /// Message types of this name are not made on this bus. Its own too: no subscription is told of others'
    /// changes if [`SubscriptionChange`] is declined; final messages come all the same.
    #[must_use]
    pub fn decline_type(mut self, name: impl Into<Box<str>>) -> Self {
        self.declined_types.insert(name.into());
        self
    }

    /// Makes the bus and starts its lanes.
    ///
    /// # Errors
    /// [`BuildError`] for a number of lanes or a budget that cannot be, or if the system refuses a
    /// thread.
    pub fn build(self) -> Result<Bus, BuildError> {
        let (pinning, wait, watchdog) = (self.pinning.clone(), self.wait, self.watchdog);
        let is_monitored = !self.callbacks.is_empty() || self.water_marks != WaterMarks::default();
        let (bus, ends) = self.prepare(None)?;
        // From here on a failure ends the lanes that have started.
        for (index, end) in ends.into_iter().enumerate() {
            let reclaimer = Arc::clone(&bus.core.reclaimer);
            let setup = WorkerSetup { pin: pinning.of_lane(index), wait: wait.into(), reclaimer };
            let spares = bus.core.homes.spares.clone();
            bus.core.homes.adopt(worker::spawn(end, setup, spares).map_err(BuildError::Thread)?);
        }
        let homes = &bus.core.homes;
        if let Some(period) = watchdog.or(is_monitored.then_some(DEFAULT_PERIOD)) {
            let (spares, watch) = (homes.spares.clone(), Arc::clone(&homes.watch));
            let dog = Watchdog::start(period, &homes.lanes, spares, Arc::clone(&bus.core.monitor) as _, watch);
            homes.adopt(dog.map_err(BuildError::Thread)?);
        }
        Ok(bus)
    }

    /// Makes a bus whose lanes have no threads: the calling thread drives them. `seed`: the order in which
    /// lanes are served, else they take turns.
    #[cfg_attr(not(feature = "ext"), allow(dead_code))]
    pub(crate) fn build_manual(self, seed: Option<u64>) -> Result<(Bus, LaneDriver), BuildError> {
        let yard = Arc::new(Yard::new());
        let (bus, ends) = self.prepare(Some(Arc::clone(&yard)))?;
        ends.into_iter().for_each(|end| yard.leave(end));
        let driver = Driver::begin(yard, Arc::clone(&bus.core.reclaimer), seed);
        Ok((bus, driver))
    }

    /// A bus and the ends of its lanes, served by nobody yet.
    fn prepare(self, yard: Option<Arc<Yard<Subscriber>>>) -> Result<(Bus, Vec<LaneEnd<Subscriber>>), BuildError> {
        let lanes = self.lanes.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        if !(1..=256).contains(&lanes) {
            return Err(BuildError::Lanes(lanes));
        }
        let slots = 1 << LANE_SLOT_BITS;
        let capacity = self.ring_capacity.clamp(2 * slots, MOST_ENTRIES).next_multiple_of(slots);
        let needed = lanes * capacity * ENTRY_BYTES;
        if self.memory_budget < needed {
            return Err(BuildError::Budget { budget: self.memory_budget, needed });
        }
        clock::start();
        SubscriptionChange::prepare()?;
        let most = (self.memory_budget / ENTRY_BYTES).clamp(capacity, MOST_ENTRIES);
        let size = RingSize { slot_bits: LANE_SLOT_BITS, capacity, most };
        let budget = Arc::new(Budget::new(self.memory_budget));
        let reclaimer = Reclaimer::new();
        let (lanes, ends): (Vec<_>, Vec<_>) =
            (0..lanes).map(|index| Lane::new(format!("{}/{index}", self.name), size, Arc::clone(&budget))).unzip();
        let spares = self.watchdog.map(|_| Spares::new(&self.name, self.spare_threads));
        let homes = Homes::new(lanes, self.wait, Arc::clone(&reclaimer), Arc::clone(&budget), most, spares, yard);
        let (watch, period) = (Arc::clone(&homes.watch), self.watchdog.unwrap_or(DEFAULT_PERIOD));
        let core = Arc::new(BusCore {
            monitor: Monitor::new(&homes.lanes, watch, period, self.water_marks, self.callbacks),
            homes,
            name: self.name,
            closed: AtomicBool::new(false),
            control: ControlPath::new(Arc::clone(&reclaimer)),
            counters: Counters::new(),
            reclaimer,
            budget,
            totals: Arc::default(),
            feedback: FeedbackLimit::new(self.feedback_limit),
            late_type_uses: Arc::default(),
            declined_types: self.declined_types,
            names: Names::new(),
        });
        Ok((Bus { _last: Arc::new(LastHandle(Arc::clone(&core))), core }, ends))
    }
}
