//! Subscriptions with a queue of their own: what may wait, for how long, what goes first, and the account of it.
//!
//! ```text
//!   accepted = delivered + dropped by cause + waiting
//!   publisher ─► [ own queue: limit, time to live, priority ] ─► lane or own thread ─► handler
//! ```
//!
//! Guarantees: G3: the equation holds at any moment for a subscription with a queue of its own
//! (`tests/overflow.rs`: `g03_…`), for the bus when nothing is running; a subscription without such rules pays
//! nothing for them: publishers of other topics and lanes do not look. Cost: a push takes a lock of the
//! subscription's own for some 100 ns.

use std::time::Duration;

use super::BusStats;
use super::subscriber::{Subscriber, Totals};
use super::subscription::{Delivery, SubscriberBuilder, SubscriptionStats};
use crate::error::SubscribeError;
use crate::exec::buffer::Counts;
use crate::exec::buffer::rules::{Key, Overflow, Priority};
use crate::message::Message;
use crate::sync::Arc;
use crate::sync::plain::{AtomicU64, Ordering};

/// Messages that came to a subscription and were not delivered, by cause.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Drops};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let subscription = bus.topic("calls")?.subscribe(|_| ())?;
/// assert_eq!(subscription.stats().dropped, Drops::default());
/// assert_eq!(subscription.stats().dropped.total(), 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drops {
    /// The newest had to go: it came while the queue was full, or a control message took its place.
    pub newest: u64,
    /// The oldest had to go, to make room.
    pub oldest: u64,
    /// A later message with the same key took its place.
    pub conflated: u64,
    /// Older than the time to live when its turn came.
    pub expired: u64,
    /// It came after the final message (published while the subscription was leaving).
    pub late: u64,
    /// It waited when the thread that would have delivered it was gone.
    pub ended: u64,
}

impl Drops {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.newest + self.oldest + self.conflated + self.expired + self.late + self.ended
    }

    fn add(&mut self, other: &Self) {
        self.newest += other.newest;
        self.oldest += other.oldest;
        self.conflated += other.conflated;
        self.expired += other.expired;
        self.late += other.late;
        self.ended += other.ended;
    }
}

impl From<Counts> for Drops {
    fn from(counts: Counts) -> Self {
        let Counts { newest, oldest, conflated, expired, late, ended, .. } = counts;
        Self { newest, oldest, conflated, expired, late, ended }
    }
}

impl From<(Counts, u64)> for SubscriptionStats {
    fn from((counts, waiting): (Counts, u64)) -> Self {
        Self {
            accepted: counts.accepted,
            delivered: counts.handed,
            dropped: counts.into(),
            waiting,
            refused: counts.refused,
            late: counts.late,
            queue_high_water: counts.high_water,
            queue_depth: waiting,
            ..Self::default()
        }
    }
}

/// Drops of subscriptions that have ended; late ones are counted elsewhere.
#[derive(Debug, Default)]
pub(crate) struct DropTotals {
    newest: AtomicU64,
    oldest: AtomicU64,
    conflated: AtomicU64,
    expired: AtomicU64,
    ended: AtomicU64,
}

impl DropTotals {
    pub(crate) fn add(&self, counts: &Counts) {
        self.newest.fetch_add(counts.newest, Ordering::Relaxed);
        self.oldest.fetch_add(counts.oldest, Ordering::Relaxed);
        self.conflated.fetch_add(counts.conflated, Ordering::Relaxed);
        self.expired.fetch_add(counts.expired, Ordering::Relaxed);
        self.ended.fetch_add(counts.ended, Ordering::Relaxed);
    }
}

impl Totals {
    /// The figures of all subscriptions that have ended.
    pub(super) fn figures(&self) -> BusStats {
        let late = self.late.load(Ordering::Relaxed);
        let dropped = Drops {
            newest: self.drops.newest.load(Ordering::Relaxed),
            oldest: self.drops.oldest.load(Ordering::Relaxed),
            conflated: self.drops.conflated.load(Ordering::Relaxed),
            expired: self.drops.expired.load(Ordering::Relaxed),
            late,
            ended: self.drops.ended.load(Ordering::Relaxed),
        };
        BusStats {
            delivered: self.delivered.load(Ordering::Relaxed),
            accepted: self.accepted.load(Ordering::Relaxed) + late,
            dropped,
            late,
            panics: self.panics.load(Ordering::Relaxed),
            ended: self.ended.load(Ordering::Relaxed),
            ..BusStats::default()
        }
    }
}

