//! What holds for the JSON, the AMI text and the events of user events whatever they are made of. For tests and fuzzing.

use std::collections::HashSet;
use std::sync::LazyLock;

use serde_json::{Map, Value};
use stasis_bus::format::{
    AmiBlock, EventClass, Formats, KeepAll, MultiObject, ObjectKind, Sanitizer, Subject, event_of, multi_user_event,
    unescape,
};
use stasis_bus::{Bus, Message, MessageType, Pinning};

/// A value to be: its shape, a text, a number.
pub(crate) type Seed = (u8, String, i32);
/// An object to be: kind, id, what its snapshot holds, and whether it is kept from the consumer.
pub(crate) type Object = (u8, String, Vec<(String, Seed)>, bool);

const KINDS: [ObjectKind; 4] =
    [ObjectKind::Channel, ObjectKind::Bridge, ObjectKind::Endpoint, ObjectKind::Other("device")];

struct Types {
    event: MessageType<MultiObject>,
    snapshot: MessageType<Value>,
    _bus: Bus,
}

static TYPES: LazyLock<Types> = LazyLock::new(|| {
    let bus = Bus::builder().lanes(1).pinning(Pinning::Off).build().expect("a bus");
    let ami = |value: &Value| {
        let fields = value.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()).zip(0..);
        let block = AmiBlock::new("Snapshot", EventClass::CALL);
        fields.fold(block, |block, (text, n)| block.escaped_field(format!("Key{n}"), text))
    };
    Types {
        event: multi_user_event(&bus).expect("the type of user events"),
        snapshot: MessageType::builder("snapshot").json().ami(ami).event("snapshot").create(&bus).expect("a type"),
        _bus: bus,
    }
});

fn value((shape, text, number): &Seed) -> Value {
    match shape % 8 {
        0 => Value::Null,
        1 => (*number > 0).into(),
        2 => (*number).into(),
        // Without a rounding error: how floats are read is serde_json's affair.
        3 => (f64::from(*number) / 4.0).into(),
        4 => vec![Value::from(text.as_str()), Value::Null, (*number).into()].into(),
        5 => Map::from_iter([(text.clone(), Value::from(*number))]).into(),
        _ => text.as_str().into(),
    }
}

fn object(fields: &[(String, Seed)]) -> Map<String, Value> {
    fields.iter().map(|(key, seed)| (key.clone(), value(seed))).collect()
}

/// What an object's snapshot is: a map mostly.
fn snapshot(fields: &[(String, Seed)]) -> Value {
    match fields {
        [(key, seed)] if key.is_empty() => value(seed),
        fields => object(fields).into(),
    }
}

/// Makes a user event; all its forms say what was put in, and nothing of what is kept from the consumer.
pub(crate) fn check(name: &str, fields: &[(String, Seed)], objects: &[Object]) {
    let types = &*TYPES;
    let fields = object(fields);
    let Ok(mut event) = MultiObject::new(name, &fields) else {
        return assert!(name.is_empty(), "{name:?} {fields:?}: refused without need");
    };
    assert!(!name.is_empty(), "an event without a name");
    for (kind, id, held, _) in objects {
        event = event.with(KINDS[*kind as usize % 4], id, types.snapshot.message(snapshot(held)));
    }
    let message = types.event.message(event);
    let hidden: HashSet<(&str, &str)> = objects
        .iter()
        .filter(|(.., is_hidden)| *is_hidden)
        .map(|(kind, id, ..)| (KINDS[*kind as usize % 4].as_str(), id.as_str()))
        .collect();
    check_json(&message, &KeepAll, name, &fields, objects, &HashSet::new());
    let sanitizer = |subject: &Subject<'_>| hidden.contains(&(subject.kind(), subject.id()));
    check_json(&message, &sanitizer, name, &fields, objects, &hidden);
    check_ami(&message, name, &fields, objects);
    for (.., held, _) in objects {
        check_snapshot(&snapshot(held));
    }
}

fn check_json(
    message: &Message,
    sanitizer: &dyn Sanitizer,
    name: &str,
    fields: &Map<String, Value>,
    objects: &[Object],
    hidden: &HashSet<(&str, &str)>,
) {
    let mut expected = Map::from_iter([("eventname".into(), name.into()), ("userevent".into(), fields.clone().into())]);
    for kind in KINDS {
        // Null says nothing, so such a snapshot is not there.
        let seen: Vec<Value> = objects
            .iter()
            .filter(|(of, id, ..)| KINDS[*of as usize % 4] == kind && !hidden.contains(&(kind.as_str(), id.as_str())))
            .map(|(.., held, _)| snapshot(held))
            .filter(|value| !value.is_null())
            .collect();
        if let Some(first) = seen.first() {
            expected.insert(kind.as_str().into(), first.clone());
        }
        if seen.len() > 1 {
            expected.insert(format!("{kind}s"), seen.into());
        }
    }
    let text = message.to_json_for(sanitizer).expect("a user event has JSON");
    assert!(!text.contains(['\n', '\r']), "one line: {text:?}");
    let read: Value = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(read, Value::Object(expected), "{text}");
}

fn check_ami(message: &Message, name: &str, fields: &Map<String, Value>, objects: &[Object]) {
    let text = message.to_ami().expect("a user event has AMI text");
    assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4), "one block: {text:?}");
    let block = AmiBlock::parse(&text).expect("what was written can be read");
    assert_eq!((block.name(), block.class()), ("UserEvent", EventClass::USER));
    let texts = |held: &[(String, Seed)]| match snapshot(held) {
        Value::Object(held) => held.values().filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    let mut expected = Vec::new();
    for kind in KINDS {
        for (.., held, _) in objects.iter().filter(|(of, ..)| KINDS[*of as usize % 4] == kind) {
            expected.extend(texts(held));
        }
    }
    expected.push(name.to_owned());
    expected.extend(fields.values().filter(|value| !value.is_null()).map(|value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }));
    let read: Vec<String> = block.fields().map(|(_, value)| unescape(value).expect("escaped by us")).collect();
    assert_eq!(read, expected, "{text:?}");
}

/// The JSON and the event of a snapshot alone.
fn check_snapshot(value: &Value) {
    let message = TYPES.snapshot.message(value.clone());
    let read = message.to_json().map(|text| serde_json::from_str(&text).expect("JSON"));
    assert_eq!(read, Some(value.clone()).filter(|value| !value.is_null()));
    let event = message.to_event();
    assert_eq!(event, event_of("snapshot", value));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let expected: Vec<(String, String)> = match value {
        Value::Object(held) => held.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), text(v))).collect(),
        Value::Null => Vec::new(),
        value => vec![("value".to_owned(), text(value))],
    };
    assert_eq!(event.map(|event| event.fields).unwrap_or_default(), expected);
}
