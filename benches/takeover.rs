//! What a stuck subscriber does to the others of its lane (G8): eight subscribers on one lane, 10,000 messages a
//! second; with and without one that sleeps a second per message, with and without watchdog. Delivery latency
//! of the other seven, in us, from the second period on. Then what the watchdog costs when nobody is stuck.
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

/// Latencies of the seven others in nanoseconds, sorted; take-overs.
fn latencies(stuck: bool, watchdog: Option<Duration>, run: Duration) -> (Vec<u64>, u64) {
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
                    } else if n == 3 && stuck {
                        // A second a message, as long as it matters.
                        if !over.load(Ordering::Relaxed) {
                            thread::sleep(Duration::from_secs(1));
                        }
                    } else if let Some(due) = received.payload::<Due>()
                        && due.0 > start + 2 * PERIOD
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
    let mut all = std::mem::take(&mut *all.lock().expect("nobody panics"));
    all.sort_unstable();
    (all, bus.stats().takeovers)
}

fn percentile(sorted: &[u64], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
}

fn main() {
    let short = std::env::args().any(|argument| argument == "--test");
    let run = Duration::from_millis(if short { 50 } else { 3000 });
    println!(
        "{:44} {:>9} {:>9} {:>9} {:>9} {:>6}",
        "latency of the seven others (us)", "p50", "p99", "p99.9", "max", "taken"
    );
    let cases = [
        ("undisturbed", false, Some(PERIOD)),
        ("one sleeps 1 s a message", true, Some(PERIOD)),
        ("undisturbed, no watchdog", false, None),
    ];
    let mut p99 = Vec::new();
    for (name, stuck, watchdog) in cases {
        let (sorted, taken) = latencies(stuck, watchdog, run);
        p99.push(percentile(&sorted, 0.99));
        let shares = [0.5, 0.99, 0.999, 1.0].map(|share| percentile(&sorted, share));
        println!("{name:44} {:9.1} {:9.1} {:9.1} {:9.1} {taken:6}", shares[0], shares[1], shares[2], shares[3]);
    }
    println!("p99 with the sleeper / undisturbed: {:.2}", p99[1] / p99[0]);

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
    let [on, off] = each.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    println!(
        "1 -> 8, ns a delivery, median of {rounds}: watchdog on {on:.2}, off {off:.2}, difference {:.2}",
        on - off
    );
}
