//! User events about several objects: a name, fields, and the snapshots of channels, bridges, endpoints.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::ami::key_from;
use super::event::plain_text;
use super::json::{JsonObject, value_of};
use super::{AmiBlock, EventClass, Formats};
use crate::bus::Bus;
use crate::error::TypeError;
use crate::message::{Message, MessageType, Subject};

/// Name of the message type of [`multi_user_event`], as configurations that decline it have it.
pub const MULTI_USER_EVENT: &str = "ast_multi_user_event_type";

/// What sort of object a user event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A channel.
    Channel,
    /// A bridge.
    Bridge,
    /// An endpoint.
    Endpoint,
    /// Something else, by the name it has in JSON.
    Other(&'static str),
}

impl ObjectKind {
    /// Name: key in JSON, and what a [`Subject`] says.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Bridge => "bridge",
            Self::Endpoint => "endpoint",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a user event was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MultiObjectError {
    /// It needs a name.
    #[error("a user event needs a name")]
    NoName,
    /// The fields are not written as an object: keys and values.
    #[error("the fields of a user event have to be an object, not {0}")]
    NotAnObject(&'static str),
    /// Serde cannot write the fields.
    #[error("the fields of a user event cannot be written as JSON")]
    NotJson,
}

/// One object of a user event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserObject {
    /// Sort of object.
    pub kind: ObjectKind,
    /// Id, for sanitizers.
    pub id: String,
    /// Snapshot: a message of any type. Its own formatters say what is shown.
    pub snapshot: Message,
}

/// A user event about any number of objects: payload of [`multi_user_event`].
///
/// # Examples
/// ```
/// use stasis_bus::format::{AmiBlock, EventClass, Formats, MultiObject, ObjectKind, multi_user_event};
/// use stasis_bus::{Bus, MessageType};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::builder().lanes(1).build()?;
/// let snapshot = MessageType::<String>::builder("ast_channel_snapshot_type")
///     .json()
///     .ami(|name| AmiBlock::new("Channel", EventClass::NONE).field("Channel", name))
///     .create(&bus)?;
/// let user_event = multi_user_event(&bus)?;
///
/// let fields = [("queue", "sales"), ("note", "a\nb")].into_iter().collect::<std::collections::BTreeMap<_, _>>();
/// let event = MultiObject::new("escalated", &fields)?
///     .with(ObjectKind::Channel, "1", snapshot.message("SIP/100".into()))
///     .with(ObjectKind::Channel, "2", snapshot.message("SIP/200".into()));
/// assert_eq!(event.primary(ObjectKind::Channel).unwrap().id, "1");
/// let message = user_event.message(event);
/// assert_eq!(
///     message.to_ami().unwrap(),
///     "Event: UserEvent\r\nPrivilege: user,all\r\nChannel: SIP/100\r\n2Channel: SIP/200\r\n\
///      UserEvent: escalated\r\nnote: a\\nb\r\nqueue: sales\r\n\r\n"
/// );
/// assert_eq!(
///     message.to_json().unwrap(),
///     r#"{"eventname":"escalated","userevent":{"note":"a\nb","queue":"sales"},"channel":"SIP/100","channels":["SIP/100","SIP/200"]}"#
/// );
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MultiObject {
    name: String,
    fields: Map<String, Value>,
    objects: Vec<UserObject>,
}

impl MultiObject {
    /// A user event without objects. `fields` is whatever serde writes as an object: a struct, a map,
    /// a [`serde_json::Value`]; `()` for none.
    ///
    /// # Errors
    /// [`MultiObjectError`].
    pub fn new(name: impl Into<String>, fields: &impl Serialize) -> Result<Self, MultiObjectError> {
        let name = name.into();
        if name.is_empty() {
            return Err(MultiObjectError::NoName);
        }
        let fields = match value_of(fields).ok_or(MultiObjectError::NotJson)? {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            Value::Bool(_) => return Err(MultiObjectError::NotAnObject("a boolean")),
            Value::Number(_) => return Err(MultiObjectError::NotAnObject("a number")),
            Value::String(_) => return Err(MultiObjectError::NotAnObject("a text")),
            Value::Array(_) => return Err(MultiObjectError::NotAnObject("a list")),
        };
        Ok(Self { name, fields, objects: Vec::new() })
    }

