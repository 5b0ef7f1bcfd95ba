//! A subscription with a queue of its own, beside the simplest thing that could do the same.

use stasis_bus::testing::ManualBus;
use stasis_bus::{Bus, Delivery, Home, Key, Message, MessageType, Overflow, Subscription};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// What a message of these programs carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub n: u64,
    /// 0: about nothing.
    pub key: u64,
    pub control: bool,
    pub stale: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy {
    Spill,
    Newest,
    Oldest,
    Conflate,
    Fail,
    Lag,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub policy: Policy,
    pub limit: usize,
    pub time_to_live: bool,
    pub priority: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    Publish { key: u64, control: bool, stale: bool },
    Sync { key: u64, control: bool },
    Step,
}

impl Setup {
    pub(crate) fn decode(bytes: [u8; 2]) -> Self {
        let policy = [Policy::Spill, Policy::Newest, Policy::Oldest, Policy::Conflate, Policy::Fail, Policy::Lag]
            [usize::from(bytes[0]) % 6];
        let (time_to_live, priority) = (bytes[1] & 1 != 0, bytes[1] & 2 != 0);
        Self { policy, limit: 1 + usize::from(bytes[1] >> 2) % 6, time_to_live, priority }
    }
}

impl Act {
    pub(crate) fn decode(byte: u8) -> Self {
        let (key, control) = (u64::from(byte >> 4) % 4, byte & 8 != 0);
        match byte & 7 {
            0..=3 => Self::Publish { key, control, stale: false },
            4 => Self::Publish { key, control, stale: true },
            5 => Self::Sync { key, control },
            _ => Self::Step,
        }
    }
}

fn key_of(message: &Message) -> Option<Key> {
    message.payload::<Call>().filter(|call| call.key > 0).map(|call| Key::from(call.key))
}

/// What all runs share: the type, and messages that are older than all others.
struct Dawn {
    kind: MessageType<Call>,
    made: Instant,
    stale: Vec<Message>,
    _bus: Bus,
}

fn dawn() -> &'static Dawn {
    static DAWN: OnceLock<Dawn> = OnceLock::new();
    DAWN.get_or_init(|| {
        let bus = Bus::builder().lanes(1).build().unwrap();
        let kind = MessageType::<Call>::new(&bus, "call").unwrap();
        let call = |n: u64| Call { n: 1_000_000 + n, key: n % 4, control: n >= 4, stale: true };
        let stale = (0..8).map(|n| kind.message(call(n))).collect();
        let made = Instant::now();
        // A fresh message gets old enough only if a run takes longer than this.
        std::thread::sleep(Duration::from_secs(2));
        Dawn { kind, made, stale, _bus: bus }
    })
}

/// The simple queue: what waits in the order of publishing, gone through from the front for everything.
struct Simple {
    setup: Setup,
    urgent: Vec<Call>,
    chatter: Vec<Call>,
    delivered: Vec<(Call, u64)>,
    accepted: u64,
    refused: u64,
    lost: u64,
    newest: u64,
    oldest: u64,
    conflated: u64,
    expired: u64,
}

impl Simple {
    fn new(setup: Setup) -> Self {
        Self {
            setup,
            urgent: Vec::new(),
            chatter: Vec::new(),
            delivered: Vec::new(),
            accepted: 0,
            refused: 0,
            lost: 0,
            newest: 0,
            oldest: 0,
            conflated: 0,
            expired: 0,
        }
    }

    fn waiting(&self) -> usize {
        self.urgent.len() + self.chatter.len()
    }

    fn is_expired(&self, call: Call) -> bool {
        self.setup.time_to_live && call.stale
    }

    /// False: refused.
    fn publish(&mut self, call: Call) -> bool {
        let control = self.setup.priority && call.control;
        let full =
            |simple: &Self| !matches!(simple.setup.policy, Policy::Spill) && simple.waiting() >= simple.setup.limit;
        if matches!(self.setup.policy, Policy::Fail) && full(self) {
            self.refused += 1;
            return false;
        }
        self.accepted += 1;
        if matches!(self.setup.policy, Policy::Conflate) && !control && call.key > 0 {
            // Control messages are neither replaced nor do they replace; those that went along with one are safe.
            let same = |other: &&mut Call| other.key == call.key;
            if let Some(old) = self.chatter.iter_mut().find(same) {
                *old = call;
                self.conflated += 1;
                return true;
            }
        }
        if full(self) {
            while self.chatter.first().is_some_and(|first| self.is_expired(*first)) {
                self.chatter.remove(0);
                self.expired += 1;
                self.lost += 1;
            }
        }
        if full(self) {
            self.lost += 1;
            let newest = matches!(self.setup.policy, Policy::Newest);
            if newest && control && !self.chatter.is_empty() {
                self.chatter.pop();
                self.newest += 1;
            } else if newest || self.chatter.is_empty() && !control {
                self.newest += 1;
                return true;
            } else {
                let from = if self.chatter.is_empty() { &mut self.urgent } else { &mut self.chatter };
                from.remove(0);
                self.oldest += 1;
            }
        }
        if control {
            let goes_along = |other: &Call| call.key > 0 && other.key == call.key;
            self.urgent.extend(self.chatter.iter().copied().filter(goes_along));
            self.chatter.retain(|other| !goes_along(other));
            self.urgent.push(call);
        } else {
            self.chatter.push(call);
        }
        true
    }

