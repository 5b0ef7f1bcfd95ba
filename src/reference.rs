//! The bus as one would explain it: one lock, plain lists, everything looked up anew for each publish.
//!
//! ```text
//!   publish(topic): who can be reached over forwards?  ─search─► for each, oldest first:
//!                   does its filter accept?            ─────────► append to its list of deliveries
//! ```
//!
//! The oracle of `tests/property.rs` and of fuzzing: what it delivers is what the bus has to deliver, in
//! this order. It shares no code with the engine. Not part of the interface.
//!
//! Guarantees: none but being simple; every call takes the lock; cost of a publish: all forwards times
//! all topics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something delivered to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// A published number.
    Number(u64),
    /// This subscription was made.
    Subscribed(usize),
    /// This subscription went away.
    Unsubscribed(usize),
    /// The end of the subscription that gets it.
    Final,
}

/// How the accepted types count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Not at all.
    #[default]
    Open,
    /// Not at all, for ever.
    ForcedOpen,
    /// They are accepted.
    Selective,
}

/// A message type: its number and the bits of its formatters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub usize, pub u8);

/// The type of subscription changes.
pub const CHANGE: Kind = Kind(0, 0);

/// What a subscription accepts.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    mode: Mode,
    formatters: u8,
    accepted: Vec<usize>,
    excluded: Vec<usize>,
}

impl Filter {
    /// Accepts a type.
    pub fn accept(&mut self, kind: usize) {
        self.excluded.retain(|other| *other != kind);
        self.accepted.push(kind);
    }

    /// Takes a type off the accepted ones.
    pub fn decline(&mut self, kind: usize) {
        self.accepted.retain(|other| *other != kind);
    }

    /// Never lets a type through, until it is accepted.
    pub fn exclude(&mut self, kind: usize) {
        self.excluded.push(kind);
    }

    /// Sets the mode, unless it is forced.
    pub fn set_mode(&mut self, mode: Mode) {
        if self.mode != Mode::ForcedOpen {
            self.mode = mode;
        }
    }

    /// Sets the formatters.
    pub fn set_formatters(&mut self, bits: u8) {
        self.formatters = bits;
    }

    fn accepts(&self, Kind(kind, formatters): Kind) -> bool {
        if self.excluded.contains(&kind) {
            return false;
        }
        let (by_type, by_formatter) = (self.mode == Mode::Selective, self.formatters != 0);
        if !by_type && !by_formatter {
            return true;
        }
        by_type && self.accepted.contains(&kind) || by_formatter && self.formatters & formatters != 0
    }
}

#[derive(Debug)]
struct Subscription {
    topic: usize,
    filter: Filter,
    subscribed: bool,
    delivered: Vec<Delivered>,
}

#[derive(Debug, Default)]
struct State {
    /// From, to; none: cancelled.
    forwards: Vec<Option<(usize, usize)>>,
    subscriptions: Vec<Subscription>,
}

impl State {
    /// The topic and all that its messages are forwarded to.
    fn reached(&self, topic: usize) -> Vec<usize> {
        let mut reached = vec![topic];
        let mut next = 0;
        while next < reached.len() {
            for (from, to) in self.forwards.iter().flatten() {
                if *from == reached[next] && !reached.contains(to) {
                    reached.push(*to);
                }
            }
            next += 1;
        }
        reached
    }

    fn audience(&mut self, topic: usize) -> impl Iterator<Item = &mut Subscription> {
        let reached = self.reached(topic);
        self.subscriptions.iter_mut().filter(move |it| it.subscribed && reached.contains(&it.topic))
    }

    fn publish(&mut self, topic: usize, kind: Kind, what: Delivered) {
        for subscription in self.audience(topic) {
            if subscription.filter.accepts(kind) {
                subscription.delivered.push(what);
            }
        }
    }
}

/// The naive bus. Topics, types, forwards and subscriptions are numbers.
#[derive(Debug, Default)]
pub struct Reference(Mutex<State>);

impl Reference {
    /// A bus without anything.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a number.
    pub fn publish(&self, topic: usize, kind: Kind, number: u64) {
        self.state().publish(topic, kind, Delivered::Number(number));
    }

    /// Subscribes; the subscription's number.
    pub fn subscribe(&self, topic: usize, filter: Filter) -> usize {
        let mut state = self.state();
        let number = state.subscriptions.len();
        state.subscriptions.push(Subscription { topic, filter, subscribed: true, delivered: Vec::new() });
        state.publish(topic, CHANGE, Delivered::Subscribed(number));
        number
    }

    /// Unsubscribes, once.
    pub fn unsubscribe(&self, number: usize) {
        let mut state = self.state();
        let topic = state.subscriptions[number].topic;
        if std::mem::replace(&mut state.subscriptions[number].subscribed, false) {
            state.publish(topic, CHANGE, Delivered::Unsubscribed(number));
            state.subscriptions[number].delivered.push(Delivered::Final);
        }
    }

    /// Changes a filter; without effect after the end.
    pub fn refilter(&self, number: usize, change: impl FnOnce(&mut Filter)) {
        let subscription = &mut self.state().subscriptions[number];
        if subscription.subscribed {
            change(&mut subscription.filter);
        }
    }

    /// Forwards one topic to another; the forward's number.
    pub fn forward(&self, from: usize, to: usize) -> usize {
        let forwards = &mut self.state().forwards;
        forwards.push(Some((from, to)));
        forwards.len() - 1
    }

    /// Takes a forward out.
    pub fn cancel(&self, number: usize) {
        self.state().forwards[number] = None;
    }

    /// Ends all subscriptions.
    pub fn shutdown(&self) {
        for subscription in self.state().subscriptions.iter_mut().filter(|it| it.subscribed) {
            subscription.subscribed = false;
            subscription.delivered.push(Delivered::Final);
        }
    }

    /// Subscriptions that a publish is offered to.
    #[must_use]
    pub fn subscribers(&self, topic: usize) -> usize {
        self.state().audience(topic).count()
    }

    /// Whether anybody accepts such a message.
    #[must_use]
    pub fn wants(&self, topic: usize, kind: Kind) -> bool {
        self.state().audience(topic).any(|it| it.filter.accepts(kind))
    }

    /// What a subscription got so far.
    #[must_use]
    pub fn delivered(&self, number: usize) -> Vec<Delivered> {
        self.state().subscriptions[number].delivered.clone()
    }
}
