//! Conformance: snapshot-plus-updates.
#![cfg(feature = "ext")]
#![allow(missing_docs)]

mod common;

use common::{DELIVERIES, Gate, OpenAtEnd, PATIENCE, Random, bus, eventually, lock, must_end, number, stress};
use stasis_bus::cache::{AGGREGATE, Cache, CacheClear, CacheSource, CacheUpdate, CachingTopic, Entity};
use stasis_bus::follow::{Current, CurrentEntry, Follow, FollowError, Followed, Following, Losses, Source, Step};
use stasis_bus::{AnyMessageType, Bus, Delivery, Eid, JoinError, Message, MessageType, PanicPolicy, Pinning, Topic};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

type Snap = (String, u64);

fn by_id() -> stasis_bus::cache::CacheBuilder {
    Cache::builder().id(|message| Some(message.payload::<Snap>()?.0.as_str().into()))
}

struct Stage {
    bus: Bus,
    topic: Topic,
    kind: MessageType<Snap>,
    cache: Cache,
    caching: CachingTopic,
}

fn stage() -> Stage {
    let bus = bus(1);
    let topic = bus.topic("device:all").unwrap();
    let kind = MessageType::new(&bus, "device_state").unwrap();
    let cache = by_id().build();
    let caching = CachingTopic::new(&topic, &cache).unwrap();
    Stage { bus, topic, kind, cache, caching }
}

impl Stage {
    fn put(&self, id: &str, n: u64) {
        self.topic.publish(self.kind.message((id.to_owned(), n))).unwrap();
    }

    fn clear(&self, id: &str) {
        self.topic.publish(CacheClear::message(self.kind.message((id.to_owned(), 0)))).unwrap();
    }
}

/// What a follower was given, in short.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Given {
    Current(String, u64),
    Ready,
    Update(String, Option<u64>, Option<u64>),
    Other,
    Restart,
    Final,
}

fn value(message: &Message) -> u64 {
    message.payload::<Snap>().unwrap().1
}

fn given(followed: Followed<'_>) -> Given {
    match followed {
        Followed::Current(message) => {
            let update = message.payload::<CacheUpdate>().unwrap();
            assert!(update.old_snapshot().is_none() && update.begins());
            Given::Current(update.id().to_owned(), value(update.new_snapshot().unwrap()))
        }
        Followed::Ready => Given::Ready,
        Followed::Update(message) => match message.payload::<CacheUpdate>() {
            Some(update) => Given::Update(
                update.id().to_owned(),
                update.old_snapshot().map(value),
                update.new_snapshot().map(value),
            ),
            None => Given::Other,
        },
        Followed::Restart => Given::Restart,
        Followed::Final => Given::Final,
        _ => unreachable!(),
    }
}

type Log = Arc<Mutex<Vec<Given>>>;

fn follow<S: Source>(follow: Follow<S>) -> (Following, Log) {
    let log = Log::default();
    let into = Arc::clone(&log);
    (follow.subscribe(move |_, followed| lock(&into).push(given(followed))).unwrap(), log)
}

fn all(log: &Log) -> Vec<Given> {
    lock(log).clone()
}

fn current(id: &str, n: u64) -> Given {
    Given::Current(id.to_owned(), n)
}

fn update(id: &str, old: Option<u64>, new: Option<u64>) -> Given {
    Given::Update(id.to_owned(), old, new)
}

#[test]
fn entries_come_first_then_ready_then_updates_then_the_end() {
    for delivery in DELIVERIES {
        let stage = stage();
        stage.put("a", 1);
        stage.put("a", 2);
        stage.put("b", 3);
        stage.put("gone", 4);
        stage.clear("gone");
        let (following, log) = follow(stage.caching.follow().delivery(delivery).name("feed"));
        assert_eq!(following.subscription().name(), Some("feed"));
        stage.put("a", 5);
        stage.clear("b");
        stage.put("gone", 6);
        following.unsubscribe_and_join(PATIENCE).unwrap();
        stage.put("a", 7);
        let mut log = all(&log);
        log[..2].sort();
        assert_eq!(
            log,
            [
                current("a", 2),
                current("b", 3),
                Given::Ready,
                update("a", Some(2), Some(5)),
                update("b", Some(3), None),
                update("gone", None, Some(6)),
                Given::Final
            ],
            "{delivery:?}"
        );
    }
}

#[test]
fn an_empty_cache_is_ready_at_once() {
    let stage = stage();
    let (following, log) = follow(stage.caching.follow().delivery(Delivery::Inline));
    assert_eq!(all(&log), [Given::Ready]);
    drop(following);
    assert_eq!(all(&log), [Given::Ready, Given::Final]);
}

