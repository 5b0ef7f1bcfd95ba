//! Keyed delivery: one subscription on all lanes; in order for each key, in parallel across keys.
//!
//! ```text
//!   topic ─► lane 0: member 0 ─ key's shard is 0? ─► handler
//!         ─► lane 1: member 1 ─ key's shard is 1? ─► handler      every message: one dispatch a lane,
//!         ─► lane 2: member 2 ─ …                                  one key a lane, one handler call
//!   unsubscribe ─► all members; the last of them to end hands the final message over
//! ```
//!
//! # Guarantees
//! - A message goes to the handler once, on the lane its key belongs to. Messages of one key come in order (G2)
//!   and one at a time (G4); nothing is promised between keys (`order_holds_for_each_of_100_000_devices`).
//! - Messages without a key are one key of their own.
//! - After unsubscribing, from wherever: what was published before, then one final message for the whole, after
//!   everything else on all lanes (G5, `g05_*`). Then handlers are dropped.
//! - A handler that blocks delays its shard's keys only; the lane is taken from it as from any (G8).
//! - A panic of the handler or of the key function costs that message, on its shard (G12).
//!
//! Cost: a dispatch to every lane and the key function once a lane for each message; worth it when handling
//! costs more than that (more than some 100 ns). Shards are as many as lanes.

use std::fmt;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::bus::{Completion, Delivery, Handler, Home, Received, SubscriberBuilder, Subscription, SubscriptionStats};
use crate::error::{JoinError, SubscribeError};
use crate::exec::frames;
use crate::message::Message;
use crate::sync::plain::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, Weak, lock};

/// A key as a number, for [`subscribe`]'s key function. The same in every run.
///
/// # Examples
/// ```
/// use stasis_bus::keyed::hash_of;
/// assert_eq!(hash_of("SIP/100"), hash_of("SIP/100"));
/// ```
#[must_use]
pub fn hash_of(key: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// The shard of a key.
fn shard_of(key: Option<u64>, shards: usize) -> usize {
    // Spread first: keys may be small numbers.
    let spread = key.unwrap_or(0).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (spread as usize * shards) >> 32
}

type KeyOf = Arc<dyn Fn(&Message) -> Option<u64> + Send + Sync>;

#[derive(Default)]
struct Ends {
    /// The parts, when all are subscribed. Weak: they own the shards, which own this.
    parts: Weak<Vec<Subscription>>,
    begun: bool,
}

struct Shared {
    key: KeyOf,
    /// A leaf.
    ends: Mutex<Ends>,
    /// Shards without final message.
    left: AtomicUsize,
    /// Not all of them could be subscribed.
    abandoned: AtomicBool,
}

impl Shared {
    /// Unsubscribes all parts, now or as soon as they are all there.
    fn end(&self) {
        let parts = {
            let mut ends = lock(&self.ends);
            ends.begun = true;
            ends.parts.upgrade()
        };
        for part in parts.iter().flat_map(|parts| parts.iter()) {
            drop(part.unsubscribe());
        }
    }
}

/// A message as the handler of a keyed subscription gets it. Dereferences to the [`Message`].
#[derive(Debug)]
pub struct KeyedReceived<'a> {
    received: &'a Received<'a>,
    shared: &'a Arc<Shared>,
    shard: usize,
}

impl KeyedReceived<'_> {
    /// The message.
    #[must_use]
    pub fn message(&self) -> &Message {
        self.received.message()
    }

    /// Whether this is the final message of the whole subscription.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.received.is_final()
    }

    /// Number of the shard, and of the lane, from 0.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Unsubscribes the whole.
    pub fn unsubscribe(&self) {
        self.shared.end();
    }
}

