//! The message of the peers: time stamp, topic and 64 bytes, counted.
//!
//! Ours is stamped by the engine, with the same clock and at the same moment (when it is made).

use std::hint::black_box;
use std::sync::Arc;

use quanta::Clock;

use crate::plan::Plan;

/// 64 bytes; every word is the message's number.
pub(crate) type Payload = [u64; 8];

/// The payload of message `n`.
#[inline]
pub(crate) fn payload(n: u64) -> Payload {
    [n; 8]
}

/// What a peer carries behind an `Arc`, or in its slots: the least that does what ours does.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    #[expect(dead_code, reason = "stamping is part of the work; nobody here asks for the time")]
    created: u64,
    pub(crate) topic: u32,
    pub(crate) payload: Payload,
}

/// A counted message.
pub(crate) type Message = Arc<Envelope>;

/// Makes messages for one publisher.
#[derive(Clone, Debug)]
pub(crate) struct Maker {
    clock: Clock,
    plan: Arc<Plan>,
}

impl Maker {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self { clock: Clock::new(), plan: Arc::clone(plan) }
    }

    /// Message `n`, stamped now, without a count.
    #[inline]
    pub(crate) fn envelope(&self, n: u64) -> Envelope {
        Envelope { created: self.clock.raw(), topic: self.plan.topic(n) as u32, payload: payload(n) }
    }

    /// Message `n`, stamped now. One allocation.
    #[inline]
    pub(crate) fn message(&self, n: u64) -> Message {
        // Opaque, so that a message for nobody is made all the same.
        black_box(Arc::new(self.envelope(n)))
    }
}
