//! Managed states: conformance with `stasis_state.h`, lifetimes (G10), following without gap or repeat.
#![cfg(feature = "ext")]
#![allow(missing_docs)]
mod common;

use common::{
    DELIVERIES, Drops, Gate, Log, OpenAtEnd, PATIENCE, Random, bus, eventually, lock, must_end, number, stress,
};
use proptest::prelude::*;
use stasis_bus::state::{
    StateChange, StateChangeKind, StateError, StateManager, StateObserver, StatePublishError, StatePublisher,
    StateSubscriber,
};
use stasis_bus::{Bus, Delivery, Eid, Message, MessageType};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

const NODE: Option<Eid> = Some(Eid([0, 0, 0, 0, 0, 1]));
const OTHER: Option<Eid> = Some(Eid([0, 0, 0, 0, 0, 2]));

fn world() -> (Bus, MessageType<u64>, StateManager) {
    let bus = bus(2);
    let (kind, manager) = (number(&bus), StateManager::new(&bus, "all").unwrap());
    (bus, kind, manager)
}

fn value(message: Option<Message>) -> Option<u64> {
    message.and_then(|message| message.payload::<u64>().copied())
}

fn all(manager: &StateManager) -> BTreeMap<String, Option<u64>> {
    let mut seen = BTreeMap::new();
    manager.callback_all(|id, last| {
        assert!(seen.insert(id.to_owned(), value(last.cloned())).is_none(), "{id} twice");
        ControlFlow::Continue(())
    });
    seen
}

fn subscribed(manager: &StateManager) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    manager.callback_subscribed(|id, _| {
        seen.insert(id.to_owned());
        ControlFlow::Continue(())
    });
    seen
}

/// Nothing of any state is left: no entry, no topic of one, no forward's subscribers.
#[track_caller]
fn assert_nothing_left(bus: &Bus, manager: &StateManager) {
    assert_eq!((manager.len(), manager.implicit_publishers().len()), (0, 0));
    let mut names: Vec<_> = bus.topics().iter().map(|topic| topic.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["all", "all/"], "the manager's own topics only");
}

/// What a follower was told.
type Told = (String, StateChangeKind, u64, Option<u64>);

#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<Told>>>);

