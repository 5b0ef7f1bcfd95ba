//! Claim-once delivery: each message is taken by exactly one of several claimants.
//!
//! ```text
//!   topic ─► dispatcher ─► an idle claimant? ─ offer ─► its handler: Take ─► done; next waiting message
//!                │ all busy: waits                        │ Decline, panic, gone
//!                ▼                                        ▼
//!            waiting: m5 m6 m7 ◄──────────────── offered to the next one that has not declined it
//!                                                         └─ nobody left ─► fallback(message, why)
//! ```
//!
//! As agents of a call queue: one answers each call, who is busy is not asked, who declines is asked no more.
//!
//! # Guarantees
//! - Exact accounting (G3): each message accepted ends as taken, once, or in the fallback, once
//!   (`each_message_is_taken_once_or_falls_back`).
//! - A claimant has one message at a time (G4). One that blocks holds that one message and no other
//!   (`a_blocked_claimant_holds_one_message`): the rest goes to the others, on their lanes.
//! - Messages are offered for the first time in the order they were published (G2); a declined message goes
//!   before all later ones that wait. Nothing is promised about the order in which claimants finish.
//! - A claimant that leaves finishes the message it has, or it is offered to the others.
//! - Locks: one, for moments; none while handlers, the fallback or publishes run (G7).
//!
//! Cost: of a message, two dispatches (one to the dispatcher, one to the claimant) and two short locks.

mod state;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::state::{Item, Next, State};
use crate::bus::{Completion, Delivery, Home, SubscriberBuilder, Subscription, Topic};
use crate::contain::{discard, quietly, report_panic};
use crate::error::{Closed, SubscribeError};
use crate::message::depth::InHandler;
use crate::message::{Message, MessageType};
use crate::sync::plain::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, global, lock};

/// What a claimant says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is mine.
    Take,
    /// Offer it to somebody else. This claimant is not asked about it again.
    Decline,
}

/// Which idle claimant a message is offered to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Choice {
    /// In turn (default).
    #[default]
    RoundRobin,
    /// Who has taken the fewest so far.
    FewestTaken,
}

/// Why a message was claimed by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unclaimed {
    /// There is no claimant, or all have declined it or failed.
    Nobody,
    /// All claimants are busy and too many messages wait.
    TooMany,
    /// The bus is shutting down.
    Closed,
}

/// Figures of a claim queue. `claimed + unclaimed + waiting` and what claimants have in hand are what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClaimStats {
    /// Messages taken.
    pub claimed: u64,
    /// Messages that went to the fallback, which has returned.
    pub unclaimed: u64,
    /// Times a claimant declined, panics included.
    pub declined: u64,
    /// Times a claimant's handler panicked.
    pub panics: u64,
    /// Messages waiting for a claimant.
    pub waiting: usize,
    /// Claimants.
    pub claimants: usize,
}

type Fallback = Box<dyn Fn(&Message, Unclaimed) + Send + Sync>;

struct Shared {
    topic: Topic,
    fallback: Fallback,
    /// A leaf.
    state: Mutex<State>,
    claimed: AtomicU64,
    unclaimed: AtomicU64,
    declined: AtomicU64,
    panics: AtomicU64,
}

/// Payload of the message that hands a claimant its message. Dropped undecided (nobody got it), it declines.
struct Offer {
    item: Mutex<Option<Item>>,
    claimant: u64,
    shared: Arc<Shared>,
}

global! {
    static OFFER: MessageType<Offer> = MessageType::builder("stasis_claim_offer_type")
        .register(Arc::default())
        .unwrap_or_else(|error| panic!("cannot register the type of claim offers: {error}"));
}

impl Drop for Offer {
    fn drop(&mut self) {
        let item = lock(&self.item).take();
        if let Some(item) = item {
            self.shared.declined(self.claimant, item);
        }
    }
}

impl Shared {
    fn unclaimed(&self, item: &Item, why: Unclaimed) {
        quietly(|| (self.fallback)(&item.message, why));
        // After it: who sees the count finds what the fallback did. Release: meets the Acquire in `stats`.
        self.unclaimed.fetch_add(1, Ordering::Release);
    }

