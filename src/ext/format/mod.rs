//! Formatters: JSON, AMI text and events from payloads; multi-object user events.
//!
//! ```text
//!                      ┌ .json()        serde ──────────────────► to_json()
//!  MessageTypeBuilder ─┼ .json_object() JsonObject ◄─ Sanitizer ─ to_json_for(&consumer)
//!                      ├ .ami()         AmiBlock  ──────────────► to_ami()
//!                      └ .event()       serde, flattened ───────► to_event()
//! ```
//!
//! # Guarantees
//! - Whatever a value holds, AMI output is one block and parses back to what was put in
//!   (`formatters::ami_*`, fuzz target `ami`).
//! - An object a [`Sanitizer`] leaves out is not serialized at all (`formatters::a_sanitizer_*`).
//! - A panic in a formatter or sanitizer ends in the call that formats: `None` and a log line, or
//!   [`FormatError`](crate::FormatError) from `try_to_…` (`formatters::a_formatter_that_panics_*`).
//! - Nothing to say is `None`, never an empty text.
//!
//! Cost: formatting happens where it is asked for, on that thread, and is not kept. No locks. A type
//! with formatters costs nothing when published.
//!
//! # Examples
//! ```
//! use serde::Serialize;
//! use stasis_bus::format::{AmiBlock, EventClass, Formats};
//! use stasis_bus::{Bus, Formatters, MessageType};
//!
//! #[derive(Serialize)]
//! struct DeviceState { device: String, state: String }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Bus::builder().lanes(1).build()?;
//! let state = MessageType::<DeviceState>::builder("ast_device_state_message_type")
//!     .json()
//!     .ami(|change| {
//!         AmiBlock::new("DeviceStateChange", EventClass::CALL)
//!             .field("Device", &change.device)
//!             .field("State", &change.state)
//!     })
//!     .event("DeviceStateChange")
//!     .create(&bus)?;
//! assert_eq!(state.formatters(), Formatters::JSON | Formatters::AMI | Formatters::EVENT);
//! let message = state.message(DeviceState { device: "SIP/100".into(), state: "INUSE".into() });
//! assert_eq!(message.to_json().unwrap(), r#"{"device":"SIP/100","state":"INUSE"}"#);
//! assert_eq!(
//!     message.to_ami().unwrap(),
//!     "Event: DeviceStateChange\r\nPrivilege: call,all\r\nDevice: SIP/100\r\nState: INUSE\r\n\r\n"
//! );
//! assert_eq!(message.to_event().unwrap().fields[1], ("state".into(), "INUSE".into()));
//! # Ok(()) }
//! ```

mod ami;
mod class;
mod event;
mod json;
mod multi;

use serde::Serialize;

pub use ami::{AmiBlock, AmiError, AmiParseError, unescape};
pub use class::EventClass;
pub use event::event_of;
pub use json::JsonObject;
pub use multi::{MULTI_USER_EVENT, MultiObject, MultiObjectError, ObjectKind, UserObject, multi_user_event};

use crate::message::MessageTypeBuilder;
#[doc(no_inline)]
pub use crate::message::{KeepAll, Sanitizer, Subject};

/// Formatters in one call each, for a type in the making. Example: see the [module](self).
pub trait Formats<P>: Sized {
    /// JSON as serde writes the payload. Sanitizers are not asked: for a payload with objects that some
    /// consumers may not see, use [`json_object`](Self::json_object).
    ///
    /// A payload that serde cannot write (such as a map with keys that are no strings) has no JSON, and
    /// the log says why; so has one that is `null`.
    #[must_use]
    fn json(self) -> Self
    where
        P: Serialize;

    /// JSON object built field by field; objects in it can be left out for a consumer.
    #[must_use]
    fn json_object(self, build: impl Fn(&P, &mut JsonObject<'_>) + Send + Sync + 'static) -> Self;

    /// AMI event. A block that has an error is not sent, and the log says why.
    #[must_use]
    fn ami(self, build: impl Fn(&P) -> AmiBlock + Send + Sync + 'static) -> Self;

    /// AMI event of those payloads that have one.
    #[must_use]
    fn ami_if(self, build: impl Fn(&P) -> Option<AmiBlock> + Send + Sync + 'static) -> Self;

    /// Event of this name, with the payload's fields as [`event_of`] makes them.
    #[must_use]
    fn event(self, name: impl Into<String>) -> Self
    where
        P: Serialize;
}

impl<P: Send + Sync + 'static> Formats<P> for MessageTypeBuilder<P> {
    fn json(self) -> Self
    where
        P: Serialize,
    {
        self.to_json(|payload| json::text_of(payload).filter(|text| text != "null"))
    }

    fn json_object(self, build: impl Fn(&P, &mut JsonObject<'_>) + Send + Sync + 'static) -> Self {
        self.to_json_sanitized(move |payload, sanitizer| {
            let mut object = JsonObject::new(sanitizer);
            build(payload, &mut object);
            object.into_text()
        })
    }

    fn ami(self, build: impl Fn(&P) -> AmiBlock + Send + Sync + 'static) -> Self {
        self.ami_if(move |payload| Some(build(payload)))
    }

    fn ami_if(self, build: impl Fn(&P) -> Option<AmiBlock> + Send + Sync + 'static) -> Self {
        self.to_ami(move |payload| match build(payload)?.to_text() {
            Ok(text) => Some(text),
            Err(error) => {
                tracing::error!(%error, "an AMI event is not sent");
                None
            }
        })
    }

    fn event(self, name: impl Into<String>) -> Self
    where
        P: Serialize,
    {
        let name = name.into();
        self.to_event(move |payload| event_of(&name, payload))
    }
}
