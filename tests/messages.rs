//! Conformance: message types and messages (G1).
mod common;

use common::{Drops, bus, lock, must_end, number};
use stasis_bus::{AnyMessageType, Bus, Eid, Event, Formatters, MessageType, Timestamp, TypeError};
use std::sync::{Arc, Mutex};

#[test]
fn g01_payload_access_is_typed() {
    let bus = bus(1);
    let text = MessageType::<String>::new(&bus, "text").unwrap();
    let message = text.message("hello".into());
    assert_eq!(message.payload::<String>().map(String::as_str), Some("hello"));
    assert_eq!(message.payload::<&'static str>(), None);
    assert_eq!(message.payload::<u64>(), None);
    assert_eq!(message.payload::<Arc<String>>(), None);
}

#[test]
fn g01_payloads_of_any_shape_come_back_as_they_were() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    #[repr(align(256))]
    struct Wide([u64; 40]);
    #[derive(PartialEq, Debug)]
    struct Empty;
    let bus = bus(1);
    let wide = MessageType::<Wide>::new(&bus, "wide").unwrap();
    let empty = MessageType::<Empty>::new(&bus, "empty").unwrap();
    let large = MessageType::<[u8; 5000]>::new(&bus, "large").unwrap();
    let small = MessageType::<u8>::new(&bus, "small").unwrap();
    for n in 0..200u8 {
        let messages = (wide.message(Wide([u64::from(n); 40])), large.message([n; 5000]), small.message(n));
        let payload = messages.0.payload::<Wide>().unwrap();
        assert_eq!(std::ptr::from_ref(payload).addr() % 256, 0);
        assert_eq!(*payload, Wide([u64::from(n); 40]));
        assert_eq!(messages.1.payload(), Some(&[n; 5000]));
        assert_eq!(messages.2.payload(), Some(&n));
        assert_eq!(empty.message(Empty).payload(), Some(&Empty));
    }
}

#[test]
fn a_message_tells_what_it_is() {
    let bus = bus(1);
    let (one, other) = (number(&bus), number(&bus));
    let before = Timestamp::now();
    let message = one.message(7);
    assert!(message.created() >= before && message.created() <= Timestamp::now());
    assert_eq!((message.type_name(), message.type_id()), ("number", one.id()));
    assert!(message.is(&one) && !message.is(&other), "types of the same name are two types");
    assert_eq!(message.eid(), None);
    let eid = Eid([1, 2, 3, 0xa, 0xb, 0xff]);
    assert_eq!(one.message_from(7, eid).eid(), Some(eid));
    assert_eq!(eid.to_string(), "01:02:03:0a:0b:ff");
    assert!(message.clone().same_as(&message) && !one.message(7).same_as(&message));
}

#[test]
fn formatters_are_those_the_type_was_made_with() {
    let bus = bus(1);
    let plain = number(&bus);
    assert_eq!((plain.formatters(), plain.message(1).to_json()), (Formatters::NONE, None));
    let event = Event { name: "n".into(), fields: vec![("k".into(), "v".into())] };
    let made = event.clone();
    let full = MessageType::<u64>::builder("full")
        .to_json(|n| (*n != 0).then(|| format!("{{\"n\":{n}}}")))
        .to_ami(|n| Some(format!("N: {n}\r\n")))
        .to_event(move |_| Some(made.clone()))
        .create(&bus)
        .unwrap();
    assert_eq!(full.formatters(), Formatters::JSON | Formatters::AMI | Formatters::EVENT);
    let message = full.message(5);
    assert_eq!(message.formatters(), full.formatters());
    assert_eq!(message.to_json().as_deref(), Some("{\"n\":5}"));
    assert_eq!(message.to_ami().as_deref(), Some("N: 5\r\n"));
    assert_eq!(message.to_event(), Some(event));
    assert_eq!(full.message(0).to_json(), None, "a payload may have no JSON");
    assert_eq!(
        (Formatters::from_bits(0xff).bits(), Formatters::from_bits(5)),
        (7, Formatters::JSON | Formatters::EVENT)
    );
}

#[test]
fn types_are_declined_by_name_and_need_one() {
    let bus = Bus::builder().lanes(1).decline_type("unloved").build().unwrap();
    assert_eq!(MessageType::<u64>::new(&bus, "unloved").unwrap_err(), TypeError::Declined("unloved".into()));
    assert_eq!(MessageType::<u64>::new(&bus, "").unwrap_err(), TypeError::NoName);
    assert!(MessageType::<u64>::new(&bus, "loved").is_ok());
}

