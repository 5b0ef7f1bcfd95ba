//! Where a subscription's messages wait and run: its delivery, as publishers and lanes see it.

use super::subscriber::Subscriber;
use crate::exec::buffer::{Buffer, Counts};
use crate::exec::inline::InlineQueue;
use crate::exec::lane::Lane;
use crate::exec::serial::TokenId;
use crate::exec::slab::Placed;
use crate::sync::Arc;

/// Where a subscription's messages wait and run.
#[derive(Debug)]
pub(crate) enum Route {
    /// On a lane of the bus.
    Lane(Arc<Lane<Subscriber>>),
    /// On a lane of its own.
    Dedicated(Arc<Lane<Subscriber>>),
    /// In the publisher.
    Inline(Box<InlineQueue>),
    /// Publishers push into a queue of its own, which a lane serves.
    Buffered(Box<Own>),
}

/// A queue of a subscription's own.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) buffer: Buffer,
    pub(crate) lane: Arc<Lane<Subscriber>>,
    /// The lane is its own too.
    pub(crate) dedicated: bool,
}

impl Route {
    pub(crate) fn lane(&self) -> Option<&Arc<Lane<Subscriber>>> {
        match self {
            Self::Lane(lane) | Self::Dedicated(lane) => Some(lane),
            Self::Buffered(own) => Some(&own.lane),
            Self::Inline(_) => None,
        }
    }

    /// The lane to which publishers push; none: they deliver themselves.
    pub(crate) fn dispatch_lane(&self) -> Option<&Arc<Lane<Subscriber>>> {
        match self {
            Self::Lane(lane) | Self::Dedicated(lane) => Some(lane),
            Self::Inline(_) | Self::Buffered(_) => None,
        }
    }

    /// Puts what every delivery writes beside what others have on the same lane, or in a box of its own.
    pub(crate) fn place<T>(&self, value: T) -> Placed<T> {
        match self {
            Self::Lane(lane) => lane.slabs().place(value),
            Self::Buffered(own) if !own.dedicated => own.lane.slabs().place(value),
            _ => Placed::boxed(value),
        }
    }

    /// The lane that is its own.
    pub(crate) fn own_lane(&self) -> Option<&Arc<Lane<Subscriber>>> {
        match self {
            Self::Dedicated(lane) => Some(lane),
            Self::Buffered(own) if own.dedicated => Some(&own.lane),
            _ => None,
        }
    }

    pub(crate) fn is_queued(&self) -> bool {
        matches!(self, Self::Buffered(_))
    }

    /// What its own queue has counted, and what waits there, if it has one.
    pub(crate) fn look(&self) -> Option<(Counts, u64)> {
        match self {
            Self::Buffered(own) => Some(own.buffer.look()),
            _ => None,
        }
    }

    pub(super) fn token_id(&self) -> TokenId {
        match self {
            Self::Lane(lane) | Self::Dedicated(lane) => lane.token_id(),
            Self::Inline(queue) => queue.token_id(),
            Self::Buffered(own) => own.lane.token_id(),
        }
    }
}