impl Deref for KeyedReceived<'_> {
    type Target = Message;
    fn deref(&self) -> &Message {
        self.received.message()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The handler of one part.
struct Shard<F> {
    handler: F,
    shared: Arc<Shared>,
    shard: usize,
    shards: usize,
}

impl<F: FnMut(&KeyedReceived<'_>) + Send + 'static> Handler for Shard<F> {
    fn handle(&mut self, received: &Received<'_>) {
        let is_ours = if received.is_final() {
            // Whatever ended one part ends all: the bus, or a panic with the policy to end.
            self.shared.end();
            // AcqRel: the last one comes after all that the others did.
            self.shared.left.fetch_sub(1, Ordering::AcqRel) == 1 && !self.shared.abandoned.load(Ordering::Acquire)
        } else {
            shard_of((self.shared.key)(received), self.shards) == self.shard
        };
        if is_ours {
            (self.handler)(&KeyedReceived { received, shared: &self.shared, shard: self.shard });
        }
    }
}

/// Subscribes one handler for all shards: called on several lanes at once, for different keys.
///
/// `builder` says topic, filters, name; its delivery is not used. Publishes that begin when this has returned
/// reach the handler; of those that run meanwhile some do.
///
/// # Errors
/// As [`SubscriberBuilder::subscribe`]. Messages may have been handled by then; there is no final one.
///
/// # Examples
/// ```
/// use stasis_bus::keyed::{self, hash_of};
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(2).build()?;
/// let topic = bus.topic("devicestate:all")?;
/// let state = MessageType::<(String, u32)>::new(&bus, "device_state")?;
/// let device = |message: &stasis_bus::Message| Some(hash_of(&message.payload::<(String, u32)>()?.0));
/// let hints = keyed::subscribe(topic.subscriber().accept(&state), device, |received| {
///     if let Some((device, state)) = received.payload::<(String, u32)>() {
///         println!("lane {}: {device} is {state}", received.shard());
///     }
/// })?;
/// topic.publish(state.message(("SIP/100".into(), 1)))?;
/// hints.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn subscribe(
    builder: SubscriberBuilder<'_>,
    key: impl Fn(&Message) -> Option<u64> + Send + Sync + 'static,
    handler: impl Fn(&KeyedReceived<'_>) + Send + Sync + 'static,
) -> Result<KeyedSubscription, SubscribeError> {
    let handler = Arc::new(handler);
    subscribe_shards(builder, key, |_| {
        let handler = Arc::clone(&handler);
        move |received: &KeyedReceived<'_>| handler(received)
    })
}

/// As [`subscribe`], with a handler and state for each shard, made by `make` with the shard's number. A handler
/// is dropped at the end of its shard; the last of them gets the final message before.
///
/// # Errors
/// As [`subscribe`].
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType, keyed};
/// use std::collections::HashMap;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(2).build()?;
/// let topic = bus.topic("calls")?;
/// let minutes = MessageType::<(u64, u32)>::new(&bus, "minutes")?;
/// let key = |message: &stasis_bus::Message| Some(message.payload::<(u64, u32)>()?.0);
/// let totals = keyed::subscribe_shards(topic.subscriber().accept(&minutes), key, |_shard| {
///     let mut sums = HashMap::new(); // of this shard's callers; no lock
///     move |received: &keyed::KeyedReceived<'_>| {
///         if let Some((caller, minutes)) = received.payload::<(u64, u32)>() {
///             *sums.entry(*caller).or_insert(0) += minutes;
///         }
///     }
/// })?;
/// topic.publish(minutes.message((2001, 3)))?;
/// totals.unsubscribe().wait()?;
/// # Ok(()) }
/// ```
#[track_caller]
pub fn subscribe_shards<F: FnMut(&KeyedReceived<'_>) + Send + 'static>(
    builder: SubscriberBuilder<'_>,
    key: impl Fn(&Message) -> Option<u64> + Send + Sync + 'static,
    mut make: impl FnMut(usize) -> F,
) -> Result<KeyedSubscription, SubscribeError> {
    let shards = builder.topic().0.bus.homes.lanes.len();
    let shared = Arc::new(Shared {
        key: Arc::new(key),
        ends: Mutex::default(),
        left: AtomicUsize::new(shards),
        abandoned: AtomicBool::new(false),
    });
    let mut parts = Vec::with_capacity(shards);
    for shard in 0..shards {
        let handler = Shard { handler: make(shard), shared: Arc::clone(&shared), shard, shards };
        match builder.clone().delivery(Delivery::Lane(Home::Lane(shard))).subscribe_handler(handler) {
            Ok(part) => parts.push(part),
            Err(error) => {
                shared.abandoned.store(true, Ordering::Release);
                return Err(error);
            }
        }
    }
    let parts = Arc::new(parts);
    let begun = {
        let mut ends = lock(&shared.ends);
        ends.parts = Arc::downgrade(&parts);
        ends.begun
    };
    if begun {
        shared.end();
    }
    Ok(KeyedSubscription { parts })
}

/// A keyed subscription. Dropping it unsubscribes, without waiting.
#[derive(Debug)]
#[must_use = "dropping a subscription unsubscribes it"]
pub struct KeyedSubscription {
    /// Shared with handlers for moments only, when they unsubscribe.
    parts: Arc<Vec<Subscription>>,
}

impl KeyedSubscription {
    /// Number of shards: the bus's lanes.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.parts.len()
    }

    /// Figures of each shard. `delivered` counts what the lane looked at: every message, on each of them.
    #[must_use]
    pub fn stats(&self) -> Vec<SubscriptionStats> {
        self.parts.iter().map(Subscription::stats).collect()
    }

    /// Whether nobody has unsubscribed it yet.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.parts.iter().all(Subscription::is_subscribed)
    }

    /// Whether the final message was handled and all handlers dropped.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.parts.iter().all(Subscription::is_done)
    }

    /// Unsubscribes: messages published before are still delivered, then the final message comes, then nothing.
    /// Returns at once. Calling it again is harmless.
    pub fn unsubscribe(&self) -> KeyedCompletion {
        for part in self.parts.iter() {
            drop(part.unsubscribe());
        }
        self.completion()
    }

    /// The end of the subscription, whoever unsubscribes it.
    #[must_use]
    pub fn completion(&self) -> KeyedCompletion {
        let of = |part: &Subscription| Part { id: part.id(), end: part.completion() };
        KeyedCompletion { parts: self.parts.iter().map(of).collect() }
    }

    /// Waits until the final message was handled, for `limit` at most. Somebody has to unsubscribe.
    ///
    /// # Errors
    /// As [`KeyedCompletion::wait_timeout`].
    pub fn join_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        self.completion().wait_timeout(limit)
    }
}

