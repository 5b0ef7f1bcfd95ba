//! Conformance: caches and caching topics.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

#[path = "common/cache_model.rs"]
mod cache_model;
mod common;

use common::{Gate, OpenAtEnd, Random, bus, lock, must_end, next, number, stress};
use proptest::prelude::*;
use stasis_bus::cache::{AGGREGATE, Cache, CacheClear, CacheEntry, CacheUpdate, CachingTopic, Entity};
use stasis_bus::{Bus, ChangeKind, Delivery, Eid, FilterMode, Message, MessageType, SubscriptionChange, Topic};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const HERE: Eid = Eid([1; 6]);

/// What is cached: an id and a number.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snap {
    id: String,
    n: u64,
}

fn far(n: u8) -> Eid {
    Eid([0, 0, 0, 0, 1, n])
}

fn snap(id: &str, n: u64) -> Snap {
    Snap { id: id.to_owned(), n }
}

fn n(message: &Message) -> u64 {
    message.payload::<Snap>().expect("a snapshot").n
}

fn numbers(messages: &[Message]) -> Vec<u64> {
    let mut all: Vec<u64> = messages.iter().map(n).collect();
    all.sort_unstable();
    all
}

fn by_id() -> stasis_bus::cache::CacheBuilder {
    Cache::builder().id(|message| Some(message.payload::<Snap>()?.id.as_str().into())).local(HERE)
}

/// A bus, a topic whose snapshots are cached, and the type of the snapshots.
struct Stage {
    bus: Bus,
    topic: Topic,
    kind: MessageType<Snap>,
    cache: Cache,
    caching: CachingTopic,
}

fn stage_with(cache: Cache) -> Stage {
    let bus = bus(1);
    let topic = bus.topic("device:all").unwrap();
    let kind = MessageType::new(&bus, "device_state").unwrap();
    let caching = CachingTopic::new(&topic, &cache).unwrap();
    Stage { bus, topic, kind, cache, caching }
}

fn stage() -> Stage {
    stage_with(by_id().build())
}

impl Stage {
    fn put(&self, id: &str, n: u64) {
        self.topic.publish(self.kind.message(snap(id, n))).unwrap();
    }

    fn put_from(&self, id: &str, n: u64, eid: Eid) {
        self.topic.publish(self.kind.message_from(snap(id, n), eid)).unwrap();
    }

    fn clear(&self, id: &str) {
        self.topic.publish(CacheClear::message(self.kind.message(snap(id, 0)))).unwrap();
    }

    fn clear_from(&self, id: &str, eid: Eid) {
        self.topic.publish(CacheClear::message(self.kind.message_from(snap(id, 0), eid))).unwrap();
    }
}

/// What came out on a cached topic, in short: id, whose, old and new number.
type Told = (String, Entity, Option<u64>, Option<u64>);

/// Everything that comes out, as messages.
fn listen(topic: &Topic) -> (stasis_bus::Subscription, Arc<Mutex<Vec<Message>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&log);
    let subscription = topic
        .subscriber()
        .delivery(Delivery::Inline)
        .subscribe(move |received| {
            if !received.is_final() {
                lock(&into).push(received.message().clone());
            }
        })
        .unwrap();
    (subscription, log)
}

fn told(log: &Mutex<Vec<Message>>) -> Vec<Told> {
    let log = lock(log);
    let updates = log.iter().filter_map(|message| message.payload::<CacheUpdate>());
    updates
        .map(|update| {
            (update.id().to_owned(), update.entity(), update.old_snapshot().map(n), update.new_snapshot().map(n))
        })
        .collect()
}

fn local(id: &str, old: Option<u64>, new: Option<u64>) -> Told {
    (id.to_owned(), Entity::Local, old, new)
}