#[test]
fn type_handles_compare_by_type() {
    let bus = bus(1);
    let (one, other) = (number(&bus), number(&bus));
    let any: AnyMessageType = one.as_any().clone();
    assert!(any == *one.clone().as_any() && any != *other.as_any());
    assert_eq!((any.name(), any.id()), ("number", one.id()));
}

/// A type with a formatter that holds a drop-counted capture.
fn counted_type(bus: &Bus, drops: &Drops) -> MessageType<u64> {
    let capture = drops.token();
    MessageType::<u64>::builder("counted")
        .to_json(move |n| {
            let _ = &capture;
            Some(n.to_string())
        })
        .create(bus)
        .unwrap()
}

#[test]
fn g01_a_message_keeps_its_type_alive_and_late_use_is_counted() {
    let bus = bus(1);
    let drops = Drops::new();
    let kind = counted_type(&bus, &drops);
    let message = kind.message(9);
    assert_eq!(message.to_json().as_deref(), Some("9"));
    assert_eq!(bus.stats().late_type_uses, 0);
    drop(kind);
    assert_eq!((message.type_name(), message.to_json().as_deref()), ("counted", Some("9")));
    assert_eq!(bus.stats().late_type_uses, 2);
    let copy = message.clone();
    drop(message);
    assert_eq!(drops.dropped(), 0, "a clone of the message still lives");
    drop(copy);
    drops.assert_all_gone("captures of a formatter");
}

#[test]
fn g01_a_type_goes_with_its_last_handle_or_message_on_any_thread() {
    let bus = bus(1);
    let drops = Drops::new();
    for round in 0..300 {
        let kind = counted_type(&bus, &drops);
        let messages: Vec<_> = (0..8).map(|n| kind.message(n)).collect();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(kind));
            for chunk in messages.chunks(3) {
                let chunk = chunk.to_vec();
                scope.spawn(move || drop(chunk));
            }
            drop(messages);
        });
        assert_eq!(drops.dropped(), round + 1, "all gone after round {round}");
    }
}

#[test]
fn g01_numbers_of_types_are_used_again_but_never_twice_at_a_time() {
    let bus = bus(1);
    let kept = number(&bus);
    let message = { number(&bus).message(1) };
    for _ in 0..70_000 {
        let fresh = number(&bus);
        assert_ne!(fresh.id(), kept.id());
        assert_ne!(fresh.id(), message.type_id(), "a message still needs that number");
    }
    assert_eq!(message.type_name(), "number");
}

#[test]
fn a_payload_may_make_and_drop_messages_in_its_destructor() {
    struct Nested(MessageType<u64>, Arc<Mutex<Vec<u64>>>, u64);
    impl Drop for Nested {
        fn drop(&mut self) {
            let message = self.0.message(self.2);
            lock(&self.1).push(*message.payload::<u64>().unwrap());
        }
    }
    must_end(|| {
        let bus = bus(1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let outer = MessageType::<Nested>::new(&bus, "outer").unwrap();
        let inner = number(&bus);
        for n in 0..100 {
            drop(outer.message(Nested(inner.clone(), Arc::clone(&seen), n)));
        }
        assert_eq!(*lock(&seen), (0..100).collect::<Vec<_>>());
    });
}

/// Else a processor that fetches the neighbours of what it uses takes lines of one message while another core is in
/// them: between distant cores deliveries took three times as long.
#[test]
fn messages_made_after_each_other_do_not_lie_side_by_side() {
    let bus = bus(1);
    let number = MessageType::<[u64; 8]>::new(&bus, "eight").unwrap();
    // A thread of its own: nothing was used before.
    let messages = std::thread::spawn(move || (0..400).map(|n| number.message([n; 8])).collect::<Vec<_>>());
    let messages = messages.join().unwrap();
    let places: Vec<_> =
        messages.iter().map(|message| std::ptr::from_ref(message.payload::<[u64; 8]>().unwrap()).addr()).collect();
    let apart = places.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) >= 1024).count();
    assert!(apart >= 360, "{apart} of {} lie a kilobyte or more from the one before", places.len());
    assert!(messages.iter().zip(0..).all(|(message, n)| message.payload::<[u64; 8]>() == Some(&[n; 8])));
}
