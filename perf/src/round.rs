//! One round of one contender: start, warm up, measure, stop, check.
//!
//! ```text
//!   coordinator   start ─ gate ─── wait ─── clocks, gate ─── wait ──── join, stop, check records
//!   publishers            gate ─ warm-up ─────────── gate ─ messages ─ drop
//!   subscribers                  count … all there          count … all there
//!                                                    └─── measured ──┘
//! ```
//!
//! A burst: the subscribers stand still at their first measured message until all are published; measured is
//! what comes then. Paced: the publisher waits for the time each message is due.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::contender::{Contender, Mode, Publish, Running};
use crate::meter::{Gate, Meter, Sample, memory};
use crate::scenario::Scenario;
use crate::subscriber::{Phase, Record, Records, Special, Subscriber, Task, histogram};

/// A phase that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);
/// Pause between two subscribes of the churn.
const CHURN: Duration = Duration::from_micros(200);

/// Nanoseconds from the time a message was due to its delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) most: f64,
}

/// What a burst came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Burst {
    /// Nanoseconds a message at the publisher, made and published.
    pub(crate) publish: f64,
    /// Bytes of memory a waiting message took.
    pub(crate) memory: f64,
    /// Seconds from letting the consumers go to the last delivery.
    pub(crate) recovery: f64,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Round {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Deliveries made in the measured phase; to nobody: messages published.
    pub(crate) deliveries: u64,
    /// Share of the deliveries that were not made.
    pub(crate) lost: f64,
    /// Subscriptions that came and went meanwhile.
    pub(crate) churned: u64,
    pub(crate) latency: Option<Latency>,
    pub(crate) burst: Option<Burst>,
}

/// Publishes each message when it is due.
fn paced(end: &mut dyn Publish, first: u64, count: u64, start: Instant, period: Duration) {
    for k in 0..count {
        let due = start + period * k as u32;
        loop {
            let ahead = due.saturating_duration_since(Instant::now());
            if ahead.is_zero() {
                break;
            }
            // The system wakes late by up to about 100 us.
            match ahead.checked_sub(Duration::from_micros(200)) {
                Some(nap) if !nap.is_zero() => thread::sleep(nap),
                _ => spin_loop(),
            }
        }
        end.publish(first + k..first + k + 1);
    }
}

