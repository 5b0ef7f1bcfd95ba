//! The limit on living message types. Alone in its process, which it fills up.
mod common;

use common::bus;
use stasis_bus::{Bus, MessageType, TypeError};

#[test]
fn types_beyond_65536_are_refused_until_one_goes() {
    let bus = bus(1);
    let mut types = Vec::new();
    let error = loop {
        match MessageType::<u8>::new(&bus, "one of many") {
            Ok(kind) => types.push(kind),
            Err(error) => break error,
        }
    };
    assert_eq!(error, TypeError::TooMany);
    // Another bus needs no number: the type of subscription changes is there.
    assert!(Bus::builder().lanes(1).build().is_ok());
    assert!((65_000..=65_536).contains(&types.len()), "{}", types.len());
    // The highest number works in a filter.
    let topic = bus.topic("t").unwrap();
    let last = types.last().unwrap();
    assert!(last.id().get() > 60_000);
    let (seen, values) = std::sync::mpsc::channel();
    let _subscription = topic
        .subscriber()
        .accept(last)
        .subscribe(move |received| {
            let _ = seen.send(received.payload::<u8>().copied());
        })
        .unwrap();
    assert!(topic.wants(last));
    topic.publish(last.message(3)).unwrap();
    assert_eq!(common::next(&values), Some(3));
    types.remove(0);
    types.push(MessageType::<u8>::new(&bus, "one more").unwrap());
    assert_eq!(MessageType::<u8>::new(&bus, "one too many").unwrap_err(), TypeError::TooMany);
}
