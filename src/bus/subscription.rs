//! The user's side of a subscription: builder, handle, end.
//!
//! ```text
//!   topic.subscriber() … filters, delivery … .subscribe(handler) ─► Subscription
//!        drop / unsubscribe ─► off all lists ─► what was published before ─► final message ─► done
//! ```
//!
//! Guarantees: filters hold before the first message; unsubscribing works from anywhere, the handler
//! included, and returns at once; joining from the own handler is an error, not a deadlock (G7).

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::any_handler::AnyHandler;
use super::change::unique_id;
use super::congestion::{Criticality, Place};
use super::homes::Home;
use super::overflow::Drops;
use super::route::{Own, Route};
use super::subscriber::{Handler, PanicPolicy, Received, Subscriber, SubscriberSetup};
use super::topic::Topic;
use crate::error::{JoinError, SubscribeError};
use crate::exec::audience::{Entry, Identified};
use crate::exec::buffer::Buffer;
use crate::exec::buffer::rules::Rules;
use crate::exec::completion::TaskSlot;
use crate::exec::frames::{WaitError, WaitPlan};
use crate::exec::inline::InlineQueue;
use crate::message::{AnyMessageType, Filter, FilterMode, Formatters};
use crate::sync::Arc;

/// Where a subscription's handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// On a lane of the bus, shared with others (Stasis: pool). The default, with [`Home::Affinity`].
    Lane(Home),
    /// On a thread of its own (Stasis: mailbox): for a handler that is known to block.
    Dedicated,
    /// In the publishing thread (Stasis: no mailbox): for caches and other handlers of a few
    /// microseconds. If the handler is running already, on another thread or further up on this one,
    /// the message is queued for that call and publish returns.
    Inline,
}

impl Default for Delivery {
    fn default() -> Self {
        Self::Lane(Home::default())
    }
}

/// A subscription in the making. Made by [`Topic::subscriber`].
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Delivery, Formatters, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let hangup = MessageType::<u32>::new(&bus, "channel_hangup")?;
/// let topic = bus.topic("channel:all")?;
/// let records = topic
///     .subscriber()
///     .name("call records")
///     .delivery(Delivery::Dedicated)
///     .accept(&hangup)
///     .accept_formatters(Formatters::JSON) // filters are OR-ed
///     .subscribe(|received| drop(received.payload::<u32>()))?;
/// assert!(records.is_subscribed());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `subscribe`"]
pub struct SubscriberBuilder<'a> {
    topic: &'a Topic,
    location: &'static Location<'static>,
    name: Option<Box<str>>,
    delivery: Delivery,
    filter: Filter,
    on_panic: PanicPolicy,
    place: Place,
    pub(super) rules: Rules,
}

impl<'a> SubscriberBuilder<'a> {
    pub(super) fn new(topic: &'a Topic, location: &'static Location<'static>) -> Self {
        Self {
            topic,
            location,
            name: None,
            delivery: Delivery::default(),
            filter: Filter::default(),
            on_panic: PanicPolicy::default(),
            place: Place::default(),
            rules: Rules::default(),
        }
    }

