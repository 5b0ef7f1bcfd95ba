//! Figures of a bus and of its lanes.

use super::Drops;

/// Figures of a bus.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BusStats {
    /// Messages published that somebody's filter let through to a queue or an inline handler.
    pub published: u64,
    /// Messages published that no subscription accepts.
    pub unwanted: u64,
    /// Publishes refused because a queue was full, and subscription changes that a subscription was not told of
    /// because more than 60,000 of them waited for it already.
    pub refused: u64,
    /// Publishes refused because of [`BusBuilder::feedback_limit`](crate::BusBuilder::feedback_limit).
    pub feedback: u64,
    /// Messages handed to handlers, final ones not counted.
    pub delivered: u64,
    /// Messages that came to subscriptions, each counted once for each: delivered, dropped and waiting together.
    pub accepted: u64,
    /// Messages accepted that will not be delivered, by cause, of all subscriptions that ever were.
    pub dropped: Drops,
    /// Messages that wait in queues of subscriptions' own.
    pub waiting: u64,
    /// Messages that came after a subscription's final one (published while it was leaving).
    pub late: u64,
    /// Handler calls that panicked.
    pub panics: u64,
    /// Subscriptions that have ended.
    pub ended: u64,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Topics now.
    pub topics: usize,
    /// Uses of a message type after its last handle was gone.
    pub late_type_uses: u64,
    /// Bytes of ring memory in use.
    pub ring_bytes: usize,
    /// Lanes taken over from handlers that kept them too long.
    pub takeovers: u64,
    /// Times a lane had to stay with such a handler because all spare threads were in use.
    pub takeovers_refused: u64,
    /// Threads beside those that serve lanes, now.
    pub spare_threads: usize,
    /// Most of them so far.
    pub spare_threads_high_water: usize,
    /// Figures of each lane.
    pub lanes: Vec<LaneStats>,
}

/// Figures of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LaneStats {
    /// Dispatches waiting.
    pub depth: u64,
    /// Most dispatches that waited, as sampled.
    pub high_water: u64,
    /// Dispatches served.
    pub served: u64,
    /// Times the worker went to sleep.
    pub sleeps: u64,
    /// Times it was taken over.
    pub takeovers: u64,
}
