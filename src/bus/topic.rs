//! Topics: names to publish on, and the publish path.
//!
//! ```text
//!   publish(message)
//!     hint: does anybody accept this type?  no ─► dropped here, 2 loads
//!     pin, load snapshot
//!     one dispatch for each lane with an interested subscriber; the last takes the message itself
//!     unpin
//!     into the own queues of those that have one; inline subscribers: called here
//! ```
//!
//! Guarantees: order G2 (a push is done when publish returns; its places on all lanes are taken before the first lane
//! has the message); exactly once (G3: a list holds a
//! subscription once); no lock (but that of a
//! queue of a subscription's own, for a push), no wait for a subscriber, no allocation of its own (G6); on error
//! nobody got the message. Cost: O(lanes with interest + inline subscribers). Models:
//! `loom-tests/tests/bus.rs`.

use std::panic::Location;
use std::time::Duration;

use super::BusCore;
use super::change::{ChangeKind, SubscriptionChange};
use super::forward::Forward;
use super::subscriber::Subscriber;
use super::subscribers::{Hint, Subscribers};
use super::subscription::{SubscriberBuilder, Subscription};
use super::{Received, SubscribeError};
use crate::clock::Timestamp;
use crate::error::{Closed, PublishError, PublishSyncError};
use crate::exec::audience::{Audience, Identified};
use crate::exec::completion::Completion;
use crate::exec::frames::{WaitError, WaitPlan};
use crate::exec::part::Part;
use crate::message::{AnyMessageType, Message, MessageType, depth};
use crate::pinned::PinnedCell;
use crate::reclaim::{self, Pin};
use crate::stats::Count;
use crate::sync::Arc;
use crate::sync::plain::AtomicUsize;

/// What all handles of a topic share.
pub(crate) struct TopicInner {
    pub(crate) hint: Hint,
    pub(crate) list: PinnedCell<Subscribers>,
    pub(crate) bus: Arc<BusCore>,
    pub(crate) id: u64,
    pub(crate) name: Arc<str>,
    detail: Option<Box<str>>,
    created: Timestamp,
    pub(crate) location: &'static Location<'static>,
    /// Lane of the first subscriptions, plus one; zero: none yet.
    pub(crate) home: AtomicUsize,
    /// Subscriptions on lanes now.
    pub(crate) homed: AtomicUsize,
}

/// A topic. Handles are cheap to clone; the topic lives while a handle, a subscription's handle or a
/// forward's handle does.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let topic = bus.topic("channel:all")?;
/// let snapshot = MessageType::<String>::new(&bus, "channel_snapshot")?;
/// assert!(!topic.wants(&snapshot));
/// let subscription = topic.subscriber().accept(&snapshot).subscribe(|received| {
///     if let Some(text) = received.payload::<String>() {
///         println!("{text}");
///     }
/// })?;
/// assert!(topic.wants(&snapshot));
/// topic.publish(snapshot.message("SIP/100 is up".into()))?;
/// subscription.unsubscribe().wait()?; // everything published before was handled
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Topic(pub(crate) Arc<TopicInner>);

/// Makes sure that those who accept the message have room for it; all of them, or false.
fn reserve(inline: &Audience<Subscriber>, message: &Message) -> bool {
    let accepting = || inline.iter().filter(|entry| entry.accepts(message));
    for (reserved, entry) in accepting().enumerate() {
        if !entry.member().reserve() {
            accepting().take(reserved).for_each(|entry| entry.member().release());
            return false;
        }
    }
    true
}

impl TopicInner {
    pub(crate) fn new(
        bus: Arc<BusCore>,
        id: u64,
        name: Arc<str>,
        detail: Option<&str>,
        location: &'static Location<'static>,
    ) -> Self {
        Self {
            hint: Hint::default(),
            list: PinnedCell::new(Arc::new(Subscribers::none())),
            bus,
            id,
            name,
            detail: detail.map(Into::into),
            created: Timestamp::now(),
            location,
            home: AtomicUsize::new(0),
            homed: AtomicUsize::new(0),
        }
    }

    #[inline]
    fn publish(&self, message: Message) -> Result<(), PublishError> {
        if self.hint.covers_message(&message) {
            return self.publish_counted(message, false);
        }
        if self.bus.is_closed() {
            return Err(PublishError::Closed(message));
        }
        self.bus.counters.count(Count::Unwanted);
        Ok(())
    }

    fn publish_counted(&self, message: Message, control: bool) -> Result<(), PublishError> {
        if !self.publish_wanted(message, control)? {
            self.bus.counters.count(Count::Unwanted);
        }
        Ok(())
    }