#[test]
fn filters_hold_for_entries_and_updates() {
    let stage = stage();
    let other = MessageType::<Snap>::new(&stage.bus, "presence_state").unwrap();
    let put_other = |n| stage.topic.publish(other.message(("a".to_owned(), n))).unwrap();
    stage.put("a", 1);
    put_other(2);
    let of_other = stage.caching.follow().delivery(Delivery::Inline).snapshots_of(&other);
    let (_first, first) = follow(of_other);
    let even = stage.caching.follow().delivery(Delivery::Inline).snapshots_of(&stage.kind).filter(|message| {
        message.payload::<CacheUpdate>().unwrap().new_snapshot().is_some_and(|new| value(new).is_multiple_of(2))
    });
    let (_second, second) = follow(even);
    put_other(3);
    stage.put("a", 4);
    stage.put("a", 5);
    assert_eq!(all(&first), [current("a", 2), Given::Ready, update("a", Some(2), Some(3))]);
    assert_eq!(all(&second), [Given::Ready, update("a", Some(1), Some(4))]);
}

#[test]
fn everything_else_comes_only_if_asked_for() {
    let stage = stage();
    let kind = number(&stage.bus);
    let (_updates, updates) = follow(stage.caching.follow().delivery(Delivery::Inline));
    let (_everything, everything) = follow(stage.caching.follow().delivery(Delivery::Inline).everything());
    let others = || all(&everything).iter().filter(|given| **given == Given::Other).count();
    let before = others();
    stage.topic.publish(kind.message(1)).unwrap();
    assert_eq!((all(&updates), others()), (vec![Given::Ready], before + 1));
}

#[test]
fn entities_and_aggregates_are_entries_too() {
    let bus = bus(1);
    let topic = bus.topic("mwi").unwrap();
    let kind = MessageType::<Snap>::new(&bus, "mwi").unwrap();
    let whole = kind.clone();
    let cache = by_id()
        .aggregate(move |entry, _| {
            let sum = entry.snapshots().map(|(_, message)| value(message)).sum();
            Some(whole.message_from((entry.id().to_owned(), sum), AGGREGATE))
        })
        .build();
    let caching = CachingTopic::new(&topic, &cache).unwrap();
    let far = Eid([9; 6]);
    topic.publish(kind.message(("a".to_owned(), 1))).unwrap();
    topic.publish(kind.message_from(("a".to_owned(), 2), far)).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let _following = caching
        .follow()
        .delivery(Delivery::Inline)
        .subscribe(move |_, followed| {
            if let Some(update) = followed.message().and_then(|message| message.payload::<CacheUpdate>()) {
                lock(&into).push((update.entity(), update.new_snapshot().map(value)));
            }
        })
        .unwrap();
    topic.publish(kind.message(("a".to_owned(), 5))).unwrap();
    let (here, there, both) = (Entity::Local, Entity::Remote(far), Entity::Aggregate);
    assert_eq!(*lock(&seen), [(here, Some(1)), (there, Some(2)), (both, Some(3)), (here, Some(5)), (both, Some(7))]);
}

/// A source that is made to say things at chosen moments: what happens between the forward and the end of
/// reading.
struct Scripted<F>(F);

impl<F: Fn() -> Current<&'static str> + Send + Sync + 'static> Source for Scripted<F> {
    type Key = &'static str;
    fn update_type(&self) -> Option<&AnyMessageType> {
        None
    }
    fn current(&self) -> Current<&'static str> {
        (self.0)()
    }
    fn step(&self, message: &Message) -> Option<Step<&'static str>> {
        message.payload::<Step<&'static str>>().cloned()
    }
}