/// Runs it.
///
/// # Errors
/// What went wrong: not finished in time, or subscribers that did not get each message once.
pub(crate) fn run(contender: &dyn Contender, scenario: &Scenario) -> Result<Round, String> {
    let fail = |what: String| format!("{} at {}: {what}", contender.name(), scenario.name);
    let shape = &scenario.shape;
    let publishers = shape.publishers as u64;
    let (warm, measured) = ((scenario.messages / 10 / publishers).max(1), scenario.messages / publishers);
    let all = (warm + measured) * publishers;
    let expected = |messages: u64| match shape.mode {
        Mode::Filtered => vec![(0, 0); shape.topics()],
        _ => shape.plan.expected(messages),
    };
    let (expected_warm, expected_all) = (expected(warm * publishers), expected(all));
    let meters = [(); 2].map(|()| Arc::new(Meter::new(shape.publishers + shape.subscribers())));
    let published = Arc::new(Meter::new(shape.publishers));
    let records = Records::default();
    let (stalled, start, times) =
        (Arc::new(Gate::default()), Arc::new(OnceLock::new()), Arc::new(Mutex::new(histogram())));
    let task = match shape.mode {
        Mode::Latency { period, .. } => {
            Some(Task::Time { start: Arc::clone(&start), period, times: Arc::clone(&times) })
        }
        Mode::Burst => Some(Task::Stall(Arc::clone(&stalled))),
        _ => None,
    };
    let special = task.map(|task| Special { from: warm * publishers, task });
    let subscriber = |topic: usize| {
        let phases = [(expected_warm[topic].0, &meters[0]), (expected_all[topic].0, &meters[1])]
            .map(|(until, meter)| Phase { until, meter: Arc::clone(meter) });
        Subscriber::new(topic, &phases, special.clone(), &records)
    };
    let topics = shape.plan.fanout.iter().enumerate();
    let subscribers = topics.flat_map(|(topic, &count)| std::iter::repeat_n(topic, count)).map(subscriber).collect();
    let Running { publishers: ends, churn, stop } = contender.start(shape, subscribers);

    let gate = Arc::new(Barrier::new(shape.publishers + 1));
    let publish = |(index, mut end): (usize, Box<dyn Publish>)| {
        let (gate, meters, published, index) =
            (Arc::clone(&gate), meters.clone(), Arc::clone(&published), index as u64);
        let (mode, start) = (shape.mode, Arc::clone(&start));
        thread::spawn(move || {
            gate.wait();
            end.publish(index * warm..(index + 1) * warm);
            meters[0].done();
            gate.wait();
            let first = publishers * warm + index * measured;
            let begin = *start.get_or_init(Instant::now);
            match mode {
                Mode::Latency { period, .. } => paced(end.as_mut(), first, measured, begin, period),
                _ => end.publish(first..first + measured),
            }
            published.done();
            meters[1].done();
        })
    };
    let threads: Vec<_> = ends.into_iter().enumerate().map(publish).collect();
    let late = |meter: &Meter| fail(format!("{} had not finished after {LIMIT:?}", meter.remaining()));
    gate.wait();
    meters[0].wait(LIMIT).ok_or_else(|| late(&meters[0]))?;
    let churning = churn.map(|mut churn| {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::Relaxed) {
                churn();
                count += 1;
                thread::sleep(CHURN);
            }
            count
        });
        (stop, thread)
    });
    let memory_before = if shape.mode == Mode::Burst { memory() } else { 0 };
    let mut begin = Sample::now();
    gate.wait();
    let mut burst = None;
    if shape.mode == Mode::Burst {
        let done = published.wait(LIMIT).ok_or_else(|| late(&published))?;
        let messages = (measured * publishers) as f64;
        let publish = done.since(begin).0.as_secs_f64() * 1e9 / messages;
        let memory = memory().saturating_sub(memory_before) as f64 / messages;
        begin = Sample::now();
        stalled.open();
        burst = Some(Burst { publish, memory, recovery: 0.0 });
    }
    let end = meters[1].wait(LIMIT).ok_or_else(|| late(&meters[1]))?;
    for thread in threads {
        thread.join().map_err(|_| fail("a publisher panicked".into()))?;
    }
    let churned = churning.map_or(Ok(0), |(stop, thread)| {
        stop.store(true, Ordering::Relaxed);
        thread.join().map_err(|_| fail("the churn panicked".into()))
    })?;
    stop();

    let records = std::mem::take(&mut *records.lock().unwrap_or_else(PoisonError::into_inner));
    check(&records, contender.is_lossy(), shape.subscribers(), &expected_all).map_err(fail)?;
    let (wall, cpu) = end.since(begin);
    if let Some(burst) = &mut burst {
        burst.recovery = wall.as_secs_f64();
    }
    let latency = matches!(shape.mode, Mode::Latency { .. }).then(|| {
        let times = times.lock().unwrap_or_else(PoisonError::into_inner);
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| times.value_at_quantile(share) as f64);
        Latency { p50, p90, p99, p999, most: times.max() as f64 }
    });
    let made = |expected: &[(u64, u64)]| {
        expected.iter().zip(&shape.plan.fanout).map(|(&(count, _), &fanout)| count * fanout as u64).sum::<u64>()
    };
    let offered = match made(&expected_all) - made(&expected_warm) {
        0 => measured * publishers,
        offered => offered,
    };
    let lost = records.iter().map(|record| record.lost - record.lost_warming).sum::<u64>();
    let (deliveries, lost) = (offered - lost, lost as f64 / offered as f64);
    Ok(Round { wall, cpu, deliveries, lost, churned, latency, burst })
}

/// Whether all subscribers are there and each got every message once (or knows how many it lost). `expected`:
/// count and sum, by topic.
pub(crate) fn check(
    records: &[Record],
    lossy: bool,
    subscribers: usize,
    expected: &[(u64, u64)],
) -> Result<(), String> {
    if records.len() != subscribers {
        return Err(format!("{} of {subscribers} subscribers came back", records.len()));
    }
    let right = |record: &Record| Record::complete(record.topic, expected[record.topic]);
    let wrong = records.iter().find(|record| match lossy {
        true => record.count + record.lost != expected[record.topic].0,
        false => **record != right(record),
    });
    wrong.map_or(Ok(()), |record| Err(format!("a subscriber has {record:?}, not {:?}", right(record))))
}
