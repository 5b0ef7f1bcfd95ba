//! What coming and going costs: subscribe and unsubscribe beside 0, 100 and 10,000 others, on a quiet
//! topic and beside a publisher; topics made and forwarded as Asterisk does per call.
#![allow(missing_docs)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use stasis_bus::{Home, Subscription};
use support::{Fanout, bounded_bus, publish};

fn pair(bench: &Fanout) {
    let subscription: Subscription = bench.topic.subscriber().accept(&bench.kind).subscribe(|_| ()).expect("open");
    drop(subscription);
}

fn churn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subscribe and unsubscribe");
    for others in [0, 100, 10_000] {
        let bench = Fanout::new(bounded_bus(2, 4096), others, Home::Affinity);
        group.bench_function(format!("beside {others}"), |bencher| bencher.iter(|| pair(&bench)));
    }
    let bench = Fanout::new(bounded_bus(2, 4096), 100, Home::Affinity);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                publish(&bench.topic, bench.kind.message([0; 64]));
            }
        });
        group.bench_function("beside 100 and a publisher", |bencher| bencher.iter(|| pair(&bench)));
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();

    let bench = Fanout::new(bounded_bus(2, 4096), 9, Home::Affinity);
    criterion.bench_function("topic made, forwarded to one with 9 subscribers, gone", |bencher| {
        let mut n = 0u64;
        bencher.iter(|| {
            n += 1;
            let topic = bench.bus.topic(format!("channel:{n}")).expect("open");
            drop(topic.forward_to(&bench.topic).expect("open"));
        });
    });
}

criterion_group!(benches, churn);
criterion_main!(benches);
