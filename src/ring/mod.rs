//! The queue of a taskprocessor: many producers, one consumer, in order, bounded, without locks.
//!
//! ```text
//!  publishers ──push──►  [ segment ][ segment ][ segment ] …   ──pop──► the lane's worker
//!                        base segments are always there; more come from the bus's budget while
//!                        the consumer lags, and go back when it has caught up
//! ```
//!
//! Guarantees:
//! - Order: entries come out in the order their positions were claimed; if one push returned before
//!   another began, it comes out first (`a_push_that_returned_first_comes_out_first`).
//! - Progress: `push` is wait-free while there is room and lock-free when it grows. `pop` is
//!   wait-free; it reports "nothing yet" while the producer of the next entry is between claiming and
//!   writing, so one producer preempted there holds back later entries for that long.
//! - Bound: [`Ring::is_full`] turns true when less than a segment is free and the budget refuses more.
//!   `push` itself always succeeds: callers ask first, and what was asked for at the same time by
//!   several threads still finds room.
//! - Cost: one `fetch_add` on a shared word, one or two writes to a slot line; no allocation in
//!   the steady state; waking costs nothing while the consumer is awake.
//! - Panics: none. It knows nothing of topics.

mod budget;
pub(crate) mod index;
pub(crate) mod mpsc;
mod segments;
mod slot;

pub(crate) use budget::Budget;
pub(crate) use index::Position;
pub(crate) use mpsc::{Consumer, Place, Ring, ring};
pub(crate) use slot::Entry;
