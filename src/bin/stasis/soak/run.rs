//! One soak: the bus, its threads, the samples, the end.

use super::churn::{churn, subscribe};
use super::echo::echoes;
use super::extras::extras;
use super::ledger::{Ledger, TOPICS, Verdict};
use super::listener::{Habit, Item, Watch};
use super::options::{Options, Plant};
use super::progress::Progress;
use super::publish::publisher;
use super::random::Random;
use super::report::Report;
use super::sample::{Sample, few_arenas, heap, rss};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use stasis_bus::{BuildError, Bus, Completion, Delivery, Forward, Home, MessageType, Subscription, Topic};

/// How long what must come may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const SAMPLES: u32 = 600;
/// Entries of a lane's queue, of a piece of it, and bytes of an entry (`BusBuilder::ring_capacity`).
const RING: usize = 4096;
const SEGMENT: usize = 512;
const ENTRY_BYTES: usize = 16;

/// Passing subscriptions. Whoever takes one out ends it.
pub(crate) type Slots = Mutex<Vec<Slot>>;

/// A subscription, and what is known of it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) subscription: Subscription,
    pub(crate) watch: Arc<Watch>,
}

impl Slot {
    /// Ends it by dropping its handle.
    pub(crate) fn end(self, ledger: &Ledger) -> Completion {
        self.watch.ends(ledger);
        self.subscription.completion()
    }
}

/// What the threads share.
pub(crate) struct Stage {
    pub(crate) bus: Bus,
    pub(crate) kind: MessageType<Item>,
    pub(crate) topics: Vec<Topic>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) slots: Arc<Slots>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `done`; false if it does not come.
pub(crate) fn settles(done: impl Fn() -> bool) -> bool {
    settles_within(PATIENCE, done)
}