impl Subscriber {
    /// Adds the figures of a subscription that has not ended.
    pub(super) fn add_to(&self, stats: &mut BusStats) {
        stats.panics += self.post.panics();
        match self.route.look() {
            None => {
                stats.delivered += self.post.delivered();
                stats.accepted += self.post.delivered();
            }
            Some((counts, waiting)) => {
                // Late ones are counted when the last reference is gone, as for all.
                stats.delivered += counts.handed;
                stats.accepted += counts.accepted - counts.late;
                stats.waiting += waiting;
                stats.dropped.add(&Drops { late: 0, ..counts.into() });
            }
        }
    }
}

impl SubscriberBuilder<'_> {
    /// What happens to messages the handler is too slow for. Default: [`Overflow::Spill`].
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::{Bus, MessageType, Overflow};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().lanes(1).build()?;
    /// let record = MessageType::<u64>::new(&bus, "call_record")?;
    /// let records = bus.topic("cdr")?;
    /// let writer = records.subscriber().overflow(Overflow::Fail { limit: 1 }).subscribe(|received| {
    ///     std::thread::sleep(std::time::Duration::from_millis(20));
    ///     drop(received.payload::<u64>());
    /// })?;
    /// let refused = (0..).find_map(|n| records.publish(record.message(n)).err()).expect("one is too many");
    /// assert!(refused.is_full());
    /// assert!(refused.into_message().is(&record)); // nobody got it: it can be kept for later
    /// # drop(writer);
    /// # Ok(()) }
    /// ```
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.rules.overflow = overflow;
        self
    }

    /// Messages older than this when their turn comes are not delivered, but counted as expired; age is counted
    /// from [`Message::created`]. The final message is delivered at any age. Default: none expires.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::{Bus, MessageType};
    /// use std::time::Duration;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().lanes(1).build()?;
    /// let kind = MessageType::<u8>::new(&bus, "presence")?;
    /// let topic = bus.topic("presence:all")?;
    /// let feed = topic.subscriber().accept(&kind).time_to_live(Duration::from_millis(1)).subscribe(|_| ())?;
    /// let stale = kind.message(1);
    /// std::thread::sleep(Duration::from_millis(5));
    /// topic.publish(stale)?;
    /// feed.unsubscribe().wait()?;
    /// assert_eq!(feed.stats().dropped.expired, 1);
    /// # Ok(()) }
    /// ```
    pub fn time_to_live(mut self, limit: Duration) -> Self {
        self.rules.time_to_live = Some(limit);
        self
    }

    /// Messages for which `is_control` is true overtake what waits of other keys, never what waits of their own:
    /// that goes with them, in order. Control messages keep their order among each other, and without key
    /// overtake all chatter. When the queue is full, chatter goes before a control message does.
    ///
    /// So order (G2) holds per key and among control messages. Both functions are called in the publisher, once
    /// a message, under no lock; if one panics, the message has no key, or is none of control.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::{Bus, Key, MessageType};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::builder().lanes(1).build()?;
    /// let rtcp = MessageType::<u64>::new(&bus, "rtcp_report")?;
    /// let hangup = MessageType::<u64>::new(&bus, "hangup")?;
    /// let calls = bus.topic("calls")?;
    /// let feed = calls
    ///     .subscriber()
    ///     .priority(|message| message.payload::<u64>().map(|call| Key::from(*call)), {
    ///         let hangup = hangup.clone();
    ///         move |message| message.is(&hangup)
    ///     })
    ///     .subscribe(|received| drop(received.payload::<u64>()))?;
    /// calls.publish(rtcp.message(1))?;
    /// calls.publish(hangup.message(2))?; // may come first: it is about another call
    /// # drop(feed);
    /// # Ok(()) }
    /// ```
    pub fn priority(
        mut self,
        key: impl Fn(&Message) -> Option<Key> + Send + Sync + 'static,
        is_control: impl Fn(&Message) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.rules.priority = Some(Priority { key: Arc::new(key), is_control: Arc::new(is_control) });
        self
    }

    /// Whether the rules can be kept.
    pub(super) fn check_rules(&self, delivery: Delivery) -> Result<(), SubscribeError> {
        if self.rules.overflow.limit() == Some(0) {
            return Err(SubscribeError::NoRoom);
        }
        if delivery == Delivery::Inline && self.rules.ask_for_a_queue() {
            return Err(SubscribeError::NoQueue);
        }
        Ok(())
    }
}
