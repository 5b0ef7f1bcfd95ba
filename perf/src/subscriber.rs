//! The subscribers: the same for all contenders.
//!
//! A subscriber reads the first and the last word of each payload, adds them up and counts. Its
//! record at the end is compared with what was published. It is called through a trait object
//! everywhere, since the subscribers of a bus are of many kinds.

use std::sync::{Arc, Mutex, PoisonError};

use crate::message::Payload;
use crate::meter::Meter;

/// What one subscriber got in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Record {
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) lost: u64,
    /// Of these, lost before the last phase.
    pub(crate) lost_warming: u64,
}

impl Record {
    /// What a subscriber has when each of the messages `0..messages` reached it once.
    pub(crate) fn complete(messages: u64) -> Self {
        let sum = (0..messages).fold(0u64, |sum, n| sum.wrapping_add(2 * n));
        Self { count: messages, sum, lost: 0, lost_warming: 0 }
    }
}

/// A phase: how many messages a subscriber has seen at its end, and whom to tell.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) until: u64,
    pub(crate) meter: Arc<Meter>,
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
    /// Phases that have not ended, the next one last.
    phases: Vec<Phase>,
    records: Records,
}

impl Subscriber {
    /// A subscriber that goes through `phases`, in order.
    pub(crate) fn new(phases: &[Phase], records: &Records) -> Self {
        let phases: Vec<_> = phases.iter().rev().cloned().collect();
        let until = phases.last().map_or(u64::MAX, |phase| phase.until);
        Self { record: Record::default(), until, phases, records: Arc::clone(records) }
    }

    /// Takes a message.
    #[inline]
    pub(crate) fn take(&mut self, payload: &Payload) {
        self.record.count += 1;
        self.record.sum = self.record.sum.wrapping_add(payload[0]).wrapping_add(payload[7]);
        if self.record.count + self.record.lost >= self.until {
            self.end_phase();
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

impl Drop for Subscriber {
    fn drop(&mut self) {
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

/// The subscribers one consumer thread serves.
pub(crate) struct Group(Vec<Box<dyn Receive>>);

impl Group {
    /// Gives each a message.
    #[inline]
    pub(crate) fn receive(&mut self, payload: &Payload) {
        for subscriber in &mut self.0 {
            subscriber.receive(payload);
        }
    }

    /// Tells each of messages that will never come.
    pub(crate) fn miss(&mut self, messages: u64) {
        for subscriber in &mut self.0 {
            subscriber.miss(messages);
        }
    }

    /// Shares subscribers out to at most `threads` groups of about the same size.
    pub(crate) fn split(subscribers: Vec<Subscriber>, threads: usize) -> Vec<Self> {
        let size = subscribers.len().div_ceil(threads.max(1)).max(1);
        let mut groups: Vec<Self> = Vec::with_capacity(threads);
        for (n, subscriber) in subscribers.into_iter().enumerate() {
            if n % size == 0 {
                groups.push(Self(Vec::with_capacity(size)));
            }
            if let Some(group) = groups.last_mut() {
                group.0.push(Box::new(subscriber));
            }
        }
        groups
    }
}
