//! Conformance: the cache pattern.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

mod common;

use common::{PATIENCE, bus, lock, number};
use stasis_bus::cache::{AGGREGATE, Cache, CacheClear, CacheUpdate};
use stasis_bus::follow::Followed;
use stasis_bus::pattern::{CachePattern, CacheSingle};
use stasis_bus::{Bus, Delivery, FilterMode, MessageType, Subscription, Topic};
use std::sync::{Arc, Mutex};
use std::thread;

type Snap = (String, u64);

struct Stage {
    bus: Bus,
    kind: MessageType<Snap>,
    all: CachePattern,
}

fn stage() -> Stage {
    let bus = bus(1);
    let kind = MessageType::new(&bus, "endpoint_state").unwrap();
    let all =
        CachePattern::all(&bus, "endpoint:all", |message| Some(message.payload::<Snap>()?.0.as_str().into())).unwrap();
    Stage { bus, kind, all }
}

impl Stage {
    fn put(&self, single: &CacheSingle, id: &str, n: u64) {
        single.topic().publish(self.kind.message((id.to_owned(), n))).unwrap();
    }
}

/// Numbers that arrive on a topic: of snapshots as they are, and of updates plus 1000.
fn listen(topic: &Topic) -> (Subscription, Arc<Mutex<Vec<u64>>>) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&log);
    let subscription = topic
        .subscriber()
        .delivery(Delivery::Inline)
        .subscribe(move |received| {
            if received.is_final() {
            } else if let Some(snap) = received.payload::<Snap>() {
                lock(&into).push(snap.1);
            } else if let Some(update) = received.payload::<CacheUpdate>() {
                lock(&into).push(1000 + update.new_snapshot().map_or(0, |new| new.payload::<Snap>().unwrap().1));
            } else if let Some(&n) = received.payload::<u64>() {
                lock(&into).push(n);
            }
        })
        .unwrap();
    (subscription, log)
}

#[test]
fn singles_reach_the_all_topics_once_and_share_the_cache() {
    let stage = stage();
    let (one, two) = (stage.all.single("endpoint:1").unwrap(), stage.all.single("endpoint:2").unwrap());
    let (_all, all) = listen(stage.all.topic());
    let (_cached, cached) = listen(stage.all.topic_cached());
    let (_own, own) = listen(one.topic_cached());
    stage.put(&one, "a", 1);
    stage.put(&two, "b", 2);
    one.topic().publish(number(&stage.bus).message(7)).unwrap();
    assert_eq!((&*lock(&all), &*lock(&cached), &*lock(&own)), (&vec![1, 2, 7], &vec![1001, 1002, 7], &vec![1001, 7]));
    assert_eq!(stage.all.cache().len(), 2);
    assert!(one.cache().get(&stage.kind, "b").is_some(), "one cache");
    assert!(one.is_forwarded());
}

#[test]
fn what_is_published_on_the_all_topic_is_not_cached() {
    let stage = stage();
    let _one = stage.all.single("endpoint:1").unwrap();
    stage.all.topic().publish(stage.kind.message(("a".to_owned(), 1))).unwrap();
    assert!(stage.all.cache().is_empty());
}

#[test]
fn a_sink_caches_and_is_not_forwarded() {
    let stage = stage();
    let (_all, all) = listen(stage.all.topic());
    let (_cached, cached) = listen(stage.all.topic_cached());
    let one = stage.all.single("endpoint:1").unwrap();
    let sink = stage.all.sink("endpoint:tech").unwrap();
    let _gather = one.topic().forward_to(sink.topic()).unwrap();
    let (_own, own) = listen(sink.topic_cached());
    stage.put(&sink, "tech", 1);
    assert_eq!((lock(&all).len(), lock(&cached).len()), (0, 0));
    assert_eq!(*lock(&own), [1001]);
    assert!(stage.all.cache().get(&stage.kind, "tech").is_some());
    stage.put(&one, "a", 2);
    assert_eq!(*lock(&all), [2], "once, though the sink hears it too");
    assert!(!sink.is_forwarded());
}

#[test]
fn names_are_as_in_asterisk() {
    let stage = stage();
    let single = stage.all.single("endpoint:SIP/100").unwrap();
    let is = |topic: &Topic, before: &str, after: &str| {
        let number = topic.name().strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        assert!(number.is_some_and(|number| number.parse::<u64>().is_ok()), "{}", topic.name());
    };
    assert_eq!((stage.all.topic().name(), single.topic().name()), ("endpoint:all", "endpoint:SIP/100"));
    is(stage.all.topic_cached(), "cache_pattern:", "/endpoint:all");
    is(single.topic_cached(), "cache:", "/endpoint:SIP/100");
    assert!(stage.all.single("").is_ok(), "an empty name is a name");
}