#[test]
fn a_snapshot_is_kept_and_its_update_tells_old_and_new() {
    let stage = stage();
    let (_watch, log) = listen(stage.caching.topic());
    stage.put("a", 1);
    stage.put("b", 2);
    stage.put("a", 3);
    assert_eq!(told(&log), [local("a", None, Some(1)), local("b", None, Some(2)), local("a", Some(1), Some(3))]);
    assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(n), Some(3));
    assert_eq!(stage.cache.get(&stage.kind, "c"), None);
    assert_eq!(numbers(&stage.cache.dump(None)), [2, 3]);
    assert_eq!((stage.cache.len(), stage.cache.is_empty()), (2, false));
}

#[test]
fn clearing_removes_and_tells_what_was() {
    let stage = stage();
    let (_watch, log) = listen(stage.caching.topic());
    stage.put("a", 1);
    stage.clear("a");
    assert!(stage.cache.is_empty());
    stage.clear("a");
    stage.clear("never there");
    assert_eq!(told(&log), [local("a", None, Some(1)), local("a", Some(1), None)], "nothing there, nothing told");
    stage.put("a", 2);
    assert_eq!(told(&log)[2], local("a", None, Some(2)));
    assert_eq!(stage.cache.len(), 1);
}

#[test]
fn what_has_no_id_passes_through_as_it_came() {
    let stage = stage();
    let (_watch, log) = listen(stage.caching.topic());
    let other = number(&stage.bus);
    let message = other.message(7);
    stage.topic.publish(message.clone()).unwrap();
    let clear = CacheClear::message(other.message(8));
    stage.topic.publish(clear.clone()).unwrap();
    let somebody = stage.topic.subscribe(|_| ()).unwrap();
    let seen = lock(&log).clone();
    let passed: Vec<_> = seen.iter().filter(|seen| **seen == message || **seen == clear).collect();
    assert_eq!(passed, [&message, &clear]);
    let change = seen.iter().filter_map(|message| message.payload::<SubscriptionChange>()).next_back().unwrap();
    assert_eq!((change.subscription, change.kind), (somebody.id(), ChangeKind::Subscribe));
    assert!(stage.cache.is_empty());
}

#[test]
fn entities_have_a_snapshot_each() {
    let stage = stage();
    let (_watch, log) = listen(stage.caching.topic());
    stage.put_from("a", 1, HERE);
    stage.put_from("a", 2, far(1));
    stage.put_from("a", 3, far(2));
    stage.put_from("a", 4, far(1));
    stage.put_from("b", 5, far(1));
    let (cache, kind) = (&stage.cache, &stage.kind);
    let get = |eid| cache.get_by_eid(kind, "a", eid).as_ref().map(n);
    assert_eq!(cache.get(kind, "a").as_ref().map(n), Some(1));
    assert_eq!((get(Some(HERE)), get(Some(far(1))), get(Some(far(2)))), (Some(1), Some(4), Some(3)));
    assert_eq!((get(Some(far(3))), get(None)), (None, None), "unknown entity; no aggregate");
    assert_eq!(cache.get(kind, "b"), None, "the local entity knows nothing of it");
    assert_eq!(numbers(&cache.get_all(kind, "a")), [1, 3, 4]);
    assert_eq!(numbers(&cache.dump(Some(kind))), [1]);
    assert_eq!(numbers(&cache.dump_by_eid(Some(kind), Some(far(1)))), [4, 5]);
    assert_eq!(numbers(&cache.dump_by_eid(None, None)), [0_u64; 0]);
    assert_eq!(numbers(&cache.dump_all(None)), [1, 3, 4, 5]);
    let from = |entity, old, new| ("a".to_owned(), entity, old, new);
    assert_eq!(told(&log)[3], from(Entity::Remote(far(1)), Some(2), Some(4)));
    stage.clear_from("a", far(1));
    assert_eq!(told(&log)[5], from(Entity::Remote(far(1)), Some(4), None));
    assert_eq!(numbers(&cache.get_all(kind, "a")), [1, 3]);
    stage.clear("a");
    assert_eq!(numbers(&cache.get_all(kind, "a")), [3], "the entry lives while one snapshot does");
    stage.clear_from("a", far(2));
    assert_eq!(cache.len(), 1);
}

