//! Who must and who may get a message: a naive model of lists and filters, for comparison.
//!
//! A subscription is on the flat list of topic X iff its topic can be reached from X over forwards.
//! Every control operation takes some time (`start` to `end`); during it the change may or may not
//! have been made. So a publish has two answers: those who *must* get the message (on the list and
//! accepting, whatever the operations under way have done) and those who *may*. Without overlap the
//! two are the same.
//!
//! The same model serves two clocks: stamps of the run, and line numbers of the recording (where an
//! operation lasts until its last list line), which tells what the recording itself must hold.

use super::plan::{Action, Operation, OperationId, Origin, Plan, Publish};
use super::trace::Trace;

/// A stretch of time, ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// From when to when something is there: made during `made`, ended during `ended`.
#[derive(Debug, Clone, Copy)]
struct Life {
    made: Span,
    ended: Span,
}

const NEVER: Span = Span { start: u64::MAX, end: u64::MAX };

impl Life {
    fn may(&self, during: Span) -> bool {
        self.made.start <= during.end && self.ended.end >= during.start
    }

    fn must(&self, during: Span) -> bool {
        self.made.end <= during.start && self.ended.start >= during.end
    }
}

/// A filter as the subscription has it after some changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    mode: u32,
    accepted: Vec<u32>,
    formatters: u32,
}

impl Filter {
    const FORCED_NONE: u32 = 1;
    const SELECTIVE: u32 = 2;

    /// The filter after an action on it.
    fn after(&self, action: Action) -> Filter {
        let mut filter = self.clone();
        match action {
            Action::Accept { ty: 0, .. } => filter.mode = Self::FORCED_NONE,
            Action::Accept { ty, .. } if !filter.accepted.contains(&ty) => filter.accepted.push(ty),
            Action::Decline { ty, .. } => filter.accepted.retain(|&accepted| accepted != ty),
            Action::Mode { mode, .. } if filter.mode != Self::FORCED_NONE => filter.mode = mode,
            Action::Formatters { bits, .. } => filter.formatters = bits,
            _ => {}
        }
        filter
    }

    /// Filters are joined by "or": an accepted type, or a formatter in common, lets through.
    pub(crate) fn accepts(&self, ty: u32, formatters: u32) -> bool {
        let selective = self.mode == Self::SELECTIVE;
        (!selective && self.formatters == 0)
            || (selective && self.accepted.contains(&ty))
            || self.formatters & formatters != 0
    }
}

#[derive(Debug)]
struct Change {
    span: Span,
    filter: Filter,
}

#[derive(Debug)]
struct Listener {
    life: Life,
    filters: Vec<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Edge {
    to: u32,
    life: Life,
}

/// One entry of an audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ear {
    pub(crate) sub: u32,
    pub(crate) must: bool,
}

/// The model, with all that happened in a run.
#[derive(Debug)]
pub(crate) struct Oracle<'t> {
    trace: &'t Trace,
    edges: Vec<Vec<Edge>>,
    members: Vec<Vec<u32>>,
    listeners: Vec<Option<Listener>>,
    /// Marks of the walk under way: number of the walk that came by this topic last.
    visited: Vec<u32>,
    walk: u32,
    queue: Vec<u32>,
}

impl<'t> Oracle<'t> {
    /// A model of all control operations; `span` gives their times, `None` if one was not made.
    pub(crate) fn new(plan: &'t Plan, span: impl Fn(OperationId, &Operation) -> Option<Span>) -> Self {
        let trace = &*plan.trace;
        let topics = trace.topics.bound();
        let mut oracle = Oracle {
            trace,
            edges: vec![Vec::new(); topics],
            members: vec![Vec::new(); topics],
            listeners: (0..trace.subscriptions.bound()).map(|_| None).collect(),
            visited: vec![0; topics],
            walk: 0,
            queue: Vec::new(),
        };
        let mut places = vec![None; trace.forwards.bound()];
        for (id, operation) in plan.operations.iter().enumerate() {
            if let Action::Publish { .. } = operation.action {
                continue;
            }
            if let Some(during) = span(id as OperationId, operation) {
                oracle.enter(operation.action, during, &mut places);
            }
        }
        oracle
    }

    /// The oracle of the recording: its clock are line numbers.
    pub(crate) fn of_lines(plan: &'t Plan) -> Self {
        Oracle::new(plan, |_, operation| {
            Some(Span { start: u64::from(operation.line), end: u64::from(operation.done_line) })
        })
    }

