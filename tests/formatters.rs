//! Conformance: formatters, sanitizers, AMI blocks, multi-object user events.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

#[path = "common/ami_check.rs"]
mod ami_check;
mod common;
#[path = "common/json_check.rs"]
mod json_check;

use common::{DELIVERIES, PATIENCE, bus, lock};
use proptest::prelude::*;
use serde::{Serialize, Serializer};
use stasis_bus::format::{
    AmiBlock, AmiError, EventClass, Formats, KeepAll, MULTI_USER_EVENT, MultiObject, MultiObjectError, ObjectKind,
    Sanitizer, Subject, event_of, multi_user_event, unescape,
};
use stasis_bus::{Bus, Event, FormatError, Formatters, Message, MessageType, PanicPolicy, Pinning, TypeError};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Serialize)]
struct Channel {
    id: String,
    name: String,
    #[serde(skip)]
    is_internal: bool,
}

fn channel(id: &str) -> Channel {
    Channel { id: id.to_owned(), name: format!("SIP/{id}"), is_internal: id.starts_with("snoop") }
}

/// A snapshot type with JSON, AMI and event.
fn snapshots(bus: &Bus) -> MessageType<Channel> {
    MessageType::<Channel>::builder("ast_channel_snapshot_type")
        .json_object(|channel: &Channel, json| {
            json.field("id", &channel.id);
            json.field("name", &channel.name);
        })
        .ami(|channel| {
            AmiBlock::new("ChannelSnapshot", EventClass::CALL)
                .field("Channel", &channel.name)
                .field("Uniqueid", &channel.id)
        })
        .event("channel")
        .create(bus)
        .unwrap()
}

struct Dial {
    caller: Option<Channel>,
    peer: Channel,
    number: String,
}

fn dials(bus: &Bus) -> MessageType<Dial> {
    MessageType::<Dial>::builder("ast_channel_dial_type")
        .json_object(|dial: &Dial, json| {
            json.field("dialstring", &dial.number);
            if let Some(caller) = &dial.caller {
                json.object("caller", "channel", &caller.id, caller);
            }
            json.essential("peer", "channel", &dial.peer.id, &dial.peer);
        })
        .create(bus)
        .unwrap()
}

#[test]
fn json_is_what_serde_writes_and_null_is_none() {
    let bus = bus(1);
    let kind = MessageType::<Option<Channel>>::builder("t").json().create(&bus).unwrap();
    assert_eq!(kind.formatters(), Formatters::JSON);
    let message = kind.message(Some(channel("1")));
    assert_eq!(message.to_json().as_deref(), Some(r#"{"id":"1","name":"SIP/1"}"#));
    assert_eq!((message.to_ami(), message.to_event()), (None, None));
    assert_eq!(kind.message(None).to_json(), None);
    assert_eq!(kind.message(None).try_to_json(&KeepAll), Ok(None));
    let empty = MessageType::<u64>::builder("t").json_object(|_, _| ()).create(&bus).unwrap();
    assert_eq!(empty.message(1).to_json(), None);
}

/// Serde refuses it.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("no"))
    }
}

#[test]
fn what_serde_cannot_write_has_no_form() {
    let bus = bus(1);
    let kind = MessageType::<Unwritable>::builder("t").json().event("e").create(&bus).unwrap();
    assert_eq!((kind.message(Unwritable).to_json(), kind.message(Unwritable).to_event()), (None, None));
    let part = MessageType::<u64>::builder("t")
        .json_object(|n, json| {
            json.field("n", n);
            json.field("bad", &Unwritable);
        })
        .create(&bus)
        .unwrap();
    assert_eq!(part.message(1).to_json(), None, "half an object would look whole");
    let pairs = MessageType::<HashMap<(u8, u8), u8>>::builder("t").json().create(&bus).unwrap();
    assert_eq!(pairs.message(HashMap::from([((1, 2), 3)])).to_json(), None);
}

