//! Any words are a program of cache operations; the cache must hold and tell what a simple model does.
//! Shared by `tests/cache.rs` and the fuzz target `cache`.
#![allow(dead_code)]

use stasis_bus::cache::{AGGREGATE, Cache, CacheClear, CacheUpdate, CachingTopic, Entity};
use stasis_bus::{Bus, Delivery, Eid, Message, MessageType, Pinning};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const HERE: Eid = Eid([1; 6]);
const IDS: [&str; 4] = ["", "a", "b", "SIP/100"];

/// Id and number.
type Payload = (usize, u64);

/// One step of a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    /// Which of two caching topics hears it.
    topic: usize,
    kind: usize,
    id: usize,
    /// Zero: local, without entity; one: local by name.
    entity: u8,
    /// `None`: clear.
    value: Option<u64>,
}

impl Operation {
    pub(crate) fn decode([a, b]: [u8; 2]) -> Self {
        let clear = b.is_multiple_of(3);
        Self {
            topic: usize::from(a & 1),
            kind: usize::from(a >> 1 & 1),
            id: usize::from(a >> 2 & 3),
            entity: (a >> 4) % 4,
            value: (!clear).then_some(u64::from(b)),
        }
    }

    fn eid(self) -> Option<Eid> {
        match self.entity {
            0 => None,
            1 => Some(HERE),
            n => Some(Eid([0, 0, 0, 0, 0, n])),
        }
    }

    fn entity(self) -> Entity {
        self.eid().filter(|eid| *eid != HERE).map_or(Entity::Local, Entity::Remote)
    }
}

/// Snapshots of one key; an entity's place is that of its number.
type Entry = BTreeMap<u8, u64>;

fn sum(entry: Option<&Entry>) -> Option<u64> {
    entry.map(|entry| entry.values().sum())
}

/// Whose, before, after.
type Told = (Entity, Option<u64>, Option<u64>);

fn number(message: &Message) -> u64 {
    message.payload::<Payload>().expect("ours").1
}

/// Runs the program.
///
/// # Panics
/// If cache and model differ.
pub(crate) fn run(program: &[Operation], with_aggregate: bool) {
    let bus = Bus::builder().lanes(1).pinning(Pinning::Off).build().unwrap();
    let kinds = ["x", "y"].map(|name| MessageType::<Payload>::new(&bus, name).unwrap());
    let total = MessageType::<Payload>::new(&bus, "total").unwrap();
    let mut builder = Cache::builder().id(|message| Some(IDS[message.payload::<Payload>()?.0].into())).local(HERE);
    if with_aggregate {
        builder = builder.aggregate(move |entry, _| {
            let sum = entry.snapshots().map(|(_, message)| number(message)).sum();
            Some(total.message_from((0, sum), AGGREGATE))
        });
    }
    let cache = builder.build();
    let topics = ["one", "two"].map(|name| bus.topic(name).unwrap());
    let caching = topics.each_ref().map(|topic| CachingTopic::new(topic, &cache).unwrap());
    let told = Arc::new(Mutex::new(Vec::<Told>::new()));
    let versions = Arc::new(Mutex::new(0));
    let _watch = caching.each_ref().map(|caching| {
        let (told, versions) = (Arc::clone(&told), Arc::clone(&versions));
        let listener = move |update: &CacheUpdate| {
            let mut last = versions.lock().unwrap();
            assert!(update.version() > *last || update.entity() == Entity::Aggregate);
            *last = update.version();
            told.lock().unwrap().push((
                update.entity(),
                update.old_snapshot().map(number),
                update.new_snapshot().map(number),
            ));
        };
        let subscriber = caching.topic().subscriber().delivery(Delivery::Inline);
        subscriber.subscribe(move |received| received.payload().into_iter().for_each(&listener)).unwrap()
    });
    let mut model = BTreeMap::<(usize, usize), Entry>::new();
    for &operation in program {
        let Operation { topic, kind, id, value, .. } = operation;
        let payload = (id, value.unwrap_or(0));
        let message = match operation.eid() {
            None => kinds[kind].message(payload),
            Some(eid) => kinds[kind].message_from(payload, eid),
        };
        let message = if value.is_some() { message } else { CacheClear::message(message) };
        topics[topic].publish(message).unwrap();
        // The model.
        let place = operation.entity.saturating_sub(1);
        let before = sum(model.get(&(kind, id)));
        let entry = model.entry((kind, id)).or_default();
        let old = match value {
            Some(value) => entry.insert(place, value),
            None => entry.remove(&place),
        };
        if entry.is_empty() {
            model.remove(&(kind, id));
        }
        let mut expected = Vec::new();
        if old.is_some() || value.is_some() {
            expected.push((operation.entity(), old, value));
            let after = sum(model.get(&(kind, id)));
            if with_aggregate {
                expected.push((Entity::Aggregate, before, after));
            }
        }
        assert_eq!(std::mem::take(&mut *told.lock().unwrap()), expected, "{operation:?}");
        // Cache and model hold the same.
        assert_eq!((cache.slots(), cache.len()), (model.len(), model.len()), "no ghosts");
        let entry = model.get(&(kind, id));
        let known = cache.get_by_eid(&kinds[kind], IDS[id], Some(operation.eid().unwrap_or(HERE)));
        assert_eq!(known.as_ref().map(number), entry.and_then(|entry| entry.get(&place).copied()));
        let whole = cache.get_by_eid(&kinds[kind], IDS[id], None).as_ref().map(number);
        assert_eq!(whole, sum(entry).filter(|_| with_aggregate));
    }
    for (number_of_kind, kind) in kinds.iter().enumerate() {
        let of_kind = || model.iter().filter(|((kind, _), _)| *kind == number_of_kind);
        let sorted = |messages: Vec<Message>| {
            let mut numbers: Vec<u64> = messages.iter().map(number).collect();
            numbers.sort_unstable();
            numbers
        };
        let mut all: Vec<u64> = of_kind().flat_map(|(_, entry)| entry.values().copied()).collect();
        all.sort_unstable();
        assert_eq!(sorted(cache.dump_all(Some(kind))), all);
        let mut local: Vec<u64> = of_kind().filter_map(|(_, entry)| entry.get(&0).copied()).collect();
        local.sort_unstable();
        assert_eq!(sorted(cache.dump(Some(kind))), local);
        for (id, name) in IDS.iter().enumerate() {
            let mut here: Vec<u64> =
                model.get(&(number_of_kind, id)).into_iter().flat_map(|entry| entry.values().copied()).collect();
            here.sort_unstable();
            assert_eq!(sorted(cache.get_all(kind, name)), here);
        }
    }
}
