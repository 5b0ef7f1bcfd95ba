//! Whether forwards cost the publisher: one subscriber behind 0, 1 and 4 forwards.
#![allow(missing_docs)]

mod support;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stasis_bus::Home;
use support::{Fanout, bounded_bus};

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward depth");
    group.throughput(Throughput::Elements(1));
    for depth in [0, 1, 4] {
        let mut bench = Fanout::new(bounded_bus(1, 4096), 1, Home::Affinity);
        let mut forwards = Vec::new();
        for n in 0..depth {
            let upstream = bench.bus.topic(format!("upstream {n}")).expect("open");
            forwards.push(upstream.forward_to(&bench.topic).expect("open"));
            bench.topic = upstream;
        }
        group.bench_function(depth.to_string(), |bencher| bencher.iter_custom(|messages| bench.run(1, messages)));
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
