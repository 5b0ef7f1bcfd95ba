//! A message sink: collects what a subscription gets, for tests to wait for and look at.
//!
//! ```text
//!   subscription ─► SinkHandler ─ push ─► [m0 m1 m2 …] ended ◄─ look ─ waits, on any thread
//!                                          └ wakes those who wait
//! ```
//!
//! Guarantees: messages stand in the order they came (`messages_stand_in_the_order_they_came`); predicates and
//! destructors of messages run under no lock (`a_predicate_may_use_the_sink`); a handler outlives its sink
//! harmlessly (`a_sink_may_be_dropped_while_subscribed`). On a thread that drives a
//! [`ManualBus`](super::ManualBus) a wait serves its lanes.

use std::fmt;
use std::time::{Duration, Instant};

use crate::bus::{Handler, Received, Subscription, SubscriptionChange, Topic};
use crate::error::SubscribeError;
use crate::exec::frames;
use crate::message::Message;
use crate::sync::park::{self, Sleeper};
use crate::sync::{Arc, Mutex, lock};

/// Most type names that an error spells out.
const SPELT: usize = 20;

/// What a sink waited for did not happen. Says what had arrived instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Fewer messages than expected.
    #[error("{} of {wanted} messages arrived within {limit:?}: {arrived}", arrived.count())]
    TooFew {
        /// Messages waited for.
        wanted: usize,
        /// How long.
        limit: Duration,
        /// What was there.
        arrived: Arrived,
    },
    /// No message that the predicate accepts.
    #[error("no message from index {start} on matched within {limit:?}: {arrived}")]
    NoMatch {
        /// Index of the first message looked at.
        start: usize,
        /// How long was waited.
        limit: Duration,
        /// What was there.
        arrived: Arrived,
    },
    /// Another number of messages than should have stayed.
    #[error("{} messages instead of {expected}: {arrived}", arrived.count())]
    Changed {
        /// The number that should have stayed.
        expected: usize,
        /// What was there.
        arrived: Arrived,
    },
    /// No final message.
    #[error("the final message did not arrive within {limit:?}: {arrived}")]
    NotEnded {
        /// How long was waited.
        limit: Duration,
        /// What was there.
        arrived: Arrived,
    },
}

impl SinkError {
    /// What had arrived.
    #[must_use]
    pub fn arrived(&self) -> &Arrived {
        match self {
            Self::TooFew { arrived, .. }
            | Self::NoMatch { arrived, .. }
            | Self::Changed { arrived, .. }
            | Self::NotEnded { arrived, .. } => arrived,
        }
    }
}

/// What a sink held at one moment, for a report.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Arrived {
    types: Vec<String>,
    ended: bool,
}

impl Arrived {
    /// How many messages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.types.len()
    }

    /// Names of their types, in order.
    #[must_use]
    pub fn types(&self) -> &[String] {
        &self.types
    }

    /// Whether the final message had come.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}

impl fmt::Display for Arrived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spelt = self.types.len().min(SPELT);
        write!(f, "[{}", self.types[..spelt].join(", "))?;
        if self.types.len() > spelt {
            write!(f, ", and {} more", self.types.len() - spelt)?;
        }
        f.write_str(if self.ended { "] and the final message" } else { "]" })
    }
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    /// Handlers made and not ended (final message handled, or dropped without).
    open: usize,
    /// Final messages.
    finals: usize,
    /// Changes so far.
    changes: u64,
    /// To be woken by the next change.
    waiting: Vec<Sleeper>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    with_changes: bool,
}

impl Shared {
    /// Changes the state and wakes those who wait for it.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let waiting = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.changes += 1;
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(Sleeper::wake);
    }
}