    /// What it subscribes to.
    #[cfg_attr(not(feature = "ext"), allow(dead_code))]
    pub(crate) fn topic(&self) -> &'a Topic {
        self.topic
    }

    /// Name for diagnostics.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Where the handler runs.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// On a lane of the bus: `delivery(Delivery::Lane(..))` as Stasis spells it.
    pub fn pool(self) -> Self {
        self.delivery(Delivery::default())
    }

    /// On a thread of its own: `delivery(Delivery::Dedicated)` as Stasis spells it.
    pub fn mailbox(self) -> Self {
        self.delivery(Delivery::Dedicated)
    }

    /// In the publisher: `delivery(Delivery::Inline)` as Stasis spells it.
    pub fn no_mailbox(self) -> Self {
        self.delivery(Delivery::Inline)
    }

    /// Accepts this type, and from now on only what is accepted.
    pub fn accept(mut self, kind: &impl AsRef<AnyMessageType>) -> Self {
        self.filter.accept(kind.as_ref());
        self.filter.set_mode(FilterMode::Selective);
        self
    }

    /// Never delivers this type, whatever mode and formatters say, unless it is accepted later.
    pub fn decline(mut self, kind: &impl AsRef<AnyMessageType>) -> Self {
        self.filter.exclude(kind.as_ref());
        self
    }

    /// Accepts messages whose type has one of these formatters; with accepted types: either.
    pub fn accept_formatters(mut self, formatters: Formatters) -> Self {
        self.filter.formatters = formatters;
        self
    }

    /// Sets the filter mode.
    pub fn filter_mode(mut self, mode: FilterMode) -> Self {
        self.filter.set_mode(mode);
        self
    }

    /// What a panic of the handler leads to.
    pub fn on_panic(mut self, policy: PanicPolicy) -> Self {
        self.on_panic = policy;
        self
    }

    /// The subsystem it belongs to: what [`Bus::congestion`](crate::Bus::congestion) asks for.
    pub fn subsystem(mut self, name: impl AsRef<str>) -> Self {
        self.place.scope = Some(self.topic.0.bus.monitor.levels.scope(name.as_ref()));
        self
    }

    /// How much it matters that it keeps up. Default: [`Criticality::Normal`].
    pub fn criticality(mut self, criticality: Criticality) -> Self {
        self.place.criticality = criticality;
        self
    }

    /// Subscribes a closure.
    ///
    /// Publishes a [`SubscriptionChange`](crate::SubscriptionChange) on the topic; the new subscription
    /// sees it too if it accepts the type. Cost: 1-2 us plus, for `Dedicated`, a thread.
    ///
    /// # Errors
    /// [`SubscribeError::Closed`] after shutdown, [`SubscribeError::NoSuchLane`] for a lane number out
    /// of range, [`SubscribeError::Thread`] if a dedicated thread cannot be started,
    /// [`SubscribeError::NoQueue`] and [`SubscribeError::NoRoom`] for an overflow policy that cannot be kept.
    pub fn subscribe(
        self,
        handler: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_handler(handler)
    }

    /// Subscribes a [`Handler`]. As [`subscribe`](Self::subscribe).
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_handler(self, handler: impl Handler) -> Result<Subscription, SubscribeError> {
        let bus = &self.topic.0.bus;
        if bus.is_closed() {
            return Err(SubscribeError::Closed);
        }
        self.check_rules(self.delivery)?;
        let mut route = match self.delivery {
            Delivery::Inline => Route::Inline(Box::new(InlineQueue::new(Arc::clone(&bus.budget)))),
            Delivery::Dedicated => Route::Dedicated(bus.homes.start_dedicated(&self.topic.0.name)?),
            Delivery::Lane(home) => Route::Lane(bus.homes.choose(home, &self.topic.0)?),
        };
        if self.rules.ask_for_a_queue() {
            let dedicated = self.delivery == Delivery::Dedicated;
            let buffer = Buffer::new(self.rules, Arc::clone(&bus.budget));
            route = match route {
                Route::Lane(lane) | Route::Dedicated(lane) => {
                    Route::Buffered(Box::new(Own { buffer, lane, dedicated }))
                }
                other => other,
            };
        }
        let handler = AnyHandler::new(route.place(handler));
        let subscriber = Subscriber::new(SubscriberSetup {
            route,
            handler,
            topic: Arc::downgrade(&self.topic.0),
            location: self.location,
            name: self.name,
            totals: Arc::clone(&bus.totals),
            on_panic: self.on_panic,
            place: self.place,
        });
        bus.monitor.adopt(&subscriber);
        let filter =
            (!self.filter.accepts_all() || self.filter.mode != FilterMode::None).then(|| Arc::new(self.filter));
        let entry = Entry::new(Arc::clone(&subscriber), filter);
        if !bus.control.subscribe(&self.topic.0, &entry) {
            bus.homes.leave(&subscriber, &self.topic.0);
            subscriber.abandon();
            return Err(SubscribeError::Closed);
        }
        drop(entry);
        let subscription = Subscription { subscriber, topic: self.topic.clone() };
        self.topic.0.announce(subscription.id());
        Ok(subscription)
    }
}

