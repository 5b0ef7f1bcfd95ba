//! The message of the peers: time stamp and 64 bytes, counted.
//!
//! Ours is stamped by the engine, with the same clock and at the same moment (when it is made).

use std::hint::black_box;
use std::sync::Arc;

use quanta::Clock;

/// 64 bytes; every word is the message's number.
pub(crate) type Payload = [u64; 8];

/// The payload of message `n`.
#[inline]
pub(crate) fn payload(n: u64) -> Payload {
    [n; 8]
}

/// What a peer carries behind an `Arc`: the least that does what ours does.
#[derive(Debug)]
pub(crate) struct Envelope {
    #[expect(dead_code, reason = "stamping is part of the work; nobody here asks for the time")]
    created: u64,
    pub(crate) payload: Payload,
}

/// A counted message.
pub(crate) type Message = Arc<Envelope>;

/// Makes messages for one publisher.
#[derive(Debug)]
pub(crate) struct Maker(Clock);

impl Maker {
    pub(crate) fn new() -> Self {
        Self(Clock::new())
    }

    /// Message `n`, stamped now. One allocation.
    #[inline]
    pub(crate) fn message(&self, n: u64) -> Message {
        // Opaque, so that a message for nobody is made all the same.
        black_box(Arc::new(Envelope { created: self.0.raw(), payload: payload(n) }))
    }
}