/// Collects messages. Clones share what was collected.
///
/// As in Stasis the final message and subscription changes are not kept, so that indices count what the test
/// publishes; see [`with_changes`](Self::with_changes). Give the sink to as many subscriptions as you like:
/// it has ended when all of them have.
///
/// Waits may be made on any thread. One made in a handler of a lane blocks that lane; one made on the thread
/// that drives a [`ManualBus`](super::ManualBus) serves its lanes meanwhile. A limit of zero only looks.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType};
/// use stasis_bus::testing::MessageSink;
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("calls")?;
/// let dial = MessageType::<u32>::new(&bus, "dial")?;
/// let sink = MessageSink::new();
/// let subscription = sink.subscribe(&topic)?;
/// let limit = Duration::from_secs(5);
/// topic.publish(dial.message(2001))?;
/// topic.publish(dial.message(2002))?;
/// assert_eq!(sink.wait_for_count(2, limit)?, 2);
/// assert_eq!(sink.wait_for(0, |message| message.payload() == Some(&2002_u32), limit)?, 1);
/// let error = sink.wait_for_count(3, Duration::ZERO).unwrap_err();
/// assert_eq!(error.to_string(), "2 of 3 messages arrived within 0ns: [dial, dial]");
/// drop(subscription);
/// sink.wait_for_end(limit)?;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MessageSink(Arc<Shared>);

impl MessageSink {
    /// An empty sink.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty sink that keeps subscription changes too.
    #[must_use]
    pub fn with_changes() -> Self {
        Self(Arc::new(Shared { with_changes: true, ..Shared::default() }))
    }

    /// A handler that collects into this sink, for any subscription.
    #[must_use]
    pub fn handler(&self) -> SinkHandler {
        lock(&self.0.state).open += 1;
        SinkHandler { sink: Arc::clone(&self.0), ended: false }
    }

    /// Subscribes the sink with the topic's defaults.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`](crate::SubscriberBuilder::subscribe).
    #[track_caller]
    pub fn subscribe(&self, topic: &Topic) -> Result<Subscription, SubscribeError> {
        topic.subscriber().subscribe_handler(self.handler())
    }

