//! Suppression of unchanged state (pain 2: a reload floods devicestate:all).
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{PATIENCE, Random, bus, lock, stress};
use proptest::prelude::*;
use stasis_bus::distinct::Distinct;
use stasis_bus::{Bus, MessageType, Pinning, Topic};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;

#[derive(Clone, Debug, PartialEq)]
struct State {
    device: u64,
    value: u64,
}

fn states(bus: &Bus, topic: &Topic) -> Distinct<u64, State> {
    let kind = MessageType::new(bus, "device_state").unwrap();
    Distinct::new(topic, &kind, |state: &State| state.device)
}

/// What a subscriber of the topic saw.
fn watch(topic: &Topic) -> (stasis_bus::Subscription, Arc<Mutex<Vec<State>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&log);
    let feed = topic.subscribe(move |received| seen_push(&seen, received.payload::<State>())).unwrap();
    (feed, log)
}

fn seen_push(seen: &Mutex<Vec<State>>, state: Option<&State>) {
    lock(seen).extend(state.cloned());
}

#[test]
fn a_reload_publishes_only_what_changed() {
    let bus = bus(1);
    let topic = bus.topic("devicestate:all").unwrap();
    let states = states(&bus, &topic);
    let (feed, log) = watch(&topic);
    let devices = 5000;
    for reload in 0..4 {
        for device in 0..devices {
            // One device changed since the last reload.
            let value = u64::from(device < reload);
            let is_news = reload == 0 || device + 1 == reload;
            assert_eq!(states.publish(State { device, value }).unwrap(), is_news);
        }
    }
    feed.unsubscribe().wait_timeout(PATIENCE).unwrap();
    let stats = states.stats();
    assert_eq!(lock(&log).len() as u64, stats.published);
    assert_eq!((stats.published, stats.suppressed), (devices + 3, 3 * devices - 3));
    assert_eq!((stats.repeated, stats.keys), (0, devices as usize));
}

#[test]
fn a_removed_key_is_news_again_and_takes_no_memory() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let states = states(&bus, &topic);
    let state = State { device: 1, value: 1 };
    assert!(!states.remove(&1));
    assert!(states.publish(state.clone()).unwrap() && !states.publish(state.clone()).unwrap());
    assert_eq!(states.last(&1).unwrap().payload::<State>(), Some(&state));
    assert!(states.remove(&1) && !states.remove(&1));
    assert!(states.last(&1).is_none() && states.stats().keys == 0);
    assert!(states.publish(state).unwrap());
    assert_eq!(states.stats().keys, 1);
}

#[test]
fn a_refused_publish_is_not_remembered() {
    // A lane that takes nothing: its one handler waits, and its queue is small.
    let bus =
        Bus::builder().lanes(1).pinning(Pinning::Off).ring_capacity(1024).memory_budget(1 << 15).watchdog(None).build();
    let bus = bus.unwrap();
    let topic = bus.topic("t").unwrap();
    let states = states(&bus, &topic);
    let gate = common::Gate::new();
    let _open = common::OpenAtEnd(gate.clone());
    let (log, door) = (Arc::new(Mutex::new(Vec::new())), gate.clone());
    let seen = Arc::clone(&log);
    let feed = topic
        .subscribe(move |received| {
            door.pass();
            seen_push(&seen, received.payload::<State>());
        })
        .unwrap();
    let mut value = 0;
    let refused = loop {
        value += 1;
        assert!(value < 1 << 20, "never full");
        if let Err(error) = states.publish(State { device: 1, value }) {
            break error;
        }
    };
    assert!(refused.is_full());
    assert_eq!(refused.into_message().payload::<State>(), Some(&State { device: 1, value }), "it comes back");
    assert!(states.last(&1).is_none(), "nothing is known");
    gate.open();
    common::eventually("there is room", || states.publish(State { device: 1, value }).is_ok());
    feed.unsubscribe().wait_timeout(PATIENCE).unwrap();
    assert_eq!(lock(&log).last(), Some(&State { device: 1, value }), "the refused state got there after all");
    bus.shutdown(PATIENCE).unwrap();
    assert!(states.publish(State { device: 1, value: 0 }).unwrap_err().is_closed());
}

#[test]
fn subscribers_end_with_what_is_remembered() {
    for seed in 0..stress(20) as u64 {
        let bus = bus(2);
        let topic = bus.topic("t").unwrap();
        let states = states(&bus, &topic);
        let (feed, log) = watch(&topic);
        let sent = stress(400);
        thread::scope(|scope| {
            for thread in 0..4 {
                let states = &states;
                scope.spawn(move || {
                    let mut random = Random::new(seed * 8 + thread);
                    for _ in 0..sent {
                        let (device, value) = (random.below(2) as u64, random.below(3) as u64);
                        states.publish(State { device, value }).unwrap();
                        if random.below(40) == 0 {
                            states.remove(&device);
                        }
                    }
                });
            }
        });
        feed.unsubscribe().wait_timeout(PATIENCE).unwrap();
        let stats = states.stats();
        let log = lock(&log);
        assert_eq!(stats.published + stats.suppressed, 4 * sent as u64);
        assert_eq!(log.len() as u64, stats.published + stats.repeated);
        for device in 0..2 {
            let last = log.iter().rev().find(|state| state.device == device);
            if let Some(remembered) = states.last(&device) {
                assert_eq!(remembered.payload::<State>(), last, "{stats:?}");
                assert!(!states.publish(last.unwrap().clone()).unwrap(), "and it is known");
            }
        }
    }
}

#[test]
fn an_inline_handler_may_publish_the_same_key() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let states = Arc::new(states(&bus, &topic));
    let (log, inside) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&states));
    let seen = Arc::clone(&log);
    let feed = topic
        .subscriber()
        .no_mailbox()
        .subscribe(move |received| {
            let Some(state) = received.payload::<State>() else { return };
            lock(&seen).push(state.value);
            if state.value < 3 {
                inside.publish(State { device: 1, value: state.value + 1 }).unwrap();
            }
        })
        .unwrap();
    states.publish(State { device: 1, value: 0 }).unwrap();
    assert_eq!(states.last(&1).unwrap().payload::<State>().unwrap().value, 3);
    assert_eq!(lock(&log).last(), Some(&3));
    drop(feed);
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u64, u64),
    Remove(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn one_thread_gets_what_a_map_says(steps in prop::collection::vec(prop_oneof![
        4 => (0_u64..3, 0_u64..3).prop_map(|(device, value)| Step::Publish(device, value)),
        1 => (0_u64..3).prop_map(Step::Remove),
    ], 0..100)) {
        let bus = bus(1);
        let topic = bus.topic("t").unwrap();
        let states = states(&bus, &topic);
        let (feed, log) = watch(&topic);
        let (mut known, mut model) = (HashMap::new(), Vec::new());
        for step in steps {
            match step {
                Step::Publish(device, value) => {
                    let news = known.insert(device, value) != Some(value);
                    prop_assert_eq!(states.publish(State { device, value }).unwrap(), news);
                    model.extend(news.then_some(State { device, value }));
                }
                Step::Remove(device) => prop_assert_eq!(states.remove(&device), known.remove(&device).is_some()),
            }
        }
        feed.unsubscribe().wait_timeout(PATIENCE).unwrap();
        prop_assert_eq!(&*lock(&log), &model);
        prop_assert_eq!(states.stats().keys, known.len());
    }
}
