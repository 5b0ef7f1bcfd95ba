//! JSON objects built field by field, without what a consumer may not see.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::message::{Sanitizer, Subject};

/// A JSON object in the making, for one consumer.
///
/// # Examples
/// ```
/// use serde::Serialize;
/// use stasis_bus::format::{Formats, Subject};
/// use stasis_bus::{Bus, MessageType};
/// #[derive(Serialize)]
/// struct Channel { id: String, snoop: bool }
/// struct Dial { caller: Channel, peer: Channel, number: String }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let dial = MessageType::<Dial>::builder("ast_channel_dial_type")
///     .json_object(|dial, json| {
///         json.field("dialstring", &dial.number);
///         json.object("caller", "channel", &dial.caller.id, &dial.caller);
///         json.essential("peer", "channel", &dial.peer.id, &dial.peer);
///     })
///     .create(&bus)?;
/// let message = dial.message(Dial {
///     caller: Channel { id: "1".into(), snoop: true },
///     peer: Channel { id: "2".into(), snoop: false },
///     number: "2001".into(),
/// });
/// // One consumer sees everything, another no snooping channels, a third not even the peer.
/// assert!(message.to_json().unwrap().contains("caller"));
/// let no_snoops = |subject: &Subject<'_>| subject.snapshot::<Channel>().is_some_and(|channel| channel.snoop);
/// assert_eq!(
///     message.to_json_for(&no_snoops).unwrap(),
///     r#"{"dialstring":"2001","peer":{"id":"2","snoop":false}}"#
/// );
/// assert_eq!(message.to_json_for(&|subject: &Subject<'_>| subject.id() == "2"), None);
/// # Ok(()) }
/// ```
pub struct JsonObject<'a> {
    fields: Map<String, Value>,
    sanitizer: &'a dyn Sanitizer,
    /// Nothing is to be said after all.
    is_void: bool,
}

impl<'a> JsonObject<'a> {
    pub(super) fn new(sanitizer: &'a dyn Sanitizer) -> Self {
        Self { fields: Map::new(), sanitizer, is_void: false }
    }

    /// The consumer's sanitizer, for what these methods do not cover.
    #[must_use]
    pub fn sanitizer(&self) -> &'a dyn Sanitizer {
        self.sanitizer
    }

    /// Adds a field; a second one of the same name replaces the first. If serde cannot write the value
    /// (the log says why), the message has no JSON.
    pub fn field(&mut self, name: impl Into<String>, value: &(impl Serialize + ?Sized)) {
        match value_of(value) {
            Some(value) => drop(self.fields.insert(name.into(), value)),
            None => self.is_void = true,
        }
    }

    /// Adds an object unless the sanitizer leaves it out. Whether it was added.
    pub fn object<S: Serialize + 'static>(
        &mut self,
        name: impl Into<String>,
        kind: &str,
        id: &str,
        snapshot: &S,
    ) -> bool {
        let is_kept = !self.sanitizer.leaves_out(&Subject::new(kind, id).with_snapshot(snapshot));
        if is_kept {
            self.field(name, snapshot);
        }
        is_kept
    }

    /// Adds an object without which the message means nothing: if the sanitizer leaves it out, this
    /// consumer gets no JSON.
    pub fn essential<S: Serialize + 'static>(&mut self, name: impl Into<String>, kind: &str, id: &str, snapshot: &S) {
        if !self.object(name, kind, id, snapshot) {
            self.is_void = true;
        }
    }

    /// The object as text; `None` if nothing is in it or an essential object was left out.
    pub(super) fn into_text(self) -> Option<String> {
        if self.is_void || self.fields.is_empty() { None } else { text_of(&self.fields) }
    }
}

impl fmt::Debug for JsonObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JsonObject")
            .field("fields", &self.fields)
            .field("is_void", &self.is_void)
            .finish_non_exhaustive()
    }
}

/// As text; serde's refusal is logged.
pub(super) fn text_of(payload: &(impl Serialize + ?Sized)) -> Option<String> {
    logged(serde_json::to_string(payload))
}

/// As a JSON value; serde's refusal is logged.
pub(super) fn value_of(payload: &(impl Serialize + ?Sized)) -> Option<Value> {
    logged(serde_json::to_value(payload))
}

fn logged<T>(written: Result<T, serde_json::Error>) -> Option<T> {
    written.inspect_err(|error| tracing::error!(%error, "a payload cannot be written as JSON")).ok()
}