fn settles_within(limit: Duration, done: impl Fn() -> bool) -> bool {
    let since = Instant::now();
    while !done() {
        if since.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SoakError {
    #[error("the bus cannot be built: {0}")]
    Build(#[from] BuildError),
    #[error("cannot make the type of the messages: {0}")]
    Type(#[from] stasis_bus::TypeError),
    #[error("{0}")]
    Closed(#[from] stasis_bus::Closed),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Soaks, and says what came of it.
pub(crate) fn soak(options: &Options) -> Result<Report, SoakError> {
    let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let seed = options.seed.unwrap_or_else(clock);
    few_arenas();
    let bus = Bus::builder()
        .name("soak")
        .lanes(options.lanes.get())
        .ring_capacity(RING)
        .pinning(stasis_bus::Pinning::Off)
        .build()?;
    let witnesses =
        [Delivery::Lane(Home::Lane(0)), Delivery::Lane(Home::LeastLoaded), Delivery::Dedicated, Delivery::Inline];
    let ledger = Arc::new(Ledger::new(options.publishers, witnesses.len(), options.plant));
    let kind = MessageType::new(&bus, "soak")?;
    let topics = (0..TOPICS).map(|n| bus.topic(format!("soak:{n}"))).collect::<Result<Vec<_>, _>>()?;
    // These stand: directly, over another topic, and both ways (a diamond).
    let ways = [(1, 0), (2, 0), (3, 1), (4, 2), (5, 3), (5, 4)];
    let standing: Vec<Forward> =
        ways.iter().map(|(from, to)| topics[*from].forward_to(&topics[*to])).collect::<Result<_, _>>()?;
    let stage = Arc::new(Stage { bus, kind, topics, ledger: Arc::clone(&ledger), slots: Arc::default() });
    let staying: Vec<Slot> = witnesses
        .into_iter()
        .enumerate()
        .filter_map(|(place, delivery)| subscribe(&stage, 0, Habit::Witness(place), delivery))
        .collect();
    let threads = start(&stage, options, seed)?;
    let mut report = Report::new(options, seed);
    let goes_on = watch(&stage, options, &mut report);
    ledger.stop.store(true, Ordering::Relaxed);
    // Threads wait with patience themselves, some of them several times.
    let ends = goes_on && settles_within(4 * PATIENCE, || threads.iter().all(JoinHandle::is_finished));
    if !ends {
        ledger.violated(Verdict::Stuck, 1, || "threads of the soak that do not end".to_owned());
        report.end(&ledger);
        // They cannot be joined: the program ends with them.
        return Ok(report);
    }
    for thread in threads {
        if thread.join().is_err() {
            ledger.violated(Verdict::Stuck, 1, || "a thread of the soak panicked".to_owned());
        }
    }
    finish(stage, staying, standing, &mut report);
    report.end(&ledger);
    Ok(report)
}

fn start(stage: &Arc<Stage>, options: &Options, seed: u64) -> Result<Vec<JoinHandle<()>>, std::io::Error> {
    let mut threads = Vec::new();
    let rate = options.rate.div_ceil(options.publishers as u64);
    for at in 0..options.publishers {
        let stage = Arc::clone(stage);
        threads.push(thread::Builder::new().spawn(move || publisher(&stage, at, seed, rate))?);
    }
    for at in 0..2 {
        let stage = Arc::clone(stage);
        let random = Random::new(seed, 1 << 62 | at);
        threads.push(thread::Builder::new().name("churn".into()).spawn(move || churn(&stage, random))?);
    }
    let (bus, ledger) = (stage.bus.clone(), Arc::clone(&stage.ledger));
    threads.push(thread::Builder::new().name("echo".into()).spawn(move || echoes(&bus, &ledger, seed))?);
    let ledger = Arc::clone(&stage.ledger);
    threads.push(thread::Builder::new().name("extras".into()).spawn(move || extras(&ledger, seed))?);
    Ok(threads)
}

/// Takes samples until the time is over; false if nothing moves any more.
fn watch(stage: &Stage, options: &Options, report: &mut Report) -> bool {
    let (began, length) = (Instant::now(), options.duration());
    let every = (length / SAMPLES).clamp(Duration::from_millis(100), Duration::from_secs(10));
    let progress = Progress::new(length, options.quiet);
    let mut moved = (0, began);
    let mut grown: Vec<Vec<u8>> = Vec::new();
    while began.elapsed() < length {
        thread::sleep(every.min(length.saturating_sub(began.elapsed())));
        let stats = stage.bus.stats();
        let sample = Sample {
            at: began.elapsed(),
            rss: rss(),
            heap: heap(),
            violations: stage.ledger.violations().iter().sum(),
            published: stats.published,
            delivered: stage.ledger.calls.load(Ordering::Relaxed),
            subscriptions: stats.subscriptions,
            ring_bytes: stats.ring_bytes,
        };
        if sample.published > moved.0 {
            moved = (sample.published, Instant::now());
        } else if moved.1.elapsed() > PATIENCE {
            stage.ledger.violated(Verdict::Stuck, 1, || format!("nothing published for {PATIENCE:?}"));
            return false;
        }
        if options.plant == Some(Plant::Grow) {
            grown.push(vec![1; (4e6 * every.as_secs_f64()) as usize]);
        }
        progress.show(report.samples.last(), &sample, &stats);
        report.samples.push(sample);
    }
    true
}

/// Ends everything, and looks at what is left.
fn finish(stage: Arc<Stage>, staying: Vec<Slot>, standing: Vec<Forward>, report: &mut Report) {
    let passing = std::mem::take(&mut *lock(&stage.slots));
    let ledger = &stage.ledger;
    let ends: Vec<Completion> = staying.into_iter().chain(passing).map(|slot| slot.end(ledger)).collect();
    let stuck = ends.iter().filter(|end| end.wait_timeout(PATIENCE).is_err()).count();
    ledger.violated(Verdict::Stuck, stuck as u64, || "subscriptions that did not end".to_owned());
    drop(standing);
    let Some(Stage { bus, kind, topics, ledger, slots: _ }) = Arc::into_inner(stage) else {
        return report.failures.push("a thread of the soak kept what it used".to_owned());
    };
    drop(topics);
    match bus.shutdown(PATIENCE) {
        Ok(left) => {
            ledger.violated(Verdict::Leaked, left.topics.len() as u64, || format!("topics: {:?}", left.topics));
            ledger.violated(Verdict::Leaked, u64::from(!left.reclaimed), || "ring memory not reclaimed".to_owned());
            ledger.violated(Verdict::Stuck, left.threads as u64, || "threads of the bus that do not end".to_owned());
        }
        Err(error) => ledger.violated(Verdict::Stuck, 1, || error.to_string()),
    }
    let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    let stats = bus.stats();
    for (what, theirs, ours) in [
        ("delivered", stats.delivered, load(&ledger.calls)),
        ("published and unwanted", stats.published + stats.unwanted, load(&ledger.accepted)),
        ("refused", stats.refused, load(&ledger.refused)),
        ("panics", stats.panics, load(&ledger.panics)),
    ] {
        ledger.violated(Verdict::Miscounted, theirs.abs_diff(ours), || format!("{what}: the bus {theirs}, we {ours}"));
    }
    // Handles of ended subscriptions are still there: they may keep their queues, but no message.
    settles_or(&ledger, Verdict::Leaked, "messages alive", || load(&ledger.payloads));
    settles_or(&ledger, Verdict::Handlers, "handlers alive", || load(&ledger.made) - load(&ledger.dropped));
    drop(ends);
    // What lanes have always, and what one may keep that has grown.
    let rings = bus.lanes() * (RING + 2 * SEGMENT) * ENTRY_BYTES;
    let more = || bus.stats().ring_bytes.saturating_sub(rings) as u64;
    settles_or(&ledger, Verdict::Leaked, "bytes of queues", more);
    drop((bus, kind));
    report.stats = Some(stats);
}

fn settles_or(ledger: &Ledger, verdict: Verdict, what: &str, left: impl Fn() -> u64) {
    let since = Instant::now();
    while left() > 0 && since.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(1));
    }
    ledger.violated(verdict, left(), || format!("{} {what}", left()));
}
