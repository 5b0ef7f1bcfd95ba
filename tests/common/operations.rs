//! A language of bus operations, and its interpreter: each runs on the real bus and on the naive one of
//! [`stasis_bus::reference`], and both must deliver the same. Words of four bytes, so that any bytes are
//! a program: proptest and the fuzzer write them alike.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};

use stasis_bus::reference::{CHANGE, Delivered, Filter, Kind, Mode, Reference};
use stasis_bus::{
    AnyMessageType, Bus, ChangeKind, Completion, Delivery, FilterMode, Formatters, Forward, Home, MessageType,
    Received, Subscription, SubscriptionChange, Topic,
};

use super::{PATIENCE, bus, lock};

const TOPICS: usize = 5;
/// Formatter bits of the types from number 1 on; number 0 is the subscription change.
const FORMATTERS: [u8; 5] = [0, 1, 2, 3, 4];
/// Subscriptions of one program, so that threads of dedicated ones stay few.
const MOST: usize = 40;

/// One operation; numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Subscribe { topic: u8, delivery: u8, filter: u8 },
    Unsubscribe { subscription: u8 },
    DropHandle { subscription: u8 },
    Accept { subscription: u8, kind: u8 },
    Decline { subscription: u8, kind: u8 },
    SetMode { subscription: u8, mode: u8 },
    SetFormatters { subscription: u8, bits: u8 },
    Forward { from: u8, to: u8 },
    Cancel { forward: u8 },
    Publish { topic: u8, kind: u8 },
    PublishSync { topic: u8, kind: u8, subscription: u8 },
    PublishIfWanted { topic: u8, kind: u8 },
    Look { topic: u8 },
}

impl Operation {
    /// Any four bytes are an operation; publishes are the most frequent.
    pub(crate) fn decode([what, a, b, c]: [u8; 4]) -> Self {
        match what % 20 {
            0..=2 => Self::Subscribe { topic: a, delivery: b, filter: c },
            3 => Self::Unsubscribe { subscription: a },
            4 => Self::DropHandle { subscription: a },
            5 => Self::Accept { subscription: a, kind: b },
            6 => Self::Decline { subscription: a, kind: b },
            7 => Self::SetMode { subscription: a, mode: b },
            8 => Self::SetFormatters { subscription: a, bits: b },
            9 | 10 => Self::Forward { from: a, to: b },
            11 => Self::Cancel { forward: a },
            12 => Self::PublishSync { topic: a, kind: b, subscription: c },
            13 => Self::PublishIfWanted { topic: a, kind: b },
            14 => Self::Look { topic: a },
            _ => Self::Publish { topic: a, kind: b },
        }
    }
}

/// Runs a program on both buses.
///
/// # Panics
/// If they differ.
pub(crate) fn run(program: &[Operation]) {
    run_on(bus(1), program);
}

/// As [`run`], on this new bus.
pub(crate) fn run_on(bus: Bus, program: &[Operation]) {
    let mut twins = Twins::new(bus);
    program.iter().for_each(|operation| twins.step(*operation));
    twins.end();
}

/// What a handler saw, with the real bus's subscription ids.
type RealLog = Arc<Mutex<Vec<Delivered>>>;

struct Listener {
    handle: Option<Subscription>,
    end: Completion,
    id: u64,
    log: RealLog,
}

struct Twins {
    bus: Bus,
    reference: Reference,
    topics: Vec<Topic>,
    kinds: Vec<MessageType<u64>>,
    listeners: Vec<Listener>,
    forwards: Vec<Option<Forward>>,
    published: u64,
    /// Calls that panicked.
    panics: Arc<Mutex<u64>>,
}

/// Ids of the real bus stand in its log as they are; [`Twins::seen`] turns them into the reference's numbers.
fn write(log: &RealLog, received: &Received<'_>) {
    let seen = if received.is_final() {
        Delivered::Final
    } else if let Some(change) = received.payload::<SubscriptionChange>() {
        let id = change.subscription as usize;
        if change.kind == ChangeKind::Subscribe { Delivered::Subscribed(id) } else { Delivered::Unsubscribed(id) }
    } else {
        Delivered::Number(*received.payload::<u64>().expect("programs publish numbers"))
    };
    lock(log).push(seen);
}

