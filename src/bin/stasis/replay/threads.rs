//! `--order threads`: the recorded threads as streams of operations on a few publishing threads.
//!
//! ```text
//! ready (smallest line first) --> publisher: operation, operation, ... --> ready again, or
//!    ^                                                                     parked on a counter
//!    '------- woken when the counter has reached the value needed <-----------'
//! ```
//!
//! Each stream keeps its order; between streams only needs count (see [`Plan`]): objects must
//! exist, those that end must have been used by all who use them in the recording, a stream begins
//! when the main thread has come as far as it had then, and a plain thread ends a subscription
//! when everything before is done. Publishers take the ready stream with the smallest line, and no
//! stream gets far ahead of the oldest operation that is not done, be it one of a handler: threads
//! overlap much as in the recording, and a subscription that ends in its handler ends in time.
//!
//! A handler never waits: what it cannot make at once goes on as a stream of its own.

use super::plan::{Action, ContextId, Counter, CounterSpace, OperationId, Owner, Plan};
use super::stage::{Conductor, Stage};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a stream may be ahead of the oldest operation that is not done.
const AHEAD: usize = 512;
/// Quiet for this long with nothing to do: callbacks that have not come will not come.
const QUIET: Duration = Duration::from_millis(250);
/// Quiet for this long: what is parked will stay parked.
const STALL: Duration = Duration::from_secs(10);

/// State shared by publishers and handlers.
#[derive(Debug)]
pub(crate) struct Crew {
    space: CounterSpace,
    counters: Vec<AtomicU32>,
    /// Somebody is parked on this counter.
    watched: Vec<AtomicBool>,
    parked: Mutex<HashMap<usize, Vec<(u32, ContextId)>>>,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Next operation of each context; only who runs the context moves it.
    next: Vec<AtomicU32>,
    done: Vec<AtomicBool>,
    done_count: AtomicUsize,
    /// Copy of [`Barrier::low`].
    low: AtomicUsize,
    barrier: Mutex<Barrier>,
    barrier_watched: AtomicBool,
    /// Callbacks that have begun.
    claimed: Vec<AtomicBool>,
    continued: AtomicU64,
    orphaned: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    ready: BinaryHeap<Reverse<(OperationId, ContextId)>>,
    /// Streams whose next operation has its time in the future.
    timed: BinaryHeap<Reverse<(i64, OperationId, ContextId)>>,
    busy: usize,
    finished: bool,
}

/// Contexts that wait until all operations below some one are done.
#[derive(Debug, Default)]
struct Barrier {
    /// All operations below are done.
    low: usize,
    waiting: BinaryHeap<Reverse<(usize, OperationId, ContextId)>>,
}

