//! Messages: immutable, typed, counted; one allocation each.
//!
//! ```text
//!   MessageType<P>.message(payload) ─► Message ─clone─► Message   (one block, see `block`)
//!                                        │ payload::<P>() = Some(&P), payload::<Q>() = None
//! ```
//!
//! Guarantees: a payload never changes and is dropped once (G1, `g01_*`); access to it is typed; a
//! message keeps its type alive; making one in the steady state allocates nothing (memory comes back
//! from the subscribers, see `recycle`); clone is one atomic add.
#![allow(unsafe_code)]

mod block;
mod bulk;
pub(crate) mod depth;
mod filter;
mod formatter;
mod recycle;
mod sanitizer;
pub(crate) mod span;
mod types;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use block::BlockRef;
pub use filter::FilterMode;
pub(crate) use filter::{Filter, Interest, TypeSet};
pub use formatter::{Event, Formatters};
pub(crate) use recycle::{flush, gather_on_this_thread};
pub use sanitizer::{KeepAll, Sanitizer, Subject};
pub use types::{AnyMessageType, MessageType, MessageTypeBuilder, TypeId};

use crate::clock::Timestamp;
use crate::contain;
use crate::error::FormatError;

/// Id of the node (Asterisk: entity id) a message comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Eid(pub [u8; 6]);

impl fmt::Display for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Eid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Eid({self})")
    }
}

/// An immutable message. Cheap to clone; the payload is dropped with the last clone, on whatever
/// thread that is.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, Eid, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let state = MessageType::<&'static str>::new(&bus, "device_state")?;
/// let message = state.message_from("INUSE", Eid([0, 1, 2, 3, 4, 5]));
/// assert_eq!(message.payload::<&'static str>(), Some(&"INUSE"));
/// assert_eq!(message.payload::<String>(), None);
/// assert_eq!(message.type_name(), "device_state");
/// assert_eq!(message.eid().unwrap().to_string(), "00:01:02:03:04:05");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Message(BlockRef);

impl<P: Send + Sync + 'static> MessageType<P> {
    /// A message of this type, stamped now.
    ///
    /// Cost: no allocation in the steady state, two atomic adds, one clock reading (20-40 ns).
    #[inline]
    #[must_use]
    pub fn message(&self, payload: P) -> Message {
        Message(BlockRef::new(self.slot(), self.cached_formatters, None, payload))
    }

    /// As [`message`](Self::message), from the node `eid`.
    #[inline]
    #[must_use]
    pub fn message_from(&self, payload: P, eid: Eid) -> Message {
        Message(BlockRef::new(self.slot(), self.cached_formatters, Some(eid), payload))
    }
}