#[test]
fn types_do_not_meet() {
    let stage = stage();
    let other = MessageType::<Snap>::new(&stage.bus, "presence_state").unwrap();
    stage.put("a", 1);
    stage.topic.publish(other.message(snap("a", 2))).unwrap();
    assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(n), Some(1));
    assert_eq!(numbers(&stage.cache.dump(Some(&other))), [2]);
    assert_eq!(numbers(&stage.cache.dump(None)), [1, 2]);
    stage.clear("a");
    assert_eq!(numbers(&stage.cache.dump(None)), [2]);
}

#[test]
fn empty_ids_and_long_ones_are_ids() {
    let stage = stage();
    let long = "x".repeat(100_000);
    stage.put("", 1);
    stage.put(&long, 2);
    assert_eq!(stage.cache.get(&stage.kind, "").as_ref().map(n), Some(1));
    assert_eq!(stage.cache.get(&stage.kind, &long).as_ref().map(n), Some(2));
    stage.clear("");
    assert_eq!(numbers(&stage.cache.dump(None)), [2]);
}

#[test]
fn names_are_as_in_asterisk() {
    let stage = stage();
    let name = stage.caching.topic().name();
    let number = name.strip_prefix("cache:").and_then(|rest| rest.strip_suffix("/device:all"));
    assert!(number.is_some_and(|number| number.parse::<u64>().is_ok()), "{name}");
    assert_eq!(CacheUpdate::message_type().name(), "stasis_cache_update_type");
    assert_eq!(CacheClear::message_type().name(), "stasis_cache_clear_type");
    assert_eq!(stage.caching.original(), &stage.topic);
}

/// A cache whose aggregate is the sum of what all entities say.
fn summing(kind: &Arc<Mutex<Option<MessageType<Snap>>>>, mark: bool) -> stasis_bus::cache::CacheBuilder {
    let kind = Arc::clone(kind);
    by_id().aggregate(move |entry: &CacheEntry, _| {
        let sum = entry.snapshots().map(|(_, message)| n(message)).sum();
        let kind = lock(&kind).clone().unwrap();
        let payload = snap(entry.id(), sum);
        Some(if mark { kind.message_from(payload, AGGREGATE) } else { kind.message(payload) })
    })
}

#[test]
fn the_aggregate_is_recalculated_announced_and_published() {
    for mark in [true, false] {
        let kind = Arc::default();
        let published = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&published);
        let cache = summing(&kind, mark)
            .aggregate_publish(move |topic, aggregate| {
                lock(&into).push((topic.name().to_owned(), n(aggregate)));
                topic.publish(aggregate.clone()).unwrap();
            })
            .build();
        let stage = stage_with(cache);
        *lock(&kind) = Some(stage.kind.clone());
        let (_watch, log) = listen(stage.caching.topic());
        stage.put("a", 1);
        stage.put_from("a", 10, far(1));
        let whole = |old, new| ("a".to_owned(), Entity::Aggregate, old, new);
        let remote = |old, new| ("a".to_owned(), Entity::Remote(far(1)), old, new);
        assert_eq!(
            told(&log),
            [local("a", None, Some(1)), whole(None, Some(1)), remote(None, Some(10)), whole(Some(1), Some(11))]
        );
        let topic = || "device:all".to_owned();
        assert_eq!(*lock(&published), [(topic(), 1), (topic(), 11)]);
        assert_eq!(stage.cache.get_by_eid(&stage.kind, "a", None).as_ref().map(n), Some(11));
        assert_eq!(numbers(&stage.cache.dump_by_eid(None, None)), [11]);
        assert_eq!(numbers(&stage.cache.get_all(&stage.kind, "a")), [1, 10], "published here, and not cached");
        let passed = lock(&log).iter().filter(|message| message.payload::<Snap>().is_some()).count();
        assert_eq!(passed, 2, "aggregates that come back pass through");
        if !mark {
            continue; // taken for a snapshot once the entry is gone: hence the mark
        }
        stage.clear("a");
        stage.clear_from("a", far(1));
        assert_eq!(
            told(&log)[4..],
            [local("a", Some(1), None), whole(Some(11), Some(10)), remote(Some(10), None), whole(Some(10), None)]
        );
        assert_eq!(lock(&published).last(), Some(&(topic(), 0)), "calculated for an empty entry, not kept");
        assert!(stage.cache.is_empty());
    }
}

