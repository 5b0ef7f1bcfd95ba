//! Taskprocessors: who runs what, where, one thing at a time.
//!
//! ```text
//!   lane      ring + control stack + one worker thread, pinned       (Delivery::Lane, Dedicated)
//!   inline    the publishing thread, by baton                        (Delivery::Inline)
//!   buffer    a subscription's own bounded queue, served by its lane in turns   (Overflow)
//!   tidy      what an idle worker gives back and frees
//!   takeover  a lane goes on in another thread when a handler gets stuck; watchdog, hold, mailbox, spares
//!   slab      memory of a lane's members, apart from that of other lanes'
//!   serial    what only the present runner may touch
//!   frames    what a thread is in the middle of; waiting inside handlers
//! ```
//!
//! Guarantees: serial per member (G4), in order (G2), the final message last (G5); no user code
//! under a lock, in a ring operation or while pinned; nothing here knows topics.

pub(crate) mod affinity;
pub(crate) mod audience;
pub(crate) mod backlog;
pub(crate) mod buffer;
pub(crate) mod calls;
pub(crate) mod completion;
mod flood;
pub(crate) mod frames;
mod helping;
pub(crate) mod hold;
pub(crate) mod inline;
pub(crate) mod lane;
mod late;
mod mailbox;
pub(crate) mod part;
pub(crate) mod serial;
pub(crate) mod slab;
pub(crate) mod spares;
mod takeover;
mod tidy;
pub(crate) mod wait;
mod walk;
pub(crate) mod watchdog;
pub(crate) mod worker;
