//! One round of one contender: start, warm up, measure, stop, check.
//!
//! ```text
//!   coordinator   start ─ gate ─── wait ─── clocks, gate ─── wait ──── join, stop, check records
//!   publishers            gate ─ warm-up ─────────── gate ─ messages ─ drop
//!   subscribers                  count … all there          count … all there
//!                                                    └─── measured ──┘
//! ```

use std::sync::{Arc, Barrier, PoisonError};
use std::thread;
use std::time::Duration;

use crate::contender::{Contender, Publish, Running};
use crate::meter::{Meter, Sample};
use crate::scenario::Scenario;
use crate::subscriber::{Phase, Record, Records, Subscriber};

/// A phase that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Deliveries made in the measured phase; without subscribers: messages published.
    pub(crate) deliveries: u64,
    /// Share of the deliveries that were not made.
    pub(crate) lost: f64,
}

/// Runs it.
///
/// # Errors
/// What went wrong: not finished in time, or subscribers that did not get each message once.
pub(crate) fn run(contender: &dyn Contender, scenario: Scenario) -> Result<Round, String> {
    let fail = |what: String| format!("{} at {}: {what}", contender.name(), scenario.name);
    let shape = scenario.shape;
    let publishers = shape.publishers as u64;
    let (warm, measured) = ((scenario.messages / 10 / publishers).max(1), scenario.messages / publishers);
    let all = (warm + measured) * publishers;
    let meters = [(); 2].map(|()| Arc::new(Meter::new(shape.publishers + shape.subscribers)));
    let phases = [(warm * publishers, &meters[0]), (all, &meters[1])]
        .map(|(until, meter)| Phase { until, meter: Arc::clone(meter) });
    let records = Records::default();
    let subscribers = (0..shape.subscribers).map(|_| Subscriber::new(&phases, &records)).collect();
    let Running { publishers: ends, stop } = contender.start(shape, subscribers);

    let gate = Arc::new(Barrier::new(shape.publishers + 1));
    let publish = |(index, mut end): (usize, Box<dyn Publish>)| {
        let (gate, meters, index) = (Arc::clone(&gate), meters.clone(), index as u64);
        thread::spawn(move || {
            gate.wait();
            end.publish(index * warm..(index + 1) * warm);
            meters[0].done();
            gate.wait();
            let first = publishers * warm + index * measured;
            end.publish(first..first + measured);
            meters[1].done();
        })
    };
    let threads: Vec<_> = ends.into_iter().enumerate().map(publish).collect();
    let late = |meter: &Meter| fail(format!("{} had not finished after {LIMIT:?}", meter.remaining()));
    gate.wait();
    meters[0].wait(LIMIT).ok_or_else(|| late(&meters[0]))?;
    let start = Sample::now();
    gate.wait();
    let end = meters[1].wait(LIMIT).ok_or_else(|| late(&meters[1]))?;
    for thread in threads {
        thread.join().map_err(|_| fail("a publisher panicked".into()))?;
    }
    stop();

    let records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
    check(&records, contender.is_lossy(), shape.subscribers, all).map_err(fail)?;
    let (wall, cpu) = end.since(start);
    let offered = measured * publishers * shape.subscribers.max(1) as u64;
    let lost = records.iter().map(|record| record.lost - record.lost_warming).sum::<u64>();
    let (deliveries, lost) = (offered - lost, lost as f64 / offered as f64);
    Ok(Round { wall, cpu, deliveries, lost })
}

/// Whether all subscribers are there and each got every message once (or knows how many it lost).
pub(crate) fn check(records: &[Record], lossy: bool, subscribers: usize, messages: u64) -> Result<(), String> {
    if records.len() != subscribers {
        return Err(format!("{} of {subscribers} subscribers came back", records.len()));
    }
    let expected = Record::complete(messages);
    let wrong = records.iter().find(|record| match lossy {
        true => record.count + record.lost != messages,
        false => **record != expected,
    });
    wrong.map_or(Ok(()), |record| Err(format!("a subscriber has {record:?}, not {expected:?}")))
}
