//! How many deliveries a second: 1->1, 1->8, 4->8, 1->1000; message creation, 64-byte payload and time
//! stamp included, until the last delivery is done.
#![allow(missing_docs)]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stasis_bus::Home;
use support::{Fanout, bounded_bus};

fn fanout(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fanout");
    for (name, publishers, subscribers, lanes) in
        [("1->1", 1, 1, 1), ("1->8", 1, 8, 1), ("4->8", 4, 8, 1), ("1->1000", 1, 1000, 1)]
    {
        let bench = Fanout::new(bounded_bus(lanes, 4096), subscribers, Home::Affinity);
        group.throughput(Throughput::Elements(subscribers as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|messages| {
                // Whole rounds for every publisher.
                let messages = messages.next_multiple_of(publishers as u64);
                bench.run(publishers, messages)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