    /// Delivers one, if there is one.
    fn step(&mut self) {
        while self.waiting() > 0 {
            let from = if self.urgent.is_empty() { &mut self.chatter } else { &mut self.urgent };
            let call = from.remove(0);
            if self.is_expired(call) {
                self.expired += 1;
                self.lost += 1;
                continue;
            }
            let lost = std::mem::take(&mut self.lost);
            self.delivered.push((call, if matches!(self.setup.policy, Policy::Lag) { lost } else { 0 }));
            return;
        }
    }
}

type Seen = Arc<Mutex<Vec<(Call, u64)>>>;

fn check(subscription: &Subscription, simple: &Simple, seen: &Seen) {
    let stats = subscription.stats();
    assert_eq!(stats.accepted, stats.delivered + stats.dropped.total() + stats.waiting, "G3: {stats:?}");
    let dropped = (stats.dropped.newest, stats.dropped.oldest, stats.dropped.conflated, stats.dropped.expired);
    assert_eq!(dropped, (simple.newest, simple.oldest, simple.conflated, simple.expired));
    assert_eq!((stats.dropped.late, stats.dropped.ended), (0, 0));
    assert_eq!((stats.accepted, stats.refused), (simple.accepted, simple.refused));
    assert_eq!((stats.waiting, stats.delivered), (simple.waiting() as u64, simple.delivered.len() as u64));
    if !matches!(simple.setup.policy, Policy::Spill) {
        assert!(stats.queue_high_water <= simple.setup.limit as u64);
    }
    assert_eq!(*seen.lock().unwrap(), simple.delivered);
}

/// Runs a program on both.
pub(crate) fn run(setup: Setup, acts: &[Act]) {
    let dawn = dawn();
    let manual = ManualBus::builder().lanes(2).build().unwrap();
    let bytes_before = manual.bus().stats().ring_bytes;
    let topic = manual.bus().topic("calls").unwrap();
    let limit = setup.limit;
    let mut builder = topic.subscriber().delivery(Delivery::Lane(Home::Lane(0))).accept(&dawn.kind);
    builder = builder.overflow(match setup.policy {
        Policy::Spill => Overflow::Spill,
        Policy::Newest => Overflow::DropNewest { limit },
        Policy::Oldest => Overflow::DropOldest { limit },
        Policy::Conflate => Overflow::Conflate { key: key_of, limit },
        Policy::Fail => Overflow::Fail { limit },
        Policy::Lag => Overflow::Lag { limit },
    });
    // A queue of its own in any case.
    let age = dawn.made.elapsed() - Duration::from_millis(10);
    builder = builder.time_to_live(if setup.time_to_live { age } else { Duration::from_secs(3600) });
    if setup.priority {
        builder = builder.priority(key_of, |message| message.payload::<Call>().is_some_and(|call| call.control));
    }
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let finals = Arc::new(Mutex::new(0));
    let ended = Arc::clone(&finals);
    let subscription = builder
        .subscribe(move |received| match received.payload::<Call>() {
            Some(call) => log.lock().unwrap().push((*call, received.lagged())),
            None => *ended.lock().unwrap() += 1,
        })
        .unwrap();
    let witnessed = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&witnessed);
    let witness = topic
        .subscriber()
        .delivery(Delivery::Lane(Home::Lane(1)))
        .accept(&dawn.kind)
        .subscribe(move |received| log.lock().unwrap().extend(received.payload::<Call>().map(|call| call.n)))
        .unwrap();

    let mut simple = Simple::new(setup);
    let mut published = Vec::new();
    let mut ended_at = None;
    for (n, act) in acts.iter().enumerate() {
        let n = n as u64;
        match *act {
            Act::Step => {
                simple.step();
                manual.step_lane(0);
            }
            Act::Publish { key, control, stale } => {
                let at = (key + if control { 4 } else { 0 }) as usize;
                let fresh = || dawn.kind.message(Call { n, key, control, stale });
                let message = if stale { dawn.stale[at].clone() } else { fresh() };
                let call = *message.payload::<Call>().unwrap();
                match topic.publish(message) {
                    Ok(()) => {
                        assert!(simple.publish(call), "more than the limit");
                        published.push(call.n);
                    }
                    Err(error) => {
                        assert!(error.is_full() && !simple.publish(call));
                        assert_eq!(error.into_message().payload::<Call>(), Some(&call));
                    }
                }
            }
            Act::Sync { key, control } => {
                let call = Call { n, key, control, stale: false };
                if topic.publish_sync(dawn.kind.message(call), &subscription).is_ok() {
                    assert!(simple.publish(call));
                    published.push(n);
                    // Everything goes, the notice last: nobody else publishes.
                    while simple.waiting() > 0 {
                        simple.step();
                    }
                } else {
                    assert!(!simple.publish(call));
                }
            }
        }
        check(&subscription, &simple, &seen);
        ended_at = Some(n);
    }
    let end = subscription.unsubscribe();
    manual.run();
    assert!(end.is_done(), "after {ended_at:?}");
    while simple.waiting() > 0 {
        simple.step();
    }
    check(&subscription, &simple, &seen);
    assert_eq!(*finals.lock().unwrap(), 1, "G5");
    assert_eq!(*witnessed.lock().unwrap(), published, "what was refused came to nobody");
    witness.unsubscribe();
    manual.run();
    let stats = manual.bus().stats();
    assert_eq!(stats.accepted, stats.delivered + stats.dropped.total() + stats.waiting, "G3: {stats:?}");
    assert_eq!(stats.dropped, subscription.stats().dropped);
    assert_eq!(stats.refused, simple.refused);
    assert_eq!((stats.waiting, stats.ring_bytes), (0, bytes_before), "memory is given back");
}