#[test]
fn the_same_aggregate_again_is_no_change() {
    let published = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&published);
    let cache = by_id()
        .aggregate(|entry, new| entry.aggregate().or(new).cloned())
        .aggregate_publish(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .build();
    let stage = stage_with(cache);
    let (_watch, log) = listen(stage.caching.topic());
    (1..=3).for_each(|n| stage.put("a", n));
    let aggregates = told(&log).iter().filter(|told| told.1 == Entity::Aggregate).count();
    assert_eq!((aggregates, published.load(Ordering::Relaxed)), (1, 1));
}

#[test]
fn a_panicking_calculation_keeps_the_aggregate() {
    let cache = by_id()
        .aggregate(|_, new| {
            let new = new.cloned().unwrap();
            assert!(n(&new) < 2, "on purpose");
            Some(new)
        })
        .aggregate_publish(|_, _| panic!("on purpose"))
        .build();
    let stage = stage_with(cache);
    let (_watch, log) = listen(stage.caching.topic());
    (1..=3).for_each(|n| stage.put("a", n));
    assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(n), Some(3));
    assert_eq!(stage.cache.get_by_eid(&stage.kind, "a", None).as_ref().map(n), Some(1));
    assert_eq!(told(&log).len(), 4, "three snapshots and one aggregate");
    stage.clear("a");
    assert!(stage.cache.is_empty());
}

#[test]
fn a_writer_stuck_in_user_code_holds_up_neither_readers_nor_writers() {
    // Once in the calculation (before the change is made), once in a listener (while it is announced).
    for in_calculation in [true, false] {
        must_end(move || {
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let (stuck, is_stuck) = channel();
            let pass = {
                let (gate, stuck) = (gate.clone(), Mutex::new(Some(stuck)));
                move |n: u64| {
                    if n == 13
                        && let Some(stuck) = lock(&stuck).take()
                    {
                        stuck.send(()).unwrap();
                        gate.pass();
                    }
                }
            };
            let pass = Arc::new(pass);
            let calculate = Arc::clone(&pass);
            let cache = by_id().aggregate(move |_, new| {
                if in_calculation {
                    new.iter().for_each(|new| calculate(n(new)));
                }
                None
            });
            let stage = stage_with(cache.build());
            let second = stage.bus.topic("device:second").unwrap();
            let other = CachingTopic::new(&second, &stage.cache).unwrap();
            let watch = stage.caching.topic().subscriber().delivery(Delivery::Inline).subscribe(move |received| {
                let update = received.payload::<CacheUpdate>();
                if !in_calculation {
                    update.and_then(CacheUpdate::new_snapshot).iter().for_each(|new| pass(n(new)));
                }
            });
            assert!(watch.is_ok());
            let (_told, log) = listen(other.topic());
            stage.put("a", 1);
            thread::scope(|scope| {
                scope.spawn(|| stage.put("a", 13));
                next(&is_stuck);
                let put = |id: &str, n| second.publish(stage.kind.message(snap(id, n))).unwrap();
                // Readers see the entry before or after; writers of this entry and of others go on.
                let seen = if in_calculation { 1 } else { 13 };
                assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(n), Some(seen));
                assert_eq!(stage.cache.dump(None).len(), 1);
                put("b", 20);
                put("a", 14);
                assert_eq!(numbers(&stage.cache.dump(None)), [14, 20]);
                assert_eq!(told(&log).iter().filter(|told| told.0 == "b").count(), 1);
                gate.open();
            });
            let last = if in_calculation { 13 } else { 14 };
            assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(n), Some(last), "whose change was last");
            // The change of "a" came out on the topic where it was made, whoever announced it.
            let changes: Vec<_> = told(&log).into_iter().filter(|told| told.0 == "a").collect();
            assert_eq!(changes, [local("a", Some(seen_before(in_calculation)), Some(14))]);
        });
    }
}

