//! Asterisk's Stasis message bus, rebuilt: lock-free publish/subscribe for telephony cores.

pub mod error;

mod bus;
mod clock;
mod exec;
mod message;
#[cfg(any(loom, fuzzing))]
#[doc(hidden)]
pub mod model;
mod reclaim;
mod ring;
mod snapshot;
mod stats;
mod sync;

pub use bus::{
    Alive, Bus, BusBuilder, BusStats, ChangeKind, Completion, Delivery, Forward, Handler, Home, LaneStats, PanicPolicy,
    Received, ShutdownReport, SubscriberBuilder, Subscription, SubscriptionChange, SubscriptionStats, Topic,
};
pub use clock::Timestamp;
pub use error::{
    BuildError, Closed, JoinError, PublishError, PublishSyncError, ShutdownError, SubscribeError, TypeError,
};
pub use exec::affinity::Pinning;
pub use exec::wait::WaitStrategy;
pub use message::{
    AnyMessageType, Eid, Event, FilterMode, Formatters, Message, MessageType, MessageTypeBuilder, TypeId,
};