    /// Does what the state decided, and what follows from it.
    fn go_on(self: &Arc<Self>, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Unclaimed(item, why) => self.unclaimed(&item, why),
            Next::Offer { item, claimant, topic } => {
                let offer = Offer { item: Mutex::new(Some(item)), claimant, shared: Arc::clone(self) };
                // One offer a claimant at a time: it needs no room but its own.
                if let Err(error) = topic.0.publish_control(OFFER.message(offer)) {
                    let message = error.into_message();
                    let item = message.payload::<Offer>().and_then(|offer| lock(&offer.item).take());
                    let rest = lock(&self.state).close();
                    item.iter().chain(&rest).for_each(|item| self.unclaimed(item, Unclaimed::Closed));
                }
            }
        }
    }

    fn arrived(self: &Arc<Self>, message: &Message) {
        let next = lock(&self.state).arrived(message.clone());
        self.go_on(next);
    }

    fn taken(self: &Arc<Self>, claimant: u64) {
        self.claimed.fetch_add(1, Ordering::Relaxed);
        let next = lock(&self.state).free(claimant, true);
        self.go_on(next);
    }

    fn declined(self: &Arc<Self>, claimant: u64, mut item: Item) {
        self.declined.fetch_add(1, Ordering::Relaxed);
        item.declined.push(claimant);
        // The older message first.
        let next = lock(&self.state).place(item);
        self.go_on(next);
        let next = lock(&self.state).free(claimant, false);
        self.go_on(next);
    }
}

/// Messages of a topic for claimants to take: see the [module](self). Dropping it takes no more messages; those
/// that wait are still offered.
///
/// # Examples
/// ```
/// use stasis_bus::claim::{Claim, ClaimQueue};
/// use stasis_bus::{Bus, MessageType};
/// use std::sync::mpsc;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(2).build()?;
/// let topic = bus.topic("queue:sales")?;
/// let call = MessageType::<u32>::new(&bus, "call")?;
/// let queue = ClaimQueue::new(topic.subscriber().accept(&call), |_, why| println!("lost: {why:?}"))?;
/// let (answers, answered) = mpsc::channel();
/// let other = answers.clone();
/// let _lunch = queue.claimant(|_| Claim::Decline)?;
/// let _anna = queue.claimant(move |call| {
///     answers.send(("anna", call.payload::<u32>().copied())).unwrap();
///     Claim::Take
/// })?;
/// let _bert = queue.claimant(move |call| {
///     other.send(("bert", call.payload::<u32>().copied())).unwrap();
///     Claim::Take
/// })?;
/// topic.publish(call.message(1))?;
/// assert_eq!(answered.recv()?.1, Some(1)); // one of the two
/// # Ok(()) }
/// ```
#[must_use = "dropping it takes no more messages"]
pub struct ClaimQueue {
    subscription: Subscription,
    shared: Arc<Shared>,
}

impl ClaimQueue {
    /// A queue of what `builder` subscribes to; claimants are asked in turn. `fallback` gets what nobody claims,
    /// in whatever thread finds out; a panic of it is contained.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`].
    pub fn new(
        builder: SubscriberBuilder<'_>,
        fallback: impl Fn(&Message, Unclaimed) + Send + Sync + 'static,
    ) -> Result<Self, SubscribeError> {
        Self::with(builder, Choice::default(), 100_000, fallback)
    }