/// Follows a script: `early` comes before the entries are read, `late` after; the versions given as updates.
fn script(
    early: &[Step<&'static str>],
    entries: &[(&'static str, u64)],
    upto: u64,
    late: &[Step<&'static str>],
) -> Vec<(&'static str, u64)> {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = MessageType::<Step<&'static str>>::new(&bus, "step").unwrap();
    let publish = {
        let (topic, kind) = (topic.clone(), kind.clone());
        move |steps: &[Step<&'static str>]| {
            steps.iter().for_each(|step| topic.publish(kind.message(step.clone())).unwrap());
        }
    };
    let source = {
        let (publish, early, entries) = (publish.clone(), early.to_vec(), entries.to_vec());
        Scripted(move || {
            publish(&early);
            let entries = entries.iter().map(|&(key, version)| CurrentEntry { key, version, messages: Vec::new() });
            Current { entries: entries.collect(), upto }
        })
    };
    let log = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&log);
    let following = Follow::new(&topic, source)
        .subscribe(move |_, followed| {
            if let Followed::Update(message) = followed {
                let step = message.payload::<Step<&'static str>>().unwrap();
                lock(&into).push((step.key, step.version));
            }
        })
        .unwrap();
    publish(late);
    following.unsubscribe().wait().unwrap();
    lock(&log).clone()
}

fn step(key: &'static str, version: u64, begins: bool) -> Step<&'static str> {
    Step { key, version, begins }
}

#[test]
fn what_the_entries_hold_is_not_repeated() {
    let early = [step("a", 3, false), step("a", 4, false), step("a", 6, false)];
    assert_eq!(script(&early, &[("a", 4)], 10, &[step("a", 7, false)]), [("a", 6), ("a", 7)]);
    // Published late by a thread that was slow.
    assert_eq!(script(&[], &[("a", 4)], 10, &[step("a", 4, false), step("a", 5, false)]), [("a", 5)]);
}

#[test]
fn removals_before_and_after_reading_are_told_apart() {
    // Removed before the entries were read: nothing of the old chain comes.
    let end = [step("a", 3, false), step("a", 4, false)];
    assert_eq!(script(&end, &[], 10, &[step("a", 11, true)]), [("a", 11)]);
    assert_eq!(script(&[], &[], 10, &end), []);
    // Read, then removed and made again, before the version was asked for.
    let again = [step("a", 5, false), step("a", 6, true), step("a", 7, false)];
    assert_eq!(script(&again, &[("a", 4)], 10, &[]), [("a", 5), ("a", 6), ("a", 7)]);
    // Removed and made again before it was read.
    assert_eq!(script(&again, &[("a", 6)], 10, &[]), [("a", 7)]);
    // Made after its place was read, before the version was asked for.
    assert_eq!(script(&[], &[], 10, &[step("a", 9, true), step("a", 10, false)]), [("a", 9), ("a", 10)]);
}

#[test]
fn two_updates_of_one_version_stay_together() {
    let pair = [step("a", 5, false), step("a", 5, false)];
    assert_eq!(script(&pair, &[("a", 4)], 10, &[]), [("a", 5), ("a", 5)]);
    assert_eq!(script(&pair, &[("a", 5)], 10, &[]), []);
    let begun = [step("a", 5, true), step("a", 5, true)];
    assert_eq!(script(&begun, &[], 10, &[]), [("a", 5), ("a", 5)]);
}

#[test]
fn without_a_bound_everything_is_remembered() {
    let late = [step("a", 5, false), step("b", 6, true), step("b", 7, false), step("c", 8, false)];
    assert_eq!(script(&[], &[("a", 4)], u64::MAX, &late), [("a", 5), ("b", 6), ("b", 7)]);
}

/// Rebuilds the cache from what it is given, and checks every step.
#[derive(Default)]
struct Mirror {
    ready: bool,
    ended: bool,
    restarts: usize,
    has: HashMap<(String, Entity), Message>,
    versions: HashMap<(String, Entity), u64>,
}

impl Mirror {
    fn take(&mut self, followed: Followed<'_>) {
        assert!(!self.ended, "something came after the end");
        match followed {
            Followed::Current(message) => {
                assert!(!self.ready);
                let update = message.payload::<CacheUpdate>().unwrap();
                let key = (update.id().to_owned(), update.entity());
                self.versions.insert(key.clone(), update.version());
                assert!(self.has.insert(key, update.new_snapshot().unwrap().clone()).is_none(), "an entry came twice");
            }
            Followed::Ready => assert!(!std::mem::replace(&mut self.ready, true)),
            Followed::Restart => {
                assert!(std::mem::take(&mut self.ready), "begins again in the middle of the entries");
                self.restarts += 1;
                self.has.clear();
                self.versions.clear();
            }
            Followed::Update(message) => {
                assert!(self.ready);
                let update = message.payload::<CacheUpdate>().unwrap();
                let key = (update.id().to_owned(), update.entity());
                let last = self.versions.insert(key.clone(), update.version()).unwrap_or(0);
                assert!(update.version() > last, "{key:?}: {} after {last}", update.version());
                assert_eq!(self.has.get(&key), update.old_snapshot(), "{key:?}: gap or repeat at {}", update.version());
                match update.new_snapshot() {
                    Some(new) => self.has.insert(key, new.clone()),
                    None => self.has.remove(&key),
                };
            }
            _ => self.ended = true,
        }
    }
}

/// Changes a thread makes in one round: so few that an inline queue (4096) holds those of all three, with
/// their aggregates, whoever is kept from running.
const BURST: usize = 600;

/// Three threads change four ids over caching topics of their own, while followers of all deliveries begin.
fn burst(round: u64, aggregate: bool) {
    let bus = bus(2);
    let builder = by_id();
    let cache = if aggregate { builder.aggregate(|_, new| new.cloned()).build() } else { builder.build() };
    let cached = bus.topic("device:cached").unwrap();
    let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
    let topics: Vec<Topic> = (0..3).map(|number| bus.topic(format!("device:{number}")).unwrap()).collect();
    let caching: Vec<_> =
        topics.iter().map(|topic| CachingTopic::forwarded_to(topic, &cache, &cached).unwrap()).collect();
    let mut mirrors = Vec::new();
    thread::scope(|scope| {
        for (number, topic) in (0..).zip(&topics) {
            let kind = &kind;
            scope.spawn(move || {
                let mut random = Random::new(round * 3 + number + 1);
                for _ in 0..BURST {
                    let payload = (random.below(4).to_string(), random.below(1000) as u64);
                    let message = match random.below(3) {
                        0 => kind.message_from(payload, Eid([7; 6])),
                        _ => kind.message(payload),
                    };
                    let message = if random.below(3) == 0 { CacheClear::message(message) } else { message };
                    topic.publish(message).unwrap();
                }
            });
        }
        for delivery in DELIVERIES {
            let mirror = Arc::new(Mutex::new(Mirror::default()));
            let into = Arc::clone(&mirror);
            let following = Follow::new(&cached, CacheSource::new(&cache))
                .delivery(delivery)
                .subscribe(move |_, followed| lock(&into).take(followed))
                .unwrap();
            mirrors.push((delivery, mirror, following));
        }
    });
    caching.iter().for_each(|caching| caching.unsubscribe_and_join(PATIENCE).unwrap());
    assert!(caching.iter().all(|caching| caching.refused() == 0), "no update was refused");
    let mut expected = HashMap::new();
    for entry in cache.entries() {
        let aggregate = entry.aggregate().map(|message| (Entity::Aggregate, message));
        for (entity, message) in entry.snapshots().chain(aggregate) {
            expected.insert((entry.id().to_owned(), entity), message.clone());
        }
    }
    for (delivery, mirror, following) in mirrors {
        following.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(following.subscription().stats().panics, 0, "{delivery:?}");
        let mirror = lock(&mirror);
        assert!(mirror.ready && mirror.ended);
        assert_eq!(mirror.has, expected, "{delivery:?}");
    }
}

#[test]
fn a_follower_ends_with_what_the_cache_has() {
    for round in 0..stress(20) as u64 {
        burst(round, round % 2 == 0);
    }
}

/// What a follower has been told, and how often an update did not join on.
#[derive(Default)]
struct Joined {
    has: HashMap<String, u64>,
    gaps: Vec<String>,
}

impl Joined {
    fn take(&mut self, followed: Followed<'_>) {
        if matches!(followed, Followed::Restart) {
            self.has.clear();
        }
        let Some(update) = followed.message().and_then(|message| message.payload::<CacheUpdate>()) else { return };
        let (old, new) = (update.old_snapshot().map(value), update.new_snapshot().map(value));
        let had = self.has.get(update.id()).copied();
        if matches!(followed, Followed::Update(_)) && had != old {
            self.gaps.push(format!("{}: {old:?} -> {new:?}, but {had:?} was told", update.id()));
        }
        self.has.extend(new.map(|new| (update.id().to_owned(), new)));
    }
}

/// Its queue is full before the forward has reached all topics; entries read then would not have what comes over the others.
#[test]
fn a_follower_with_a_limit_misses_nothing_while_its_way_is_made() {
    const TOPICS: usize = 500;
    let bus = bus(1);
    let kind = MessageType::<Snap>::new(&bus, "n").unwrap();
    let cache = by_id().build();
    let all = bus.topic("all").unwrap();
    let topics: Vec<_> = (0..TOPICS).map(|n| bus.topic(format!("t{n}")).unwrap()).collect();
    let caching: Vec<_> = topics.iter().map(|t| CachingTopic::forwarded_to(t, &cache, &all).unwrap()).collect();
    for round in 0..stress(60) {
        let joined = Arc::new(Mutex::new(Joined::default()));
        let stop = AtomicBool::new(false);
        let following = thread::scope(|scope| {
            let flood = |id: &'static str, topic: usize, at_once: u64| {
                let (topic, kind, stop) = (&topics[topic], &kind, &stop);
                scope.spawn(move || {
                    for n in 0.. {
                        topic.publish(kind.message((id.to_owned(), n))).unwrap();
                        if n % at_once == 0 {
                            thread::sleep(Duration::from_micros(20));
                        }
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                })
            };
            let publishers = [flood("first", 0, 20), flood("last", TOPICS - 1, 1)];
            thread::sleep(Duration::from_millis(1));
            let into = Arc::clone(&joined);
            let follow = Follow::new(&all, CacheSource::new(&cache)).limit(2);
            let following = follow.subscribe(move |_, followed| lock(&into).take(followed)).unwrap();
            stop.store(true, Ordering::Relaxed);
            publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
            following
        });
        following.unsubscribe_and_join(PATIENCE).unwrap();
        let joined = lock(&joined);
        assert!(joined.gaps.is_empty(), "round {round}: {:?}", joined.gaps);
        for id in ["first", "last"] {
            assert_eq!(joined.has.get(id).copied(), cache.get(&kind, id).as_ref().map(value), "round {round}: {id}");
        }
    }
    drop(caching);
}

#[test]
fn unsubscribing_inside_lets_the_rest_come() {
    let stage = stage();
    (0..3).for_each(|n| stage.put(&n.to_string(), n));
    let log = Log::default();
    let into = Arc::clone(&log);
    let following = stage
        .caching
        .follow()
        .subscribe(move |received, followed| {
            received.unsubscribe();
            lock(&into).push(given(followed));
        })
        .unwrap();
    following.subscription().join_timeout(PATIENCE).unwrap();
    let log = all(&log);
    assert_eq!((log.len(), &log[3..]), (5, &[Given::Ready, Given::Final][..]));
}

#[test]
fn g07_joining_inside_is_an_error() {
    must_end(|| {
        let stage = stage();
        let slot = Arc::new(Mutex::new(None::<Following>));
        let (into, result) = (Arc::clone(&slot), Arc::new(Mutex::new(None)));
        let said = Arc::clone(&result);
        let following = stage
            .caching
            .follow()
            .delivery(Delivery::Inline)
            .subscribe(move |_, followed| {
                if let (Followed::Update(_), Some(following)) = (followed, lock(&into).as_ref()) {
                    *lock(&said) = Some(following.unsubscribe_and_join(PATIENCE));
                }
            })
            .unwrap();
        *lock(&slot) = Some(following);
        stage.put("a", 1);
        assert_eq!(*lock(&result), Some(Err(JoinError::OwnHandler)));
        let following = lock(&slot).take();
        drop(following);
    });
}

#[test]
fn g12_a_panic_costs_that_call_only() {
    let stage = stage();
    (0..4).for_each(|n| stage.put(&n.to_string(), n));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let following = stage
        .caching
        .follow()
        .delivery(Delivery::Inline)
        .subscribe(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("on purpose");
        })
        .unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 5, "four entries and that they are all");
    stage.put("a", 1);
    assert_eq!(calls.load(Ordering::Relaxed), 6);
    assert_eq!(following.subscription().stats().panics, 2, "one for the start, one for the update");
    let ended = stage.caching.follow().on_panic(PanicPolicy::End).subscribe(|_, _| panic!("on purpose")).unwrap();
    ended.subscription().join_timeout(PATIENCE).unwrap();
}

#[test]
fn a_closed_bus_is_an_error_and_calls_nobody() {
    let stage = stage();
    stage.put("a", 1);
    stage.bus.shutdown(PATIENCE).unwrap();
    let error = stage.caching.follow().subscribe(|_, _| panic!("never called")).unwrap_err();
    assert!(matches!(error, FollowError::Closed), "{error}");
}

#[test]
fn a_full_queue_is_an_error_and_leaves_nothing_behind() {
    must_end(|| {
        let bus = Bus::builder().lanes(1).ring_capacity(1024).memory_budget(16 * 1024).build().unwrap();
        let topic = bus.topic("t").unwrap();
        let kind = number(&bus);
        let (gate, entered) = (Gate::new(), Gate::new());
        let _open = OpenAtEnd(gate.clone());
        let (wait, tell) = (gate.clone(), entered.clone());
        let blocker = topic
            .subscriber()
            .accept(&kind)
            .subscribe(move |received| {
                if !received.is_final() {
                    tell.open();
                    wait.pass();
                }
            })
            .unwrap();
        topic.publish(kind.message(0)).unwrap();
        entered.pass();
        while topic.publish(kind.message(1)).is_ok() {}
        let cached = bus.topic("cached").unwrap();
        let cache = by_id().build();
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let error = Follow::new(&cached, CacheSource::new(&cache))
            .subscribe(move |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap_err();
        assert!(matches!(error, FollowError::Full), "{error}");
        assert_eq!(cached.subscribers(), 0);
        gate.open();
        blocker.unsubscribe().wait().unwrap();
        eventually("the handler goes", || Arc::strong_count(&calls) == 1);
        assert_eq!(calls.load(Ordering::Relaxed), 0, "not even a final message");
        assert!(!bus.topics().iter().any(|topic| topic.name().starts_with("follow:")));
    });
}

#[test]
fn g10_followers_leave_nothing() {
    let stage = stage();
    (0..10).for_each(|n| stage.put(&n.to_string(), n));
    for _ in 0..stress(200) {
        let (following, _log) = follow(stage.caching.follow().delivery(Delivery::Inline));
        stage.put("1", 1);
        drop(following);
    }
    assert_eq!(stage.caching.topic().subscribers(), 0);
    assert!(!stage.bus.topics().iter().any(|topic| topic.name().starts_with("follow:")));
    assert_eq!(stage.cache.len(), 10);
}

#[test]
fn a_topic_of_a_shared_cache_gives_what_it_changed_last() {
    let bus = bus(1);
    let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
    let cache = by_id().build();
    let topics = ["one", "two"].map(|name| bus.topic(name).unwrap());
    let [one, _two] = topics.each_ref().map(|topic| CachingTopic::new(topic, &cache).unwrap());
    let put = |topic: usize, id: &str, n| topics[topic].publish(kind.message((id.to_owned(), n))).unwrap();
    put(0, "mine", 1);
    put(1, "theirs", 2);
    put(0, "taken", 3);
    put(1, "taken", 4);
    let (_following, log) = follow(one.follow().delivery(Delivery::Inline));
    put(0, "theirs", 5);
    put(1, "mine", 6);
    assert_eq!(all(&log), [current("mine", 1), Given::Ready, update("theirs", Some(2), Some(5))]);
}

/// What a cache has, as a mirror should.
fn held(cache: &Cache) -> HashMap<(String, Entity), Message> {
    let snapshots = |entry: &stasis_bus::cache::CacheEntry| {
        entry
            .snapshots()
            .map(|(entity, message)| ((entry.id().to_owned(), entity), message.clone()))
            .collect::<Vec<_>>()
    };
    cache.entries().iter().flat_map(|entry| snapshots(entry)).collect()
}

/// A bus with room for a few thousand messages.
fn poor_bus(lanes: usize) -> Bus {
    Bus::builder().lanes(lanes).pinning(Pinning::Off).ring_capacity(1024).memory_budget(64 << 10).build().unwrap()
}

#[test]
fn a_follower_of_a_cache_whose_updates_were_refused_begins_again() {
    for delivery in [Delivery::default(), Delivery::Dedicated] {
        must_end(move || {
            let bus = poor_bus(1);
            let topic = bus.topic("device:all").unwrap();
            let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
            let cache = by_id().build();
            let caching = CachingTopic::new(&topic, &cache).unwrap();
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let mirror = Arc::new(Mutex::new(Mirror::default()));
            let (into, pass) = (Arc::clone(&mirror), gate.clone());
            let following = caching
                .follow()
                .delivery(delivery)
                .subscribe(move |_, followed| {
                    pass.pass();
                    lock(&into).take(followed);
                })
                .unwrap();
            let put = |n: u64| topic.publish(kind.message((format!("SIP/{}", n % 7), n))).unwrap();
            let mut n = 0;
            while caching.refused() == 0 {
                put(n);
                n += 1;
            }
            // Told of none of these, an entry that goes among them; and nothing follows.
            (n..n + 5_000).for_each(put);
            topic.publish(CacheClear::message(kind.message(("SIP/3".into(), 0)))).unwrap();
            assert!(caching.refused() > 5_000);
            gate.open();
            eventually("the follower has all", || lock(&mirror).has == held(&cache));
            assert!(lock(&mirror).restarts > 0);
            put(0);
            following.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(following.subscription().stats().panics, 0, "{delivery:?}");
            let mirror = lock(&mirror);
            assert!(mirror.ended && mirror.has == held(&cache));
        });
    }
}

#[test]
fn followers_end_with_what_the_cache_has_though_updates_are_refused_all_the_time() {
    must_end(|| {
        let bus = poor_bus(2);
        let cached = bus.topic("device:cached").unwrap();
        let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
        let cache = by_id().build();
        let topics: Vec<Topic> = (0..2).map(|number| bus.topic(format!("device:{number}")).unwrap()).collect();
        let caching: Vec<_> =
            topics.iter().map(|topic| CachingTopic::forwarded_to(topic, &cache, &cached).unwrap()).collect();
        let followers: Vec<_> = [Delivery::default(), Delivery::Dedicated]
            .into_iter()
            .map(|delivery| {
                let mirror = Arc::new(Mutex::new(Mirror::default()));
                let (into, mut calls) = (Arc::clone(&mirror), 0_u64);
                let following = Follow::new(&cached, CacheSource::new(&cache))
                    .delivery(delivery)
                    .subscribe(move |_, followed| {
                        calls += 1;
                        if calls.is_multiple_of(64) {
                            thread::sleep(std::time::Duration::from_millis(1));
                        }
                        lock(&into).take(followed);
                    })
                    .unwrap();
                (mirror, following)
            })
            .collect();
        thread::scope(|scope| {
            for (number, topic) in (0..).zip(&topics) {
                let kind = &kind;
                scope.spawn(move || {
                    let mut random = Random::new(number + 1);
                    for _ in 0..stress(20_000) {
                        let payload = (random.below(4).to_string(), random.below(1000) as u64);
                        let message = kind.message(payload);
                        let message = if random.below(4) == 0 { CacheClear::message(message) } else { message };
                        // Refused when the other thread is kept from running inside the handler.
                        let _ = topic.publish(message);
                    }
                });
            }
        });
        caching.iter().for_each(|caching| caching.unsubscribe_and_join(PATIENCE).unwrap());
        for (mirror, following) in followers {
            following.unsubscribe_and_join(PATIENCE).unwrap();
            assert_eq!(following.subscription().stats().panics, 0);
            let mirror = lock(&mirror);
            assert!(mirror.ended && mirror.has == held(&cache), "{} restarts", mirror.restarts);
        }
    });
}

/// Pain 17: a client behind a bad line is dropped, or its queue grows. Here it falls behind, and begins again.
#[test]
fn a_follower_with_a_limit_falls_behind_and_begins_again() {
    for (limit, delivery) in [(1, Delivery::default()), (2, Delivery::Dedicated), (100, Delivery::default())] {
        must_end(move || {
            let Stage { bus, topic, kind, cache, caching } = stage();
            let gate = Gate::new();
            let _open = OpenAtEnd(gate.clone());
            let mirror = Arc::new(Mutex::new(Mirror::default()));
            let (into, pass) = (Arc::clone(&mirror), gate.clone());
            let following = caching
                .follow()
                .limit(limit)
                .delivery(delivery)
                .subscribe(move |_, followed| {
                    if matches!(followed, Followed::Update(_)) {
                        pass.pass();
                    }
                    lock(&into).take(followed);
                })
                .unwrap();
            eventually("it has begun", || lock(&mirror).ready);
            for n in 0..10_000 {
                topic.publish(kind.message((format!("SIP/{}", n % 7), n))).unwrap();
            }
            topic.publish(CacheClear::message(kind.message(("SIP/3".into(), 0)))).unwrap();
            eventually("all updates have come", || cache.entries().len() == 6);
            let stats = following.subscription().stats();
            assert!(stats.waiting <= limit as u64, "{stats:?}");
            assert_eq!(stats.accepted, stats.delivered + stats.dropped.total() + stats.waiting, "{stats:?}");
            assert_eq!(caching.refused(), 0, "a slow follower is nobody else's trouble");
            gate.open();
            eventually("it has what the cache has", || lock(&mirror).has == held(&cache));
            assert!(lock(&mirror).restarts > 0);
            following.unsubscribe_and_join(PATIENCE).unwrap();
            assert!(lock(&mirror).ended);
            drop(bus);
        });
    }
}

#[test]
fn followers_with_a_limit_end_with_what_the_cache_has() {
    must_end(|| {
        let bus = bus(2);
        let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
        let cached = bus.topic("device:cached").unwrap();
        let cache = by_id().build();
        let topics: Vec<Topic> = (0..2).map(|number| bus.topic(format!("device:{number}")).unwrap()).collect();
        let caching: Vec<_> =
            topics.iter().map(|topic| CachingTopic::forwarded_to(topic, &cache, &cached).unwrap()).collect();
        let follow = |limit: usize, delivery| {
            let mirror = Arc::new(Mutex::new(Mirror::default()));
            let (into, mut calls) = (Arc::clone(&mirror), 0_u64);
            let following = Follow::new(&cached, CacheSource::new(&cache))
                .limit(limit)
                .delivery(delivery)
                .subscribe(move |_, followed| {
                    calls += 1;
                    if calls.is_multiple_of(16) {
                        thread::sleep(std::time::Duration::from_micros(300));
                    }
                    lock(&into).take(followed);
                })
                .unwrap();
            (mirror, following)
        };
        let publishing = AtomicUsize::new(2);
        let mut followers = Vec::new();
        thread::scope(|scope| {
            for (number, topic) in (0..).zip(&topics) {
                let (kind, publishing) = (&kind, &publishing);
                scope.spawn(move || {
                    let mut random = Random::new(number + 1);
                    for _ in 0..stress(20_000) {
                        // Ids of its own: what a cache says of one id has one order.
                        let id = format!("{number}/{}", random.below(4));
                        let message = kind.message((id, random.below(1000) as u64));
                        let message = if random.below(4) == 0 { CacheClear::message(message) } else { message };
                        topic.publish(message).unwrap();
                    }
                    publishing.fetch_sub(1, Ordering::SeqCst);
                });
            }
            // Some begin while all is in motion.
            let mut limits = [1, 2, 3, 16, 100].into_iter().cycle();
            while publishing.load(Ordering::SeqCst) > 0 || followers.len() < 5 {
                if followers.len() < 10 {
                    let delivery = if followers.len() % 2 == 0 { Delivery::default() } else { Delivery::Dedicated };
                    followers.push(follow(limits.next().unwrap(), delivery));
                }
                thread::yield_now();
            }
        });
        caching.iter().for_each(|caching| caching.unsubscribe_and_join(PATIENCE).unwrap());
        for (mirror, following) in followers {
            following.unsubscribe_and_join(PATIENCE).unwrap();
            let stats = following.subscription().stats();
            assert_eq!(stats.panics, 0);
            assert_eq!(stats.accepted, stats.delivered + stats.dropped.total(), "{stats:?}");
            let mirror = lock(&mirror);
            assert!(mirror.ended && mirror.has == held(&cache), "{} restarts", mirror.restarts);
        }
    });
}

#[test]
fn changes_that_wait_for_an_announcer_are_bounded_and_followers_see_the_gap() {
    must_end(|| {
        let bus = bus(1);
        let cached = bus.topic("device:cached").unwrap();
        let kind = MessageType::<Snap>::new(&bus, "device_state").unwrap();
        let cache = by_id().build();
        let (one, two) = (bus.topic("device:1").unwrap(), bus.topic("device:2").unwrap());
        let first = CachingTopic::forwarded_to(&one, &cache, &cached).unwrap();
        let second = CachingTopic::forwarded_to(&two, &cache, &cached).unwrap();
        let mirror = Arc::new(Mutex::new(Mirror::default()));
        let into = Arc::clone(&mirror);
        let following = Follow::new(&cached, CacheSource::new(&cache))
            .subscribe(move |_, followed| lock(&into).take(followed))
            .unwrap();
        let (gate, entered) = (Gate::new(), Gate::new());
        let _open = OpenAtEnd(gate.clone());
        let (pass, tell) = (gate.clone(), entered.clone());
        let _blocker = first
            .topic()
            .subscriber()
            .no_mailbox()
            .subscribe(move |received| {
                if !received.is_final() && received.payload::<CacheUpdate>().is_some() {
                    tell.open();
                    pass.pass();
                }
            })
            .unwrap();
        let announcer = {
            let message = kind.message(("a".into(), 0));
            thread::spawn(move || one.publish(message).unwrap())
        };
        entered.pass();
        (1..=3_000).for_each(|n| two.publish(kind.message(("a".into(), n))).unwrap());
        assert_eq!(second.refused(), 3_000 - 1_024, "the rest waits");
        eventually("the follower reads what it is not told", || lock(&mirror).restarts > 0);
        two.publish(kind.message(("b".into(), 1))).unwrap();
        gate.open();
        announcer.join().unwrap();
        (3_001..3_100).for_each(|n| two.publish(kind.message(("a".into(), n))).unwrap());
        drop(first);
        second.unsubscribe_and_join(PATIENCE).unwrap();
        following.unsubscribe_and_join(PATIENCE).unwrap();
        assert_eq!(following.subscription().stats().panics, 0);
        let mirror = lock(&mirror);
        assert_eq!(mirror.has, held(&cache));
        assert_eq!(mirror.has[&("a".to_owned(), Entity::Local)].payload::<Snap>().unwrap().1, 3_099);
    });
}

#[test]
fn a_read_that_panics_after_a_lag_is_tried_again_with_the_next_update() {
    let bus = bus(1);
    let topic = bus.topic("t").unwrap();
    let kind = MessageType::<Step<&'static str>>::new(&bus, "step").unwrap();
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let source = Scripted(move || {
        assert_ne!(count.fetch_add(1, Ordering::Relaxed), 1, "reading fails the second time");
        Current { entries: Vec::new(), upto: 0 }
    });
    let (log, (entered, enters), (go, wait)) = (Log::default(), mpsc::channel(), mpsc::channel::<()>());
    let into = Arc::clone(&log);
    let mut is_first = true;
    let following = Follow::new(&topic, source)
        .limit(8)
        .subscribe(move |_, followed| {
            let is_update = matches!(followed, Followed::Update(_));
            lock(&into).push(given(followed));
            if is_update && std::mem::take(&mut is_first) {
                entered.send(()).unwrap();
                let _ = wait.recv();
            }
        })
        .unwrap();
    let publish = |version: u64| topic.publish(kind.message(step("a", version, version == 1))).unwrap();
    // What starts it has room in its queue.
    eventually("it has begun", || all(&log).contains(&Given::Ready));
    publish(1);
    common::next(&enters);
    (2..40).for_each(publish); // more than it may fall behind
    go.send(()).unwrap();
    eventually("it was read again", || reads.load(Ordering::Relaxed) == 2);
    publish(40);
    eventually("it has begun again", || all(&log).iter().filter(|given| **given == Given::Ready).count() == 2);
    following.unsubscribe_and_join(PATIENCE).unwrap();
    assert_eq!((following.subscription().stats().panics, reads.load(Ordering::Relaxed)), (1, 3));
    let ready = all(&log).iter().rposition(|given| *given == Given::Ready).unwrap();
    assert_eq!(all(&log)[ready - 1], Given::Restart);
}

#[test]
fn a_source_of_ones_own_counts_its_losses() {
    struct Lossy(Arc<Losses>, Arc<AtomicUsize>);
    impl Source for Lossy {
        type Key = ();
        fn update_type(&self) -> Option<&AnyMessageType> {
            None
        }
        fn current(&self) -> Current<()> {
            assert_ne!(self.1.fetch_add(1, Ordering::Relaxed), 1, "reading fails the second time");
            Current { entries: Vec::new(), upto: 0 }
        }
        fn step(&self, _: &Message) -> Option<Step<()>> {
            None
        }
        fn losses(&self) -> Option<&Losses> {
            Some(&self.0)
        }
    }
    let bus = bus(1);
    let (topic, kind) = (bus.topic("t").unwrap(), number(&bus));
    let (losses, reads) = (Arc::new(Losses::new()), Arc::new(AtomicUsize::new(0)));
    let (following, log) = follow(Follow::new(&topic, Lossy(Arc::clone(&losses), Arc::clone(&reads))).everything());
    losses.record();
    eventually("it was read again", || reads.load(Ordering::Relaxed) == 2);
    assert_eq!(losses.number(), 1);
    topic.publish(kind.message(1)).unwrap(); // has it try again
    eventually("it has begun again", || all(&log).iter().filter(|given| **given == Given::Ready).count() == 2);
    following.unsubscribe_and_join(PATIENCE).unwrap();
    losses.record(); // nobody is left to hear it
    let mut story = all(&log);
    assert!(story.contains(&Given::Other), "what is no update is not left out");
    story.retain(|given| *given != Given::Other); // that message, and changes of subscriptions
    assert_eq!(story, [Given::Ready, Given::Restart, Given::Ready, Given::Final]);
    assert_eq!(following.subscription().stats().panics, 1);
}