#[test]
fn a_sanitizer_leaves_objects_out_for_one_consumer_alone() {
    let bus = bus(1);
    let dial = dials(&bus);
    let message = dial.message(Dial { caller: Some(channel("snoop1")), peer: channel("2"), number: "42".into() });
    let whole = r#"{"dialstring":"42","caller":{"id":"snoop1","name":"SIP/snoop1"},"peer":{"id":"2","name":"SIP/2"}}"#;
    let part = r#"{"dialstring":"42","peer":{"id":"2","name":"SIP/2"}}"#;
    let by_id = |subject: &Subject<'_>| subject.kind() == "channel" && subject.id() == "snoop1";
    let by_snapshot = |subject: &Subject<'_>| subject.snapshot::<Channel>().is_some_and(|channel| channel.is_internal);
    assert_eq!(message.to_json_for(&by_id).as_deref(), Some(part));
    assert_eq!(message.to_json_for(&by_snapshot).as_deref(), Some(part));
    assert_eq!(message.to_json().as_deref(), Some(whole));
    assert_eq!(message.to_json_for(&|_: &Subject<'_>| true), None, "an essential object is left out");
    let plain = MessageType::<Channel>::builder("t").json().create(&bus).unwrap();
    assert!(plain.message(channel("snoop")).to_json_for(&|_: &Subject<'_>| true).is_some(), "serde alone does not ask");
}

#[test]
fn a_sanitizer_works_inside_handlers_of_different_consumers() {
    struct Tenant(&'static str);
    impl Sanitizer for Tenant {
        fn leaves_out(&self, subject: &Subject<'_>) -> bool {
            !subject.id().starts_with(self.0)
        }
    }
    let bus = bus(2);
    let (topic, dial) = (bus.topic("all").unwrap(), dials(&bus));
    let feed = |tenant: &'static str| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let subscriber = topic.subscriber().accept_formatters(Formatters::JSON);
        let subscription = subscriber
            .subscribe(move |received| {
                if !received.is_final() {
                    lock(&into).push(received.to_json_for(&Tenant(tenant)));
                }
            })
            .unwrap();
        (subscription, seen)
    };
    let feeds = [feed("a"), feed("b")];
    topic.publish(dial.message(Dial { caller: Some(channel("a1")), peer: channel("b1"), number: "1".into() })).unwrap();
    let [a, b] = feeds.map(|(subscription, seen)| {
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        lock(&seen).clone()
    });
    assert_eq!(a, [None]);
    assert_eq!(b, [Some(r#"{"dialstring":"1","peer":{"id":"b1","name":"SIP/b1"}}"#.to_owned())]);
}

#[test]
fn a_sanitizer_keeps_what_it_leaves_out_from_being_written_at_all() {
    struct Watched(Arc<AtomicUsize>);
    impl Serialize for Watched {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.fetch_add(1, Ordering::Relaxed);
            serializer.serialize_unit()
        }
    }
    let bus = bus(1);
    let kind = MessageType::<Watched>::builder("t")
        .json_object(|watched, json| {
            assert_eq!(
                json.object("it", "secret", "1", watched),
                !json.sanitizer().leaves_out(&Subject::new("secret", "1"))
            );
            json.field("n", &1);
        })
        .create(&bus)
        .unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let message = kind.message(Watched(Arc::clone(&written)));
    assert_eq!(message.to_json_for(&|_: &Subject<'_>| true).as_deref(), Some("{\"n\":1}"));
    assert_eq!(written.load(Ordering::Relaxed), 0);
    assert_eq!(message.to_json().as_deref(), Some("{\"it\":null,\"n\":1}"));
}

#[test]
fn ami_text_is_event_privilege_fields_and_an_empty_line() {
    let bus = bus(1);
    let message = snapshots(&bus).message(channel("1"));
    let text = "Event: ChannelSnapshot\r\nPrivilege: call,all\r\nChannel: SIP/1\r\nUniqueid: 1\r\n\r\n";
    assert_eq!(message.to_ami().as_deref(), Some(text));
    let block = AmiBlock::parse(text).unwrap();
    assert_eq!((block.name(), block.class(), block.get("uniqueid")), ("ChannelSnapshot", EventClass::CALL, Some("1")));
    assert_eq!(block.fields().collect::<Vec<_>>(), [("Channel", "SIP/1"), ("Uniqueid", "1")]);
    let bare = AmiBlock::new("X", EventClass::NONE).field("A", "").field("A", " b: c ");
    assert_eq!(bare.to_text().unwrap(), "Event: X\r\nA: \r\nA:  b: c \r\n\r\n");
    assert_eq!(AmiBlock::parse("Event: X\nA:\nA:  b: c \n"), Ok(bare));
}

#[test]
fn ami_values_and_keys_cannot_break_out() {
    let block = || AmiBlock::new("UserEvent", EventClass::USER);
    for value in ["a\r\nEvent: Shutdown", "a\nb", "a\rb", "a\tb", "\0", "\u{1b}[2J", "\u{7f}", "\u{85}"] {
        let error = block().field("Note", value).to_text().unwrap_err();
        assert_eq!(error, AmiError::Value { key: "Note".into(), value: value.into() });
        let text = block().escaped_field("Note", value).to_text().unwrap();
        let read = AmiBlock::parse(&text).unwrap();
        assert_eq!((read.fields().count(), unescape(read.get("Note").unwrap()).as_deref()), (1, Some(value)));
        assert_eq!(AmiBlock::new(value, EventClass::USER).to_text().unwrap_err(), AmiError::Name(value.into()));
    }
    for key in ["", " a", "a ", "a: b", "a\r\nb", "Event", "event", "Privilege", "PRIVILEGE"] {
        assert_eq!(block().field(key, "x").field("b", "\n").to_text().unwrap_err(), AmiError::Key(key.into()), "{key}");
    }
    assert_eq!(block().field("Käse Brot", "DOMAIN\\user").get("Käse Brot"), Some("DOMAIN\\user"));
}

#[test]
fn ami_blocks_with_errors_are_not_sent() {
    let bus = bus(1);
    let kind = MessageType::<String>::builder("t")
        .ami_if(|text| (!text.is_empty()).then(|| AmiBlock::new("T", EventClass::NONE).field("Text", text)))
        .create(&bus)
        .unwrap();
    let ami = |text: &str| kind.message(text.to_owned()).to_ami();
    assert_eq!(ami("fine").as_deref(), Some("Event: T\r\nText: fine\r\n\r\n"));
    assert_eq!((ami(""), ami("a\r\n\r\nEvent: Fake")), (None, None));
}

#[test]
fn ami_text_that_is_not_one_event_is_refused_with_its_line() {
    for (text, line) in [
        ("", 1),
        ("\r\n", 1),
        ("Event: A", 1),
        ("Event: A\r\nB: c", 2),
        ("Response: Success\r\n\r\n", 1),
        ("Event: A\r\nno colon\r\n\r\n", 2),
        ("Event: A\r\n\r\nEvent: B\r\n\r\n", 2),
        ("Event: A\r\nEvent: B\r\n\r\n", 2),
        ("Event: A\r\nB: c\r\nPrivilege: call,all\r\n\r\n", 3),
        ("Event: A\r\nPrivilege: nonsense,all\r\n\r\n", 2),
        ("Event: A\r\nB: c\rd\r\n\r\n", 2),
        ("Event: A\r\nB: c\r\n\r\n\r\n", 3),
        ("Event:\r\n\r\n", 1),
        (": x\r\n", 1),
    ] {
        assert_eq!(AmiBlock::parse(text).map_err(|error| error.line), Err(line), "{text:?}");
    }
    for broken in ["\\", "\\x", "\\u", "\\u{", "\\u{}", "\\u{d800}", "\\u{110000}", "\\u{zz}"] {
        assert_eq!(unescape(broken), None, "{broken}");
    }
}

#[test]
fn ami_classes_have_the_names_and_bits_of_ami() {
    for (class, bit, name) in [
        (EventClass::SYSTEM, 0, "system"),
        (EventClass::CALL, 1, "call"),
        (EventClass::USER, 6, "user"),
        (EventClass::DTMF, 8, "dtmf"),
        (EventClass::AOC, 16, "aoc"),
        (EventClass::SECURITY, 18, "security"),
        (EventClass::MESSAGE, 30, "message"),
    ] {
        assert_eq!((class.bits(), class.to_string()), (1 << bit, format!("{name},all")));
        assert_eq!(EventClass::parse(&class.to_string()), Some(class));
    }
    assert_eq!((EventClass::NONE.to_string(), EventClass::parse("all")), ("all".into(), Some(EventClass::NONE)));
    assert_eq!((EventClass::parse("calls"), EventClass::parse("")), (None, None));
}

#[test]
fn a_prefix_goes_before_every_key_of_the_other_block() {
    let other = AmiBlock::new("Other", EventClass::CALL).field("Channel", "x");
    let both = AmiBlock::new("A", EventClass::NONE).prefixed("", other.clone()).prefixed("Dest", other);
    assert_eq!(both.to_text().unwrap(), "Event: A\r\nChannel: x\r\nDestChannel: x\r\n\r\n");
    let broken = AmiBlock::new("Other", EventClass::CALL).field("a", "\n");
    assert!(AmiBlock::new("A", EventClass::NONE).prefixed("x", broken).to_text().is_err());
    let key = AmiBlock::new("Other", EventClass::CALL).field("ent", "x");
    assert!(AmiBlock::new("A", EventClass::NONE).prefixed("Ev", key).to_text().is_err(), "a prefix makes no header");
}

#[test]
fn events_have_the_payloads_fields_as_text() {
    #[derive(Serialize)]
    struct All {
        text: &'static str,
        number: i64,
        yes: bool,
        none: Option<u8>,
        list: Vec<u8>,
    }
    let payload = All { text: "a \"b\"\r\n", number: -3, yes: true, none: None, list: vec![1, 2] };
    let field = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let fields =
        vec![field("text", "a \"b\"\r\n"), field("number", "-3"), field("yes", "true"), field("list", "[1,2]")];
    assert_eq!(event_of("all", &payload), Some(Event { name: "all".into(), fields }));
    assert_eq!(event_of("n", &7), Some(Event { name: "n".into(), fields: vec![field("value", "7")] }));
    assert_eq!((event_of("n", &()), event_of("n", &BTreeMap::<String, u8>::new())), (None, None));
    let bus = bus(1);
    let event = snapshots(&bus).message(channel("1")).to_event().unwrap();
    assert_eq!((event.name.as_str(), &event.fields[0]), ("channel", &field("id", "1")));
}

#[test]
fn formatters_select_messages_and_are_ored_with_types() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let plain = MessageType::<Channel>::new(&bus, "plain").unwrap();
        let json = MessageType::<Channel>::builder("json").json().create(&bus).unwrap();
        let ami = MessageType::<Channel>::builder("ami")
            .ami(|channel| AmiBlock::new("A", EventClass::NONE).field("Id", &channel.id))
            .create(&bus)
            .unwrap();
        let event = MessageType::<Channel>::builder("event").event("e").create(&bus).unwrap();
        let listen = |formatters, accepted: Option<&MessageType<Channel>>| {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let into = Arc::clone(&seen);
            let mut subscriber = topic.subscriber().delivery(delivery).accept_formatters(formatters);
            if let Some(kind) = accepted {
                subscriber = subscriber.accept(kind);
            }
            let subscription = subscriber
                .subscribe(move |received| {
                    if !received.is_final() {
                        lock(&into).push(received.type_name().to_owned());
                    }
                })
                .unwrap();
            (subscription, seen)
        };
        let listeners = [
            listen(Formatters::JSON, None),
            listen(Formatters::AMI | Formatters::EVENT, None),
            listen(Formatters::JSON, Some(&plain)),
            listen(Formatters::NONE, Some(&ami)),
        ];
        assert!(topic.wants(&plain));
        for kind in [&plain, &json, &ami, &event] {
            topic.publish(kind.message(channel("1"))).unwrap();
        }
        let seen = listeners.map(|(subscription, seen)| {
            subscription.unsubscribe_and_join(PATIENCE).unwrap();
            lock(&seen).join(" ")
        });
        assert_eq!(seen, ["json", "ami event", "plain json", "ami"]);
    }
}

#[test]
fn a_formatter_that_panics_is_told_and_goes_no_further() {
    let bus = bus(1);
    let kind = MessageType::<u64>::builder("bad")
        .to_json(|n| panic!("json of {n}"))
        .to_ami(|_| panic!("no ami"))
        .to_event(|_| std::panic::panic_any(7_u8))
        .create(&bus)
        .unwrap();
    let message = kind.message(5);
    assert_eq!((message.to_json(), message.to_ami(), message.to_event()), (None, None, None));
    let error = |formatter, said: &str| FormatError { formatter, type_name: "bad".into(), said: said.into() };
    assert_eq!(message.try_to_json(&KeepAll), Err(error("to_json", "json of 5")));
    assert_eq!(message.try_to_ami(), Err(error("to_ami", "no ami")));
    assert_eq!(message.try_to_event(), Err(error("to_event", "(no message)")));
    assert_eq!(error("to_ami", "no ami").to_string(), "to_ami of message type 'bad' panicked: no ami");
    let dial = dials(&bus).message(Dial { caller: None, peer: channel("1"), number: "1".into() });
    let thrown = dial.try_to_json(&|_: &Subject<'_>| panic!("sanitizer"));
    assert_eq!(thrown.unwrap_err().said, "sanitizer");
}

#[test]
fn a_formatter_that_panics_does_not_end_the_subscription_that_asked() {
    for delivery in DELIVERIES {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let kind = MessageType::<u64>::builder("bad")
            .to_json(|n| (*n != 1).then(|| n.to_string()).or_else(|| panic!()))
            .create(&bus)
            .unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let subscription = topic
            .subscriber()
            .delivery(delivery)
            .on_panic(PanicPolicy::End)
            .accept(&kind)
            .subscribe(move |received| {
                if !received.is_final() {
                    lock(&into).push(received.to_json());
                }
            })
            .unwrap();
        (0..3).for_each(|n| topic.publish(kind.message(n)).unwrap());
        subscription.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(*lock(&seen), [Some("0".into()), None, Some("2".into())]);
        assert_eq!(bus.stats().panics, 0);
    }
}

#[test]
fn a_formatter_may_publish_and_format_others_and_outlive_the_bus() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let inner = snapshots(&bus);
    let kind = MessageType::<u64>::builder("outer")
        .to_json(move |n| {
            topic.publish(inner.message(channel(&n.to_string()))).ok();
            inner.message(channel(&n.to_string())).to_json()
        })
        .create(&bus)
        .unwrap();
    let message = kind.message(3);
    assert_eq!(message.to_json().as_deref(), Some(r#"{"id":"3","name":"SIP/3"}"#));
    drop(kind);
    bus.shutdown(Duration::from_secs(60)).unwrap();
    assert!(message.to_json().is_some(), "a message keeps its formatters");
}

fn user_event(bus: &Bus, fields: &impl Serialize) -> MultiObject {
    let snapshot = snapshots(bus);
    let bridge =
        MessageType::<u64>::builder("bridge").to_ami(|n| Some(format!("BridgeUniqueid: {n}\r\n"))).create(bus).unwrap();
    MultiObject::new("alarm", fields)
        .unwrap()
        .with(ObjectKind::Bridge, "b", bridge.message(9))
        .with(ObjectKind::Channel, "1", snapshot.message(channel("1")))
        .with(ObjectKind::Channel, "snoop", snapshot.message(channel("snoop")))
}

#[test]
fn a_multi_object_holds_what_was_added_by_kind() {
    let bus = bus(1);
    let event = user_event(&bus, &[("a", 1)].into_iter().collect::<BTreeMap<_, _>>());
    assert_eq!((event.name(), event.fields()["a"].as_u64()), ("alarm", Some(1)));
    assert_eq!(event.objects().iter().map(|object| object.id.as_str()).collect::<Vec<_>>(), ["b", "1", "snoop"]);
    assert_eq!(
        event.objects_of(ObjectKind::Channel).map(|object| object.id.as_str()).collect::<Vec<_>>(),
        ["1", "snoop"]
    );
    assert_eq!(event.primary(ObjectKind::Channel).unwrap().snapshot.payload::<Channel>().unwrap().id, "1");
    assert_eq!(event.primary(ObjectKind::Endpoint), None);
}

#[test]
fn a_multi_object_takes_fields_that_are_an_object_and_says_what_else_they_are() {
    #[derive(Serialize)]
    struct Nothing;
    assert_eq!(MultiObject::new("", &()), Err(MultiObjectError::NoName));
    assert_eq!(MultiObject::new("x", &Unwritable), Err(MultiObjectError::NotJson));
    let refused = [
        (MultiObject::new("x", &true), "a boolean"),
        (MultiObject::new("x", &-1.5), "a number"),
        (MultiObject::new("x", &Some("{}")), "a text"),
        (MultiObject::new("x", &[("a", 1)]), "a list"),
    ];
    for (made, what) in refused {
        assert_eq!(made, Err(MultiObjectError::NotAnObject(what)));
    }
    for made in [MultiObject::new("x", &()), MultiObject::new("x", &None::<u8>), MultiObject::new("x", &Nothing)] {
        assert!(made.unwrap().fields().is_empty());
    }
    let channel = MultiObject::new("x", &channel("1")).unwrap();
    assert_eq!(channel.fields().keys().collect::<Vec<_>>(), ["id", "name"], "as serde writes it");
}

#[test]
fn a_multi_object_in_json_is_sanitized_object_by_object() {
    let bus = bus(1);
    let kind = multi_user_event(&bus).unwrap();
    assert_eq!((kind.name(), kind.formatters()), (MULTI_USER_EVENT, Formatters::JSON | Formatters::AMI));
    let message = kind.message(user_event(&bus, &()));
    let one = r#"{"eventname":"alarm","userevent":{},"channel":{"id":"1","name":"SIP/1"}"#;
    let all = r#","channels":[{"id":"1","name":"SIP/1"},{"id":"snoop","name":"SIP/snoop"}]}"#;
    assert_eq!(message.to_json().unwrap(), format!("{one}{all}"), "a bridge without JSON is not in it");
    let no_snoops = |subject: &Subject<'_>| subject.snapshot::<Channel>().is_some_and(|channel| channel.is_internal);
    assert_eq!(message.to_json_for(&no_snoops).unwrap(), format!("{one}}}"));
    let nobody = |subject: &Subject<'_>| subject.kind() == "channel";
    assert_eq!(message.to_json_for(&nobody).unwrap(), r#"{"eventname":"alarm","userevent":{}}"#);
}

#[test]
fn a_multi_object_in_ami_numbers_objects_and_cannot_be_broken_out_of() {
    let bus = bus(1);
    let kind = multi_user_event(&bus).unwrap();
    let fields = BTreeMap::from([("Event", "x"), ("a: b\r\nc", "1\r\nEvent: Fake"), ("none", "\\")]);
    let text = kind.message(user_event(&bus, &fields)).to_ami().unwrap();
    assert_eq!(
        text,
        "Event: UserEvent\r\nPrivilege: user,all\r\nChannel: SIP/1\r\nUniqueid: 1\r\n2Channel: SIP/snoop\r\n\
         2Uniqueid: snoop\r\nBridgeUniqueid: 9\r\nUserEvent: alarm\r\n_Event: x\r\na__b__c: 1\\r\\nEvent: Fake\r\n\
         none: \\\\\r\n\r\n"
    );
    assert_eq!(AmiBlock::parse(&text).unwrap().fields().count(), 9);
}

#[test]
fn a_multi_object_goes_without_the_broken_form_of_an_object() {
    let bus = bus(1);
    let broken = MessageType::<u64>::builder("broken")
        .to_json(|n| if *n == 0 { panic!("no") } else { Some("{".to_owned()) })
        .to_ami(|_| Some("no colon\r\n\r\nEvent: Fake\r\n\r\n".to_owned()))
        .create(&bus)
        .unwrap();
    let event = MultiObject::new("x", &()).unwrap().with(ObjectKind::Other("thing"), "0", broken.message(0)).with(
        ObjectKind::Other("thing"),
        "1",
        broken.message(1),
    );
    let message = multi_user_event(&bus).unwrap().message(event);
    assert_eq!(message.to_json().unwrap(), r#"{"eventname":"x","userevent":{}}"#);
    assert_eq!(message.to_ami().unwrap(), "Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: x\r\n\r\n");
}

#[test]
fn a_multi_object_type_can_be_declined() {
    let bus = Bus::builder().lanes(1).pinning(Pinning::Off).decline_type(MULTI_USER_EVENT).build().unwrap();
    assert_eq!(multi_user_event(&bus).unwrap_err(), TypeError::Declined(MULTI_USER_EVENT.into()));
}

#[test]
fn a_multi_object_within_another_is_formatted_too() {
    let bus = bus(1);
    let kind = multi_user_event(&bus).unwrap();
    let inner: Message = kind.message(user_event(&bus, &()));
    let outer = kind.message(MultiObject::new("outer", &()).unwrap().with(ObjectKind::Other("cause"), "1", inner));
    assert!(outer.to_json().unwrap().contains(r#""cause":{"eventname":"alarm""#));
    AmiBlock::parse(&outer.to_ami().unwrap()).unwrap();
}

fn text() -> impl Strategy<Value = String> {
    let pieces = [
        "\r\n",
        "\n",
        "\r",
        ": ",
        ":",
        " ",
        "Event",
        "Privilege",
        "call,all",
        "a",
        "\\",
        "\\u{",
        "}",
        "ü",
        "\u{85}",
        "\0",
        "b",
    ];
    prop_oneof![
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..6).prop_map(|pieces| pieces.concat()),
        any::<String>(),
        "[A-Za-z]{1,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 5 } else { 1000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ami_is_one_block_whatever_it_is_made_of(
        name in text(),
        classes in any::<[usize; 2]>(),
        fields in prop::collection::vec((text(), text(), any::<bool>()), 0..4),
        any in prop::collection::vec(text(), 0..6),
    ) {
        ami_check::check(&name, classes, &fields);
        ami_check::check("Name", classes, &fields);
        ami_check::check_parse(&any.concat());
        ami_check::check_parse(&format!("Event: x\r\n{}", any.join("\r\n")));
    }

    #[test]
    fn user_events_say_what_they_are_made_of(
        name in text(),
        fields in prop::collection::vec((text(), (any::<u8>(), text(), any::<i32>())), 0..4),
        objects in prop::collection::vec(
            (any::<u8>(), text(), prop::collection::vec((text(), (any::<u8>(), text(), any::<i32>())), 0..3), any::<bool>()),
            0..4,
        ),
    ) {
        json_check::check(&name, &fields, &objects);
    }
}