    /// As [`new`](Self::new), with who is asked first, and how many messages may wait (100,000 with `new`)
    /// before later ones go to the fallback as [`Unclaimed::TooMany`].
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(
        builder: SubscriberBuilder<'_>,
        choice: Choice,
        most_waiting: usize,
        fallback: impl Fn(&Message, Unclaimed) + Send + Sync + 'static,
    ) -> Result<Self, SubscribeError> {
        let shared = Arc::new(Shared {
            topic: builder.topic().clone(),
            fallback: Box::new(fallback),
            state: Mutex::new(State::new(choice, most_waiting)),
            claimed: AtomicU64::new(0),
            unclaimed: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        let dispatcher = Arc::clone(&shared);
        let subscription = builder.subscribe(move |received| {
            if !received.is_final() {
                dispatcher.arrived(received);
            }
        })?;
        Ok(Self { subscription, shared })
    }

    /// A new claimant, on the lane with the fewest subscriptions. It is asked from now on, about messages that
    /// wait too. A panic of `handler` counts as declining.
    ///
    /// # Errors
    /// As [`SubscriberBuilder::subscribe`].
    #[track_caller]
    pub fn claimant(
        &self,
        handler: impl FnMut(&Message) -> Claim + Send + 'static,
    ) -> Result<Claimant, SubscribeError> {
        self.claimant_on(Delivery::Lane(Home::LeastLoaded), handler)
    }

    /// As [`claimant`](Self::claimant), run as `delivery` says.
    ///
    /// # Errors
    /// As [`claimant`](Self::claimant).
    #[track_caller]
    pub fn claimant_on(
        &self,
        delivery: Delivery,
        mut handler: impl FnMut(&Message) -> Claim + Send + 'static,
    ) -> Result<Claimant, SubscribeError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/claimant:{id}", self.shared.topic.name());
        let topic = self.shared.topic.sibling(name).map_err(|Closed| SubscribeError::Closed)?;
        let subscription = topic.subscriber().delivery(delivery).accept(&*OFFER).subscribe(move |received| {
            let Some(offer) = received.payload::<Offer>() else { return };
            let Some(item) = lock(&offer.item).take() else { return };
            let claim = {
                // What the handler publishes answers this message, not the offer.
                let _depth = InHandler::of(&item.message);
                catch_unwind(AssertUnwindSafe(|| handler(&item.message)))
            };
            match claim {
                Ok(Claim::Take) => offer.shared.taken(id),
                Ok(Claim::Decline) => offer.shared.declined(id, item),
                Err(panic) => {
                    offer.shared.panics.fetch_add(1, Ordering::Relaxed);
                    report_panic("a claimant", &*panic);
                    discard(panic);
                    offer.shared.declined(id, item);
                }
            }
        })?;
        let next = lock(&self.shared.state).join(id, topic);
        self.shared.go_on(next);
        Ok(Claimant { subscription, shared: Arc::clone(&self.shared), id })
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> ClaimStats {
        let (waiting, claimants) = lock(&self.shared.state).len();
        ClaimStats {
            claimed: self.shared.claimed.load(Ordering::Relaxed),
            unclaimed: self.shared.unclaimed.load(Ordering::Acquire),
            declined: self.shared.declined.load(Ordering::Relaxed),
            panics: self.shared.panics.load(Ordering::Relaxed),
            waiting,
            claimants,
        }
    }

    /// Takes no more messages; those published before are still offered. The completion is that of taking them
    /// in, not of their being claimed.
    pub fn unsubscribe(&self) -> Completion {
        self.subscription.unsubscribe()
    }
}

impl fmt::Debug for ClaimQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimQueue").field("subscription", &self.subscription).finish_non_exhaustive()
    }
}

/// One who claims messages. Dropping it leaves the queue, without waiting; its handler is dropped after the
/// message it has in hand.
#[must_use = "dropping a claimant leaves the queue"]
pub struct Claimant {
    subscription: Subscription,
    shared: Arc<Shared>,
    id: u64,
}

impl Claimant {
    /// Leaves: is asked no more. Returns at once; done when the handler is dropped.
    pub fn leave(&self) -> Completion {
        let (seat, unclaimed) = lock(&self.shared.state).leave(self.id);
        drop(seat);
        unclaimed.iter().for_each(|item| self.shared.unclaimed(item, Unclaimed::Nobody));
        self.subscription.unsubscribe()
    }

    /// Messages taken so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        lock(&self.shared.state).taken(self.id)
    }
}

impl Drop for Claimant {
    fn drop(&mut self) {
        drop(self.leave());
    }
}

impl fmt::Debug for Claimant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claimant").field("id", &self.id).finish_non_exhaustive()
    }
}
