//! Events for other nodes, from whatever serde can write.

use serde::Serialize;
use serde_json::Value;

use super::json::value_of;
use crate::message::Event;

/// An event of this name with the fields of a payload: texts as they are, everything else as JSON, `null`
/// left out, in the order serde gives them. A payload that is not a struct or map becomes the one field
/// `value`. `None` if nothing is left or serde cannot write it (the log says why).
///
/// # Examples
/// ```
/// use stasis_bus::format::event_of;
/// #[derive(serde::Serialize)]
/// struct Mwi { mailbox: String, new: u32, note: Option<String> }
/// let event = event_of("MWI", &Mwi { mailbox: "100@home".into(), new: 2, note: None }).unwrap();
/// assert_eq!(event.name, "MWI");
/// assert_eq!(event.fields, [("mailbox".into(), "100@home".into()), ("new".into(), "2".into())]);
/// ```
#[must_use]
pub fn event_of(name: &str, payload: &impl Serialize) -> Option<Event> {
    let fields: Vec<_> = match value_of(payload)? {
        Value::Object(fields) => {
            fields.into_iter().filter_map(|(key, value)| Some((key, plain_text(value)?))).collect()
        }
        value => plain_text(value).map(|text| ("value".to_owned(), text)).into_iter().collect(),
    };
    (!fields.is_empty()).then(|| Event { name: name.to_owned(), fields })
}

/// A value as text: strings without quotes, `None` for null.
pub(super) fn plain_text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        value => Some(value.to_string()),
    }
}