/// What "a" was when the other writer changed it.
fn seen_before(in_calculation: bool) -> u64 {
    if in_calculation { 1 } else { 13 }
}

#[test]
fn g12_a_panicking_id_costs_that_message_only() {
    let cache = Cache::builder()
        .id(|message| {
            let snap = message.payload::<Snap>()?;
            assert!(snap.n != 2, "on purpose");
            Some(snap.id.as_str().into())
        })
        .build();
    let stage = stage_with(cache);
    (1..=3).for_each(|n| stage.put(&n.to_string(), n));
    assert_eq!(numbers(&stage.cache.dump(None)), [1, 3]);
}

#[test]
fn the_filter_passes_accepted_types_clears_and_changes() {
    let stage = stage();
    let other = number(&stage.bus);
    let (_watch, log) = listen(stage.caching.topic());
    stage.caching.accept(&stage.kind);
    stage.topic.publish(other.message(1)).unwrap();
    stage.caching.set_filter_mode(FilterMode::Selective);
    stage.topic.publish(other.message(2)).unwrap();
    stage.put("a", 1);
    stage.clear("a");
    let _somebody = stage.topic.subscribe(|_| ()).unwrap();
    let seen = lock(&log).clone();
    let passed: Vec<u64> = seen.iter().filter_map(|message| message.payload::<u64>().copied()).collect();
    assert_eq!(passed, [1], "selective counts once it is set");
    assert_eq!(told(&log), [local("a", None, Some(1)), local("a", Some(1), None)]);
    assert!(seen.last().unwrap().is(SubscriptionChange::message_type()));
}

#[test]
fn g05_unsubscribing_takes_what_was_published_before() {
    let stage = stage();
    let (watch, log) = listen(stage.caching.topic());
    let cached = stage.caching.topic().clone();
    stage.put("a", 1);
    assert!(stage.caching.is_subscribed());
    stage.caching.unsubscribe_and_join(LIMIT).unwrap();
    assert!(!stage.caching.is_subscribed());
    stage.put("a", 2);
    stage.caching.unsubscribe().wait().unwrap();
    assert_eq!(told(&log), [local("a", None, Some(1))]);
    assert_eq!(numbers(&stage.cache.dump(None)), [1], "what is cached stays");
    drop(stage.caching);
    watch.unsubscribe().wait().unwrap();
    drop((watch, cached));
    assert!(!stage.bus.topics().iter().any(|topic| topic.name().starts_with("cache:")), "nothing is left");
}

#[test]
fn g07_joining_from_inside_is_an_error() {
    must_end(|| {
        let stage = stage();
        let caching = Arc::new(stage.caching);
        let (result, inner) = (Arc::new(Mutex::new(None)), Arc::downgrade(&caching));
        let into = Arc::clone(&result);
        let _watch = caching
            .topic()
            .subscriber()
            .delivery(Delivery::Inline)
            .accept(CacheUpdate::message_type())
            .subscribe(move |received| {
                if !received.is_final() {
                    *lock(&into) = Some(inner.upgrade().unwrap().unsubscribe_and_join(LIMIT));
                }
            })
            .unwrap();
        stage.topic.publish(stage.kind.message(snap("a", 1))).unwrap();
        assert_eq!(lock(&result).take(), Some(Err(stasis_bus::JoinError::OwnHandler)));
        assert!(!caching.is_subscribed());
    });
}