    /// How many messages it holds.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.0.state).messages.len()
    }

    /// What it holds, in the order it came. Cost: one clone of a handle each.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.0.state).messages.clone()
    }

    /// Copies of the payloads of this type, in the order they came; other messages are left out.
    #[must_use]
    pub fn payloads<P: Clone + 'static>(&self) -> Vec<P> {
        self.messages().iter().filter_map(|message| message.payload().cloned()).collect()
    }

    /// Forgets the messages; indices begin at 0 again. Whether it has ended stays.
    pub fn clear(&self) {
        let messages = std::mem::take(&mut lock(&self.0.state).messages);
        drop(messages);
    }

    /// Final messages so far: one for each subscription that ended.
    #[must_use]
    pub fn finals(&self) -> usize {
        lock(&self.0.state).finals
    }

    /// Whether it was subscribed, and every subscription has had its final message.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        is_ended(&lock(&self.0.state))
    }

    /// What it holds, for a report.
    #[must_use]
    pub fn arrived(&self) -> Arrived {
        let (messages, ended) = {
            let state = lock(&self.0.state);
            (state.messages.clone(), is_ended(&state))
        };
        Arrived { types: messages.iter().map(|message| message.type_name().to_owned()).collect(), ended }
    }

    /// Looks until `look` gives something or `limit` has passed. `look` runs under the lock: no foreign code in it.
    fn wait<R>(&self, limit: Duration, mut look: impl FnMut(&State) -> Option<R>) -> Option<R> {
        // A limit beyond what the clock can say is none.
        let deadline = Instant::now().checked_add(limit);
        let mut registered = None;
        loop {
            {
                let mut state = lock(&self.0.state);
                if let Some(found) = look(&state) {
                    return Some(found);
                }
                if registered.replace(state.changes) != Some(state.changes) {
                    state.waiting.push(Sleeper::current());
                }
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                // What came between the look and the clock counts.
                return look(&lock(&self.0.state));
            }
            if frames::drive() {
                continue;
            }
            // What other threads publish to lanes driven here wakes nobody.
            let moment = frames::is_driver_thread().then_some(Duration::from_millis(1));
            park::sleep(left.into_iter().chain(moment).min());
        }
    }

    /// Waits until it holds `wanted` messages, and says how many there are, which may be more.
    ///
    /// # Errors
    /// [`SinkError::TooFew`] when `limit` has passed.
    pub fn wait_for_count(&self, wanted: usize, limit: Duration) -> Result<usize, SinkError> {
        self.wait(limit, |state| Some(state.messages.len()).filter(|&count| count >= wanted))
            .ok_or_else(|| SinkError::TooFew { wanted, limit, arrived: self.arrived() })
    }

    /// Waits for a message that `is_wanted`, at index `start` or later, and gives its index.
    ///
    /// The predicate is called once for each message, in order, under no lock; do not clear the sink meanwhile.
    ///
    /// # Errors
    /// [`SinkError::NoMatch`] when `limit` has passed.
    ///
    /// # Panics
    /// If the predicate does.
    pub fn wait_for(
        &self,
        start: usize,
        mut is_wanted: impl FnMut(&Message) -> bool,
        limit: Duration,
    ) -> Result<usize, SinkError> {
        let began = Instant::now();
        let mut next = start;
        loop {
            let left = limit.saturating_sub(began.elapsed());
            let message = self.wait(left, |state| state.messages.get(next).cloned());
            match message {
                Some(message) if is_wanted(&message) => return Ok(next),
                Some(_) => next += 1,
                None => return Err(SinkError::NoMatch { start, limit, arrived: self.arrived() }),
            }
        }
    }

    /// Watches for `during` that the sink keeps holding exactly `expected` messages.
    ///
    /// # Errors
    /// [`SinkError::Changed`] as soon as it holds another number.
    pub fn should_stay(&self, expected: usize, during: Duration) -> Result<(), SinkError> {
        let other = |state: &State| (state.messages.len() != expected).then_some(());
        match self.wait(during, other) {
            None => Ok(()),
            Some(()) => Err(SinkError::Changed { expected, arrived: self.arrived() }),
        }
    }

    /// Waits until every subscription it was given to has had its final message.
    ///
    /// # Errors
    /// [`SinkError::NotEnded`] when `limit` has passed; also if it was never subscribed.
    pub fn wait_for_end(&self, limit: Duration) -> Result<(), SinkError> {
        self.wait(limit, |state| is_ended(state).then_some(()))
            .ok_or_else(|| SinkError::NotEnded { limit, arrived: self.arrived() })
    }

    /// As [`wait_for_count`](Self::wait_for_count), and no more than that.
    ///
    /// # Panics
    /// With the text of the [`SinkError`].
    #[track_caller]
    pub fn assert_count(&self, expected: usize, limit: Duration) {
        let held = self.wait_for_count(expected, limit).and_then(|_| self.should_stay(expected, Duration::ZERO));
        held.unwrap_or_else(|error| panic!("{error}"));
    }
}

fn is_ended(state: &State) -> bool {
    state.finals > 0 && state.open == 0
}

impl fmt::Debug for MessageSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MessageSink").field(&self.arrived()).finish()
    }
}

/// Collects what one subscription gets into a [`MessageSink`]. Made by [`MessageSink::handler`].
///
/// # Examples
/// ```
/// use stasis_bus::testing::{ManualBus, MessageSink};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let manual = ManualBus::new()?;
/// let sink = MessageSink::new();
/// let topic = manual.bus().topic("calls")?;
/// let subscription = topic.subscriber().mailbox().subscribe_handler(sink.handler())?;
/// drop(subscription);
/// manual.run();
/// assert!(sink.is_ended());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SinkHandler {
    sink: Arc<Shared>,
    ended: bool,
}

impl Handler for SinkHandler {
    fn handle(&mut self, received: &Received<'_>) {
        if received.is_final() {
            self.ended = true;
            self.sink.change(|state| {
                state.finals += 1;
                state.open -= 1;
            });
        } else if self.sink.with_changes || !received.is(SubscriptionChange::message_type()) {
            self.sink.change(|state| state.messages.push(received.message().clone()));
        }
    }
}

impl Drop for SinkHandler {
    fn drop(&mut self) {
        if !self.ended {
            // Never subscribed, or the bus ended without a final message.
            self.sink.change(|state| state.open -= 1);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
