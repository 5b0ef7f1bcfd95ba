//! The hot half of a subscriber: what a delivery touches of it, on one cache line.
//!
//! ```text
//!   entry of a list ─► Post: id, handler, whose it is, counts      } both among those of the lane (`exec/slab`)
//!                        └─► the handler itself                    }
//! ```
//!
//! Guarantees: none of the lines that deliveries write has anything that another lane writes.

use super::subscriber::Handler;
use crate::exec::serial::{Serial, TokenId};
use crate::exec::slab::Placed;
use crate::stats::Tally;

/// What a subscription counts. Written by its runner only.
#[derive(Debug, Default)]
pub(crate) struct SubscriberTally {
    pub(crate) delivered: Tally,
    pub(crate) late: Tally,
    pub(crate) panics: Tally,
}

/// See the module.
#[repr(align(64))]
pub(crate) struct Post {
    pub(super) id: u64,
    /// None after the final message.
    pub(super) handler: Serial<Option<Placed<dyn Handler>>>,
    pub(crate) tally: SubscriberTally,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Post>() == 64, "one line");

impl Post {
    pub(super) fn new(id: u64, owner: TokenId, handler: Placed<dyn Handler>) -> Self {
        Self { id, handler: Serial::new(owner, Some(handler)), tally: SubscriberTally::default() }
    }
}