impl Twins {
    fn new(bus: Bus) -> Self {
        let format = |n: &u64| Some(n.to_string());
        let kinds = FORMATTERS.map(|bits| {
            let mut kind = MessageType::<u64>::builder("kind");
            if bits & 1 != 0 {
                kind = kind.to_json(format);
            }
            if bits & 2 != 0 {
                kind = kind.to_ami(format);
            }
            if bits & 4 != 0 {
                kind = kind.to_event(|_| None);
            }
            kind.create(&bus).expect("room for a type")
        });
        Self {
            topics: (0..TOPICS).map(|n| bus.topic(format!("t{n}")).expect("open")).collect(),
            bus,
            kinds: kinds.into(),
            reference: Reference::new(),
            listeners: Vec::new(),
            forwards: Vec::new(),
            published: 0,
            panics: Arc::default(),
        }
    }

    /// A type that can be published.
    fn published_kind(&self, kind: u8) -> (&MessageType<u64>, Kind) {
        let at = kind as usize % FORMATTERS.len();
        (&self.kinds[at], Kind(at + 1, FORMATTERS[at]))
    }

    /// A type that can be named in a filter: the change included.
    fn named_kind(&self, kind: u8) -> (&AnyMessageType, usize) {
        match kind as usize % (FORMATTERS.len() + 1) {
            0 => (SubscriptionChange::message_type().as_any(), CHANGE.0),
            n => (self.kinds[n - 1].as_any(), n),
        }
    }

    fn listener(&self, n: u8) -> Option<(usize, &Listener)> {
        let at = (n as usize).checked_rem(self.listeners.len())?;
        Some((at, &self.listeners[at]))
    }

    /// A listener whose handle is still held.
    fn held(&self, n: u8) -> Option<(usize, &Subscription)> {
        let (at, listener) = self.listener(n)?;
        Some((at, listener.handle.as_ref()?))
    }

    fn step(&mut self, operation: Operation) {
        match operation {
            Operation::Subscribe { topic, delivery, filter } => {
                self.subscribe(topic as usize % TOPICS, delivery, filter)
            }
            Operation::Unsubscribe { subscription } => {
                if let Some((at, handle)) = self.held(subscription) {
                    drop(handle.unsubscribe());
                    self.reference.unsubscribe(at);
                }
            }
            Operation::DropHandle { subscription } => {
                if let Some((at, _)) = self.held(subscription) {
                    self.listeners[at].handle = None;
                    self.reference.unsubscribe(at);
                }
            }
            Operation::Accept { subscription, kind } => {
                let (kind, number) = self.named_kind(kind);
                self.refilter(subscription, |it| it.accept(kind), |filter| filter.accept(number));
            }
            Operation::Decline { subscription, kind } => {
                let (kind, number) = self.named_kind(kind);
                self.refilter(subscription, |it| it.decline(kind), |filter| filter.decline(number));
            }
            Operation::SetMode { subscription, mode } => {
                let (real, naive) = match mode % 3 {
                    0 => (FilterMode::None, Mode::Open),
                    1 => (FilterMode::Selective, Mode::Selective),
                    _ => (FilterMode::ForcedNone, Mode::ForcedOpen),
                };
                self.refilter(subscription, |it| it.set_filter_mode(real), |filter| filter.set_mode(naive));
            }
            Operation::SetFormatters { subscription, bits } => {
                let bits = bits % 8;
                let formatters = Formatters::from_bits(bits);
                self.refilter(
                    subscription,
                    |it| it.accept_formatters(formatters),
                    |filter| filter.set_formatters(bits),
                );
            }
            Operation::Forward { from, to } => {
                let (from, to) = (from as usize % TOPICS, to as usize % TOPICS);
                self.forwards.push(Some(self.topics[from].forward_to(&self.topics[to]).expect("open")));
                assert_eq!(self.reference.forward(from, to), self.forwards.len() - 1);
            }
            Operation::Cancel { forward } => {
                if let Some(at) = (forward as usize).checked_rem(self.forwards.len()) {
                    self.forwards[at] = None;
                    self.reference.cancel(at);
                }
            }
            Operation::Publish { topic, kind } => self.publish(topic, kind, |topic, kind, number| {
                topic.publish(kind.message(number)).expect("room");
            }),
            Operation::PublishIfWanted { topic, kind } => self.publish(topic, kind, |topic, kind, number| {
                topic.publish_with(kind, || number).expect("room");
            }),
            Operation::PublishSync { topic, kind, subscription } => self.publish_sync(topic, kind, subscription),
            Operation::Look { topic } => self.look(topic as usize % TOPICS),
        }
    }

