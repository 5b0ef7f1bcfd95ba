//! One order of all operations for `--order recorded`, worked out before the run.
//!
//! It is the order of the recorded lines, except where this bus cannot follow it:
//!
//! - Operations of a direct handler are made during the publish that called it; they have no turn of
//!   their own, the publish is one block. It goes when all that its operations need is there.
//! - A handler gets its messages in the order of publishing. The original sometimes served a
//!   subscription on several topics in another order (FORMAT.md, overtaken pairs).
//! - A handler cannot get a message whose publish has been put off by one of these rules.
//! - A join waits for a handler with the turn in hand, so callbacks of that subscription which make
//!   operations go first. A synchronous publish waits only where no such callback is under way; where
//!   one is, it is published like others, and its thread goes on when those callbacks are done.
//!
//! List scheduling: among the contexts whose next operation may go, the one with the smallest line
//! goes. Everything else follows from the plan, so the same trace always gives the same order, and
//! no handler ever waits for a turn that comes only after its own. Where these rules contradict each
//! other, a callback is detached: its operations take turns like those of a thread, and a publisher
//! makes them beside the handler.

use super::plan::{Action, ContextId, CounterSpace, OperationId, Owner, Plan, PublishId};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};

/// The order, and how far it is from the recorded one.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// Operations that take turns.
    pub(crate) order: Vec<OperationId>,
    /// Turn of each operation; `None` for those made within the turn of another one.
    pub(crate) turn: Vec<Option<u32>>,
    /// Synchronous publishes that wait for the handler.
    pub(crate) waits: HashSet<OperationId>,
    /// Callbacks whose operations a publisher makes.
    pub(crate) detached: HashSet<ContextId>,
    pub(crate) moved: Moved,
}

/// Operations that are not where the recording has them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    /// Made inside a direct handler while another thread had lines in between.
    pub(crate) within_publish: u64,
    /// Put off: their handler gets messages in the order of publishing.
    pub(crate) handler_order: u64,
    /// Put off until the handler they wait for was free.
    pub(crate) awaited: u64,
    /// Put off because something they need was put off.
    pub(crate) followed: u64,
    /// Not possible under all rules: callbacks detached, operations taken in the order of lines.
    pub(crate) forced: u64,
}

impl Moved {
    pub(crate) fn total(&self) -> u64 {
        self.within_publish + self.handler_order + self.awaited + self.followed + self.forced
    }
}

struct Scheduler<'p> {
    plan: &'p Plan,
    space: CounterSpace,
    counters: Vec<u32>,
    /// Operations made within the turn of another one, by that one.
    inner: HashMap<OperationId, Vec<OperationId>>,
    /// Publishes a turn makes: its own, then those within.
    publishes: HashMap<OperationId, Vec<PublishId>>,
    /// Next operation of each context.
    next: Vec<usize>,
    /// Contexts that may go, by the operation they would make.
    ready: BinaryHeap<Reverse<(OperationId, ContextId)>>,
    /// Contexts waiting for a counter, by its index.
    waiting: HashMap<usize, Vec<ContextId>>,
    /// All contexts that wait, by their next operation: one of them is forced if nothing may go.
    stuck: BTreeSet<(OperationId, ContextId)>,
    /// Callbacks with operations that a subscription will make, in order; the first is running.
    lines_up: HashMap<u32, VecDeque<ContextId>>,
    /// How many lined up by now, and how many of them are done.
    lined: HashMap<u32, (u32, u32)>,
    /// Contexts that go on when a subscription has done so many callbacks.
    after: HashMap<ContextId, (u32, u32)>,
    /// Contexts waiting for a subscription to have made its callbacks.
    for_handler: HashMap<u32, Vec<ContextId>>,
    delayed: HashMap<ContextId, Delay>,
    schedule: Schedule,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    Handler,
    Awaited,
    Followed,
}

impl Schedule {
    pub(crate) fn of(plan: &Plan) -> Schedule {
        let space = CounterSpace::of(&plan.trace);
        let mut scheduler = Scheduler {
            plan,
            space,
            counters: vec![0; space.len()],
            inner: HashMap::new(),
            publishes: HashMap::new(),
            next: vec![0; plan.contexts.len()],
            ready: BinaryHeap::new(),
            waiting: HashMap::new(),
            stuck: BTreeSet::new(),
            lines_up: HashMap::new(),
            lined: HashMap::new(),
            after: HashMap::new(),
            for_handler: HashMap::new(),
            delayed: HashMap::new(),
            schedule: Schedule { turn: vec![None; plan.operations.len()], ..Schedule::default() },
        };
        scheduler.prepare();
        scheduler.run();
        scheduler.schedule.moved.within_publish = scheduler.count_within();
        scheduler.schedule
    }
}

