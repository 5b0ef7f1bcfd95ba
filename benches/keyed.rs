//! What keys cost: a key nobody wants, one of 25,000 subscribers by index and by plain subscriptions, a state
//! that is known, keyed delivery beside plain; claim-once delivery beside plain; a limit of feedback.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use stasis_bus::claim::{Claim, ClaimQueue};
use stasis_bus::distinct::Distinct;
use stasis_bus::key_index::{KeyIndex, KeyReceived};
use stasis_bus::{Bus, Delivery, Message, MessageType, keyed};
use support::{bounded_bus, publish};

const SUBSCRIBERS: u64 = 25_000;
const BATCH: u64 = 100;

fn kind(bus: &Bus) -> MessageType<(u64, u64)> {
    MessageType::new(bus, "state").expect("free")
}

fn key(message: &Message) -> Option<u64> {
    Some(message.payload::<(u64, u64)>()?.0)
}

/// Waits for what a batch leads to.
fn until(seen: &AtomicU64, target: u64) {
    while seen.load(Ordering::Acquire) < target {
        std::thread::yield_now();
    }
}

fn index(criterion: &mut Criterion) {
    let bus = bounded_bus(2, 4096);
    let (kind, topic) = (kind(&bus), bus.topic("indexed").expect("open"));
    let index = KeyIndex::new(&topic, &kind, key).expect("open");
    let seen = Arc::new(AtomicU64::new(0));
    let watch = |key: u64| {
        let seen = Arc::clone(&seen);
        let count = move |_: &KeyReceived<'_, u64>| {
            seen.fetch_add(1, Ordering::Release);
        };
        index.subscribe(key, count).expect("open")
    };
    let _all: Vec<_> = (0..SUBSCRIBERS).map(watch).collect();
    let mut group = criterion.benchmark_group("25,000 subscribers of one key each");
    group.bench_function("publish_with, key nobody wants", |bencher| {
        bencher.iter(|| index.publish_with(black_box(&SUBSCRIBERS), &kind, || unreachable!("nobody wants it")));
    });
    let mut done = 0;
    group.bench_function("100 messages, delivered by the index", |bencher| {
        bencher.iter(|| {
            (0..BATCH).for_each(|key| publish(&topic, kind.message((key, 1))));
            done += BATCH;
            until(&seen, done);
        });
    });
    let plain = bus.topic("plain").expect("open");
    let tests = Arc::new(AtomicU64::new(0));
    let test = |own: u64| {
        let tests = Arc::clone(&tests);
        let count = move |received: &stasis_bus::Received<'_>| {
            if key(received) == Some(own) {
                tests.fetch_add(1, Ordering::Release);
            }
        };
        plain.subscriber().accept(&kind).subscribe(count).expect("open")
    };
    let _plain: Vec<_> = (0..SUBSCRIBERS).map(test).collect();
    let mut done = 0;
    group.sample_size(10);
    group.bench_function("100 messages, tested by each of them", |bencher| {
        bencher.iter(|| {
            (0..BATCH).for_each(|key| publish(&plain, kind.message((key, 1))));
            done += BATCH;
            until(&tests, done);
        });
    });
    group.finish();
}

fn distinct(criterion: &mut Criterion) {
    let bus = bounded_bus(1, 4096);
    let (kind, topic) = (kind(&bus), bus.topic("states").expect("open"));
    let states = Distinct::new(&topic, &kind, |state: &(u64, u64)| state.0);
    for key in 0..SUBSCRIBERS {
        states.publish((key, 1)).expect("open");
    }
    let mut key = 0;
    criterion.bench_function("distinct: a state that is known", |bencher| {
        bencher.iter(|| {
            key = (key + 1) % SUBSCRIBERS;
            states.publish(black_box((key, 1)))
        });
    });
}

fn shards(criterion: &mut Criterion) {
    let bus = bounded_bus(2, 4096);
    let (kind, topic) = (kind(&bus), bus.topic("devices").expect("open"));
    let seen = Arc::new(AtomicU64::new(0));
    let mut group = criterion.benchmark_group("100 messages of 100 keys, 2 us each");
    // A handler that has something to do.
    let work = |seen: &AtomicU64| {
        (0..2000).for_each(|n| {
            black_box(n);
        });
        seen.fetch_add(1, Ordering::Release);
    };
    let mut done = 0;
    let run = |done: &mut u64, seen: &AtomicU64| {
        (0..BATCH).for_each(|key| publish(&topic, kind.message((key, 1))));
        *done += BATCH;
        until(seen, *done);
    };
    {
        let count = Arc::clone(&seen);
        let _plain = topic.subscriber().accept(&kind).subscribe(move |received| {
            if !received.is_final() {
                work(&count);
            }
        });
        group.bench_function("plain", |bencher| bencher.iter(|| run(&mut done, &seen)));
    }
    let count = Arc::clone(&seen);
    let _keyed = keyed::subscribe(topic.subscriber().accept(&kind), key, move |received| {
        if !received.is_final() {
            work(&count);
        }
    });
    group.bench_function("keyed, 2 lanes", |bencher| bencher.iter(|| run(&mut done, &seen)));
    group.finish();
}

fn claims(criterion: &mut Criterion) {
    let bus = bounded_bus(2, 4096);
    let (kind, topic) = (kind(&bus), bus.topic("queue").expect("open"));
    let taken = Arc::new(AtomicU64::new(0));
    let lost = Arc::clone(&taken);
    let fallback = move |_: &Message, why| {
        lost.fetch_add(1, Ordering::Release);
        panic!("{why:?}: there is always somebody");
    };
    let queue = ClaimQueue::new(topic.subscriber().accept(&kind), fallback).expect("open");
    let claimant = |_| {
        let taken = Arc::clone(&taken);
        let take = move |_: &Message| {
            taken.fetch_add(1, Ordering::Release);
            Claim::Take
        };
        queue.claimant(take).expect("open")
    };
    let _claimants: Vec<_> = (0..4).map(claimant).collect();
    let mut done = 0;
    criterion.bench_function("100 messages, each claimed by one of 4", |bencher| {
        bencher.iter(|| {
            (0..BATCH).for_each(|key| publish(&topic, kind.message((key, 1))));
            done += BATCH;
            until(&taken, done);
        });
    });
}

fn feedback(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish, answered inside an inline handler");
    for (name, limit) in [("no limit", None), ("limit 32", Some(32))] {
        let bus = Bus::builder().lanes(1).feedback_limit(limit).build().expect("the figures fit");
        let kind = kind(&bus);
        let (ask, answer) = (bus.topic("ask").expect("open"), bus.topic("answer").expect("open"));
        let _end = answer.subscriber().delivery(Delivery::Inline).accept(&kind).subscribe(|_| ());
        let (back, made) = (answer.clone(), kind.clone());
        let _answers = ask.subscriber().delivery(Delivery::Inline).accept(&kind).subscribe(move |received| {
            if !received.is_final() {
                back.publish(made.message((2, 2))).expect("not deep");
            }
        });
        group.bench_function(name, |bencher| bencher.iter(|| ask.publish(kind.message((1, 1)))));
    }
    group.finish();
}

criterion_group!(benches, index, distinct, shards, claims, feedback);
criterion_main!(benches);