impl Drop for KeyedSubscription {
    fn drop(&mut self) {
        // A handler may hold the parts for a moment: they end now, not then.
        drop(self.unsubscribe());
    }
}

#[derive(Clone, Debug)]
struct Part {
    id: u64,
    end: Completion,
}

/// The end of a keyed subscription: wait for it, or await it.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, keyed};
/// use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(2).build()?;
/// let topic = bus.topic("calls")?;
/// let all = keyed::subscribe(topic.subscriber(), |_| None, |_| ())?;
/// assert!(!all.completion().is_done());
/// all.unsubscribe().wait_timeout(Duration::from_secs(10))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct KeyedCompletion {
    parts: Vec<Part>,
}

impl KeyedCompletion {
    /// Whether all shards have ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.end.is_done())
    }

    /// Waits for it. In a handler on a lane it serves that lane meanwhile.
    ///
    /// # Errors
    /// [`JoinError::OwnHandler`] in the handler itself, on whatever shard; [`JoinError::Circular`].
    pub fn wait(&self) -> Result<(), JoinError> {
        self.wait_until(None)
    }

    /// As [`wait`](Self::wait), for `limit` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and [`JoinError::Timeout`].
    pub fn wait_timeout(&self, limit: Duration) -> Result<(), JoinError> {
        // A limit beyond what the clock can say is none.
        self.wait_until(Instant::now().checked_add(limit))
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<(), JoinError> {
        if self.parts.iter().any(|part| !part.end.is_done() && frames::is_running_here(part.id)) {
            return Err(JoinError::OwnHandler);
        }
        self.parts.iter().try_for_each(|part| match deadline {
            Some(deadline) => part.end.wait_timeout(deadline.saturating_duration_since(Instant::now())),
            None => part.end.wait(),
        })
    }
}

impl Future for KeyedCompletion {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        for part in &mut self.parts {
            if Pin::new(&mut part.end).poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}