    /// Publishes what the hint says somebody may want; false: nobody does after all, and nothing was counted (the
    /// hint covers everything while a list changes). `control`: finds room in full queues too.
    #[inline]
    fn publish_wanted(&self, message: Message, control: bool) -> Result<bool, PublishError> {
        if depth::current() != 0
            && let Err(message) = self.bus.feedback.pass(&self.name, &message, control)
        {
            return Err(PublishError::Feedback(message));
        }
        let (id, formatters) = (message.type_id(), message.formatters());
        let pin = reclaim::pin();
        // After pinning: shutdown closes first and then waits for those who are pinned.
        if self.bus.is_closed() {
            drop(pin);
            return Err(PublishError::Closed(message));
        }
        let list = self.list.load_pinned(&pin);
        if let [part] = &*list.parts
            && list.inline.len() == 0
            && part.audience().interest().covers(id, formatters)
            && !part.lane().is_full()
        {
            // The common case, looked through once.
            part.push(message);
            self.bus.counters.count(Count::Published);
            return Ok(true);
        }
        self.publish_to_all(message, control, pin)
    }

    /// As [`publish_wanted`](Self::publish_wanted), whatever the list is: several lanes, inline subscriptions, a full
    /// queue. Apart from it, so that the common case does not keep the registers that this one needs.
    #[inline(never)]
    fn publish_to_all(&self, message: Message, control: bool, pin: Pin) -> Result<bool, PublishError> {
        let (id, formatters) = (message.type_id(), message.formatters());
        let list = self.list.load_pinned(&pin);
        let interested = || list.parts.iter().filter(|part| part.audience().interest().covers(id, formatters));
        let with_inline = list.inline.interest().covers(id, formatters);
        let full = || interested().any(|part| part.lane().is_full()) || with_inline && !reserve(&list.inline, &message);
        if !control && full() {
            drop(pin);
            self.bus.counters.count(Count::Refused);
            return Err(PublishError::Full(message));
        }
        let mut parts = interested();
        let on_lanes = if control {
            let through = |part: &Part<Subscriber>| {
                if !part.push_through(message.clone()) {
                    self.bus.counters.count(Count::Refused);
                }
            };
            parts.map(through).count() > 0
        } else if with_inline {
            Part::push_each(&mut parts, message.clone()).is_ok()
        } else {
            let Err(unwanted) = Part::push_each(&mut parts, message) else {
                self.bus.counters.count(Count::Published);
                return Ok(true);
            };
            // Its destructor is user code.
            drop(pin);
            drop(unwanted);
            return Ok(false);
        };
        if !on_lanes && !with_inline {
            return Ok(false);
        }
        self.bus.counters.count(Count::Published);
        if !with_inline {
            return Ok(true);
        }
        let (inline, queued) = (Arc::clone(&list.inline), list.queued > 0);
        // Shutdown waits for it, too.
        let _delivering = self.bus.counters.deliver();
        drop(pin);
        if queued {
            // Before inline handlers: what those publish comes after this message, as on lanes.
            inline.for_each(&message, |subscriber| subscriber.deliver_queued(&message, !control));
        }
        inline.for_each(&message, |subscriber| {
            if !subscriber.deliver_inline(&message) {
                self.bus.counters.count(Count::Refused);
            }
        });
        Ok(true)
    }

    /// Whether messages of this type are not made on our bus.
    pub(crate) fn declines(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        self.bus.declined_types.contains(kind.as_ref().name())
    }

    /// Tells the subscribers about a change; nothing is made if nobody wants to know.
    fn publish_change(&self, subscription: u64, kind: ChangeKind) {
        let change = SubscriptionChange::message_type();
        if self.hint.covers(change.id(), change.formatters()) && !self.declines(change) {
            let message = SubscriptionChange::message(&self.name, subscription, kind);
            // Refused after shutdown only, when nobody is left to see it.
            let _ = self.publish_wanted(message.clone(), true);
        }
    }

    pub(crate) fn announce(&self, subscription: u64) {
        self.publish_change(subscription, ChangeKind::Subscribe);
    }

    /// Publishes what subscriptions of ours have to get: finds room in full queues too.
    #[cfg_attr(not(feature = "ext"), allow(dead_code))]
    pub(crate) fn publish_control(&self, message: Message) -> Result<(), PublishError> {
        // The clone: see `Part::push_through`.
        self.publish_counted(message.clone(), true)
    }

