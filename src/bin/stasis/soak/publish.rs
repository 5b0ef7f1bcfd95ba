//! Publishing threads: many short ones in the name of a few publishers.

use super::checker::Mark;
use super::ledger::{Ledger, TOPICS};
use super::listener::Item;
use super::random::Random;
use super::run::Stage;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Messages of one thread; then the publisher goes on in another one.
const A_THREAD: u64 = 5_000;
/// Messages that witnesses may lag behind before publishers wait: queues stay small, so memory is flat.
const WINDOW: u64 = 20_000;

/// Publishes in the name of publisher `at` until the soak stops.
pub(crate) fn publisher(stage: &Arc<Stage>, at: usize, seed: u64, rate: u64) {
    let began = Instant::now();
    let mut lives = 0;
    while !stage.ledger.stops() {
        lives += 1;
        let life = {
            let (stage, random) = (Arc::clone(stage), Random::new(seed, (at as u64) << 32 | lives));
            move || one_life(&stage, at, random, rate, began)
        };
        match thread::Builder::new().name(format!("publisher-{at}")).spawn(life).map(thread::JoinHandle::join) {
            Ok(Ok(())) => {}
            // The system is short of threads: a moment later.
            Err(_) => thread::sleep(Duration::from_millis(10)),
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

fn one_life(stage: &Stage, at: usize, mut random: Random, rate: u64, began: Instant) {
    let ledger = &stage.ledger;
    let pace = &ledger.paces[at];
    for _ in 0..A_THREAD {
        if ledger.stops() {
            return;
        }
        let topic = 1 + random.below(TOPICS - 1);
        let (number, place) = pace.next(topic);
        wait_for_turn(ledger, number, rate, began);
        let item = Item::new(Mark { publisher: at, topic, number, place }, ledger);
        let mut message = stage.kind.message(item);
        pace.begin(topic);
        while let Err(error) = stage.topics[topic].publish(message) {
            assert!(error.is_full(), "the bus is open while publishers run");
            ledger.refused.fetch_add(1, Ordering::Relaxed);
            message = error.into_message();
            thread::yield_now();
        }
        ledger.accepted.fetch_add(1, Ordering::Relaxed);
        pace.end(topic);
    }
}

/// Waits while witnesses are far behind, or this publisher is ahead of its time.
fn wait_for_turn(ledger: &Ledger, number: u64, rate: u64, began: Instant) {
    let ahead = |now: Duration| rate > 0 && number as f64 > now.as_secs_f64() * rate as f64;
    while !ledger.stops()
        && (number.is_multiple_of(64) && ledger.published().saturating_sub(ledger.slowest()) > WINDOW
            || number.is_multiple_of(16) && ahead(began.elapsed()))
    {
        thread::sleep(Duration::from_micros(300));
    }
}