/// A subscription. Dropping it unsubscribes, without waiting.
#[derive(Debug)]
#[must_use = "dropping a subscription unsubscribes it"]
pub struct Subscription {
    subscriber: Arc<Subscriber>,
    topic: Topic,
}

/// Figures of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// Messages that came to the subscription: `delivered`, `dropped` and `waiting` together. Without queue of its
    /// own what waits in the lane's queue is not known to be its own, and not counted yet.
    pub accepted: u64,
    /// Messages handed to the handler, the final one not counted.
    pub delivered: u64,
    /// Messages that were accepted and will not be delivered, by cause.
    pub dropped: Drops,
    /// Messages that wait in its own queue (0 without).
    pub waiting: u64,
    /// Publishes that were refused because of it ([`Overflow::Fail`](crate::Overflow::Fail)).
    pub refused: u64,
    /// Messages that came after the final one and were not delivered.
    pub late: u64,
    /// Calls of the handler that panicked.
    pub panics: u64,
    /// Times its handler lost its lane.
    pub takeovers: u64,
    /// Most entries that waited in the queue it shares (lane), owns (dedicated, inline), as sampled.
    pub queue_high_water: u64,
    /// Entries that wait in the queue it shares (lane) or owns (dedicated), roughly; 0 for inline.
    pub queue_depth: u64,
}

impl Subscription {
    /// Number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.subscriber.id()
    }

    /// Topic name and number.
    #[must_use]
    pub fn unique_id(&self) -> String {
        unique_id(self.topic.name(), self.id())
    }

    /// Name given for diagnostics, if any.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.subscriber.name()
    }

    /// Where it was subscribed.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.subscriber.location
    }

    /// The topic it was subscribed to.
    #[must_use]
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) fn subscriber(&self) -> &Arc<Subscriber> {
        &self.subscriber
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> SubscriptionStats {
        let post = &self.subscriber.post;
        let (delivered, late, panics) = (post.delivered(), post.late(), post.panics());
        let takeovers = post.takeovers();
        let plain = SubscriptionStats {
            accepted: delivered + late,
            delivered,
            dropped: Drops { late, ..Drops::default() },
            late,
            panics,
            takeovers,
            ..SubscriptionStats::default()
        };
        match &self.subscriber.route {
            Route::Inline(queue) => SubscriptionStats { queue_high_water: queue.high_water(), ..plain },
            Route::Lane(lane) | Route::Dedicated(lane) => {
                SubscriptionStats { queue_high_water: lane.high_water(), queue_depth: lane.depth(), ..plain }
            }
            Route::Buffered(own) => SubscriptionStats { panics, takeovers, ..own.buffer.look().into() },
        }
    }

    /// Changes the filter in one step, for publishes that begin afterwards. `change` runs under the control
    /// lock: no user code in it.
    pub(crate) fn refilter(&self, change: impl FnOnce(&mut Filter)) {
        self.topic.0.bus.control.refilter(&self.topic.0, &self.subscriber, change);
    }

    /// Accepts this type too, for publishes that begin afterwards. As in Stasis this alone changes
    /// nothing while the mode is not selective.
    pub fn accept(&self, kind: &impl AsRef<AnyMessageType>) {
        // A user's `as_ref` does not run under the control lock.
        let kind = kind.as_ref();
        self.refilter(|filter| filter.accept(kind));
    }

    /// Takes this type off the accepted ones, for publishes that begin afterwards. As in Stasis this changes
    /// nothing while the mode is not selective, or if a formatter lets the message through.
    pub fn decline(&self, kind: &impl AsRef<AnyMessageType>) {
        let kind = kind.as_ref();
        self.refilter(|filter| filter.decline(kind));
    }

    /// Sets the filter mode for publishes that begin afterwards; without effect once forced.
    pub fn set_filter_mode(&self, mode: FilterMode) {
        self.refilter(|filter| filter.set_mode(mode));
    }

    /// Accepts messages with these formatters, for publishes that begin afterwards.
    pub fn accept_formatters(&self, formatters: Formatters) {
        self.refilter(|filter| filter.formatters = formatters);
    }

    /// Whether nobody has unsubscribed it yet.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        !self.subscriber.has_left()
    }

    /// Whether the final message was handled and the handler dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.subscriber.done.is_done()
    }

    /// Unsubscribes: messages published before are still delivered, then the final message, then
    /// nothing. Returns at once; wait for the result, or await it. Calling it again is harmless.
    pub fn unsubscribe(&self) -> Completion {
        self.topic.0.unsubscribe(&self.subscriber);
        self.completion()
    }

    /// The end of the subscription, whoever unsubscribes it.
    #[must_use]
    pub fn completion(&self) -> Completion {
        Completion { subscriber: Arc::clone(&self.subscriber), task: None }
    }

    /// Waits until the final message was handled. Somebody has to unsubscribe.
    ///
    /// # Errors
    /// [`JoinError::OwnHandler`] or [`JoinError::Circular`] if that could never be.
    pub fn join(&self) -> Result<(), JoinError> {
        self.completion().wait()
    }

    /// As [`join`](Self::join), for `limit` at most.
    ///
    /// # Errors
    /// As [`join`](Self::join), and [`JoinError::Timeout`].
    pub fn join_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.completion().wait_timeout(limit)
    }

    /// Unsubscribes and waits, for `limit` at most.
    ///
    /// # Errors
    /// As [`join_timeout`](Self::join_timeout); it is unsubscribed in any case.
    pub fn unsubscribe_and_join(&self, limit: Duration) -> Result<(), JoinError> {
        self.unsubscribe().wait_timeout(limit)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.topic.0.unsubscribe(&self.subscriber);
    }
}

