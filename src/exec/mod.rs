//! Taskprocessors: who runs what, where, one thing at a time.
//!
//! ```text
//!   lane      ring + control stack + one worker thread, pinned       (Delivery::Lane, Dedicated)
//!   inline    the publishing thread, by baton                        (Delivery::Inline)
//!   serial    what only the present runner may touch
//!   frames    what a thread is in the middle of; waiting inside handlers
//! ```
//!
//! Guarantees: serial per member (G4), in order (G2), the final message last (G5); no user code
//! under a lock, in a ring operation or while pinned; nothing here knows topics.

pub(crate) mod affinity;
pub(crate) mod audience;
pub(crate) mod completion;
pub(crate) mod frames;
pub(crate) mod inline;
pub(crate) mod lane;
pub(crate) mod part;
pub(crate) mod serial;
pub(crate) mod wait;
pub(crate) mod worker;
