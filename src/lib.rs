//! Asterisk's Stasis message bus, rebuilt: lock-free publish/subscribe for telephony cores.
//!
//! ```text
//!  publisher thread                         lane = pinned core + ring + worker
//!  topic.publish(message)
//!    │ hint: anybody for this type? no ─► done, two loads
//!    │ snapshot of the subscribers (arc-swap)  ┌───┬───┬───┬───┐
//!    ├─ one dispatch per interested lane ─────►│ d │ d │ d │ d │─► worker: walks that lane's
//!    ├─ own thread: a lane with one subscriber └───┴───┴───┴───┘   subscribers, filters, calls
//!    └─ inline subscribers: called here
//! ```
//!
//! # What it promises
//!
//! - **G1** Messages are immutable and typed; a message keeps its type usable.
//! - **G2** If one publish returned before another began, every subscription that gets both gets them in
//!   that order: on one topic, across topics, through forwards.
//! - **G3** Each accepted message reaches each subscription once, however many forwards lead there.
//! - **G4** A handler never runs on two threads at once, nor inside itself.
//! - **G5** After unsubscribing: what was published before, then one final message, then nothing; then the
//!   handler is dropped, once.
//! - **G6** Publish waits for no subscriber, takes no lock, allocates nothing beyond the message (and that
//!   memory is recycled).
//! - **G7** Nothing deadlocks: joining from the own handler is an error, joins have deadlines, waiting
//!   inside a handler serves the lane meanwhile.
//! - **G8** A handler that blocks, loops or is slow delays its own subscription only: another thread goes on
//!   with its lane.
//! - **G9** Memory is bounded, and a subscription may say what happens when it is too slow ([`Overflow`]); then
//!   accepted = delivered + dropped by cause + waiting, at any moment. Publishing to such a subscription takes a short
//!   lock of its own.
//! - **G10** Lifetimes by ownership: dropping a handle unsubscribes or cancels.
//! - **G11** [`Bus::shutdown`] ends, and names who kept it.
//! - **G12** A panic in a handler is that handler's alone.
//! - **G14** [`Topic::wants`] and [`Topic::publish_with`]: nothing is built for nobody.
//!
//! Each has tests named after it (`tests/`) and, where threads meet, a loom model (`loom-tests/`).
//!
//! # Trade-offs
//!
//! - Subscriptions of one lane share its worker: a handler that keeps it longer than
//!   [`BusBuilder::watchdog`] says (2 ms) loses it to another thread, and its own subscription waits; so does one
//!   whose calls are shorter but keep the others waiting as long. That
//!   costs the others up to that period, or two; a handler that is known to block had better have
//!   [`Delivery::Dedicated`]. On a machine with more busy threads than cores a lane's thread may be put aside
//!   for that long; then the lane is taken over too, which is harmless and counted.
//! - A message is delivered by lanes at their pace; queues grow within [`BusBuilder::memory_budget`], then
//!   publishes are refused with the message handed back.
//! - Filters are tested by the lane. A publish goes to every lane on which one subscription may accept
//!   its type.
//! - Filters keep the types they name alive.
//!
//! # Where things are
//!
//! | folder | holds | uses |
//! |---|---|---|
//! | `ext/` | the rest of Stasis: router, caches, state, topic pools, taskprocessors, formatters, configuration, test sinks (feature `ext`) | `bus` |
//! | `bus/` | topics, subscriptions, forwards, shutdown: the Stasis semantics | everything below |
//! | `exec/` | lanes, workers, take-over, inline delivery, waiting | `ring`, `message` |
//! | `message/` | types, messages, filters, recycled memory | `sync` |
//! | `ring/` | the queue | `sync` |
//! | `snapshot`, `pinned`, `reclaim`, `stats`, `clock` | arc-swap, reading it under a pin, crossbeam-epoch, counters, time stamps | `sync` |
//! | `sync/` | `std` or loom primitives, fences, parking, the closable stack | |
//!
//! # Example
//!
//! ```
//! use stasis_bus::{Bus, MessageType};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::builder().name("pbx").build()?;
//! let dial = MessageType::<String>::new(&bus, "channel_dial")?;
//! let (channel, all) = (bus.topic("channel:1")?, bus.topic("channel:all")?);
//! let _forward = channel.forward_to(&all)?;
//! let feed = all.subscriber().accept(&dial).subscribe(|received| {
//!     if let Some(number) = received.payload::<String>() {
//!         println!("dialled {number}");
//!     }
//! })?;
//! channel.publish(dial.message("2001".into()))?;
//! feed.unsubscribe().wait()?;
//! bus.shutdown(Duration::from_secs(1))?;
//! # Ok(()) }
//! ```

pub mod error;

/// Compiles the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles that of the page for operators.
#[cfg(doctest)]
#[doc = include_str!("../docs/overload.md")]
struct Overload;

mod bus;
mod clock;
mod contain;
mod exec;
#[cfg(feature = "ext")]
mod ext;
mod message;
#[cfg(any(loom, fuzzing))]
#[doc(hidden)]
pub mod model;
mod pinned;
mod reclaim;
#[doc(hidden)]
pub mod reference;
mod ring;
#[cfg(stasis_schedule)]
#[doc(hidden)]
pub mod schedule {
    //! Not part of the interface: runs under `--cfg stasis_schedule`.
    pub use crate::sync::schedule::{pause, run, spawn};
}
mod snapshot;
mod stats;
mod sync;

pub use bus::{
    Alive, Bus, BusBuilder, BusStats, ChangeKind, Completion, Congestion, Criticality, Delivery, Drops, Executing,
    Forward, Handler, HealthReport, Home, LaneStats, LevelChange, PanicPolicy, QueueHealth, QueueKind, Received,
    ShutdownReport, Stuck, StuckKind, SubscriberBuilder, Subscription, SubscriptionChange, SubscriptionStats, Topic,
    WaterMarks,
};
pub use clock::Timestamp;
pub use error::{
    BuildError, Closed, FormatError, JoinError, PublishError, PublishSyncError, ShutdownError, SubscribeError,
    TypeError,
};
pub use exec::affinity::Pinning;
pub use exec::buffer::rules::{Key, Overflow};
pub use exec::wait::WaitStrategy;
#[cfg(feature = "ext")]
pub use ext::{
    cache, claim, config, distinct, feedback, follow, format, key_index, keyed, pattern, router, state, taskprocessor,
    testing, topic_pool,
};
pub use message::{
    AnyMessageType, Eid, Event, FilterMode, Formatters, KeepAll, Message, MessageType, MessageTypeBuilder, Sanitizer,
    Subject, TypeId,
};
