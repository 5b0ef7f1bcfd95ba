//! Caches: changes of one entry from two caching topics, and readers beside them.
#![cfg(loom)]

use loom_tests::whole::{LONG, bus_with_budget};
use loom_tests::{Model, spawn};
use stasis_bus::cache::{Cache, CacheClear, CacheUpdate, CachingTopic};
use stasis_bus::model::{message_type, settle};
use stasis_bus::{Bus, Delivery, Message, MessageType, Subscription, Topic};
use std::sync::{Arc, Mutex};

type Told = (u64, Option<usize>, Option<usize>);

fn number(message: &Message) -> usize {
    *message.payload().expect("a number")
}

/// A cache of one entry, two caching topics that fill it, and who hears both.
struct Stage {
    bus: Bus,
    kind: MessageType<usize>,
    cache: Cache,
    topics: [Topic; 2],
    caching: [CachingTopic; 2],
    watch: Subscription,
    told: Arc<Mutex<Vec<Told>>>,
}

fn stage() -> Stage {
    let bus = bus_with_budget(1 << 16);
    let kind = message_type::<usize>("n");
    let cache = Cache::builder().id(|message| message.payload::<usize>().map(|_| "a".into())).build();
    let all = bus.topic("all").unwrap();
    let topics = ["one", "two"].map(|name| bus.topic(name).unwrap());
    let caching = topics.each_ref().map(|topic| CachingTopic::forwarded_to(topic, &cache, &all).unwrap());
    let told = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&told);
    let watch = all
        .subscriber()
        .delivery(Delivery::Inline)
        .accept(CacheUpdate::message_type())
        .subscribe(move |received| {
            if let Some(update) = received.payload::<CacheUpdate>() {
                into.lock().unwrap().push((
                    update.version(),
                    update.old_snapshot().map(number),
                    update.new_snapshot().map(number),
                ));
            }
        })
        .unwrap();
    settle(&bus);
    Stage { bus, kind, cache, topics, caching, watch, told }
}

impl Stage {
    /// Everything that was told chains, ends with what the cache has, and nothing else is left.
    fn end(self) {
        self.caching.iter().for_each(|caching| caching.unsubscribe_and_join(LONG).unwrap());
        let told = self.told.lock().unwrap().clone();
        let (mut version, mut last) = (0, None);
        for &(next, old, new) in &told {
            assert!(next > version && old == last, "{told:?}");
            (version, last) = (next, new);
        }
        let known = self.cache.get(&self.kind, "a");
        assert_eq!(known.as_ref().map(number), last, "{told:?}");
        assert_eq!(self.cache.slots(), usize::from(last.is_some()), "no ghosts: {told:?}");
        assert!(self.cache.last_version() >= version);
        drop((self.watch, self.caching, self.topics));
        self.bus.shutdown(LONG).unwrap();
    }
}

/// Two threads change one entry: each change is told, in the order they were made, and so is one that comes when both
/// are done: whoever announced for the other has let go of the entry.
/// Mutations: announcing outside the phase (always as if it were quiet); `settle` not looking again.
#[test]
fn two_writers_of_one_entry() {
    Model::new("two_writers_of_one_entry").check(|| {
        loom::stop_exploring();
        let stage = stage();
        loom::explore();
        let writer = {
            let (topic, message) = (stage.topics[0].clone(), stage.kind.message(1));
            spawn(move || topic.publish(message).unwrap())
        };
        stage.topics[1].publish(stage.kind.message(2)).unwrap();
        writer.join().unwrap();
        loom::stop_exploring();
        assert_eq!(stage.told.lock().unwrap().len(), 2);
        stage.topics[1].publish(stage.kind.message(3)).unwrap();
        assert_eq!(stage.told.lock().unwrap().len(), 3, "the entry is held for ever");
        stage.end();
    });
}

/// A removal beside a change: the entry is gone or there, and no slot is left of one that is gone.
/// Mutations: no phase `Dead`; a dead slot written to.
#[test]
fn removal_against_change() {
    Model::new("removal_against_change").check(|| {
        loom::stop_exploring();
        let stage = stage();
        stage.topics[0].publish(stage.kind.message(1)).unwrap();
        let clear = CacheClear::message(stage.kind.message(0));
        loom::explore();
        let remover = {
            let topic = stage.topics[0].clone();
            spawn(move || topic.publish(clear).unwrap())
        };
        stage.topics[1].publish(stage.kind.message(2)).unwrap();
        remover.join().unwrap();
        loom::stop_exploring();
        assert_eq!(stage.told.lock().unwrap().len(), 3);
        stage.end();
    });
}

/// A reader beside a writer: what it sees is one of the values, never older than what it saw before; what
/// was told to it by a publish that returned is there.
/// Mutation: the entry emptied, then filled.
#[test]
fn reading_against_changing() {
    Model::new("reading_against_changing").check(|| {
        loom::stop_exploring();
        let stage = stage();
        stage.topics[0].publish(stage.kind.message(1)).unwrap();
        loom::explore();
        let reader = {
            let (cache, kind) = (stage.cache.clone(), stage.kind.clone());
            spawn(move || {
                let first = cache.get(&kind, "a").map(|message| number(&message));
                let second = cache.entries().iter().map(|entry| number(entry.local().unwrap())).next();
                let seen = (first, second);
                assert!(matches!(seen, (Some(1), Some(1 | 2)) | (Some(2), Some(2))), "{seen:?}");
            })
        };
        stage.topics[1].publish(stage.kind.message(2)).unwrap();
        assert_eq!(stage.cache.get(&stage.kind, "a").as_ref().map(number), Some(2));
        reader.join().unwrap();
        loom::stop_exploring();
        stage.end();
    });
}
