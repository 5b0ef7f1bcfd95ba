//! What a publish costs its caller: nobody there, everybody filtered out, the question alone; and what
//! making a message costs.
#![allow(missing_docs)]

mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use stasis_bus::{Bus, Message, MessageType};
use support::{Payload, bounded_bus};

/// Messages made beforehand; publishing them frees them.
const BATCH: usize = 1000;

fn kinds(bus: &Bus) -> (MessageType<Payload>, MessageType<Payload>) {
    (MessageType::new(bus, "published").expect("free"), MessageType::new(bus, "other").expect("free"))
}

fn publish(criterion: &mut Criterion) {
    let bus = bounded_bus(1, 4096);
    let (kind, other) = kinds(&bus);
    let nobody = bus.topic("nobody").expect("open");
    let filtered = bus.topic("filtered").expect("open");
    let _rejects = filtered.subscriber().accept(&other).subscribe(|_| ()).expect("open");

    let mut group = criterion.benchmark_group("publish");
    let kept = kind.message([1; 64]);
    for (name, topic) in [("to nobody", &nobody), ("to one filtered out", &filtered)] {
        // A clone stays alive, so that neither making nor freeing the message is in the figure; making
        // the clone (one atomic add) and dropping it (another) are.
        group.bench_function(format!("{name}, message kept"), |bencher| {
            bencher.iter(|| topic.publish(black_box(kept.clone())));
        });
        group.bench_function(format!("{name}, {BATCH} messages freed"), |bencher| {
            bencher.iter_batched_ref(
                || (0..BATCH).map(|_| Some(kind.message([1; 64]))).collect::<Vec<Option<Message>>>(),
                |messages| {
                    for message in messages.iter_mut().filter_map(Option::take) {
                        let _ = topic.publish(message);
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.bench_function("clone and drop of a message alone", |bencher| bencher.iter(|| black_box(kept.clone())));
    group.bench_function("wants, no", |bencher| bencher.iter(|| black_box(&filtered).wants(&kind)));
    group.bench_function("publish_with, unwanted", |bencher| {
        bencher.iter(|| filtered.publish_with(&kind, || unreachable!("nobody wants it")));
    });
    group.finish();
}

fn create(criterion: &mut Criterion) {
    let bus = bounded_bus(1, 4096);
    let (kind, _) = kinds(&bus);
    criterion.bench_function("message of 64 bytes, made and dropped", |bencher| {
        bencher.iter(|| black_box(kind.message(black_box([1; 64]))));
    });
}

criterion_group!(benches, publish, create);
criterion_main!(benches);