/// The end of a subscription: wait for it, or await it.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, JoinError};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let subscription = bus.topic("calls")?.subscribe(|_| ())?;
/// assert_eq!(subscription.completion().wait_timeout(Duration::ZERO), Err(JoinError::Timeout));
/// let end = subscription.unsubscribe();
/// end.wait()?;
/// assert!(end.is_done());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Completion {
    subscriber: Arc<Subscriber>,
    task: Option<Arc<TaskSlot>>,
}

impl Completion {
    /// Whether the final message was handled and the handler dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.subscriber.done.is_done()
    }

    /// Waits for it. In a handler on a lane it serves that lane meanwhile.
    ///
    /// # Errors
    /// [`JoinError::OwnHandler`] or [`JoinError::Circular`] if the wait could never end.
    pub fn wait(&self) -> Result<(), JoinError> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), for `limit` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`JoinError::Timeout`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.wait_until(Some(limit))
    }

    fn wait_until(&self, limit: Option<Duration>) -> Result<(), JoinError> {
        if self.is_done() {
            return Ok(());
        }
        WaitPlan::announce(self.subscriber.id()).and_then(|plan| plan.wait(&self.subscriber.done, limit)).map_err(
            |error| match error {
                WaitError::OwnHandler => JoinError::OwnHandler,
                WaitError::Circular => JoinError::Circular,
                WaitError::TooDeep => JoinError::TooDeep,
                WaitError::Timeout => JoinError::Timeout,
            },
        )
    }
}

impl Clone for Completion {
    fn clone(&self) -> Self {
        Self { subscriber: Arc::clone(&self.subscriber), task: None }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        if let Some(slot) = self.task.take() {
            self.subscriber.done.give_up_task(slot);
        }
    }
}

impl Future for Completion {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.subscriber.done.poll(&mut this.task, context)
    }
}
