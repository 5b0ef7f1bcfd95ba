//! Numbers of one or more runs: counts, histograms, who was busiest.

use super::listener::{Call, Key};
use super::plan::{Action, Plan};
use super::stage::Remains;
use super::trace::Kind;
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, HashMap};

/// A histogram of nanoseconds: 1 ns to about 18 minutes, three digits.
pub(crate) type Times = Histogram<u64>;

fn times() -> Times {
    // The bounds are constants that the histogram accepts.
    Histogram::new_with_bounds(1, 1 << 40, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Time of one subscriber's handlers.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) times: Times,
    pub(crate) total: u64,
}

/// All figures; several runs are added up.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) operations: BTreeMap<&'static str, u64>,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) finals: u64,
    pub(crate) full: u64,
    /// Publish call, message creation and direct handlers included.
    pub(crate) publish: Times,
    /// Start of the publish to start of the handler: all, and by kind of delivery.
    pub(crate) latency: Times,
    pub(crate) direct: Times,
    pub(crate) mailbox: Times,
    pub(crate) pool: Times,
    pub(crate) topics: HashMap<String, u64>,
    pub(crate) handlers: HashMap<String, Handler>,
    /// Most entries that waited in the own queue of a subscriber, as the bus samples it.
    pub(crate) queues: HashMap<String, u64>,
    pub(crate) wall_s: f64,
}

impl Default for Figures {
    fn default() -> Self {
        Figures {
            operations: BTreeMap::new(),
            published: 0,
            delivered: 0,
            finals: 0,
            full: 0,
            publish: times(),
            latency: times(),
            direct: times(),
            mailbox: times(),
            pool: times(),
            topics: HashMap::new(),
            handlers: HashMap::new(),
            queues: HashMap::new(),
            wall_s: 0.0,
        }
    }
}

impl Figures {
    /// Enters the operations of a run.
    pub(crate) fn operations(&mut self, plan: &Plan, remains: &Remains) {
        self.full += remains.full;
        let mut by_topic: HashMap<u32, u64> = HashMap::new();
        for (operation, &(start, end)) in plan.operations.iter().zip(&remains.spans) {
            if start == 0 {
                continue;
            }
            *self.operations.entry(kind(operation.action)).or_default() += 1;
            if let Action::Publish { publish } = operation.action {
                self.publish.saturating_record(end.saturating_sub(start).max(1));
                *by_topic.entry(plan.publishes[publish as usize].topic).or_default() += 1;
            }
        }
        for (sub, &most) in remains.queues.iter().enumerate() {
            let info = plan.trace.subscriptions.get(sub as u32).filter(|info| info.kind == Kind::Mailbox);
            if let Some(info) = info {
                let queue = self.queues.entry(info.origin.clone()).or_default();
                *queue = most.max(*queue);
            }
        }
        self.published += by_topic.values().sum::<u64>();
        for (topic, count) in by_topic {
            let name = plan.trace.topics.get(topic).map_or("", |info| &info.name);
            *self.topics.entry(name.to_owned()).or_default() += count;
        }
    }

    /// Enters one call of a handler.
    pub(crate) fn call(&mut self, plan: &Plan, sub: u32, call: &Call) {
        self.delivered += 1;
        self.finals += u64::from(call.key == Key::Final);
        let origin = plan.trace.subscriptions.get(sub).map_or("", |info| &info.origin);
        let took = call.end.saturating_sub(call.start);
        if !self.handlers.contains_key(origin) {
            self.handlers.insert(origin.to_owned(), Handler { times: times(), total: 0 });
        }
        if let Some(handler) = self.handlers.get_mut(origin) {
            handler.times.saturating_record(took.max(1));
            handler.total += took;
        }
    }

    /// Enters the way of a message from publish to handler.
    pub(crate) fn latency(&mut self, plan: &Plan, sub: u32, published: u64, call: &Call) {
        let waited = call.start.saturating_sub(published).max(1);
        self.latency.saturating_record(waited);
        let kind = plan.trace.subscriptions.get(sub).map_or(Kind::Direct, |info| info.kind);
        let of_kind = match kind {
            Kind::Direct => &mut self.direct,
            Kind::Mailbox => &mut self.mailbox,
            Kind::Pool => &mut self.pool,
        };
        of_kind.saturating_record(waited);
    }

    /// Topics with most publishes.
    pub(crate) fn busiest(&self, count: usize) -> Vec<(&str, u64)> {
        largest(&self.topics, count)
    }

    /// Subscribers whose own queue was longest.
    pub(crate) fn deepest(&self, count: usize) -> Vec<(&str, u64)> {
        largest(&self.queues, count)
    }

    /// Subscribers whose handlers took most time.
    pub(crate) fn slowest(&self, count: usize) -> Vec<(&str, &Handler)> {
        let mut handlers: Vec<(&str, &Handler)> = self.handlers.iter().map(|(name, h)| (name.as_str(), h)).collect();
        handlers.sort_by(|a, b| b.1.total.cmp(&a.1.total).then(a.0.cmp(b.0)));
        handlers.truncate(count);
        handlers
    }
}

fn largest(counts: &HashMap<String, u64>, count: usize) -> Vec<(&str, u64)> {
    let mut all: Vec<(&str, u64)> = counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    all.truncate(count);
    all
}

/// The recorded waits as a histogram like ours.
pub(crate) fn recorded(waits: &[u64]) -> Times {
    let mut all = times();
    waits.iter().for_each(|&wait| all.saturating_record(wait.max(1)));
    all
}

/// Stable names of operations, as in the summary and in `ops` of the JSON.
pub(crate) fn kind(action: Action) -> &'static str {
    match action {
        Action::CreateType { .. } => "create_type",
        Action::DropType { .. } => "drop_type",
        Action::CreateTopic { .. } => "create_topic",
        Action::LookUp { .. } => "look_up_topic",
        Action::DropTopic { .. } => "drop_topic",
        Action::Subscribe { .. } => "subscribe",
        Action::Unsubscribe { .. } => "unsubscribe",
        Action::Join { .. } => "join",
        Action::Accept { .. } => "accept_type",
        Action::Decline { .. } => "decline_type",
        Action::Mode { .. } => "filter_mode",
        Action::Formatters { .. } => "accept_formatters",
        Action::Forward { .. } => "forward",
        Action::Cancel { .. } => "cancel_forward",
        Action::SelfForward { .. } => "forward_to_itself",
        Action::Publish { .. } => "publish",
    }
}
