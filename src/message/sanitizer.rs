//! What is left out of a message's JSON for one consumer.

use std::any::Any;
use std::fmt;

use super::Message;

/// An object inside a message that a consumer may not be meant to see: its kind, id, and its snapshot if
/// the formatter has one at hand.
///
/// # Examples
/// ```
/// use stasis_bus::Subject;
/// struct Channel { is_internal: bool }
/// let channel = Channel { is_internal: true };
/// let subject = Subject::new("channel", "1700000000.1").with_snapshot(&channel);
/// assert_eq!((subject.kind(), subject.id()), ("channel", "1700000000.1"));
/// assert!(subject.snapshot::<Channel>().is_some_and(|channel| channel.is_internal));
/// assert!(subject.snapshot::<String>().is_none());
/// ```
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    kind: &'a str,
    id: &'a str,
    snapshot: Option<&'a dyn Any>,
}

impl<'a> Subject<'a> {
    /// An object of which kind and id alone are known.
    #[must_use]
    pub fn new(kind: &'a str, id: &'a str) -> Self {
        Self { kind, id, snapshot: None }
    }

    /// Adds the snapshot: a payload, or a [`Message`] that carries it.
    #[must_use]
    pub fn with_snapshot(mut self, snapshot: &'a dyn Any) -> Self {
        self.snapshot = Some(snapshot);
        self
    }

    /// Kind of object, such as "channel".
    #[must_use]
    pub fn kind(&self) -> &'a str {
        self.kind
    }

    /// Id of the object.
    #[must_use]
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The snapshot if it is an `S`, or a message with such a payload.
    #[must_use]
    pub fn snapshot<S: 'static>(&self) -> Option<&'a S> {
        let snapshot = self.snapshot?;
        snapshot.downcast_ref::<S>().or_else(|| snapshot.downcast_ref::<Message>()?.payload::<S>())
    }
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Decides which objects are left out of a message's JSON. Any closure over [`Subject`] is one.
///
/// # Examples
/// ```
/// use stasis_bus::{Bus, MessageType, Sanitizer, Subject};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let hangup = MessageType::<String>::builder("hangup")
///     .to_json_sanitized(|id, sanitizer| {
///         (!sanitizer.leaves_out(&Subject::new("channel", id))).then(|| format!("{{\"channel\":\"{id}\"}}"))
///     })
///     .create(&bus)?;
/// let no_snoops = |subject: &Subject<'_>| subject.id().starts_with("snoop");
/// assert_eq!(hangup.message("snoop-1".into()).to_json_for(&no_snoops), None);
/// assert!(hangup.message("snoop-1".into()).to_json().is_some());
/// # Ok(()) }
/// ```
pub trait Sanitizer {
    /// Whether this object is left out.
    fn leaves_out(&self, subject: &Subject<'_>) -> bool;
}

impl<F: Fn(&Subject<'_>) -> bool> Sanitizer for F {
    fn leaves_out(&self, subject: &Subject<'_>) -> bool {
        self(subject)
    }
}

/// Leaves nothing out: what [`Message::to_json`] uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepAll;

impl Sanitizer for KeepAll {
    fn leaves_out(&self, _: &Subject<'_>) -> bool {
        false
    }
}