    /// Adds an object. The same one may be added twice, and is shown twice.
    #[must_use]
    pub fn with(mut self, kind: ObjectKind, id: impl Into<String>, snapshot: Message) -> Self {
        self.objects.push(UserObject { kind, id: id.into(), snapshot });
        self
    }

    /// Name of the event.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fields, in order.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// All objects, in the order they were added.
    #[must_use]
    pub fn objects(&self) -> &[UserObject] {
        &self.objects
    }

    /// Objects of one kind, in the order they were added.
    pub fn objects_of(&self, kind: ObjectKind) -> impl Iterator<Item = &UserObject> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// The first object of a kind.
    #[must_use]
    pub fn primary(&self, kind: ObjectKind) -> Option<&UserObject> {
        self.objects_of(kind).next()
    }

    /// Kinds there are: channels, bridges, endpoints, then others by name.
    fn kinds(&self) -> Vec<ObjectKind> {
        let mut kinds: Vec<_> = self.objects.iter().map(|object| object.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// `eventname`, `userevent` (the fields), then per kind the first object the consumer may see, and all
    /// of them as a list if there are several.
    fn write_json(&self, json: &mut JsonObject<'_>) {
        json.field("eventname", &self.name);
        json.field("userevent", &self.fields);
        for kind in self.kinds() {
            let seen: Vec<_> = self.objects_of(kind).filter_map(|object| object.json(json)).collect();
            if let Some(first) = seen.first() {
                json.field(kind.as_str(), first);
            }
            if seen.len() > 1 {
                json.field(format!("{kind}s"), &seen);
            }
        }
    }

    /// The objects' fields, from the second object of a kind on with its number before the key; the name;
    /// the event's own fields.
    fn ami(&self) -> AmiBlock {
        let mut block = AmiBlock::new("UserEvent", EventClass::USER);
        for kind in self.kinds() {
            for (object, number) in self.objects_of(kind).zip(1..) {
                let prefix = if number == 1 { String::new() } else { number.to_string() };
                if let Some(fields) = object.ami() {
                    block = block.prefixed(&prefix, fields);
                }
            }
        }
        block = block.escaped_field("UserEvent", &self.name);
        for (key, value) in &self.fields {
            if let Some(text) = plain_text(value.clone()) {
                block = block.escaped_field(key_from(key), text);
            }
        }
        block
    }
}

impl UserObject {
    /// As JSON for the consumer of `json`, if it may see the object and the object has JSON.
    fn json(&self, json: &JsonObject<'_>) -> Option<Value> {
        let sanitizer = json.sanitizer();
        if sanitizer.leaves_out(&Subject::new(self.kind.as_str(), &self.id).with_snapshot(&self.snapshot)) {
            return None;
        }
        let text = self.snapshot.to_json_for(sanitizer)?;
        serde_json::from_str(&text).inspect_err(|error| self.report("JSON", error)).ok()
    }

    /// As AMI fields, if the object has them: a whole event, or lines alone.
    fn ami(&self) -> Option<AmiBlock> {
        let text = self.snapshot.to_ami()?;
        AmiBlock::parse(&text)
            .or_else(|_| AmiBlock::parse(&format!("Event: {}\r\n{text}", self.kind)))
            .inspect_err(|error| self.report("AMI text", error))
            .ok()
    }

    fn report(&self, form: &str, error: &dyn fmt::Display) {
        let kind = self.snapshot.type_name();
        tracing::error!(kind, id = self.id, %error, "an object's {form} is broken; a user event goes without");
    }
}

/// The message type of user events, with JSON and AMI formatters.
///
/// # Errors
/// [`TypeError::Declined`] if the bus declines [`MULTI_USER_EVENT`]; [`TypeError::TooMany`].
pub fn multi_user_event(bus: &Bus) -> Result<MessageType<MultiObject>, TypeError> {
    MessageType::builder(MULTI_USER_EVENT).json_object(MultiObject::write_json).ami(MultiObject::ami).create(bus)
}
