//! A hangup overtakes the chatter of other calls, never what came before it on its own call.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;
#[path = "common/overflow_model.rs"]
mod overflow_model;

use common::{lock, stress};
use overflow_model::{Act, Call, Policy, Setup, run};
use proptest::prelude::*;
use stasis_bus::testing::ManualBus;
use stasis_bus::{Key, MessageType, Overflow, Topic};
use std::sync::{Arc, Mutex};

proptest! {
    #![proptest_config(ProptestConfig { cases: stress(300) as u32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn priority_is_what_the_simple_queue_does(
        policy in 0..6_u8, limit in 1..6_usize, acts in prop::collection::vec(any::<u8>(), 0..60)
    ) {
        let setup = Setup { limit, priority: true, ..Setup::decode([policy, 0]) };
        let acts: Vec<Act> = acts.into_iter().map(Act::decode).collect();
        run(setup, &acts);
        run(Setup { policy: Policy::Spill, ..setup }, &acts);
    }

    /// The promise itself, without a model: order per key, order among control messages, and no chatter of other
    /// keys before a control message that waited with it.
    #[test]
    fn g02_order_holds_per_key_and_among_control_messages(calls in prop::collection::vec((0..4_u64, any::<bool>()), 0..60)) {
        let calls: Vec<Call> =
            (0..).zip(calls).map(|(n, (key, control))| Call { n, key, control, stale: false }).collect();
        let seen = deliver(&calls);
        prop_assert_eq!(seen.len(), calls.len());
        for key in 1..4 {
            prop_assert!(seen.iter().filter(|call| call.key == key).is_sorted_by_key(|call| call.n));
        }
        prop_assert!(seen.iter().filter(|call| call.control).is_sorted_by_key(|call| call.n));
        prop_assert!(seen.iter().filter(|call| !call.control).filter(|call| call.key == 0).is_sorted_by_key(|call| call.n));
        for (at, call) in seen.iter().enumerate().filter(|(_, call)| call.control) {
            for before in seen[..at].iter().filter(|before| !before.control) {
                // Chatter before a control message: because a control message of its own key needs it there.
                let needed = |other: &Call| other.control && other.key == before.key && other.n > before.n && other.n <= call.n;
                prop_assert!(before.key > 0 && calls.iter().any(needed), "{:?} before {:?}", before, call);
            }
        }
    }
}

fn subscribe(
    topic: &Topic,
    kind: &MessageType<Call>,
    limit: usize,
) -> (stasis_bus::Subscription, Arc<Mutex<Vec<Call>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let key = |message: &stasis_bus::Message| {
        message.payload::<Call>().filter(|call| call.key > 0).map(|call| Key::from(call.key))
    };
    let builder = topic.subscriber().accept(kind).overflow(Overflow::DropNewest { limit });
    let builder = builder.priority(key, |message| message.payload::<Call>().is_some_and(|call| call.control));
    let subscription =
        builder.subscribe(move |received| log.lock().unwrap().extend(received.payload::<Call>().copied()));
    (subscription.unwrap(), seen)
}

fn deliver(calls: &[Call]) -> Vec<Call> {
    let manual = ManualBus::new().unwrap();
    let topic = manual.bus().topic("calls").unwrap();
    let kind = MessageType::<Call>::new(manual.bus(), "call").unwrap();
    let (_subscription, seen) = subscribe(&topic, &kind, 1000);
    calls.iter().for_each(|call| topic.publish(kind.message(*call)).unwrap());
    manual.run();
    std::mem::take(&mut *lock(&seen))
}

#[test]
fn a_hangup_overtakes_the_chatter_of_other_calls_only() {
    let call = |n, key, control| Call { n, key, control, stale: false };
    let mut calls: Vec<Call> = (0..100).map(|n| call(n, 1 + n % 10, false)).collect();
    calls.push(call(100, 7, true));
    calls.push(call(101, 7, false));
    let seen: Vec<u64> = deliver(&calls).iter().map(|call| call.n).collect();
    assert_eq!(seen[..11], [6, 16, 26, 36, 46, 56, 66, 76, 86, 96, 100]);
    assert_eq!(seen[11..14], [0, 1, 2]);
    assert_eq!(seen.last(), Some(&101), "what comes after the hangup has no hurry");
}

/// A queue full of chatter has room for a hangup all the same.
#[test]
fn chatter_goes_before_a_hangup_does() {
    let manual = ManualBus::new().unwrap();
    let topic = manual.bus().topic("calls").unwrap();
    let kind = MessageType::<Call>::new(manual.bus(), "call").unwrap();
    let (subscription, seen) = subscribe(&topic, &kind, 2);
    for (n, key, control) in [(0, 1, false), (1, 2, false), (2, 3, false), (3, 4, true), (4, 5, true), (5, 6, true)] {
        topic.publish(kind.message(Call { n, key, control, stale: false })).unwrap();
    }
    manual.run();
    let seen: Vec<u64> = seen.lock().unwrap().iter().map(|call| call.n).collect();
    assert_eq!(seen, [3, 4]);
    assert_eq!(subscription.stats().dropped.newest, 4);
}
