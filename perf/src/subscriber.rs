//! The subscribers: the same for all contenders.
//!
//! A subscriber reads the first and the last word of each payload, adds them up and counts. Its
//! record at the end is compared with what was published. It is called through a trait object
//! everywhere, since the subscribers of a bus are of many kinds.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::message::{Envelope, Payload};
use crate::meter::{Gate, Meter};

/// What one subscriber got in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) topic: usize,
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) lost: u64,
    /// Of these, lost before the last phase.
    pub(crate) lost_warming: u64,
}

impl Record {
    /// What a subscriber of `topic` has when `count` messages reached it once.
    pub(crate) fn complete(topic: usize, (count, sum): (u64, u64)) -> Self {
        Self { topic, count, sum, ..Self::default() }
    }
}

/// A phase: how many messages a subscriber has seen at its end, and whom to tell.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) until: u64,
    pub(crate) meter: Arc<Meter>,
}

/// What a subscriber does besides, with messages from a number on.
#[derive(Clone, Debug)]
pub(crate) struct Special {
    /// The first measured message.
    pub(crate) from: u64,
    pub(crate) task: Task,
}

#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Time since the message was due: coordinated omission does not hide a publisher that was held up.
    Time { start: Arc<OnceLock<Instant>>, period: Duration, times: Arc<Mutex<Histogram<u64>>> },
    /// Stand still at the first until the gate opens.
    Stall(Arc<Gate>),
}

/// Where subscribers leave their records.
pub(crate) type Records = Arc<Mutex<Vec<Record>>>;

/// A subscriber. What a message touches is on one cache line, which no neighbour shares.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Subscriber {
    record: Record,
    /// End of the current phase.
    until: u64,
    special: Option<Box<(Special, Histogram<u64>)>>,
    /// Phases that have not ended, the next one last.
    phases: Vec<Phase>,
    records: Records,
}

impl Subscriber {
    /// A subscriber of `topic` that goes through `phases`, in order.
    pub(crate) fn new(topic: usize, phases: &[Phase], special: Option<Special>, records: &Records) -> Self {
        let phases: Vec<_> = phases.iter().rev().cloned().collect();
        let until = phases.last().map_or(u64::MAX, |phase| phase.until);
        let record = Record { topic, ..Record::default() };
        let special = special.map(|special| Box::new((special, histogram())));
        let mut this = Self { record, until, special, phases, records: Arc::clone(records) };
        if until == 0 {
            this.end_phase();
        }
        this
    }

    pub(crate) fn topic(&self) -> usize {
        self.record.topic
    }

    /// Takes a message.
    #[inline]
    pub(crate) fn take(&mut self, payload: &Payload) {
        self.record.count += 1;
        self.record.sum = self.record.sum.wrapping_add(payload[0]).wrapping_add(payload[7]);
        if self.special.is_some() {
            self.special(payload[0]);
        }
        if self.record.count + self.record.lost >= self.until {
            self.end_phase();
        }
    }

    #[inline(never)]
    fn special(&mut self, n: u64) {
        let Some((special, times)) = self.special.as_deref_mut() else { return };
        if n < special.from {
            return;
        }
        match &special.task {
            Task::Time { start, period, .. } => {
                let due = *start.get().expect("set before the first message") + *period * (n - special.from) as u32;
                times.saturating_record(due.elapsed().as_nanos() as u64);
            }
            Task::Stall(gate) => {
                gate.wait();
                self.special = None;
            }
        }
    }

    #[cold]
    fn end_phase(&mut self) {
        while self.record.count + self.record.lost >= self.until {
            if let Some(phase) = self.phases.pop() {
                if !self.phases.is_empty() {
                    self.record.lost_warming = self.record.lost;
                }
                phase.meter.done();
            }
            self.until = self.phases.last().map_or(u64::MAX, |phase| phase.until);
        }
    }
}

/// Nanoseconds up to a minute, three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds fit")
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some((Special { task: Task::Time { times, .. }, .. }, own)) = self.special.as_deref() {
            times.lock().unwrap_or_else(PoisonError::into_inner).add(own).expect("the same bounds");
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(self.record);
    }
}

/// A subscriber as a peer's consumer thread sees it.
pub(crate) trait Receive: Send {
    /// Takes a message.
    fn receive(&mut self, payload: &Payload);
    /// The contender says that `messages` will never come.
    fn miss(&mut self, messages: u64);
}

impl Receive for Subscriber {
    fn receive(&mut self, payload: &Payload) {
        self.take(payload);
    }

    fn miss(&mut self, messages: u64) {
        self.record.lost += messages;
        if self.record.count + self.record.lost >= self.until {
            self.end_phase();
        }
    }
}

/// The subscribers one consumer thread serves, by topic.
#[derive(Default)]
pub(crate) struct Group(Vec<Vec<Box<dyn Receive>>>);

impl Group {
    fn add(&mut self, subscriber: Subscriber) {
        let topic = subscriber.topic();
        if self.0.len() <= topic {
            self.0.resize_with(topic + 1, Vec::new);
        }
        self.0[topic].push(Box::new(subscriber));
    }

    /// Whether it has subscribers of the topic.
    pub(crate) fn serves(&self, topic: usize) -> bool {
        self.0.get(topic).is_some_and(|subscribers| !subscribers.is_empty())
    }

    /// Gives each subscriber of its topic a message.
    #[inline]
    pub(crate) fn receive(&mut self, message: &Envelope) {
        if let Some(subscribers) = self.0.get_mut(message.topic as usize) {
            for subscriber in subscribers {
                subscriber.receive(&message.payload);
            }
        }
    }

    /// Tells each of messages that will never come.
    pub(crate) fn miss(&mut self, messages: u64) {
        for subscriber in self.0.iter_mut().flatten() {
            subscriber.miss(messages);
        }
    }

    /// Shares subscribers out to at most `groups` groups of about the same size, in turns.
    pub(crate) fn split(subscribers: Vec<Subscriber>, groups: usize) -> Vec<Self> {
        let count = groups.min(subscribers.len());
        let mut all: Vec<Self> = (0..count).map(|_| Self::default()).collect();
        for (n, subscriber) in subscribers.into_iter().enumerate() {
            all[n % count].add(subscriber);
        }
        all
    }
}
