//! A bus without threads: its owner says when something is delivered, and from which lane.
//!
//! ```text
//!   publish ─► lane 0 ▢▢▢      step(): one ▢ of the lane whose turn it is (in turns, or by the seed)
//!              lane 1 ▢        step_lane(1): one ▢ of this lane
//!              own    ▢▢       run(): until all are empty
//!                └── handlers run inside these calls, and inside waits made on this thread
//! ```
//!
//! Guarantees: nothing is delivered outside of these calls, but to inline subscriptions, as ever; the order of
//! deliveries depends only on the program and the seed while other threads leave the bus alone
//! (`the_same_seed_delivers_in_the_same_order`); waits on the owner's thread come out (G7:
//! `g07_a_wait_on_the_own_thread_serves_the_lanes`); dropping it delivers what is queued, then the final
//! messages (`dropping_the_manual_bus_ends_it`).

use std::time::Duration;

use crate::bus::{Bus, BusBuilder, LaneDriver};
use crate::error::BuildError;

/// How long a drop waits for handlers that other threads run (inline ones).
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// Makes a [`ManualBus`].
///
/// # Examples
/// ```
/// use stasis_bus::Bus;
/// use stasis_bus::testing::ManualBus;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = Bus::builder().name("unit test").ring_capacity(1024);
/// let manual = ManualBus::builder().settings(settings).lanes(3).seed(1).build()?;
/// assert_eq!((manual.bus().name(), manual.lanes()), ("unit test", 3));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ManualBusBuilder {
    settings: BusBuilder,
    lanes: usize,
    seed: Option<u64>,
}

impl ManualBusBuilder {
    /// Number of lanes, 1 to 256. Default: 2, on every machine.
    pub fn lanes(mut self, lanes: usize) -> Self {
        self.lanes = lanes;
        self
    }

    /// Lanes are served in an order that this number decides. Default: they take turns.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Name, capacities and declined types; what is said there about lanes and threads is not used.
    pub fn settings(mut self, settings: BusBuilder) -> Self {
        self.settings = settings;
        self
    }

    /// Makes the bus, to be driven by the calling thread.
    ///
    /// # Errors
    /// As [`BusBuilder::build`], [`BuildError::Thread`] excepted.
    pub fn build(self) -> Result<ManualBus, BuildError> {
        let (bus, driver) = self.settings.lanes(self.lanes).build_manual(self.seed)?;
        Ok(ManualBus { bus, driver })
    }
}

/// A [`Bus`] without threads, driven by the thread that made it.
///
/// [`bus`](Self::bus) gives ordinary handles: topics, subscriptions, forwards, everything on top works as on
/// any bus. Handlers of lanes and of dedicated subscriptions run when this thread calls [`step`](Self::step),
/// [`step_lane`](Self::step_lane) or [`run`](Self::run), or waits for something
/// ([`Subscription::join`](crate::Subscription::join), [`Topic::publish_sync`](crate::Topic::publish_sync),
/// [`Bus::shutdown`], a wait of a [`MessageSink`](super::MessageSink)): then it serves the lanes meanwhile.
/// Inline handlers run in the publisher.
///
/// Other threads may use the bus too, but then they decide about the order; if they wait, they wait until
/// the owner drives.
///
/// All handlers share one stack: a handler that waits for a handler which waits for *anything* further down
/// gets [`Circular`](crate::JoinError::Circular) (of its own lane: `OwnHandler`), also where a bus with
/// threads would let the lower one go on first.
///
/// A handler that blocks on something else (a channel that another handler would fill) blocks the test.
///
/// Dropping it shuts the bus down (other handles of the bus are closed then): what is queued is delivered, then
/// the final messages, here.
///
/// # Examples
/// ```
/// use stasis_bus::testing::{ManualBus, MessageSink, TestMessage, test_message_type};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manual = ManualBus::new()?;
/// let calls = manual.bus().topic("calls")?;
/// let kind = test_message_type(manual.bus())?;
/// let sink = MessageSink::new();
/// let subscription = sink.subscribe(&calls)?;
/// calls.publish(kind.message(TestMessage(1)))?;
/// assert_eq!(sink.count(), 0); // nothing runs by itself
/// manual.run();
/// assert_eq!(sink.count(), 1);
/// # Ok(()) }
/// ```
///
/// Every seed is one interleaving of the lanes; a test that fails with one fails with it again:
///
/// ```
/// # use stasis_bus::testing::{ManualBus, MessageSink, TestMessage, test_message_type};
/// # use stasis_bus::{Delivery, Home};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// for seed in 0..20 {
///     let manual = ManualBus::builder().lanes(2).seed(seed).build()?;
///     // the application, then
///     manual.run();
///     // and look at what it did
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ManualBus {
    // Before the driver: the last handle's shutdown is driven too.
    bus: Bus,
    driver: LaneDriver,
}

impl ManualBus {
    /// Two lanes that take turns.
    ///
    /// # Errors
    /// As [`ManualBusBuilder::build`].
    pub fn new() -> Result<Self, BuildError> {
        Self::builder().build()
    }

    /// Starts making one.
    pub fn builder() -> ManualBusBuilder {
        ManualBusBuilder { settings: Bus::builder(), lanes: 2, seed: None }
    }

    /// The bus.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Serves one thing of the lane whose turn it is: a message for the subscriptions it has on that lane, or one
    /// subscription's final message. Gives the lane's number, or `None` if nothing is left to do.
    pub fn step(&self) -> Option<usize> {
        self.driver.step()
    }

    /// Serves one thing of this lane; false if it has none, or there is no such lane. Lanes of the bus are
    /// numbered from 0 ([`Home::Lane`](crate::Home::Lane)); those of dedicated subscriptions follow in the
    /// order of subscribing.
    pub fn step_lane(&self, lane: usize) -> bool {
        self.driver.step_lane(lane)
    }

    /// Steps until nothing is left to do, and says how many steps that took. Handlers that publish to each other
    /// for ever keep it for ever: see [`run_at_most`](Self::run_at_most).
    pub fn run(&self) -> usize {
        self.run_at_most(usize::MAX)
    }

    /// Steps until nothing is left to do, `steps` times at most, and says how many steps it took.
    pub fn run_at_most(&self, steps: usize) -> usize {
        (0..steps).take_while(|_| self.step().is_some()).count()
    }

    /// Lanes so far: those of the bus, then one for each dedicated subscription ever made.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.driver.lanes()
    }
}

impl Drop for ManualBus {
    fn drop(&mut self) {
        if self.driver.is_over() {
            return;
        }
        if let Err(error) = self.bus.shutdown(DROP_LIMIT) {
            tracing::warn!(bus = self.bus.name(), %error, "a manual bus was dropped while handlers were running");
        }
    }
}