#[test]
fn a_listener_may_read_change_and_clear_from_inside() {
    let stage = stage();
    let (cache, topic, kind) = (stage.cache.clone(), stage.topic.clone(), stage.kind.clone());
    let _watch = stage
        .caching
        .topic()
        .subscriber()
        .delivery(Delivery::Inline)
        .subscribe(move |received| {
            let Some(update) = received.payload::<CacheUpdate>() else { return };
            match update.new_snapshot().map(n) {
                // What is told is in the cache already.
                Some(1) => topic.publish(kind.message(snap("a", n(&cache.get(&kind, "a").unwrap()) + 1))).unwrap(),
                Some(_) => topic.publish(CacheClear::message(update.new_snapshot().unwrap().clone())).unwrap(),
                None => {}
            }
        })
        .unwrap();
    let (_log, log) = listen(stage.caching.topic());
    stage.put("a", 1);
    assert_eq!(told(&log), [local("a", None, Some(1)), local("a", Some(1), Some(2)), local("a", Some(2), None)]);
    assert!(stage.cache.is_empty());
}

#[test]
fn closing_the_bus_ends_caching_and_keeps_the_cache() {
    let stage = stage();
    stage.put("a", 1);
    stage.bus.shutdown(LIMIT).unwrap();
    assert!(stage.topic.publish(stage.kind.message(snap("a", 2))).unwrap_err().is_closed());
    assert!(!stage.caching.is_subscribed());
    assert_eq!(numbers(&stage.cache.dump(None)), [1]);
    assert!(CachingTopic::new(&stage.topic, &stage.cache).is_err());
    stage.caching.unsubscribe_and_join(LIMIT).unwrap();
}

#[test]
fn g10_snapshots_go_when_they_are_replaced_or_removed() {
    let drops = common::Drops::new();
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = MessageType::<(u64, common::Counted)>::new(&bus, "counted").unwrap();
    let cache = Cache::builder().id(|m| Some(m.payload::<(u64, common::Counted)>()?.0.to_string().into())).build();
    let caching = CachingTopic::new(&topic, &cache).unwrap();
    let put = |id| topic.publish(kind.message((id, drops.token()))).unwrap();
    (0..10).for_each(put);
    (0..10).for_each(put);
    assert_eq!((drops.made(), drops.dropped()), (20, 10), "replaced ones are gone at once");
    for id in 0..10 {
        let known = cache.get(&kind, &id.to_string()).unwrap();
        topic.publish(CacheClear::message(known)).unwrap();
    }
    drops.assert_all_gone("removed ones are gone at once");
    put(1);
    drop((caching, topic));
    assert_eq!(drops.made() - drops.dropped(), 1, "the cache outlives its topics");
    drop(cache);
    drops.assert_all_gone("the cache is gone");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: stress(64) as u32, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_agree_with_a_simple_model(
        program in prop::collection::vec(any::<[u8; 2]>(), 0..200),
        with_aggregate: bool,
    ) {
        let program: Vec<_> = program.into_iter().map(cache_model::Operation::decode).collect();
        cache_model::run(&program, with_aggregate);
    }
}

/// Follows the chains of updates: whether each begins where the one before it of the same id ended.
#[derive(Default)]
struct Chains(HashMap<(String, Entity), (u64, Option<Message>)>);

impl Chains {
    fn check(&mut self, update: &CacheUpdate) {
        let (version, last) = self.0.entry((update.id().to_owned(), update.entity())).or_default();
        assert!(update.version() > *version, "{}: {} after {version}", update.id(), update.version());
        assert_eq!(update.old_snapshot(), last.as_ref(), "the chain of {} is broken", update.id());
        (*version, *last) = (update.version(), update.new_snapshot().cloned());
    }
}

/// Threads that put and clear a few ids over caching topics of their own, on one cache.
fn churn(bus: &Bus, cache: &Cache, threads: usize, changes: usize, all: &Topic) -> Vec<CachingTopic> {
    let kind = MessageType::<Snap>::new(bus, "device_state").unwrap();
    let topics: Vec<Topic> = (0..threads).map(|thread| bus.topic(format!("device:{thread}")).unwrap()).collect();
    let caching = topics.iter().map(|topic| CachingTopic::forwarded_to(topic, cache, all).unwrap()).collect();
    thread::scope(|scope| {
        for (number, topic) in topics.iter().enumerate() {
            let kind = &kind;
            scope.spawn(move || {
                let mut random = Random::new(number as u64 + 1);
                for change in 0..changes {
                    let payload = snap(["a", "b", "c"][random.below(3)], (number * changes + change) as u64);
                    let message = match random.below(3) {
                        0 => kind.message_from(payload, far(1)),
                        _ => kind.message(payload),
                    };
                    let clear = random.below(3) == 0;
                    topic.publish(if clear { CacheClear::message(message) } else { message }).unwrap();
                }
            });
        }
    });
    caching
}