/// What happened besides, for the summary.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aside {
    /// Callbacks that a publisher went on with outside of the handler.
    pub(crate) continued: u64,
    /// Callbacks of the original whose message did not come here; made by a publisher.
    pub(crate) orphaned: u64,
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Crew {
    pub(crate) fn new(plan: &Plan) -> Crew {
        let space = CounterSpace::of(&plan.trace);
        let mut queue = Queue::default();
        for (id, context) in plan.contexts.iter().enumerate() {
            if let (Owner::Thread(_), Some(&first)) = (&context.owner, context.operations.first()) {
                queue.ready.push(Reverse((first, id as ContextId)));
            }
        }
        Crew {
            space,
            counters: (0..space.len()).map(|_| AtomicU32::new(0)).collect(),
            watched: (0..space.len()).map(|_| AtomicBool::new(false)).collect(),
            parked: Mutex::default(),
            queue: Mutex::new(queue),
            changed: Condvar::new(),
            next: plan.contexts.iter().map(|_| AtomicU32::new(0)).collect(),
            done: plan.operations.iter().map(|_| AtomicBool::new(false)).collect(),
            done_count: AtomicUsize::new(0),
            low: AtomicUsize::new(0),
            barrier: Mutex::default(),
            barrier_watched: AtomicBool::new(false),
            claimed: plan.contexts.iter().map(|_| AtomicBool::new(false)).collect(),
            continued: AtomicU64::new(0),
            orphaned: AtomicU64::new(0),
        }
    }

    pub(crate) fn aside(&self) -> Aside {
        Aside { continued: self.continued.load(SeqCst), orphaned: self.orphaned.load(SeqCst) }
    }

    /// Operations of a callback, as far as they can be made without waiting.
    pub(crate) fn callback(&self, stage: &Arc<Stage>, context: ContextId) {
        if self.claimed[context as usize].swap(true, SeqCst) {
            return;
        }
        while let Some(operation) = self.head(&stage.plan, context) {
            if self.waits_inside(&stage.plan, operation) {
                self.make_ready(operation, context);
            } else if self.may_start(&stage.plan, operation, context) {
                self.perform(stage, operation, context);
                continue;
            }
            self.continued.fetch_add(1, SeqCst);
            return;
        }
    }

    fn waits_inside(&self, plan: &Plan, operation: OperationId) -> bool {
        match plan.operations[operation as usize].action {
            Action::Join { .. } => true,
            Action::Publish { publish } => plan.publishes[publish as usize].sync != 0,
            _ => false,
        }
    }

    fn head(&self, plan: &Plan, context: ContextId) -> Option<OperationId> {
        let next = self.next[context as usize].load(SeqCst) as usize;
        plan.contexts[context as usize].operations.get(next).copied()
    }

    /// A publisher: takes streams until all is done.
    fn publish(&self, stage: &Arc<Stage>) {
        while let Some(context) = self.pull(stage) {
            self.advance(stage, context);
            lock(&self.queue).busy -= 1;
        }
    }

    /// Makes operations of a stream until it ends, is parked, or is ahead of the others.
    fn advance(&self, stage: &Arc<Stage>, context: ContextId) {
        while let Some(operation) = self.head(&stage.plan, context) {
            let planned = &stage.plan.operations[operation as usize];
            if !stage.until(planned.at).is_zero() {
                lock(&self.queue).timed.push(Reverse((planned.at, operation, context)));
                self.changed.notify_one();
                return;
            }
            let ahead = (operation as usize).saturating_sub(AHEAD);
            if !self.pass_barrier(ahead, operation, context) || !self.may_start(&stage.plan, operation, context) {
                return;
            }
            self.perform(stage, operation, context);
        }
    }

    fn pull(&self, stage: &Stage) -> Option<ContextId> {
        let mut queue = lock(&self.queue);
        loop {
            while let Some(&Reverse((at, operation, context))) = queue.timed.peek() {
                if !stage.until(at).is_zero() {
                    break;
                }
                queue.timed.pop();
                queue.ready.push(Reverse((operation, context)));
            }
            if let Some(Reverse((_, context))) = queue.ready.pop() {
                queue.busy += 1;
                return Some(context);
            }
            if queue.finished {
                return None;
            }
            let wait = queue.timed.peek().map_or(Duration::from_millis(50), |Reverse((at, _, _))| stage.until(*at));
            let waited = self.changed.wait_timeout(queue, wait.min(Duration::from_millis(50)));
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn make_ready(&self, operation: OperationId, context: ContextId) {
        lock(&self.queue).ready.push(Reverse((operation, context)));
        self.changed.notify_one();
    }

    /// Whether an operation has all it needs; if not, its context is parked and somebody else may
    /// already be running it when this returns.
    fn may_start(&self, plan: &Plan, operation: OperationId, context: ContextId) -> bool {
        let planned = &plan.operations[operation as usize];
        for &(counter, at_least) in &planned.needs {
            let counter = self.space.index(counter);
            if self.counters[counter].load(SeqCst) < at_least && self.park(counter, at_least, context) {
                return false;
            }
        }
        !planned.after_all || self.pass_barrier(operation as usize, operation, context)
    }

    /// Parks a context, unless the counter has got there in between. The flag is set before the
    /// second look, and whoever counts looks at the flag afterwards: one of the two sees the other.
    fn park(&self, counter: usize, at_least: u32, context: ContextId) -> bool {
        let mut parked = lock(&self.parked);
        self.watched[counter].store(true, SeqCst);
        if self.counters[counter].load(SeqCst) >= at_least {
            return false;
        }
        parked.entry(counter).or_default().push((at_least, context));
        true
    }

    fn perform(&self, stage: &Arc<Stage>, operation: OperationId, context: ContextId) {
        stage.perform(operation);
        self.next[context as usize].fetch_add(1, SeqCst);
        let plan = &stage.plan;
        for counter in plan.moves(&plan.operations[operation as usize]).iter() {
            self.count(plan, counter);
        }
        self.done[operation as usize].store(true, SeqCst);
        if self.barrier_watched.load(SeqCst) {
            self.open_barrier();
        }
        self.done_count.fetch_add(1, SeqCst);
    }

    fn count(&self, plan: &Plan, counter: Counter) {
        let counter = self.space.index(counter);
        let now = self.counters[counter].fetch_add(1, SeqCst) + 1;
        if !self.watched[counter].load(SeqCst) {
            return;
        }
        let mut parked = lock(&self.parked);
        let Some(waiting) = parked.remove(&counter) else { return };
        let (woken, still): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(at_least, _)| now >= *at_least);
        if still.is_empty() {
            self.watched[counter].store(false, SeqCst);
        } else {
            parked.insert(counter, still);
        }
        drop(parked);
        for (_, context) in woken {
            if let Some(operation) = self.head(plan, context) {
                self.make_ready(operation, context);
            }
        }
    }

    fn raise(&self, barrier: &mut Barrier) {
        while self.done.get(barrier.low).is_some_and(|done| done.load(SeqCst)) {
            barrier.low += 1;
        }
        self.low.store(barrier.low, SeqCst);
    }

    /// Whether all operations below `target` are done; if not, the context waits for it. As in
    /// [`Crew::park`], the flag is set before the second look.
    fn pass_barrier(&self, target: usize, operation: OperationId, context: ContextId) -> bool {
        if self.low.load(SeqCst) >= target {
            return true;
        }
        let mut barrier = lock(&self.barrier);
        self.barrier_watched.store(true, SeqCst);
        self.raise(&mut barrier);
        let open = barrier.low >= target;
        if !open {
            barrier.waiting.push(Reverse((target, operation, context)));
        }
        open
    }

    fn open_barrier(&self) {
        let mut barrier = lock(&self.barrier);
        self.raise(&mut barrier);
        while let Some(&Reverse((target, operation, context))) = barrier.waiting.peek() {
            if target > barrier.low {
                return;
            }
            barrier.waiting.pop();
            self.make_ready(operation, context);
        }
        self.barrier_watched.store(false, SeqCst);
    }

    /// Callbacks whose message was published and did not come (the subscription was not there, or
    /// not accepting, at that moment of this run): their operations are made all the same.
    fn adopt_orphans(&self, plan: &Plan) -> u64 {
        let done = |operation: OperationId| self.done[operation as usize].load(SeqCst);
        let published = plan.publishes.iter().filter(|publish| publish.has_callbacks && done(publish.operation));
        let of_publishes = published.flat_map(|publish| &publish.recorded).filter_map(|delivery| delivery.callback);
        let unsubscribes = plan.operations.iter().enumerate().filter_map(|(id, operation)| match operation.action {
            Action::Unsubscribe { sub } if done(id as OperationId) => plan.finals[sub as usize]?.callback,
            _ => None,
        });
        let mut adopted = 0;
        for context in of_publishes.chain(unsubscribes) {
            if !self.claimed[context as usize].swap(true, SeqCst) {
                adopted += 1;
                if let Some(operation) = self.head(plan, context) {
                    self.make_ready(operation, context);
                }
            }
        }
        self.orphaned.fetch_add(adopted, SeqCst);
        adopted
    }

    /// Streams that wait, and for what: for the message when nothing goes on any more.
    fn describe_parked(&self, plan: &Plan) -> String {
        let barrier = lock(&self.barrier);
        let waiting = barrier.waiting.iter().map(|Reverse((_, operation, context))| (*operation, *context));
        let mut waiting: Vec<(OperationId, ContextId)> = waiting.collect();
        drop(barrier);
        let parked: Vec<ContextId> = lock(&self.parked).values().flatten().map(|(_, context)| *context).collect();
        waiting.extend(parked.into_iter().filter_map(|context| Some((self.head(plan, context)?, context))));
        waiting.sort_unstable();
        let mut lines: Vec<String> = Vec::new();
        for (operation, context) in waiting.iter().take(10) {
            let planned = &plan.operations[*operation as usize];
            let unmet = planned.needs.iter().map(|(counter, at_least)| (counter, at_least, self.space.index(*counter)));
            let unmet = unmet.map(|(counter, at_least, index)| (counter, *at_least, self.counters[index].load(SeqCst)));
            let unmet: Vec<String> = unmet
                .filter(|(_, at_least, now)| now < at_least)
                .map(|(counter, at_least, now)| format!("{counter:?} to reach {at_least} (is {now})"))
                .collect();
            let what = if unmet.is_empty() { "all lines before".to_owned() } else { unmet.join(", ") };
            let owner = &plan.contexts[*context as usize].owner;
            lines.push(format!("  {owner:?} at line {}: {:?} waits for {what}", planned.line, planned.action));
        }
        if waiting.len() > lines.len() {
            lines.push(format!("  and {} more", waiting.len() - lines.len()));
        }
        lines.join("\n")
    }
}

/// Runs the whole trace; `progress` is told the operations done.
pub(crate) fn run(stage: &Arc<Stage>, publishers: usize, progress: &dyn Fn(usize)) {
    let Conductor::Threads(crew) = &stage.conductor else { return };
    let total = stage.plan.operations.len();
    std::thread::scope(|scope| {
        for number in 0..publishers {
            let name = format!("publisher {number}");
            if let Err(error) = std::thread::Builder::new().name(name).spawn_scoped(scope, || crew.publish(stage)) {
                stage.fail(format!("a publishing thread cannot be started: {error}"));
            }
        }
        let mut seen = (0, 0);
        let (mut since, mut quiet_since) = (Instant::now(), Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(if seen.0 == 0 { 2 } else { 20 }));
            let done = crew.done_count.load(SeqCst);
            progress(done);
            if done == total {
                break;
            }
            let now = (done, stage.bus.stats().delivered);
            let queue = lock(&crew.queue);
            let idle = queue.ready.is_empty() && queue.timed.is_empty() && queue.busy == 0;
            let waits_for_time = !queue.timed.is_empty();
            drop(queue);
            if now != seen || waits_for_time {
                (since, quiet_since) = (Instant::now(), Instant::now());
            } else if idle && quiet_since.elapsed() > QUIET && crew.adopt_orphans(&stage.plan) > 0 {
                quiet_since = Instant::now();
            } else if since.elapsed() > STALL {
                let parked = crew.describe_parked(&stage.plan);
                stage.fail(format!("nothing goes on, {} operations are left:\n{parked}", total - done));
                break;
            }
            seen = now;
        }
        lock(&crew.queue).finished = true;
        crew.changed.notify_all();
    });
}
