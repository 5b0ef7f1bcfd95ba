//! For unit tests of those who use the bus: a sink that collects messages, and a bus without threads.
//!
//! ```text
//!   topic ─► subscription ─► sink.handler() ─► MessageSink ◄── wait_for_count, wait_for, should_stay
//!
//!   ManualBus ─ bus() ─► an ordinary Bus, whose lanes have no threads
//!       └ step, step_lane, run ─► their handlers, here, in an order that a seed decides
//! ```
//!
//! Guarantees:
//! - a sink keeps messages in the order they came, holds no lock while it waits or while a predicate runs,
//!   and may be dropped at any time (`tests/sink.rs`);
//! - the same program on a [`ManualBus`] of the same seed delivers in the same order
//!   (`tests/deterministic.rs`);
//! - a wait that fails says what had arrived ([`SinkError`]).
//!
//! Cost: a sink clones a message handle per message; a `ManualBus` adds nothing to a bus with threads.

mod manual;
mod sink;

pub use manual::{ManualBus, ManualBusBuilder};
pub use sink::{Arrived, MessageSink, SinkError, SinkHandler};

use crate::bus::Bus;
use crate::error::TypeError;
use crate::message::MessageType;

/// Payload of test messages: a number to tell them apart by.
///
/// # Examples
/// ```
/// use stasis_bus::Bus;
/// use stasis_bus::testing::{TestMessage, test_message_type};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let kind = test_message_type(&bus)?;
/// let message = kind.message(TestMessage(7));
/// assert_eq!(message.type_name(), "stasis_test_message_type");
/// assert_eq!(message.payload(), Some(&TestMessage(7)));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TestMessage(
    /// The number.
    pub u64,
);

/// Makes a message type for tests, of the name it has in Stasis: `stasis_test_message_type`.
///
/// # Errors
/// [`TypeError::Declined`] if the bus declines types of this name, [`TypeError::TooMany`].
pub fn test_message_type(bus: &Bus) -> Result<MessageType<TestMessage>, TypeError> {
    MessageType::new(bus, "stasis_test_message_type")
}