impl Message {
    /// The payload, if it is a `P`.
    #[inline]
    #[must_use]
    pub fn payload<P: 'static>(&self) -> Option<&P> {
        self.0.payload()
    }

    /// Number of the message's type.
    #[inline]
    #[must_use]
    pub fn type_id(&self) -> TypeId {
        self.0.type_id()
    }

    /// Whether the message is of this type.
    #[inline]
    #[must_use]
    pub fn is(&self, kind: &impl AsRef<AnyMessageType>) -> bool {
        self.type_id() == kind.as_ref().id()
    }

    /// Name of the message's type.
    #[must_use]
    pub fn type_name(&self) -> &str {
        &self.0.kind().detail_for_message().name
    }

    /// Asks for what a delivery of it reads: it comes soon.
    #[inline]
    pub(crate) fn expect(&self) {
        self.0.expect();
    }

    /// As [`type_name`](Self::type_name), for those who only look on: no use of the type.
    pub(crate) fn type_name_for_report(&self) -> &str {
        &self.0.kind().detail().name
    }

    /// Formatters of the message's type.
    #[inline]
    #[must_use]
    pub fn formatters(&self) -> Formatters {
        self.0.formatters()
    }

    /// When it was made.
    #[inline]
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.0.created()
    }

    /// Node it comes from, if that was said.
    #[must_use]
    pub fn eid(&self) -> Option<Eid> {
        self.0.eid()
    }

    /// Through how many handlers, one publishing from within the other, it has come: zero if it was not
    /// published inside a handler. Published several times: the most of these. 65,535 at most.
    #[inline]
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.0.depth()
    }

    /// Makes it at least so deep.
    #[inline]
    pub(crate) fn deepen(&self, depth: u16) {
        self.0.deepen(depth);
    }

    /// The message as JSON text, if its type can. A formatter that panics is reported and gives `None`.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        self.to_json_for(&KeepAll)
    }

    /// As [`to_json`](Self::to_json), without what the sanitizer leaves out; `None` if nothing is left.
    #[must_use]
    pub fn to_json_for(&self, sanitizer: &dyn Sanitizer) -> Option<String> {
        reported(self.try_to_json(sanitizer))
    }

    /// The message as lines of an AMI event, if its type can. A formatter that panics is reported and
    /// gives `None`.
    #[must_use]
    pub fn to_ami(&self) -> Option<String> {
        reported(self.try_to_ami())
    }

    /// The message as an event for other nodes, if its type can. A formatter that panics is reported and
    /// gives `None`.
    #[must_use]
    pub fn to_event(&self) -> Option<Event> {
        reported(self.try_to_event())
    }

    /// As [`to_json_for`](Self::to_json_for); tells a panic from having no JSON.
    ///
    /// # Errors
    /// [`FormatError`] if formatter or sanitizer panicked.
    pub fn try_to_json(&self, sanitizer: &dyn Sanitizer) -> Result<Option<String>, FormatError> {
        self.contained("to_json", |detail| detail.to_json.as_ref()?(self, sanitizer))
    }

    /// As [`to_ami`](Self::to_ami); tells a panic from having no AMI text.
    ///
    /// # Errors
    /// [`FormatError`] if the formatter panicked.
    pub fn try_to_ami(&self) -> Result<Option<String>, FormatError> {
        self.contained("to_ami", |detail| detail.to_ami.as_ref()?(self))
    }

    /// As [`to_event`](Self::to_event); tells a panic from having no event.
    ///
    /// # Errors
    /// [`FormatError`] if the formatter panicked.
    pub fn try_to_event(&self) -> Result<Option<Event>, FormatError> {
        self.contained("to_event", |detail| detail.to_event.as_ref()?(self))
    }

    /// Runs a formatter; a panic of it ends here.
    fn contained<R>(
        &self,
        formatter: &'static str,
        run: impl FnOnce(&types::TypeDetail) -> Option<R>,
    ) -> Result<Option<R>, FormatError> {
        let detail = self.0.kind().detail_for_message();
        catch_unwind(AssertUnwindSafe(|| run(detail))).map_err(|panic| {
            let said = contain::said(&*panic).to_owned();
            contain::discard(panic);
            FormatError { formatter, type_name: detail.name.clone(), said }
        })
    }

    /// Whether both are the same message (not just equal ones).
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }

    /// Gives the message up as a pointer, for a ring slot.
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<()> {
        self.0.into_raw()
    }

    /// Takes a message back.
    ///
    /// # Safety
    /// The pointer comes from one `into_raw` and is used once.
    #[inline]
    pub(crate) unsafe fn from_raw(pointer: NonNull<()>) -> Self {
        // SAFETY: as the caller promises.
        Self(unsafe { BlockRef::from_raw(pointer) })
    }
}

/// A failed formatter is logged and gives nothing.
fn reported<R>(formatted: Result<Option<R>, FormatError>) -> Option<R> {
    formatted.unwrap_or_else(|error| {
        tracing::error!("{error}; the message has no such form");
        None
    })
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.same_as(other)
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("type", &self.type_name())
            .field("created", &self.created())
            .field("eid", &self.eid())
            .finish_non_exhaustive()
    }
}