#[test]
fn the_filter_is_that_of_the_caching_topic() {
    let stage = stage();
    let one = stage.all.single("endpoint:1").unwrap();
    let (_own, own) = listen(one.topic_cached());
    one.accept(&stage.kind);
    one.set_filter_mode(FilterMode::Selective);
    one.topic().publish(number(&stage.bus).message(7)).unwrap();
    stage.put(&one, "a", 1);
    one.publish_sync(CacheClear::message(stage.kind.message(("a".to_owned(), 0)))).unwrap();
    assert_eq!(*lock(&own), [1001, 1000]);
}

#[test]
fn ending_a_single_ends_it_and_leaves_its_entries() {
    let stage = stage();
    let (_all, all) = listen(stage.all.topic());
    let one = stage.all.single("endpoint:1").unwrap();
    let topic = one.topic().clone();
    stage.put(&one, "a", 1);
    one.unsubscribe_and_join(PATIENCE).unwrap();
    topic.publish(stage.kind.message(("a".to_owned(), 2))).unwrap();
    assert_eq!(*lock(&all), [1]);
    assert_eq!(stage.all.cache().get(&stage.kind, "a").unwrap().payload::<Snap>().unwrap().1, 1);
    let two = stage.all.single("endpoint:2").unwrap();
    two.unsubscribe().wait().unwrap();
}

#[test]
fn aggregates_come_with_a_cache_of_ones_own() {
    let bus = bus(1);
    let kind = MessageType::<Snap>::new(&bus, "mwi").unwrap();
    let whole = kind.clone();
    let cache = Cache::builder()
        .id(|message| Some(message.payload::<Snap>()?.0.clone().into()))
        .aggregate(move |entry, new| {
            let sum = new.map_or(0, |new| new.payload::<Snap>().unwrap().1) + 100;
            Some(whole.message_from((entry.id().to_owned(), sum), AGGREGATE))
        })
        .aggregate_publish(|topic, aggregate| topic.publish(aggregate.clone()).unwrap())
        .build();
    let all = CachePattern::with_cache(&bus, "mwi:all", &cache).unwrap();
    let (_all, log) = listen(all.topic());
    let (_cached, cached) = listen(all.topic_cached());
    let one = all.single("mwi:1").unwrap();
    one.topic().publish(kind.message(("a".to_owned(), 1))).unwrap();
    let mut heard = lock(&log).clone();
    heard.sort_unstable();
    assert_eq!(heard, [1, 101]);
    assert_eq!(*lock(&cached), [1001, 1101, 101], "the update, that of the aggregate, the aggregate itself");
}

/// Every update reaches the top, though singles end while others publish.
#[test]
fn the_last_update_reaches_the_top() {
    // So few that an inline queue (4096) holds all updates, whoever is kept from running.
    const ROUNDS: usize = 100;
    let stage = stage();
    let versions = Arc::new(Mutex::new((0, Vec::new())));
    let into = Arc::clone(&versions);
    let following = stage
        .all
        .follow()
        .delivery(Delivery::Inline)
        .subscribe(move |_, followed| {
            if let Followed::Update(update) = followed {
                let update = update.payload::<CacheUpdate>().unwrap();
                let mut seen = lock(&into);
                seen.0 += 1;
                seen.1.push(update.version());
            }
        })
        .unwrap();
    thread::scope(|scope| {
        for thread in 0..3 {
            let stage = &stage;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let single = stage.all.single(format!("endpoint:{thread}")).unwrap();
                    for n in 0..5 {
                        stage.put(&single, if n == 0 { "shared" } else { "own" }, (round * 5 + n) as u64);
                    }
                    drop(single);
                }
            });
        }
    });
    following.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!(following.subscription().stats().panics, 0);
    let mut seen = lock(&versions).1.clone();
    let count = seen.len();
    assert_eq!(count, 3 * 5 * ROUNDS, "every change was told");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn g10_ten_thousand_singles_leave_nothing() {
    let stage = stage();
    let count = if cfg!(miri) { 100 } else { 10_000 };
    let before = stage.bus.topics().len();
    for n in 0..count {
        let id = n.to_string();
        let single = stage.all.single(format!("endpoint:{n}")).unwrap();
        stage.put(&single, &id, n);
        let known = single.cache().get(&stage.kind, &id).unwrap();
        single.topic().publish(CacheClear::message(known)).unwrap();
    }
    assert_eq!(stage.bus.topics().len(), before, "no topic is left");
    assert_eq!((stage.all.cache().len(), stage.all.cache().slots()), (0, 0), "no entry is left");
    let stats = stage.bus.stats();
    assert_eq!((stats.subscriptions, stats.ended), (0, count));
    assert_eq!((stage.all.topic().subscribers(), stage.all.topic_cached().subscribers()), (0, 0));
}

#[test]
fn after_shutdown_nothing_is_made() {
    let stage = stage();
    stage.bus.shutdown(PATIENCE).unwrap();
    assert!(stage.all.single("endpoint:1").is_err() && stage.all.sink("endpoint:2").is_err());
    assert!(CachePattern::with_cache(&stage.bus, "x", stage.all.cache()).is_err());
}
