//! What a stuck or slow subscriber does to the others of its lane (G8): eight subscribers on one lane, 10,000
//! messages a second; with one that sleeps a second per message, and one that takes less than a period for each
//! but more than there is; with and without watchdog. Delivery latency of the other seven, in us, of messages due
//! after the first period. Then what the watchdog costs when nobody is stuck (the marks of `exec/hold.rs`, two
//! stores and a load a delivery, are there with and without it).
#![allow(missing_docs)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use stasis_bus::{Bus, Delivery, Home, MessageType};
use support::{Fanout, Payload};

const PERIOD: Duration = Duration::from_millis(2);
const LANE: Delivery = Delivery::Lane(Home::Lane(0));

/// A payload with the moment it was due.
struct Due(Instant, #[allow(dead_code)] Payload);

#[derive(Clone, Copy)]
enum Fourth {
    Quick,
    /// Sleeps for so long per message.
    Sleeps(Duration),
}

/// Latencies of the seven others in nanoseconds; take-overs.
fn latencies(fourth: Fourth, watchdog: Option<Duration>, run: Duration) -> (Vec<u64>, u64) {
    let bus = Bus::builder().lanes(1).watchdog(watchdog).build().expect("the figures fit");
    let topic = bus.topic("bench").expect("open");
    let kind = MessageType::<Due>::new(&bus, "due").expect("not declined");
    let all = Arc::new(Mutex::new(Vec::new()));
    let over = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let subscriptions: Vec<_> = (0..8)
        .map(|n| {
            let (all, over) = (Arc::clone(&all), Arc::clone(&over));
            let mut mine = Vec::with_capacity(1 << 16);
            topic
                .subscriber()
                .delivery(LANE)
                .accept(&kind)
                .subscribe(move |received| {
                    if received.is_final() {
                        all.lock().expect("nobody panics").append(&mut mine);
                    } else if let (3, Fourth::Sleeps(time)) = (n, fourth) {
                        // As long as it matters.
                        if !over.load(Ordering::Relaxed) {
                            thread::sleep(time);
                        }
                    } else if let Some(due) = received.payload::<Due>()
                        && due.0 > start + PERIOD
                    {
                        mine.push(due.0.elapsed().as_nanos() as u64);
                    }
                })
                .expect("open")
        })
        .collect();
    let pace = Duration::from_micros(100);
    let mut due = start;
    while due < start + run {
        while Instant::now() < due {
            std::hint::spin_loop();
        }
        // Stamped with the time it was due: a publisher that falls behind is counted (coordinated omission).
        topic.publish(kind.message(Due(due, [0; 64]))).expect("there is room");
        due += pace;
    }
    over.store(true, Ordering::Relaxed);
    for subscription in &subscriptions {
        subscription.unsubscribe_and_join(Duration::from_secs(60)).expect("it ends");
    }
    let all = std::mem::take(&mut *all.lock().expect("nobody panics"));
    (all, bus.stats().takeovers)
}

fn percentile(sorted: &[u64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let (rounds, run) = if short { (1, Duration::from_millis(50)) } else { (5, Duration::from_millis(1000)) };
    println!(
        "{:44} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "latency of the seven others (us)", "p50", "p99", "p99.9", "max", "taken"
    );
    let cases = [
        ("undisturbed", Fourth::Quick, Some(PERIOD)),
        ("one sleeps 1 s a message", Fourth::Sleeps(Duration::from_secs(1)), Some(PERIOD)),
        ("one sleeps 0.5 ms a message", Fourth::Sleeps(Duration::from_micros(500)), Some(PERIOD)),
        ("undisturbed, no watchdog", Fourth::Quick, None),
        ("one sleeps 0.5 ms a message, no watchdog", Fourth::Sleeps(Duration::from_micros(500)), None),
    ];
    // Interleaved rounds, so that the machine's moods hit all; medians of their percentiles.
    let mut found = cases.map(|_| (Vec::new(), 0));
    for _ in 0..rounds {
        for ((_, fourth, watchdog), (shares, taken)) in cases.iter().zip(&mut found) {
            let (mut all, times) = latencies(*fourth, *watchdog, run);
            all.sort_unstable();
            shares.push([0.5, 0.99, 0.999, 1.0].map(|share| percentile(&all, share)));
            *taken += times;
        }
    }
    let p99 = cases.iter().zip(&found).map(|((name, ..), (shares, taken))| {
        let of = |at: usize| median(shares.iter().map(|round: &[f64; 4]| round[at]).collect());
        println!("{name:44} {:9.1} {:9.1} {:9.1} {:9.1} {taken:6}", of(0), of(1), of(2), of(3));
        of(1)
    });
    let p99: Vec<f64> = p99.collect();
    println!("p99 / undisturbed: with the one that sleeps 1 s {:.2}, 0.5 ms {:.2}", p99[1] / p99[0], p99[2] / p99[0]);

    // Cost when nobody is stuck: interleaved rounds, so that the machine's moods hit both.
    let buses = [Some(PERIOD), None].map(|watchdog| {
        let bus = Bus::builder().lanes(1).watchdog(watchdog).ring_capacity(4096).memory_budget(4096 * 16);
        Fanout::new(bus.build().expect("the figures fit"), 8, Home::Affinity)
    });
    let (rounds, messages) = if short { (1, 1000) } else { (15, 200_000) };
    let mut each: [Vec<f64>; 2] = Default::default();
    for _ in 0..rounds {
        for (bench, each) in buses.iter().zip(&mut each) {
            each.push(bench.run(1, messages).as_nanos() as f64 / (messages * 8) as f64);
        }
    }
    let [on, off] = each.map(median);
    println!(
        "1 -> 8, ns a delivery, median of {rounds}: watchdog on {on:.2}, off {off:.2}, difference {:.2}",
        on - off
    );
}