    fn subscribe(&mut self, topic: usize, delivery: u8, filter: u8) {
        if self.listeners.len() == MOST {
            return;
        }
        // Whether it panics changes nothing for anybody (G12): every third call, if the highest bit is set.
        let (mut calls, panics) = (0, (delivery >= 128).then(|| Arc::clone(&self.panics)));
        let delivery = match delivery % 8 {
            0 => Delivery::Dedicated,
            1..=3 => Delivery::Inline,
            _ => Delivery::Lane(Home::Affinity),
        };
        let mut naive = Filter::default();
        let mut builder = self.topics[topic].subscriber().delivery(delivery);
        // Two bits say what kind of filter, the rest what is in it.
        let kinds = [filter >> 2, filter >> 5];
        match filter % 4 {
            0 => {}
            1 => {
                for kind in kinds {
                    let (kind, number) = self.named_kind(kind);
                    builder = builder.accept(kind);
                    naive.accept(number);
                    naive.set_mode(Mode::Selective);
                }
            }
            2 => {
                let (kind, number) = self.named_kind(kinds[0]);
                builder = builder.decline(kind);
                naive.exclude(number);
            }
            _ => {
                let bits = kinds[0] % 8;
                builder = builder.accept_formatters(Formatters::from_bits(bits));
                naive.set_formatters(bits);
            }
        }
        let log = RealLog::default();
        let writer = Arc::clone(&log);
        let handler = move |received: &Received<'_>| {
            write(&writer, received);
            calls += 1;
            if let Some(panics) = panics.as_ref().filter(|_| calls % 3 == 0) {
                *lock(panics) += 1;
                // No panic hook: this one is meant.
                resume_unwind(Box::new("meant"));
            }
        };
        let handle = builder.subscribe(handler).expect("open");
        let listener = Listener { end: handle.completion(), id: handle.id(), handle: Some(handle), log };
        self.listeners.push(listener);
        assert_eq!(self.reference.subscribe(topic, naive), self.listeners.len() - 1);
    }

    fn refilter(&self, subscription: u8, real: impl FnOnce(&Subscription), naive: impl FnOnce(&mut Filter)) {
        if let Some((at, handle)) = self.held(subscription) {
            real(handle);
            self.reference.refilter(at, naive);
        }
    }

    fn publish(&mut self, topic: u8, kind: u8, how: impl FnOnce(&Topic, &MessageType<u64>, u64)) {
        self.published += 1;
        let topic = topic as usize % TOPICS;
        let (real, naive) = self.published_kind(kind);
        how(&self.topics[topic], real, self.published);
        self.reference.publish(topic, naive, self.published);
    }

    fn publish_sync(&mut self, topic: u8, kind: u8, subscription: u8) {
        self.published += 1;
        let Some((at, handle)) = self.held(subscription) else { return };
        let topic = topic as usize % TOPICS;
        let (real, naive) = self.published_kind(kind);
        self.topics[topic].publish_sync(real.message(self.published), handle).expect("room");
        self.reference.publish(topic, naive, self.published);
        self.compare(at, "when a synchronous publish returned");
    }

    fn look(&self, topic: usize) {
        assert_eq!(self.topics[topic].subscribers(), self.reference.subscribers(topic), "subscribers of t{topic}");
        for kind in 0..FORMATTERS.len() as u8 {
            let (real, naive) = self.published_kind(kind);
            // The real one may be wider for a moment, never narrower; and never wants for nobody.
            let (wants, accepted) = (self.topics[topic].wants(real), self.reference.wants(topic, naive));
            assert!(wants || !accepted, "t{topic} wants {naive:?}");
            assert!(!wants || self.topics[topic].subscribers() > 0, "t{topic} wants {naive:?} for nobody");
        }
    }

    /// A real log in the reference's numbers.
    fn seen(&self, log: &RealLog) -> Vec<Delivered> {
        let number = |id: usize| {
            self.listeners.iter().position(|listener| listener.id as usize == id).expect("a listener of this program")
        };
        let translate = |seen: &Delivered| match *seen {
            Delivered::Subscribed(id) => Delivered::Subscribed(number(id)),
            Delivered::Unsubscribed(id) => Delivered::Unsubscribed(number(id)),
            other => other,
        };
        lock(log).iter().map(translate).collect()
    }

    fn compare(&self, at: usize, when: &str) {
        assert_eq!(self.seen(&self.listeners[at].log), self.reference.delivered(at), "subscription {at} {when}");
    }

    fn end(self) {
        (0..TOPICS).for_each(|topic| self.look(topic));
        self.bus.shutdown(PATIENCE).expect("no handler blocks");
        self.reference.shutdown();
        for (at, listener) in self.listeners.iter().enumerate() {
            listener.end.wait_timeout(PATIENCE).expect("no handler blocks");
            self.compare(at, "at the end");
        }
        assert_eq!(self.bus.stats().panics, *lock(&self.panics), "panics are counted");
    }
}