    fn enter(&mut self, action: Action, during: Span, places: &mut [Option<(u32, usize)>]) {
        let life = Life { made: during, ended: NEVER };
        match action {
            Action::Subscribe { sub } => {
                if let Some(info) = self.trace.subscriptions.get(sub) {
                    self.members[info.topic as usize].push(sub);
                    self.listeners[sub as usize] = Some(Listener { life, filters: Vec::new() });
                }
            }
            Action::Unsubscribe { sub } => {
                if let Some(listener) = &mut self.listeners[sub as usize] {
                    listener.life.ended = during;
                }
            }
            Action::Forward { forward } => {
                if let Some(&info) = self.trace.forwards.get(forward) {
                    let edges = &mut self.edges[info.from as usize];
                    places[forward as usize] = Some((info.from, edges.len()));
                    edges.push(Edge { to: info.to, life });
                }
            }
            Action::Cancel { forward } => {
                if let Some((from, place)) = places[forward as usize] {
                    self.edges[from as usize][place].life.ended = during;
                }
            }
            Action::Accept { sub, .. }
            | Action::Decline { sub, .. }
            | Action::Mode { sub, .. }
            | Action::Formatters { sub, .. } => {
                if let Some(listener) = &mut self.listeners[sub as usize] {
                    let before = listener.filters.last().map_or_else(Filter::default, |change| change.filter.clone());
                    listener.filters.push(Change { span: during, filter: before.after(action) });
                }
            }
            _ => {}
        }
    }

    /// Everybody who may get a publish made in `during`, by ascending id.
    pub(crate) fn audience(&mut self, publish: &Publish, during: Span) -> Vec<Ear> {
        let mut ears = Vec::new();
        let formatters = self.trace.types.get(publish.ty).map_or(0, |info| info.formatters);
        self.listed(publish, during, false, &mut ears);
        ears.retain(|ear| self.filter(ear.sub, publish, formatters, during, false));
        let mut sure = Vec::new();
        self.listed(publish, during, true, &mut sure);
        sure.retain(|ear| self.filter(ear.sub, publish, formatters, during, true));
        sure.sort_unstable();
        for ear in &mut ears {
            ear.must = sure.binary_search_by_key(&ear.sub, |certain| certain.sub).is_ok();
        }
        ears.sort_unstable();
        ears
    }

    /// Shortest and longest flat list that a publish in `during` can find.
    pub(crate) fn list_length(&mut self, publish: &Publish, during: Span) -> (usize, usize) {
        let (mut sure, mut maybe) = (Vec::new(), Vec::new());
        self.listed(publish, during, true, &mut sure);
        self.listed(publish, during, false, &mut maybe);
        (sure.len(), maybe.len())
    }

    /// Longest list if a subscription is on it once for each way over forwards, as in the original. (Where forwards
    /// go in circles, which the original cannot, the count ends somewhere.)
    pub(crate) fn ways(&self, publish: &Publish, during: Span) -> usize {
        let there = |sub: &&u32| self.listeners[**sub as usize].as_ref().is_some_and(|it| it.life.may(during));
        let (mut open, mut found, mut steps) = (vec![publish.topic], 0, 0);
        while let Some(topic) = open.pop().filter(|_| steps < Self::STEPS) {
            steps += 1;
            found += self.members[topic as usize].iter().filter(there).count();
            open.extend(self.edges[topic as usize].iter().filter(|edge| edge.life.may(during)).map(|edge| edge.to));
        }
        found
    }

    const STEPS: usize = 4096;

    /// Subscriptions on the flat list of the topic, surely or perhaps.
    fn listed(&mut self, publish: &Publish, during: Span, surely: bool, found: &mut Vec<Ear>) {
        let there = |life: &Life| if surely { life.must(during) } else { life.may(during) };
        self.walk += 1;
        self.queue.clear();
        self.queue.push(publish.topic);
        self.visited[publish.topic as usize] = self.walk;
        while let Some(topic) = self.queue.pop() {
            for &sub in &self.members[topic as usize] {
                let on_list = match publish.origin {
                    // The change says that the subscription is there, or is not there any more.
                    // (A handler that hears of it earlier may end it before it hears of itself.)
                    Origin::Subscribed(own) if own == sub => {
                        let ends = self.listeners[sub as usize].as_ref().map(|listener| listener.life.ended.start);
                        !surely || ends.is_none_or(|start| start >= during.end)
                    }
                    Origin::Unsubscribed(own) if own == sub => false,
                    _ => self.listeners[sub as usize].as_ref().is_some_and(|listener| there(&listener.life)),
                };
                if on_list {
                    found.push(Ear { sub, must: surely });
                }
            }
            for edge in &self.edges[topic as usize] {
                let mark = &mut self.visited[edge.to as usize];
                if *mark != self.walk && there(&edge.life) {
                    *mark = self.walk;
                    self.queue.push(edge.to);
                }
            }
        }
    }

    /// Whether a filter surely, or perhaps, lets a message through. Its changes follow each other;
    /// the one before a change counts until the change has ended, the one after from its start.
    fn filter(&self, sub: u32, publish: &Publish, formatters: u32, during: Span, surely: bool) -> bool {
        let Some(listener) = &self.listeners[sub as usize] else { return false };
        let mut possible = Vec::with_capacity(4);
        let changes = &listener.filters;
        let first = Filter::default();
        for place in 0..=changes.len() {
            let (begun, filter) = match place.checked_sub(1) {
                None => (0, &first),
                Some(before) => (changes[before].span.start, &changes[before].filter),
            };
            let over = changes.get(place).is_some_and(|change| change.span.end < during.start);
            if begun <= during.end && !over {
                possible.push(filter.accepts(publish.ty, formatters));
            }
        }
        if surely { possible.iter().all(|&accepts| accepts) } else { possible.iter().any(|&accepts| accepts) }
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;