impl Scheduler<'_> {
    fn prepare(&mut self) {
        for (id, operation) in self.plan.operations.iter().enumerate() {
            if operation.root != id as OperationId {
                self.inner.entry(operation.root).or_default().push(id as OperationId);
            }
        }
        for (id, publish) in self.plan.publishes.iter().enumerate() {
            if publish.has_callbacks {
                let root = self.plan.operations[publish.operation as usize].root;
                self.publishes.entry(root).or_default().push(id as PublishId);
            }
        }
        for (id, context) in self.plan.contexts.iter().enumerate() {
            if matches!(context.owner, Owner::Thread(_)) {
                self.offer(id as ContextId);
            }
        }
    }

    fn run(&mut self) {
        let mut latest = 0;
        loop {
            let (operation, context, forced) = match self.ready.pop() {
                Some(Reverse((operation, context))) => {
                    // An entry may be there twice, or be left from before a forced turn.
                    if self.head(context) != Some(operation) || self.held_back(operation, context) {
                        continue;
                    }
                    (operation, context, false)
                }
                None if self.detach_one() => continue,
                None => match self.stuck.pop_first() {
                    Some((operation, context)) => (operation, context, true),
                    None => break,
                },
            };
            self.stuck.remove(&(operation, context));
            let moved = &mut self.schedule.moved;
            if forced {
                moved.forced += 1;
            } else if operation < latest {
                match self.delayed.get(&context) {
                    Some(Delay::Awaited) => moved.awaited += 1,
                    Some(Delay::Followed) => moved.followed += 1,
                    _ => moved.handler_order += 1,
                }
            }
            latest = latest.max(operation);
            self.take(operation, context);
        }
    }

    /// Nothing may go. Takes a rule away for one callback: a block is taken apart, or a callback made
    /// beside the handler that should have made it. False: it is not that.
    fn detach_one(&mut self) -> bool {
        let block = self
            .stuck
            .iter()
            .find(|(operation, _)| self.inner.contains_key(operation) && self.unmet(&[*operation]).is_none());
        if let Some(&(operation, context)) = block {
            let plan = self.plan;
            let inner = self.inner.remove(&operation).unwrap_or_default();
            let contexts: BTreeSet<ContextId> = inner.iter().map(|&id| plan.operations[id as usize].context).collect();
            // What they publish is published when they do it.
            for publish in self.publishes.remove(&operation).unwrap_or_default() {
                let by = plan.publishes[publish as usize].operation;
                self.publishes.entry(by).or_default().push(publish);
            }
            self.schedule.moved.forced += contexts.len() as u64;
            self.schedule.detached.extend(contexts);
            self.offer(context);
            return true;
        }
        let fronts = self.lines_up.iter().filter_map(|(&sub, line)| Some((*line.front()?, sub)));
        let stuck = fronts.filter_map(|(front, sub)| Some((self.head(front)?, front, sub)));
        let Some((_, front, sub)) = stuck.min() else { return false };
        self.schedule.moved.forced += 1;
        self.schedule.detached.insert(front);
        self.callback_done(sub);
        true
    }

    /// Next operation of a context, if it has one left.
    fn head(&self, context: ContextId) -> Option<OperationId> {
        self.plan.contexts[context as usize].operations.get(self.next[context as usize]).copied()
    }

    fn offer(&mut self, context: ContextId) {
        if let Some(operation) = self.head(context) {
            self.stuck.remove(&(operation, context));
            self.ready.push(Reverse((operation, context)));
        }
    }

    /// Parks a context whose next operation cannot go yet.
    fn held_back(&mut self, operation: OperationId, context: ContextId) -> bool {
        let unmet = match self.inner.get(&operation) {
            None => self.unmet(&[operation]),
            Some(inner) => self.unmet(&[&[operation], inner.as_slice()].concat()),
        };
        if let Some(counter) = unmet {
            self.waiting.entry(counter).or_default().push(context);
            self.delayed.insert(context, Delay::Followed);
        } else if let Some(sub) = self.awaited(operation, context) {
            self.for_handler.entry(sub).or_default().push(context);
            self.delayed.insert(context, Delay::Awaited);
        } else {
            return false;
        }
        self.stuck.insert((operation, context));
        true
    }

    /// The first counter that some operation of a block needs to be higher, those before it in the block made.
    fn unmet(&self, block: &[OperationId]) -> Option<usize> {
        let mut within: HashMap<usize, u32> = HashMap::new();
        for &id in block {
            let planned = &self.plan.operations[id as usize];
            for &(counter, at_least) in &planned.needs {
                let counter = self.space.index(counter);
                if self.counters[counter] + within.get(&counter).copied().unwrap_or(0) < at_least {
                    return Some(counter);
                }
            }
            if block.len() > 1 {
                for counter in self.plan.moves(planned).iter() {
                    *within.entry(self.space.index(counter)).or_default() += 1;
                }
            }
        }
        None
    }

    /// The subscription whose callbacks must be done first.
    fn awaited(&self, operation: OperationId, context: ContextId) -> Option<u32> {
        if let Some(&(sub, callbacks)) = self.after.get(&context)
            && self.lined.get(&sub).is_some_and(|&(_, done)| done < callbacks)
        {
            return Some(sub);
        }
        let inner = self.inner.get(&operation).into_iter().flatten().copied();
        std::iter::once(operation).chain(inner).find_map(|id| match self.plan.operations[id as usize].action {
            Action::Join { sub } if self.is_acting(sub) => Some(sub),
            _ => None,
        })
    }

    /// Whether callbacks of the subscription have operations to make.
    fn is_acting(&self, sub: u32) -> bool {
        self.lines_up.get(&sub).is_some_and(|line| !line.is_empty())
    }

    fn take(&mut self, operation: OperationId, context: ContextId) {
        self.schedule.turn[operation as usize] = Some(self.schedule.order.len() as u32);
        self.schedule.order.push(operation);
        self.next[context as usize] += 1;
        self.count(operation);
        for inner in self.inner.remove(&operation).unwrap_or_default() {
            self.count(inner);
        }
        let sync = match self.plan.operations[operation as usize].action {
            Action::Publish { publish } => self.plan.publishes[publish as usize].sync,
            _ => 0,
        };
        let was_acting = self.is_acting(sync);
        for publish in self.publishes.remove(&operation).unwrap_or_default() {
            let plan = self.plan;
            for delivery in &plan.publishes[publish as usize].recorded {
                self.line_up(delivery.sub, delivery.callback);
            }
        }
        self.finals(operation);
        if sync != 0 {
            if was_acting || self.is_acting(sync) {
                let lined = self.lined.get(&sync).map_or(0, |&(lined, _)| lined);
                self.after.insert(context, (sync, lined));
            } else {
                self.schedule.waits.insert(operation);
            }
        }
        if self.head(context).is_some() {
            self.offer(context);
        } else if let Owner::Callback { sub, .. } = self.plan.contexts[context as usize].owner
            && !self.schedule.detached.contains(&context)
        {
            self.callback_done(sub);
        }
    }

    /// An unsubscribe also sends the final message.
    fn finals(&mut self, operation: OperationId) {
        if let Action::Unsubscribe { sub } = self.plan.operations[operation as usize].action
            && let Some(delivery) = self.plan.finals[sub as usize]
        {
            self.line_up(sub, delivery.callback);
        }
    }

    /// A callback that takes turns lines up behind the earlier ones of its subscription.
    fn line_up(&mut self, sub: u32, callback: Option<ContextId>) {
        let Some(context) = callback else { return };
        if self.schedule.detached.contains(&context) {
            return self.offer(context);
        }
        if !matches!(self.plan.contexts[context as usize].owner, Owner::Callback { during: None, .. }) {
            return;
        }
        let line = self.lines_up.entry(sub).or_default();
        line.push_back(context);
        self.lined.entry(sub).or_default().0 += 1;
        if line.len() == 1 {
            self.offer(context);
        } else {
            self.delayed.insert(context, Delay::Handler);
        }
    }

    fn callback_done(&mut self, sub: u32) {
        let line = self.lines_up.entry(sub).or_default();
        line.pop_front();
        self.lined.entry(sub).or_default().1 += 1;
        if let Some(next) = line.front().copied() {
            self.offer(next);
        }
        for context in self.for_handler.remove(&sub).unwrap_or_default() {
            self.offer(context);
        }
    }

    fn count(&mut self, operation: OperationId) {
        let plan = self.plan;
        for counter in plan.moves(&plan.operations[operation as usize]).iter() {
            let index = self.space.index(counter);
            self.counters[index] += 1;
            for context in self.waiting.remove(&index).unwrap_or_default() {
                self.offer(context);
            }
        }
    }

    /// Inner operations that other operations of the recording precede, though they now follow.
    fn count_within(&self) -> u64 {
        let operations = &self.plan.operations;
        let roots: HashSet<OperationId> =
            operations.iter().enumerate().filter(|(id, o)| o.root != *id as OperationId).map(|(_, o)| o.root).collect();
        let mut moved = 0;
        for root in roots {
            let end = operations.len() as OperationId;
            let within = |id: &OperationId| operations[*id as usize].root == root;
            let inner: Vec<OperationId> =
                (root + 1..end).take_while(|id| *id < root + Self::REACH).filter(within).collect();
            moved +=
                inner.iter().enumerate().filter(|(place, id)| **id != root + 1 + *place as OperationId).count() as u64;
        }
        moved
    }

    /// No publish of a recording lasts over more operations than this; bounds the counting.
    const REACH: OperationId = 4096;
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
