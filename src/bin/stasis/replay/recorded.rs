//! `--order recorded`: operations take turns in one order, on several threads and in the handlers.
//!
//! ```text
//! publisher 0:  turn 0, 1     3              6        each recorded thread stays on one publisher
//! publisher 1:           2             5
//! handler of S:                  4                    its subscription has a thread of its own
//! ```
//!
//! Who is not at turn waits; who is, makes the operation and passes the turn on. The order comes
//! from [`Schedule`], which sees to it that whoever has a turn can take it. A callback whose message does
//! not come here (the original was half-way through a change when it was published) is made by a publisher.

use super::plan::{Action, ContextId, OperationId, Owner, Plan};
use super::schedule::{Moved, Schedule};
use super::stage::{Conductor, Stage};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After this long without a turn being passed on the callback at turn is made by a publisher.
const QUIET: Duration = Duration::from_millis(250);
/// After this long without a turn being passed on the run is given up.
const STALL: Duration = Duration::from_secs(15);
/// Waiting places; a turn's place is its number modulo this.
const PLACES: usize = 64;
const SPINS: u32 = 200;

/// The order, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns {
    schedule: Schedule,
    /// Subscriptions whose handlers take turns, by id.
    takers: Vec<bool>,
    /// Callbacks made within the turn of an operation.
    within: HashMap<OperationId, Vec<ContextId>>,
    /// Callbacks that have begun, or that a publisher makes.
    claimed: Vec<AtomicBool>,
    orphaned: AtomicU64,
    turn: AtomicU32,
    given_up: AtomicBool,
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Place {
    waiters: AtomicU32,
    lock: Mutex<()>,
    passed: Condvar,
}

impl Turns {
    pub(crate) fn new(plan: &Plan) -> Turns {
        let schedule = Schedule::of(plan);
        let mut takers = vec![false; plan.trace.subscriptions.bound()];
        let mut within: HashMap<OperationId, Vec<ContextId>> = HashMap::new();
        for (id, context) in plan.contexts.iter().enumerate() {
            match context.owner {
                Owner::Callback { sub, during: None } => takers[sub as usize] = true,
                Owner::Callback { during: Some(root), .. } if !schedule.detached.contains(&(id as ContextId)) => {
                    within.entry(root).or_default().push(id as ContextId);
                }
                _ => {}
            }
        }
        let claimed = |id: usize| AtomicBool::new(schedule.detached.contains(&(id as ContextId)));
        Turns {
            claimed: (0..plan.contexts.len()).map(claimed).collect(),
            schedule,
            takers,
            within,
            orphaned: AtomicU64::new(0),
            turn: AtomicU32::new(0),
            given_up: AtomicBool::new(false),
            places: (0..PLACES).map(|_| Place::default()).collect(),
        }
    }

    pub(crate) fn handler_takes_turns(&self, sub: u32) -> bool {
        self.takers[sub as usize]
    }

    pub(crate) fn moved(&self) -> Moved {
        self.schedule.moved
    }

    /// Callbacks whose message did not come here.
    pub(crate) fn orphaned(&self) -> u64 {
        self.orphaned.load(SeqCst)
    }

    /// Whether a synchronous publish waits for the handler.
    pub(crate) fn waits(&self, operation: OperationId) -> bool {
        self.schedule.waits.contains(&operation)
    }

    /// Turns taken so far.
    pub(crate) fn taken(&self) -> usize {
        self.turn.load(SeqCst) as usize
    }

    /// Operations of a callback: each at its turn, or all at once within the turn of the publish
    /// that called this handler.
    pub(crate) fn callback(&self, stage: &Arc<Stage>, context: ContextId) {
        if self.claim(context) {
            self.make(stage, context);
        }
    }

    fn claim(&self, context: ContextId) -> bool {
        !self.claimed[context as usize].swap(true, SeqCst)
    }

    /// Takes a callback over from a handler that has not been called for it.
    fn adopt(&self, context: ContextId) -> bool {
        let adopted = self.claim(context);
        self.orphaned.fetch_add(u64::from(adopted), SeqCst);
        adopted
    }

    fn make(&self, stage: &Arc<Stage>, context: ContextId) {
        for &operation in &stage.plan.contexts[context as usize].operations {
            match self.schedule.turn[operation as usize] {
                Some(_) => self.take(stage, operation),
                None => stage.perform(operation),
            }
        }
    }