#[test]
fn updates_of_one_key_chain_over_two_caching_topics() {
    for round in 0..stress(16) {
        let delivery = [Delivery::Inline, Delivery::default()][round % 2];
        let bus = bus(2);
        let cache = by_id().aggregate(|_, new| new.cloned()).build();
        let all = bus.topic("device:cached").unwrap();
        let chains = Arc::new(Mutex::new((Chains::default(), 0)));
        let into = Arc::clone(&chains);
        let watch = all
            .subscriber()
            .delivery(delivery)
            .accept(CacheUpdate::message_type())
            .subscribe(move |received| {
                if let Some(update) = received.payload::<CacheUpdate>() {
                    let mut chains = lock(&into);
                    chains.0.check(update);
                    chains.1 += 1;
                }
            })
            .unwrap();
        // So few that an inline queue (4096) holds all, whoever is kept from running.
        let caching = churn(&bus, &cache, 3, 600, &all);
        caching.iter().for_each(|caching| caching.unsubscribe_and_join(LIMIT).unwrap());
        watch.unsubscribe().wait().unwrap();
        assert_eq!(watch.stats().panics, 0, "{delivery:?}");
        let chains = lock(&chains);
        assert!(chains.1 > 0);
        // Where the chains end is what the cache has.
        let mut ends = 0;
        for ((id, entity), (_, last)) in &chains.0.0 {
            let entry = cache.entries().into_iter().find(|entry| entry.id() == id);
            assert_eq!(entry.as_ref().and_then(|entry| entry.snapshot(*entity)), last.as_ref());
            ends += usize::from(last.is_some() && *entity != Entity::Aggregate);
        }
        assert_eq!(cache.dump_all(None).len(), ends);
        assert_eq!(cache.slots(), cache.len(), "no ghosts");
        assert!(caching.iter().all(|caching| caching.refused() == 0));
    }
}

#[test]
fn readers_dump_while_four_threads_update_and_clear() {
    let bus = bus(1);
    let cache = by_id().build();
    let all = bus.topic("device:cached").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut versions = BTreeMap::new();
                while !done.load(Ordering::Relaxed) {
                    for entry in cache.entries() {
                        let last = versions.entry(entry.id().to_owned()).or_insert(0);
                        assert!(entry.version() >= *last, "an entry never goes back");
                        *last = entry.version();
                        assert!(entry.snapshots().next().is_some(), "an entry has a snapshot");
                        for (entity, message) in entry.snapshots() {
                            assert_eq!(message.payload::<Snap>().unwrap().id, entry.id());
                            assert_eq!(cache.entity(message.eid()), entity);
                        }
                        assert!(cache.last_version() >= entry.version());
                    }
                    assert!(cache.dump_all(None).len() <= 6);
                }
            });
        }
        churn(&bus, &cache, 4, stress(5_000), &all);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(cache.slots(), cache.len(), "no ghosts");
}

#[test]
fn publish_sync_returns_when_the_cache_has_it() {
    let stage = stage();
    thread::scope(|scope| {
        for thread in 0..3_u64 {
            let stage = &stage;
            scope.spawn(move || {
                let id = thread.to_string();
                for number in 0..stress(500) as u64 {
                    stage.caching.publish_sync(stage.kind.message(snap(&id, number))).unwrap();
                    assert_eq!(stage.cache.get(&stage.kind, &id).as_ref().map(n), Some(number));
                }
            });
        }
    });
}