impl Story {
    fn handler(&self) -> impl FnMut(&StateChange<'_>) + Send + 'static {
        let story = self.clone();
        move |change| {
            lock(&story.0).push((
                change.id().to_owned(),
                change.kind(),
                change.version(),
                value(change.message().cloned()),
            ));
        }
    }

    fn all(&self) -> Vec<Told> {
        lock(&self.0).clone()
    }
}

fn told(id: &str, kind: StateChangeKind, version: u64, value: impl Into<Option<u64>>) -> Told {
    (id.to_owned(), kind, version, value.into())
}

use StateChangeKind::{Present, Removed, Update};

// ---- Manager and topics

#[test]
fn a_manager_has_an_all_topic_that_gets_every_state() {
    let (bus, kind, manager) = world();
    assert_eq!((manager.all_topic().name(), manager.all_topic().id()), ("all", bus.topic("all").unwrap().id()));
    let log = Log::new();
    let everything = manager.all_topic().subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let (one, two) = (manager.add_publisher("1").unwrap(), manager.add_publisher("2").unwrap());
    one.publish(kind.message(1)).unwrap();
    two.publish(kind.message(2)).unwrap();
    manager.publish_by_id("3", None, kind.message(3)).unwrap();
    everything.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(log.values(), [1, 2, 3]);
}

#[test]
fn managers_of_one_name_share_topics_but_no_state() {
    let (bus, kind, manager) = world();
    let twin = StateManager::new(&bus, "all").unwrap();
    let story = Story::default();
    let feed = twin.follow(|builder| builder, story.handler()).unwrap();
    let publisher = manager.add_publisher("1").unwrap();
    publisher.publish(kind.message(1)).unwrap();
    assert_eq!(publisher.topic(), &*twin.topic("1").unwrap());
    assert_eq!((value(manager.data("1")), twin.data("1").is_none()), (Some(1), true));
    feed.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(story.all(), []);
}

#[test]
fn names_and_ids_must_not_be_empty_and_nothing_is_lost() {
    let (bus, kind, manager) = world();
    assert!(matches!(StateManager::new(&bus, ""), Err(StateError::NoName)));
    assert!(matches!(manager.add_publisher(""), Err(StateError::NoId)));
    assert!(matches!(manager.add_subscriber(""), Err(StateError::NoId)));
    assert!(matches!(manager.subscribe_pool("", |_| ()), Err(StateError::NoId)));
    assert!(matches!(manager.topic(""), Err(StateError::NoId)));
    let error = manager.publish_by_id("", None, kind.message(5)).unwrap_err();
    assert_eq!((error.to_string(), format!("{error:?}")), ("a state needs an id".into(), "NoId(..)".into()));
    assert_eq!(value(error.into_message()), Some(5));
    assert_nothing_left(&bus, &manager);
    // Strange ids are ids.
    let strange = ["/", "all", "all/", "a/b", " ", "\0", "ünï"].map(|id| manager.add_publisher(id).unwrap());
    assert_eq!(manager.len(), strange.len());
}

#[test]
fn a_declined_note_type_is_a_typed_error() {
    let bus = Bus::builder().lanes(1).decline_type("stasis_state_note_type").build().unwrap();
    assert!(matches!(StateManager::new(&bus, "all"), Err(StateError::Type(_))));
}

#[test]
fn g10_a_topic_guard_keeps_its_state_and_leaks_nothing() {
    let (bus, kind, manager) = world();
    let topic = manager.topic("1").unwrap();
    assert_eq!((topic.name(), manager.len()), ("all/1", 1));
    // As in Stasis: published past the manager, it reaches subscribers but is no state.
    let log = Log::new();
    let everything = manager.all_topic().subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    topic.publish(kind.message(1)).unwrap();
    everything.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((log.values(), manager.data("1")), (vec![1], None));
    drop((topic, everything));
    assert_nothing_left(&bus, &manager);
}

// ---- Subscribers

#[test]
fn a_subscriber_tells_id_topic_data_and_subscription() {
    let (_bus, kind, manager) = world();
    let silent = manager.add_subscriber("1").unwrap();
    assert_eq!((silent.id(), silent.topic().name(), silent.subscription().is_none()), ("1", "all/1", true));
    assert!(silent.data().is_none());
    let log = Log::new();
    let pool = manager.subscribe_pool("1", log.handler()).unwrap();
    assert_eq!(pool.subscription().unwrap().topic(), silent.topic());
    assert!(pool.subscription().unwrap().location().file().ends_with("tests/state.rs"));
    manager.add_publisher("1").unwrap().publish(kind.message(7)).unwrap();
    assert_eq!((value(silent.data()), value(pool.data())), (Some(7), Some(7)));
    assert!(silent.unsubscribe().is_none());
    let end = pool.unsubscribe().unwrap();
    end.wait_timeout(PATIENCE).unwrap();
    assert_eq!(log.values(), [7]);
    log.assert_ended();
}

#[test]
fn a_subscriber_has_delivery_options_and_filters() {
    for delivery in DELIVERIES {
        let (bus, kind, manager) = world();
        let other = MessageType::<u64>::new(&bus, "other").unwrap();
        let log = Log::new();
        let subscriber = manager
            .subscribe_with("1", |builder| builder.delivery(delivery).name("mine").accept(&kind), log.handler())
            .unwrap();
        assert_eq!(subscriber.subscription().unwrap().name(), Some("mine"));
        let publisher = manager.add_publisher("1").unwrap();
        publisher.publish(other.message(1)).unwrap();
        publisher.publish(kind.message(2)).unwrap();
        subscriber.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!((log.values(), value(publisher.data())), (vec![2], Some(2)));
        log.assert_ended();
    }
}

#[test]
fn g10_unsubscribe_and_join_keeps_the_state_until_the_final_message() {
    let (bus, kind, manager) = world();
    let (seen, watched) = (Arc::new(Mutex::new(Vec::new())), manager.clone());
    let list = Arc::clone(&seen);
    let subscriber = manager.subscribe_pool("1", move |received| {
        if received.is_final() {
            lock(&list).push((watched.len(), value(watched.data("1"))));
        }
    });
    manager.add_publisher("1").unwrap().publish(kind.message(4)).unwrap();
    subscriber.unwrap().unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(*lock(&seen), [(1, Some(4))]);
    eventually("the handler's manager is gone", || bus.topics().len() == 2);
    assert_nothing_left(&bus, &manager);
}

#[test]
fn g07_joining_from_the_own_handler_is_an_error() {
    let (_bus, kind, manager) = world();
    let (own, answer) = (Arc::new(Mutex::new(None::<StateSubscriber>)), Arc::new(Mutex::new(None)));
    let (mine, result) = (Arc::clone(&own), Arc::clone(&answer));
    let gate = Gate::new();
    let (pass, _open) = (gate.clone(), OpenAtEnd(gate.clone()));
    let subscriber = manager
        .subscribe_with(
            "1",
            |builder| builder.mailbox().accept(&kind),
            move |received| {
                if !received.is_final() {
                    pass.pass();
                    let subscriber = lock(&mine).take().unwrap();
                    *lock(&result) = Some(subscriber.unsubscribe_and_join(PATIENCE));
                }
            },
        )
        .unwrap();
    let end = subscriber.subscription().unwrap().completion();
    *lock(&own) = Some(subscriber);
    manager.add_publisher("1").unwrap().publish(kind.message(1)).unwrap();
    gate.open();
    end.wait_timeout(PATIENCE).unwrap();
    assert_eq!(*lock(&answer), Some(Err(stasis_bus::JoinError::OwnHandler)));
    assert!(manager.is_empty());
}

// ---- Publishers

#[test]
fn a_publisher_tells_id_and_topic_and_stores_what_it_publishes() {
    let (_bus, kind, manager) = world();
    let publisher = manager.add_publisher("1").unwrap();
    assert_eq!((publisher.id(), publisher.topic().name()), ("1", "all/1"));
    assert!(publisher.data().is_none() && manager.data("1").is_none());
    let message = kind.message(1);
    publisher.publish(message.clone()).unwrap();
    publisher.clone().publish(kind.message(2)).unwrap();
    publisher.publish(message.clone()).unwrap();
    assert!(publisher.data().unwrap().same_as(&message), "the last one published, itself");
    assert!(manager.implicit_publishers().is_empty(), "explicit publishing makes no implicit publisher");
}

#[test]
fn a_handler_finds_what_it_handles_as_the_state() {
    for delivery in DELIVERIES {
        let (_bus, kind, manager) = world();
        let publisher = manager.add_publisher("1").unwrap();
        let (reader, older) = (publisher.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&older);
        let subscriber = manager
            .subscribe_with(
                "1",
                |builder| builder.delivery(delivery).accept(&kind),
                move |received| {
                    if !received.is_final() && value(reader.data()) < received.payload::<u64>().copied() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                },
            )
            .unwrap();
        (0..stress(1000) as u64).for_each(|n| publisher.publish(kind.message(n)).unwrap());
        subscriber.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(older.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn g10_a_state_lives_while_any_of_its_owners_does() {
    let (bus, kind, manager) = world();
    // Each alone, and each as the last of all, in every rotation.
    for last in 0..4 {
        let mut owners: Vec<Box<dyn FnOnce()>> = Vec::new();
        let publisher = manager.add_publisher("1").unwrap();
        publisher.publish(kind.message(last)).unwrap();
        let (subscriber, topic) = (manager.subscribe_pool("1", |_| ()).unwrap(), manager.topic("1").unwrap());
        manager.publish_by_id("1", NODE, kind.message(last + 10)).unwrap();
        let remover = manager.clone();
        owners.push(Box::new(move || drop(publisher)));
        owners.push(Box::new(move || subscriber.unsubscribe_and_join(PATIENCE).unwrap()));
        owners.push(Box::new(move || drop(topic)));
        owners.push(Box::new(move || remover.remove_publish_by_id("1", NODE, None).unwrap()));
        owners.rotate_left(last as usize);
        for end in owners {
            assert_eq!((manager.len(), value(manager.data("1"))), (1, Some(last + 10)));
            end();
        }
        assert_nothing_left(&bus, &manager);
    }
    assert!(manager.add_subscriber("1").unwrap().data().is_none(), "made anew, without the old message");
}

#[test]
fn g10_the_last_message_goes_with_the_state() {
    let (bus, _, manager) = world();
    let drops = Drops::new();
    let kind = MessageType::new(&bus, "counted").unwrap();
    let publisher = manager.add_publisher("1").unwrap();
    (0..10).for_each(|_| publisher.publish(kind.message(drops.token())).unwrap());
    assert_eq!(drops.dropped(), 9);
    drop(publisher);
    drops.assert_all_gone("payloads");
}

#[test]
fn g10_handles_outlive_their_manager_but_implicit_publishers_do_not() {
    let (bus, kind, manager) = world();
    let publisher = manager.add_publisher("1").unwrap();
    manager.publish_by_id("2", NODE, kind.message(1)).unwrap();
    drop(manager);
    assert!(bus.find_topic("all/2").is_none());
    publisher.publish(kind.message(1)).unwrap();
    let subscription = bus.topic("all").unwrap().subscribe(|_| ()).unwrap();
    assert_eq!(publisher.topic().subscribers(), 1, "the forward is still there");
    drop((publisher, subscription));
    eventually("all topics are gone", || bus.topics().is_empty());
}

// ---- Implicit publishers

#[test]
fn an_implicit_publisher_is_kept_by_id_and_node_until_it_is_removed() {
    let (bus, kind, manager) = world();
    for n in 0..3 {
        manager.publish_by_id("1", NODE, kind.message(n)).unwrap();
        manager.publish_by_id("1", None, kind.message(n + 10)).unwrap();
        manager.publish_by_id("2", NODE, kind.message(n + 20)).unwrap();
    }
    assert_eq!(all(&manager), [("1".to_owned(), Some(12)), ("2".to_owned(), Some(22))].into());
    let mut list: Vec<_> = manager.implicit_publishers().iter().map(|p| (p.id.to_string(), p.eid)).collect();
    list.sort();
    assert_eq!(list, [("1".to_owned(), None), ("1".to_owned(), NODE), ("2".to_owned(), NODE)]);
    manager.remove_publish_by_id("1", NODE, None).unwrap();
    assert_eq!(value(manager.data("1")), Some(12), "the other node still publishes it");
    manager.remove_publish_by_id("1", None, None).unwrap();
    manager.remove_publish_by_id("2", NODE, None).unwrap();
    assert_nothing_left(&bus, &manager);
}

#[test]
fn removing_an_implicit_publisher_publishes_a_last_message_if_given() {
    let (bus, kind, manager) = world();
    let log = Log::new();
    let everything = manager.all_topic().subscriber().accept(&kind).subscribe(log.handler()).unwrap();
    let watcher = manager.add_subscriber("1").unwrap();
    manager.publish_by_id("1", NODE, kind.message(1)).unwrap();
    manager.remove_publish_by_id("1", NODE, Some(kind.message(2))).unwrap();
    assert_eq!(value(watcher.data()), Some(2), "a state somebody watches keeps the clearing message");
    manager.publish_by_id("1", NODE, kind.message(3)).unwrap();
    manager.remove_publish_by_id("1", NODE, None).unwrap();
    everything.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((log.values(), value(watcher.data())), (vec![1, 2, 3], Some(3)));
    drop((watcher, everything));
    assert_nothing_left(&bus, &manager);
}

#[test]
fn removing_what_was_never_published_does_nothing_and_hands_the_message_back() {
    let (bus, kind, manager) = world();
    manager.publish_by_id("1", NODE, kind.message(1)).unwrap();
    for (id, eid) in [("1", OTHER), ("1", None), ("2", NODE), ("", NODE)] {
        let error = manager.remove_publish_by_id(id, eid, Some(kind.message(9))).unwrap_err();
        assert!(matches!(error, StatePublishError::NotPublishing(Some(_))));
        assert_eq!(value(error.into_message()), Some(9));
        assert!(manager.remove_publish_by_id(id, eid, None).unwrap_err().into_message().is_none());
    }
    assert_eq!(value(manager.data("1")), Some(1));
    assert_eq!((manager.remove_node(OTHER), manager.remove_node(NODE)), (0, 1));
    assert_nothing_left(&bus, &manager);
}

#[test]
fn g10_a_node_that_is_gone_takes_all_its_implicit_publishers() {
    let (bus, kind, manager) = world();
    for n in 0..20u64 {
        manager.publish_by_id(&n.to_string(), NODE, kind.message(n)).unwrap();
        if n % 2 == 0 {
            manager.publish_by_id(&n.to_string(), OTHER, kind.message(n)).unwrap();
        }
    }
    assert_eq!((manager.remove_node(NODE), manager.len()), (20, 10));
    assert_eq!((manager.remove_node(NODE), manager.remove_node(None), manager.remove_node(OTHER)), (0, 0, 10));
    assert_nothing_left(&bus, &manager);
}

// ---- Observers

#[derive(Default)]
struct Watch {
    events: Mutex<Vec<(bool, String, bool)>>,
}

struct Watcher(Arc<Watch>);

impl StateObserver for Watcher {
    fn on_subscribe(&self, id: &str, subscriber: &StateSubscriber) {
        assert_eq!(id, subscriber.id());
        lock(&self.0.events).push((true, id.to_owned(), subscriber.subscription().is_some()));
    }
    fn on_unsubscribe(&self, id: &str, subscriber: &StateSubscriber) {
        lock(&self.0.events).push((false, id.to_owned(), subscriber.subscription().is_some()));
    }
}

#[test]
fn observers_are_told_of_subscribers_until_removed() {
    let (_bus, _, manager) = world();
    let watch = Arc::new(Watch::default());
    let before = manager.add_subscriber("0").unwrap();
    let observation = manager.add_observer(Watcher(Arc::clone(&watch)));
    let one = manager.add_subscriber("1").unwrap();
    let _publisher = manager.add_publisher("2").unwrap();
    let two = manager.subscribe_pool("2", |_| ()).unwrap();
    two.unsubscribe_and_join(PATIENCE).unwrap();
    drop((one, before));
    drop(observation);
    assert_eq!(Arc::strong_count(&watch), 1, "the observer is dropped with its guard");
    drop(manager.add_subscriber("3").unwrap());
    let yes = |id: &str, with| (true, id.to_owned(), with);
    let no = |id: &str, with| (false, id.to_owned(), with);
    assert_eq!(*lock(&watch.events), [yes("1", false), yes("2", true), no("2", true), no("1", false), no("0", false)]);
}

#[test]
fn an_observation_may_outlive_the_manager() {
    let (_bus, _, manager) = world();
    let watch = Arc::new(Watch::default());
    let observation = manager.add_observer(Watcher(Arc::clone(&watch)));
    drop(manager);
    drop(observation);
    assert_eq!(Arc::strong_count(&watch), 1);
}

struct Panics(Arc<AtomicUsize>);

impl StateObserver for Panics {
    fn on_subscribe(&self, _: &str, _: &StateSubscriber) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("an observer that panics (meant)");
    }
    fn on_unsubscribe(&self, _: &str, _: &StateSubscriber) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("an observer that panics (meant)");
    }
}

#[test]
fn g12_a_panicking_observer_hurts_nobody() {
    let (bus, _, manager) = world();
    let (count, watch) = (Arc::new(AtomicUsize::new(0)), Arc::new(Watch::default()));
    let _one = manager.add_observer(Panics(Arc::clone(&count)));
    let _two = manager.add_observer(Watcher(Arc::clone(&watch)));
    drop(manager.add_subscriber("1").unwrap());
    assert_eq!((count.load(Ordering::Relaxed), lock(&watch.events).len()), (2, 2));
    assert_nothing_left(&bus, &manager);
}

/// Calls back into the manager as deep as it may.
struct Reenters(StateManager, MessageType<u64>, Mutex<Vec<StateSubscriber>>);

impl StateObserver for Reenters {
    fn on_subscribe(&self, id: &str, subscriber: &StateSubscriber) {
        self.0.publish_by_id(id, NODE, self.1.message(1)).unwrap();
        assert!(subscriber.data().is_some());
        if id.len() < 5 {
            let deeper = self.0.subscribe_pool(&format!("{id}x"), |_| ()).unwrap();
            lock(&self.2).push(deeper);
        }
        assert!(subscribed(&self.0).contains(id));
        drop(self.0.add_observer(Watcher(Arc::default())));
    }
    fn on_unsubscribe(&self, id: &str, _: &StateSubscriber) {
        self.0.remove_publish_by_id(id, NODE, Some(self.1.message(2))).unwrap();
        assert!(!subscribed(&self.0).contains(id));
    }
}

#[test]
fn g07_an_observer_may_call_back_into_the_manager() {
    must_end(|| {
        let (bus, kind, manager) = world();
        let reenters = Arc::new(Reenters(manager.clone(), kind, Mutex::default()));
        struct Shared(Arc<Reenters>);
        impl StateObserver for Shared {
            fn on_subscribe(&self, id: &str, subscriber: &StateSubscriber) {
                self.0.on_subscribe(id, subscriber);
            }
            fn on_unsubscribe(&self, id: &str, subscriber: &StateSubscriber) {
                self.0.on_unsubscribe(id, subscriber);
            }
        }
        let observation = manager.add_observer(Shared(Arc::clone(&reenters)));
        let first = manager.add_subscriber("a").unwrap();
        assert_eq!((manager.len(), subscribed(&manager).len()), (5, 5));
        drop(first);
        let deeper = std::mem::take(&mut *lock(&reenters.2));
        drop(deeper);
        drop(observation);
        assert_nothing_left(&bus, &manager);
    });
}

// ---- Callbacks

#[test]
fn callback_all_sees_every_state_and_its_last_message() {
    let (_bus, kind, manager) = world();
    assert_eq!(all(&manager), BTreeMap::new());
    let _empty = manager.add_subscriber("empty").unwrap();
    let publisher = manager.add_publisher("p").unwrap();
    publisher.publish(kind.message(3)).unwrap();
    manager.publish_by_id("i", None, kind.message(4)).unwrap();
    let expected = [("empty".to_owned(), None), ("i".to_owned(), Some(4)), ("p".to_owned(), Some(3))];
    assert_eq!(all(&manager), expected.into());
}

#[test]
fn callback_subscribed_sees_states_with_a_subscriber_only() {
    let (_bus, kind, manager) = world();
    let _publisher = manager.add_publisher("p").unwrap();
    manager.publish_by_id("i", None, kind.message(4)).unwrap();
    let one = manager.add_subscriber("i").unwrap();
    let two = manager.subscribe_pool("i", |_| ()).unwrap();
    assert_eq!(subscribed(&manager), ["i".to_owned()].into());
    drop(one);
    assert_eq!(subscribed(&manager), ["i".to_owned()].into());
    drop(two);
    assert_eq!(subscribed(&manager), BTreeSet::new());
}

#[test]
fn a_callback_stops_when_told_to() {
    let (_bus, kind, manager) = world();
    (0..10).for_each(|n| manager.publish_by_id(&n.to_string(), None, kind.message(n)).unwrap());
    let _watched: Vec<_> = (0..10).map(|n| manager.add_subscriber(&n.to_string()).unwrap()).collect();
    let (mut every, mut watched) = (0, 0);
    let stop_at = |count: &mut u32, last| {
        *count += 1;
        if *count == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    manager.callback_all(|_, _| stop_at(&mut every, 3));
    manager.callback_subscribed(|_, _| stop_at(&mut watched, 4));
    assert_eq!((every, watched), (3, 4));
}

#[test]
fn g07_a_callback_may_publish_subscribe_remove_and_call_back() {
    must_end(|| {
        let (bus, kind, manager) = world();
        (0..10).for_each(|n| manager.publish_by_id(&n.to_string(), NODE, kind.message(n)).unwrap());
        let mut visits = 0;
        manager.callback_all(|id, last| {
            visits += 1;
            assert!(value(last.cloned()).unwrap() < 10, "as it was when the callback began");
            (0..10).for_each(|n| manager.publish_by_id(&n.to_string(), NODE, kind.message(100)).unwrap());
            manager.publish_by_id(&format!("new {id}"), OTHER, kind.message(1)).unwrap();
            drop(manager.subscribe_pool(id, |_| ()).unwrap());
            assert!(all(&manager).len() > 10);
            ControlFlow::Continue(())
        });
        assert_eq!(visits, 10);
        manager.callback_all(|id, _| {
            let eid = if id.starts_with("new") { OTHER } else { NODE };
            manager.remove_publish_by_id(id, eid, None).unwrap();
            ControlFlow::Continue(())
        });
        assert_nothing_left(&bus, &manager);
    });
}

#[test]
fn a_callback_that_panics_leaves_the_manager_usable() {
    let (bus, kind, manager) = world();
    manager.publish_by_id("1", NODE, kind.message(1)).unwrap();
    let panics = std::panic::AssertUnwindSafe(|| manager.callback_all(|_, _| panic!("a callback that panics (meant)")));
    assert!(std::panic::catch_unwind(panics).is_err(), "it is the caller's own");
    manager.remove_publish_by_id("1", NODE, None).unwrap();
    assert_nothing_left(&bus, &manager);
}

#[test]
fn g07_a_handler_may_publish_to_its_own_state_and_remove_it() {
    must_end(|| {
        for delivery in DELIVERIES {
            let (bus, kind, manager) = world();
            let (inner, again) = (manager.clone(), kind.clone());
            let subscriber = manager
                .subscribe_with(
                    "1",
                    |builder| builder.delivery(delivery).accept(&kind),
                    move |received| match received.payload::<u64>() {
                        Some(&n @ 0..5) => inner.publish_by_id("1", NODE, again.message(n + 1)).unwrap(),
                        Some(5) => inner.remove_publish_by_id("1", NODE, Some(again.message(6))).unwrap(),
                        _ => {}
                    },
                )
                .unwrap();
            manager.publish_by_id("1", NODE, kind.message(0)).unwrap();
            // Removing ends the publisher, then publishes its last word.
            eventually("it was removed", || manager.implicit_publishers().is_empty());
            eventually("the last word is published", || value(subscriber.data()) != Some(5));
            assert_eq!(value(subscriber.data()), Some(6));
            subscriber.unsubscribe_and_join(PATIENCE).unwrap();
            assert_nothing_left(&bus, &manager);
        }
    });
}

/// A payload whose destructor uses the manager.
struct Mischief(Mutex<Option<(StateManager, MessageType<u64>)>>);

impl Drop for Mischief {
    fn drop(&mut self) {
        if let Some((manager, kind)) = lock(&self.0).take() {
            manager.publish_by_id("by a destructor", OTHER, kind.message(1)).unwrap();
            let _ = all(&manager);
            panic!("a destructor that panics (meant)");
        }
    }
}

#[test]
fn g12_the_destructor_of_a_replaced_message_may_use_the_manager_and_panic() {
    must_end(|| {
        let (bus, kind, manager) = world();
        let mischief = MessageType::<Mischief>::new(&bus, "mischief").unwrap();
        let publisher = manager.add_publisher("1").unwrap();
        for _ in 0..2 {
            let inside = Mischief(Mutex::new(Some((manager.clone(), kind.clone()))));
            publisher.publish(mischief.message(inside)).unwrap();
            manager.remove_node(OTHER);
            publisher.publish(kind.message(1)).unwrap();
            assert_eq!(manager.len(), 2, "the destructor has run");
        }
        let inside = Mischief(Mutex::new(Some((manager.clone(), kind.clone()))));
        publisher.publish(mischief.message(inside)).unwrap();
        manager.remove_node(OTHER);
        drop(publisher);
        assert_eq!(manager.remove_node(OTHER), 1, "and at the end of the state too");
        assert_nothing_left(&bus, &manager);
    });
}

// ---- Following

#[test]
fn follow_tells_the_present_states_then_updates_then_removals() {
    for delivery in DELIVERIES {
        let (bus, kind, manager) = world();
        let publisher = manager.add_publisher("1").unwrap();
        publisher.publish(kind.message(1)).unwrap();
        publisher.publish(kind.message(2)).unwrap();
        let silent = manager.add_publisher("silent").unwrap();
        drop(manager.add_publisher("gone").unwrap());
        let story = Story::default();
        let feed = manager.follow(|builder| builder.delivery(delivery).name("feed"), story.handler()).unwrap();
        assert_eq!(feed.name(), Some("feed"));
        publisher.publish(kind.message(3)).unwrap();
        silent.publish(kind.message(4)).unwrap();
        manager.publish_by_id("new", NODE, kind.message(5)).unwrap();
        manager.remove_publish_by_id("new", NODE, Some(kind.message(6))).unwrap();
        manager.publish_by_id("new", NODE, kind.message(7)).unwrap();
        drop(publisher);
        feed.unsubscribe_and_join(PATIENCE).unwrap();
        silent.publish(kind.message(8)).unwrap();
        assert_eq!(
            story.all(),
            [
                told("1", Present, 2, 2),
                told("1", Update, 3, 3),
                told("silent", Update, 1, 4),
                told("new", Update, 1, 5),
                told("new", Update, 2, 6),
                told("new", Removed, 2, None),
                told("new", Update, 1, 7),
                told("1", Removed, 3, None),
            ]
        );
        manager.remove_node(NODE);
        drop(silent);
        drop(feed);
        assert_nothing_left(&bus, &manager);
    }
}

#[test]
fn follow_id_tells_of_one_state_in_all_its_lives() {
    for delivery in DELIVERIES {
        let (bus, kind, manager) = world();
        let story = Story::default();
        let feed = manager.follow_id("1", |builder| builder.delivery(delivery), story.handler()).unwrap();
        let other = manager.add_publisher("2").unwrap();
        other.publish(kind.message(9)).unwrap();
        let publisher = manager.add_publisher("1").unwrap();
        publisher.publish(kind.message(1)).unwrap();
        let (late, early) = (Story::default(), Story::default());
        let second = manager.follow_id("1", |builder| builder.delivery(delivery), late.handler()).unwrap();
        let nothing = manager.follow_id("3", |builder| builder.delivery(delivery), early.handler()).unwrap();
        publisher.publish(kind.message(2)).unwrap();
        drop(publisher);
        assert_eq!(manager.len(), 1, "following keeps no state alive");
        manager.publish_by_id("1", NODE, kind.message(3)).unwrap();
        for feed in [feed, second, nothing] {
            feed.unsubscribe_and_join(PATIENCE).unwrap();
        }
        let rest = [told("1", Update, 2, 2), told("1", Removed, 2, None), told("1", Update, 1, 3)];
        assert_eq!(story.all(), [&[told("1", Update, 1, 1)], &rest[..]].concat());
        assert_eq!(late.all(), [&[told("1", Present, 1, 1)], &rest[..]].concat());
        assert_eq!(early.all(), []);
        assert!(matches!(manager.follow_id("", |builder| builder, |_| ()), Err(StateError::NoId)));
        manager.remove_node(NODE);
        drop(other);
        assert_nothing_left(&bus, &manager);
    }
}

#[test]
fn follow_does_not_lose_what_a_blocked_handler_has_not_seen_yet() {
    let (_bus, kind, manager) = world();
    let publisher = manager.add_publisher("1").unwrap();
    publisher.publish(kind.message(0)).unwrap();
    let (gate, story) = (Gate::new(), Story::default());
    let (pass, _open, mut write) = (gate.clone(), OpenAtEnd(gate.clone()), story.handler());
    let feed = manager
        .follow(
            |builder| builder.mailbox(),
            move |change| {
                pass.pass();
                write(change);
            },
        )
        .unwrap();
    (1..100).for_each(|n| publisher.publish(kind.message(n)).unwrap());
    gate.open();
    feed.unsubscribe_and_join(PATIENCE).unwrap();
    let expected: Vec<_> = (0..100u64).map(|n| told("1", if n == 0 { Present } else { Update }, n + 1, n)).collect();
    assert_eq!(story.all(), expected);
}

#[test]
fn g12_a_panic_of_a_follower_costs_it_one_change() {
    let (_bus, kind, manager) = world();
    (0..4).for_each(|n| manager.publish_by_id(&n.to_string(), None, kind.message(n)).unwrap());
    let (story, mut first) = (Story::default(), true);
    let mut write = story.handler();
    let feed = manager
        .follow(
            |builder| builder,
            move |change| {
                if std::mem::take(&mut first) {
                    panic!("a follower that panics (meant)");
                }
                write(change);
            },
        )
        .unwrap();
    manager.publish_by_id("4", None, kind.message(4)).unwrap();
    feed.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((story.all().len(), feed.stats().panics), (4, 1));
}

#[test]
fn follow_may_be_called_and_published_from_a_follower() {
    must_end(|| {
        for delivery in DELIVERIES {
            let (_bus, kind, manager) = world();
            manager.publish_by_id("1", None, kind.message(0)).unwrap();
            let (inner, again, story, feeds) = (manager.clone(), kind.clone(), Story::default(), Arc::default());
            let (second, list) = (story.clone(), Arc::clone(&feeds) as Arc<Mutex<Vec<_>>>);
            let feed = manager
                .follow(
                    |builder| builder.delivery(delivery),
                    move |change| {
                        if change.kind() == Present {
                            lock(&list).push(inner.follow(|builder| builder, second.handler()).unwrap());
                            inner.publish_by_id("1", None, again.message(1)).unwrap();
                        }
                    },
                )
                .unwrap();
            eventually("the inner follower heard both", || story.all().len() == 2);
            assert_eq!(story.all(), [told("1", Present, 1, 0), told("1", Update, 2, 1)]);
            let inner_feeds = std::mem::take(&mut *lock(&feeds));
            drop((feed, inner_feeds));
        }
    });
}

/// What each follower must see: per id, versions without gap or repeat, each life after the one before.
#[track_caller]
fn assert_exact(story: &[Told]) {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for (id, kind, version, _) in story {
        let last = seen.get(id.as_str()).copied();
        match kind {
            Present => assert_eq!(last, None, "{id}: present once, first"),
            // Version 1 may also follow a life whose removal it overtook.
            Update => assert!(*version == 1 || last == Some(version - 1), "{id}: {last:?} then {version}"),
            Removed => assert_eq!(last, Some(*version), "{id}: removed as last seen"),
        }
        if *kind == Removed {
            seen.remove(id.as_str());
        } else {
            seen.insert(id, *version);
        }
    }
}

#[test]
fn follow_has_no_gap_and_no_repeat_under_concurrent_publishers_of_one_id() {
    must_end(|| {
        for round in 0..stress(20) {
            let (_bus, kind, manager) = world();
            let each = 300u64;
            let start = Barrier::new(6);
            let stories: Vec<Story> = (0..2).map(|_| Story::default()).collect();
            let publisher = manager.add_publisher("1").unwrap();
            let feeds: Vec<_> = thread::scope(|scope| {
                for thread in 0..4 {
                    let (publisher, kind, start) = (publisher.clone(), &kind, &start);
                    scope.spawn(move || {
                        start.wait();
                        (0..each).for_each(|n| publisher.publish(kind.message(thread << 32 | n)).unwrap());
                    });
                }
                let threads: Vec<_> = stories
                    .iter()
                    .enumerate()
                    .map(|(index, story)| {
                        let (manager, start) = (&manager, &start);
                        let delivery = DELIVERIES[(round + index) % 3];
                        scope.spawn(move || {
                            start.wait();
                            (0..index * 2000).for_each(|_| std::hint::spin_loop());
                            manager.follow(|builder| builder.delivery(delivery), story.handler()).unwrap()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let last = value(publisher.data());
            for (feed, story) in feeds.iter().zip(&stories) {
                feed.unsubscribe_and_join(PATIENCE).unwrap();
                let story = story.all();
                assert_exact(&story);
                let (_, _, version, value) = story.last().expect("at least the present state");
                assert_eq!((*version, *value), (4 * each, last), "it ends with the state as it is");
                // Each publisher's own order holds too.
                for thread in 0..4u64 {
                    let own: Vec<_> =
                        story.iter().filter_map(|told| told.3).filter(|value| value >> 32 == thread).collect();
                    assert!(own.is_sorted_by(|a, b| a < b), "{own:?}");
                }
            }
        }
    });
}

#[test]
fn follow_is_exact_while_states_come_and_go() {
    must_end(|| {
        let (bus, kind, manager) = world();
        let (stop, stories) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3usize)
                .map(|thread| {
                    let (manager, kind) = (&manager, &kind);
                    scope.spawn(move || {
                        let mut random = Random::new(thread as u64 + 1);
                        let eid = Some(Eid([thread as u8; 6]));
                        for _ in 0..stress(1500) {
                            let id = random.below(5).to_string();
                            match random.below(3) {
                                0 => drop(manager.remove_publish_by_id(&id, eid, None)),
                                // What version it becomes is not known here.
                                _ => manager.publish_by_id(&id, eid, kind.message(1)).unwrap(),
                            }
                        }
                        manager.remove_node(eid);
                    })
                })
                .collect();
            let follower = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let story = Story::default();
                    let only = lock(&stories).len().is_multiple_of(2).then_some("2");
                    let feed = match only {
                        Some(id) => manager.follow_id(id, |builder| builder, story.handler()),
                        None => manager.follow(|builder| builder, story.handler()),
                    };
                    lock(&stories).push((only, story, feed.unwrap()));
                    if lock(&stories).len() >= 20 {
                        break;
                    }
                    thread::yield_now();
                }
            });
            workers.into_iter().for_each(|worker| worker.join().unwrap());
            stop.store(true, Ordering::Release);
            follower.join().unwrap();
        });
        for (only, story, feed) in stories.into_inner().unwrap() {
            feed.unsubscribe_and_join(PATIENCE).unwrap();
            assert_exact(&story.all());
            assert!(only.is_none_or(|only| story.all().iter().all(|told| told.0 == only)));
            let mut alive = BTreeSet::new();
            for (id, kind, ..) in story.all() {
                if kind == Removed {
                    alive.remove(&id)
                } else {
                    alive.insert(id)
                };
            }
            assert_eq!(alive, BTreeSet::new(), "every removal was told");
        }
        assert_nothing_left(&bus, &manager);
    });
}

// ---- Threads, shutdown, size

#[test]
fn one_id_created_by_four_threads_is_one_state() {
    must_end(|| {
        let (bus, kind, manager) = world();
        for round in 0..stress(300) {
            let id = (round % 3).to_string();
            let start = Barrier::new(4);
            let publishers: Vec<StatePublisher> = thread::scope(|scope| {
                let threads: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            manager.add_publisher(&id).unwrap()
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!((manager.len(), bus.topics().len()), (1, 3));
            publishers[0].publish(kind.message(round as u64)).unwrap();
            for publisher in &publishers {
                assert_eq!(publisher.topic(), publishers[0].topic());
                assert_eq!(value(publisher.data()), Some(round as u64));
            }
            let log = Log::new();
            let everything = manager.all_topic().subscriber().accept(&kind).subscribe(log.handler()).unwrap();
            publishers[3].publish(kind.message(1)).unwrap();
            everything.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(log.values(), [1], "forwarded once");
        }
        assert_nothing_left(&bus, &manager);
    });
}

#[test]
fn g07_four_threads_publish_subscribe_remove_and_call_back() {
    must_end(|| {
        let (bus, kind, manager) = world();
        let watch = Arc::new(Watch::default());
        let observation = manager.add_observer(Watcher(Arc::clone(&watch)));
        let (drops, counted) = (Drops::new(), MessageType::new(&bus, "counted").unwrap());
        let delivered = Arc::new(AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..4 {
                let (manager, kind, drops, counted, delivered) = (&manager, &kind, &drops, &counted, &delivered);
                scope.spawn(move || {
                    let mut random = Random::new(thread);
                    let eid = Some(Eid([thread as u8; 6]));
                    let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
                    for n in 0..stress(1500) as u64 {
                        let id = random.below(8).to_string();
                        match random.below(10) {
                            0 => publishers.push(manager.add_publisher(&id).unwrap()),
                            1 => {
                                let count = Arc::clone(delivered);
                                let delivery = DELIVERIES[[0, 0, 0, 2][random.below(4)]];
                                let subscribe = manager.subscribe_with(
                                    &id,
                                    |builder| builder.delivery(delivery).accept(kind),
                                    move |_| {
                                        count.fetch_add(1, Ordering::Relaxed);
                                    },
                                );
                                subscribers.push(subscribe.unwrap());
                            }
                            2 if !publishers.is_empty() => drop(publishers.swap_remove(random.below(publishers.len()))),
                            3 if !subscribers.is_empty() => {
                                drop(subscribers.swap_remove(random.below(subscribers.len())));
                            }
                            4 => drop(manager.remove_publish_by_id(&id, eid, Some(kind.message(n)))),
                            5 => {
                                let mut ids = BTreeSet::new();
                                manager.callback_all(|id, _| {
                                    assert!(ids.insert(id.to_owned()), "each once");
                                    ControlFlow::Continue(())
                                });
                            }
                            6 => manager.callback_subscribed(|id, _| {
                                drop(manager.data(id));
                                ControlFlow::Continue(())
                            }),
                            7 => {
                                for publisher in &publishers {
                                    publisher.publish(counted.message(drops.token())).unwrap();
                                }
                            }
                            _ => manager.publish_by_id(&id, eid, kind.message(n)).unwrap(),
                        }
                    }
                    manager.remove_node(eid);
                });
            }
        });
        drop(observation);
        let events = std::mem::take(&mut *lock(&watch.events));
        let came = events.iter().filter(|event| event.0).count();
        assert_eq!(came * 2, events.len(), "each subscriber came and went");
        bus.shutdown(PATIENCE).unwrap();
        assert!(delivered.load(Ordering::Relaxed) > 0);
        assert_nothing_left(&bus, &manager);
        drops.await_all_gone("payloads");
    });
}

#[test]
fn g11_shutdown_meanwhile_gives_typed_errors() {
    must_end(|| {
        let (bus, kind, manager) = world();
        let publisher = manager.add_publisher("1").unwrap();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for thread in 0..2 {
                let (manager, kind, publisher, start) = (&manager, &kind, &publisher, &start);
                scope.spawn(move || {
                    start.wait();
                    let eid = Some(Eid([thread; 6]));
                    let mut made = Vec::new();
                    loop {
                        match publisher.publish(kind.message(1)) {
                            Ok(()) => {}
                            Err(error) => {
                                assert!(error.is_closed());
                                break;
                            }
                        }
                        match manager.publish_by_id("2", eid, kind.message(2)) {
                            Ok(()) => {}
                            Err(StatePublishError::Publish(error)) => assert!(error.is_closed()),
                            Err(error) => panic!("{error:?}"),
                        }
                        match manager.subscribe_pool("1", |_| ()) {
                            Ok(subscriber) => made.push(subscriber),
                            Err(error) => assert!(matches!(error, StateError::Closed)),
                        }
                        made.truncate(10);
                        match manager.follow(|builder| builder, |_| ()) {
                            Ok(_) => {}
                            Err(error) => assert!(matches!(error, StateError::Closed)),
                        }
                    }
                });
            }
            start.wait();
            (0..1000).for_each(|_| thread::yield_now());
            bus.shutdown(PATIENCE).unwrap();
        });
        assert!(matches!(manager.add_publisher("3"), Err(StateError::Closed)));
        assert!(matches!(manager.add_subscriber("1"), Err(StateError::Closed)));
        assert!(matches!(manager.topic("1"), Err(StateError::Closed)));
        assert!(matches!(StateManager::new(&bus, "more"), Err(StateError::Closed)));
        let error = manager.publish_by_id("9", NODE, kind.message(7)).unwrap_err();
        assert_eq!(value(error.into_message()), Some(7));
        assert_eq!(value(publisher.publish(kind.message(8)).unwrap_err().into_message().into()), Some(8));
        for thread in 0..2 {
            manager.remove_node(Some(Eid([thread; 6])));
        }
        drop(publisher);
        assert_nothing_left(&bus, &manager);
    });
}

#[test]
fn a_full_queue_is_an_error_that_keeps_the_message_and_tells_followers_later() {
    // A follower behind a gate and a budget of one small ring.
    let bus = Bus::builder().lanes(1).ring_capacity(1024).memory_budget(64 << 10).build().unwrap();
    let (kind, manager) = (number(&bus), StateManager::new(&bus, "all").unwrap());
    let publisher = manager.add_publisher("1").unwrap();
    let gone = manager.add_publisher("gone").unwrap();
    gone.publish(kind.message(0)).unwrap();
    let (gate, story) = (Gate::new(), Story::default());
    let (pass, _open, mut write) = (gate.clone(), OpenAtEnd(gate.clone()), story.handler());
    let feed = manager
        .follow(
            |builder| builder,
            move |change| {
                pass.pass();
                write(change);
            },
        )
        .unwrap();
    let mut accepted = 0;
    let error = loop {
        match publisher.publish(kind.message(accepted)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full());
    assert_eq!(error.into_message().payload::<u64>(), Some(&accepted));
    drop(gone); // its removal finds no room either
    gate.open();
    eventually("there is room again", || publisher.publish(kind.message(u64::MAX)).is_ok());
    feed.unsubscribe_and_join(PATIENCE).unwrap();
    let story = story.all();
    assert_exact(&story);
    assert_eq!(story.last().map(|told| told.3), Some(Some(u64::MAX)));
    assert_eq!(story.iter().filter(|told| told.1 == Removed).count(), 1);
}

#[test]
fn g10_ten_thousand_states_made_and_removed_leave_nothing() {
    let (bus, kind, manager) = world();
    let many = stress(10_000) as u64;
    let (drops, counted) = (Drops::new(), MessageType::new(&bus, "counted").unwrap());
    for n in 0..many {
        let id = n.to_string();
        match n % 3 {
            0 => manager.publish_by_id(&id, NODE, counted.message(drops.token())).unwrap(),
            1 => manager.add_publisher(&id).unwrap().publish(kind.message(n)).unwrap(),
            _ => drop(manager.add_subscriber(&id).unwrap()),
        }
    }
    assert_eq!(manager.len() as u64, many.div_ceil(3));
    assert_eq!(manager.remove_node(NODE) as u64, many.div_ceil(3));
    drops.assert_all_gone("payloads");
    assert_nothing_left(&bus, &manager);
    assert_eq!(bus.stats().topics, 2);
}

#[test]
fn g10_the_last_manager_and_handles_let_the_bus_go() {
    let (bus, kind, manager) = world();
    let drops = Drops::new();
    let token = drops.token();
    let subscriber = manager
        .subscribe_with(
            "1",
            |builder| builder.delivery(Delivery::Dedicated),
            move |_| {
                let _ = &token;
            },
        )
        .unwrap();
    manager.publish_by_id("1", None, kind.message(1)).unwrap();
    let topic = bus.topic("probe").unwrap();
    drop((bus, manager));
    assert!(topic.publish(kind.message(1)).is_ok(), "a subscriber keeps the bus");
    drop(subscriber);
    assert!(topic.publish(kind.message(1)).unwrap_err().is_closed());
    drops.await_all_gone("handlers");
}

// ---- Any operations, against a model

#[derive(Clone, Debug)]
enum Step {
    AddPublisher(u8),
    DropPublisher(u8),
    Publish(u8),
    AddSubscriber(u8),
    DropSubscriber(u8),
    PublishById(u8, u8),
    RemoveById(u8, u8, bool),
    RemoveNode(u8),
    Follow,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..4u8;
    prop_oneof![
        id().prop_map(Step::AddPublisher),
        any::<u8>().prop_map(Step::DropPublisher),
        any::<u8>().prop_map(Step::Publish),
        id().prop_map(Step::AddSubscriber),
        any::<u8>().prop_map(Step::DropSubscriber),
        (id(), 0..3u8).prop_map(|(id, node)| Step::PublishById(id, node)),
        (id(), 0..3u8, any::<bool>()).prop_map(|(id, node, with)| Step::RemoveById(id, node, with)),
        (0..3u8).prop_map(Step::RemoveNode),
        Just(Step::Follow),
    ]
}

/// What must be: owners and last value of each id, told in one list.
#[derive(Default)]
struct Model {
    owners: BTreeMap<String, usize>,
    last: BTreeMap<String, (u64, u64)>,
    implicit: BTreeSet<(String, u8)>,
    story: Vec<Told>,
}

impl Model {
    fn own(&mut self, id: &str) {
        *self.owners.entry(id.to_owned()).or_default() += 1;
    }

    fn disown(&mut self, id: &str) {
        let count = self.owners.get_mut(id).unwrap();
        *count -= 1;
        if *count == 0 {
            self.owners.remove(id);
            if let Some((version, _)) = self.last.remove(id) {
                self.story.push(told(id, Removed, version, None));
            }
        }
    }

    fn publish(&mut self, id: &str, value: u64) {
        let version = self.last.get(id).map_or(1, |last| last.0 + 1);
        self.last.insert(id.to_owned(), (version, value));
        self.story.push(told(id, Update, version, value));
    }
}

fn node(number: u8) -> Option<Eid> {
    (number > 0).then_some(Eid([number; 6]))
}

fn run(steps: &[Step]) {
    let (bus, kind, manager) = world();
    let mut model = Model::default();
    let mut publishers: Vec<StatePublisher> = Vec::new();
    let mut subscribers: Vec<StateSubscriber> = Vec::new();
    let mut feeds = Vec::new();
    for (n, step) in steps.iter().enumerate() {
        let n = n as u64;
        let pick = |list: usize, at: u8| (list > 0).then(|| at as usize % list.max(1));
        match *step {
            Step::AddPublisher(id) => {
                publishers.push(manager.add_publisher(&id.to_string()).unwrap());
                model.own(&id.to_string());
            }
            Step::DropPublisher(at) => {
                if let Some(at) = pick(publishers.len(), at) {
                    let publisher = publishers.remove(at);
                    let id = publisher.id().to_owned();
                    drop(publisher);
                    model.disown(&id);
                }
            }
            Step::Publish(at) => {
                if let Some(at) = pick(publishers.len(), at) {
                    publishers[at].publish(kind.message(n)).unwrap();
                    model.publish(publishers[at].id(), n);
                }
            }
            Step::AddSubscriber(id) => {
                let id = id.to_string();
                subscribers.push(if n.is_multiple_of(2) {
                    manager.add_subscriber(&id).unwrap()
                } else {
                    manager.subscribe_pool(&id, |_| ()).unwrap()
                });
                model.own(&id);
            }
            Step::DropSubscriber(at) => {
                if let Some(at) = pick(subscribers.len(), at) {
                    let subscriber = subscribers.remove(at);
                    let id = subscriber.id().to_owned();
                    drop(subscriber);
                    model.disown(&id);
                }
            }
            Step::PublishById(id, from) => {
                let id = id.to_string();
                manager.publish_by_id(&id, node(from), kind.message(n)).unwrap();
                if model.implicit.insert((id.clone(), from)) {
                    model.own(&id);
                }
                model.publish(&id, n);
            }
            Step::RemoveById(id, from, with) => {
                let id = id.to_string();
                let message = with.then(|| kind.message(n));
                let removed = manager.remove_publish_by_id(&id, node(from), message);
                assert_eq!(removed.is_ok(), model.implicit.remove(&(id.clone(), from)));
                if removed.is_ok() {
                    if with {
                        model.publish(&id, n);
                    }
                    model.disown(&id);
                }
            }
            Step::RemoveNode(from) => {
                // Their removals are told in no order: one after the other here.
                let gone: Vec<_> = model.implicit.iter().filter(|entry| entry.1 == from).cloned().collect();
                for (id, _) in &gone[..gone.len().saturating_sub(1)] {
                    manager.remove_publish_by_id(id, node(from), None).unwrap();
                }
                assert_eq!(manager.remove_node(node(from)), gone.len().min(1));
                for entry in gone {
                    model.implicit.remove(&entry);
                    model.disown(&entry.0);
                }
            }
            Step::Follow => {
                let story = Story::default();
                let delivery = DELIVERIES[n as usize % 3];
                let feed = manager.follow(|builder| builder.delivery(delivery), story.handler()).unwrap();
                let present: BTreeSet<_> = model.last.iter().map(|(id, last)| (id.clone(), last.0, last.1)).collect();
                feeds.push((feed, story, present, model.story.len()));
            }
        }
        let expected: BTreeMap<_, _> =
            model.owners.keys().map(|id| (id.clone(), model.last.get(id).map(|last| last.1))).collect();
        assert_eq!((all(&manager), manager.len()), (expected, model.owners.len()));
        assert_eq!(subscribed(&manager), subscribers.iter().map(|s| s.id().to_owned()).collect());
        let listed: BTreeSet<_> =
            manager.implicit_publishers().iter().map(|p| (p.id.to_string(), p.eid.map_or(0, |eid| eid.0[0]))).collect();
        assert_eq!(listed, model.implicit);
    }
    for (feed, story, present, from) in feeds {
        feed.unsubscribe_and_join(PATIENCE).unwrap();
        let story = story.all();
        let (first, rest) = story.split_at(present.len());
        assert!(first.iter().all(|told| told.1 == Present));
        assert_eq!(
            first.iter().map(|told| (told.0.clone(), told.2, told.3.unwrap())).collect::<BTreeSet<_>>(),
            present
        );
        assert_eq!(rest, &model.story[from..]);
    }
    for from in 0..3 {
        manager.remove_node(node(from));
    }
    drop((publishers, subscribers));
    eventually("subscriptions are gone", || bus.topics().len() == 2);
    assert_nothing_left(&bus, &manager);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: stress(100) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_operations_end_as_the_model_says(steps in prop::collection::vec(step(), 0..60)) {
        run(&steps);
    }
}