    /// Unsubscribes: off the lists, the others told, the final message queued. Once.
    pub(crate) fn unsubscribe(self: &Arc<Self>, subscriber: &Arc<Subscriber>) {
        if !subscriber.leave() {
            return;
        }
        self.bus.control.unsubscribe(self, subscriber);
        self.bus.homes.leave(subscriber, self);
        let message = SubscriptionChange::message(&self.name, subscriber.id(), ChangeKind::Unsubscribe);
        if self.hint.covers_message(&message) && !self.declines(SubscriptionChange::message_type()) {
            let _ = self.publish_wanted(message.clone(), true);
        }
        subscriber.queue_final(message);
    }
}

impl Drop for TopicInner {
    fn drop(&mut self) {
        self.bus.forget_topic(self);
    }
}

impl Topic {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Detail given at creation, if any.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// When it was created.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.0.created
    }

    /// Number, unique in the process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The topic of this name on the same bus; made if there is none. As [`Bus::topic`](crate::Bus::topic),
    /// for those who have a topic and must not keep the bus from ending.
    ///
    /// # Errors
    /// [`Closed`] after shutdown.
    #[track_caller]
    pub fn sibling(&self, name: impl AsRef<str>) -> Result<Self, Closed> {
        self.0.bus.make_topic(name.as_ref(), None, Location::caller())
    }

    /// Publishes a message: every subscription that a publish reaches and that accepts it gets it once.
    ///
    /// Returns when the message is queued everywhere (and inline subscriptions have been called, unless
    /// another thread is in their handler). Never waits for a subscriber; may be called from any
    /// handler, at any depth.
    ///
    /// Order: if this call returned before another publish began, every subscription that gets both
    /// gets this message first, whatever the topics. What a handler publishes when it has got the message comes
    /// after it for all subscriptions on lanes and threads of their own, also while this call is still going on (it may
    /// come first to inline ones and to those with an own queue, to which this call comes last).
    ///
    /// Cost: one queue entry per lane with an interested subscriber; nobody interested: a few ns.
    ///
    /// # Errors
    /// [`PublishError::Closed`] after shutdown, [`PublishError::Full`] if a queue is full and the
    /// memory budget is used up, [`PublishError::Feedback`] beyond [`BusBuilder::feedback_limit`]. Nobody got
    /// the message then; the error hands it back.
    ///
    /// [`BusBuilder::feedback_limit`]: crate::BusBuilder::feedback_limit
    #[inline]
    pub fn publish(&self, message: Message) -> Result<(), PublishError> {
        self.0.publish(message)
    }

    /// Publishes, and returns when `subscription` has handled the message and all before it (at once
    /// if it does not accept it and has nothing waiting).
    ///
    /// In a handler on a lane it serves that lane meanwhile, so waiting for a subscription of the same
    /// lane, or over several lanes, comes out.
    ///
    /// # Errors
    /// [`PublishSyncError::OwnHandler`] and [`PublishSyncError::Circular`] if the wait could never end,
    /// else as [`publish`](Self::publish). Not published in any of these cases.
    pub fn publish_sync(&self, message: Message, subscription: &Subscription) -> Result<(), PublishSyncError> {
        let subscriber = subscription.subscriber();
        let plan = match WaitPlan::announce(subscriber.id()) {
            Ok(plan) => plan,
            Err(WaitError::OwnHandler) => return Err(PublishSyncError::OwnHandler(message)),
            Err(WaitError::TooDeep) => return Err(PublishSyncError::TooDeep(message)),
            Err(_) => return Err(PublishSyncError::Circular(message)),
        };
        self.publish(message.clone())?;
        let handled = Arc::new(Completion::new());
        subscriber.queue_notice(message, Arc::clone(&handled));
        // Without a time limit the wait ends with the notice.
        let _ = plan.wait(&handled, None::<Duration>);
        Ok(())
    }

    /// Whether a publish of this type would reach anybody. May be stale at once; never false for a
    /// subscription made before (happens-before). Cost: two loads.
    #[inline]
    #[must_use]
    pub fn wants(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        let kind = kind.as_ref();
        self.0.hint.covers(kind.id(), kind.formatters())
    }

    /// Publishes a message whose payload is built only if somebody wants the type. False: nobody did.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    ///
    /// # Examples
    /// ```
    /// # use stasis_bus::{Bus, MessageType};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = Bus::builder().lanes(1).build()?;
    /// let topic = bus.topic("rtp:all")?;
    /// let report = MessageType::<Vec<u8>>::new(&bus, "rtcp_report")?;
    /// assert!(!topic.publish_with(&report, || unreachable!("nobody listens"))?);
    /// # Ok(()) }
    /// ```
    pub fn publish_with<P: Send + Sync + 'static>(
        &self,
        kind: &MessageType<P>,
        payload: impl FnOnce() -> P,
    ) -> Result<bool, PublishError> {
        if !self.wants(kind) && !self.0.bus.is_closed() {
            self.0.bus.counters.count(Count::Unwanted);
            return Ok(false);
        }
        self.publish(kind.message(payload())).map(|()| true)
    }

    /// Forwards everything published here to `to`'s subscribers, until the forward is cancelled or
    /// dropped. Cycles, diamonds and self-forwards are harmless: a message reaches a subscription once.
    ///
    /// # Errors
    /// [`Closed`] after shutdown.
    pub fn forward_to(&self, to: &Self) -> Result<Forward, Closed> {
        Forward::new(self, to)
    }

    /// Starts a subscription.
    #[track_caller]
    pub fn subscriber(&self) -> SubscriberBuilder<'_> {
        SubscriberBuilder::new(self, Location::caller())
    }

    /// Subscribes with the defaults: every message, on a lane of the bus.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`].
    #[track_caller]
    pub fn subscribe(
        &self,
        handler: impl FnMut(&Received<'_>) + Send + 'static,
    ) -> Result<Subscription, SubscribeError> {
        self.subscriber().subscribe(handler)
    }

    /// Subscriptions a publish here would be offered to, those over forwards included.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.0.list.load().len()
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Topic {}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("name", &self.name()).field("subscribers", &self.subscribers()).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Bus, Delivery};
    use std::sync::mpsc::channel;
    use std::time::Instant;

    /// While a list changes the hint covers everything, so publishes come as far as the list.
    #[test]
    fn an_open_hint_does_not_make_a_publish_wanted() {
        let bus = Bus::builder().lanes(1).build().unwrap();
        let (kind, other) = (MessageType::<u64>::new(&bus, "n").unwrap(), MessageType::<u64>::new(&bus, "o").unwrap());
        let topic = bus.topic("t").unwrap();
        let listener = topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
        topic.0.hint.open();
        topic.publish(other.message(1)).unwrap();
        topic.0.announce(listener.id());
        topic.0.publish_control(other.message(2)).unwrap();
        assert_eq!((bus.stats().published, bus.stats().unwanted), (0, 2), "the bus's own change is not counted");
        topic.publish(kind.message(3)).unwrap();
        assert_eq!((bus.stats().published, bus.stats().unwanted), (1, 2));
        listener.unsubscribe().wait().unwrap();
    }

    /// A payload whose destructor waits for everybody who is pinned.
    struct Waits(std::sync::mpsc::Sender<bool>);

    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = self.0.send(reclaim::synchronize(Instant::now() + Duration::from_secs(1)));
        }
    }

    #[test]
    fn a_message_nobody_wants_after_all_is_dropped_unpinned() {
        let bus = Bus::builder().lanes(1).build().unwrap();
        let (kind, other) = (MessageType::<u64>::new(&bus, "n").unwrap(), MessageType::new(&bus, "o").unwrap());
        let topic = bus.topic("t").unwrap();
        let _listener = topic.subscriber().accept(&kind).subscribe(|_| ()).unwrap();
        for open in [false, true] {
            if open {
                topic.0.hint.open();
            }
            let (tell, told) = channel();
            topic.publish(other.message(Waits(tell))).unwrap();
            assert!(told.recv().unwrap(), "open: {open}");
        }
    }

    /// What the bus says of itself finds room in full queues, up to a bound: the handler may be what says it.
    #[test]
    fn a_flood_of_changes_is_bounded() {
        const MANY: u64 = 70_000;
        for delivery in [Delivery::Dedicated, Delivery::Inline] {
            let bus =
                Bus::builder().lanes(1).ring_capacity(1024).memory_budget(1 << 15).watchdog(None).build().unwrap();
            let topic = bus.topic("t").unwrap();
            let (tell, flooded) = channel();
            let (inside, mut is_first) = (topic.clone(), true);
            let listener = topic.subscriber().delivery(delivery).subscribe(move |_| {
                if std::mem::take(&mut is_first) {
                    (0..MANY).for_each(|_| inside.0.announce(1));
                    tell.send(()).unwrap();
                }
            });
            flooded.recv().unwrap();
            let listener = listener.unwrap();
            listener.unsubscribe().wait().unwrap();
            let lost = bus.stats().refused;
            assert_eq!(listener.stats().delivered + lost, 1 + MANY, "its own coming and all those: {delivery:?}");
            assert!(lost > 0, "{delivery:?}");
        }
    }
}