    fn take(&self, stage: &Arc<Stage>, operation: OperationId) {
        let Some(turn) = self.schedule.turn[operation as usize] else { return };
        if self.wait(turn) {
            stage.perform(operation);
            for &context in self.within.get(&operation).into_iter().flatten() {
                if self.adopt(context) {
                    self.make(stage, context);
                }
            }
            self.pass(turn + 1);
        }
    }

    /// Waits for a turn; false if the run has been given up.
    fn wait(&self, turn: u32) -> bool {
        for _ in 0..SPINS {
            if self.turn.load(SeqCst) == turn {
                return true;
            }
            std::hint::spin_loop();
        }
        let place = &self.places[turn as usize % PLACES];
        place.waiters.fetch_add(1, SeqCst);
        let mut guard = place.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.turn.load(SeqCst) != turn && !self.given_up.load(SeqCst) {
            guard = place.passed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        drop(guard);
        place.waiters.fetch_sub(1, SeqCst);
        !self.given_up.load(SeqCst)
    }

    /// Passes the turn on. The waiter counted itself before it looked, so either it sees the new
    /// turn or it is seen here.
    fn pass(&self, turn: u32) {
        self.turn.store(turn, SeqCst);
        let place = &self.places[turn as usize % PLACES];
        if place.waiters.load(SeqCst) > 0 {
            let _guard = place.lock.lock().unwrap_or_else(PoisonError::into_inner);
            place.passed.notify_all();
        }
    }

    fn give_up(&self) {
        self.given_up.store(true, SeqCst);
        for place in &self.places {
            let _guard = place.lock.lock().unwrap_or_else(PoisonError::into_inner);
            place.passed.notify_all();
        }
    }
}

/// Runs the whole trace in its recorded order; `progress` is told the operations done.
pub(crate) fn run(stage: &Arc<Stage>, publishers: usize, progress: &dyn Fn(usize)) {
    let Conductor::Recorded(turns) = &stage.conductor else { return };
    let mut shares: Vec<Vec<OperationId>> = vec![Vec::new(); publishers];
    for &operation in &turns.schedule.order {
        let id = stage.plan.operations[operation as usize].context;
        match stage.plan.contexts[id as usize].owner {
            Owner::Thread(thread) => shares[thread as usize % publishers].push(operation),
            _ if turns.schedule.detached.contains(&id) => shares[id as usize % publishers].push(operation),
            Owner::Callback { .. } => {}
        }
    }
    let total = turns.schedule.order.len();
    std::thread::scope(|scope| {
        for (number, share) in shares.iter().enumerate() {
            let publish = move || {
                for &operation in share {
                    std::thread::sleep(stage.until(stage.plan.operations[operation as usize].at));
                    turns.take(stage, operation);
                }
            };
            let name = format!("publisher {number}");
            if let Err(error) = std::thread::Builder::new().name(name).spawn_scoped(scope, publish) {
                stage.fail(format!("a publishing thread cannot be started: {error}"));
                turns.give_up();
            }
        }
        let (mut last, mut since) = (0, Instant::now());
        while last < total && !turns.given_up.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(if last == 0 { 2 } else { 20 }));
            let taken = turns.taken();
            progress(taken);
            if taken == last && since.elapsed() > QUIET {
                let at_turn = stage.plan.operations[turns.schedule.order[taken] as usize].context;
                let waits = matches!(stage.plan.contexts[at_turn as usize].owner, Owner::Callback { .. });
                if waits && turns.adopt(at_turn) {
                    scope.spawn(move || turns.make(stage, at_turn));
                }
            }
            let due = turns.schedule.order.get(taken).map(|&id| stage.until(stage.plan.operations[id as usize].at));
            if taken > last || due.is_some_and(|due| !due.is_zero()) {
                (last, since) = (taken, Instant::now());
            } else if since.elapsed() > STALL {
                stage.fail(describe_stall(stage, turns.schedule.order[taken]));
                turns.give_up();
            }
        }
    });
}

fn describe_stall(stage: &Stage, operation: OperationId) -> String {
    let planned = &stage.plan.operations[operation as usize];
    let who = match &stage.plan.contexts[planned.context as usize].owner {
        Owner::Thread(thread) => format!("thread {thread}"),
        Owner::Callback { sub, .. } => format!("a callback of subscription {sub}, which has not been called for it"),
    };
    let what = match planned.action {
        Action::Publish { publish } => {
            let publish = &stage.plan.publishes[publish as usize];
            format!("publish message {} on topic {}", publish.message, publish.topic)
        }
        other => format!("{other:?}"),
    };
    format!("no turn was taken for {} s: line {} ({what}) is to be made by {who}", STALL.as_secs(), planned.line)
}
