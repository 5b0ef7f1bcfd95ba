//! What the replay does, worked out before it starts: operations in the order of the recording,
//! each in the context that makes it.
//!
//! ```text
//! thread 7:  p ── b S m ── p ── e ── pe ── tn       lines of the recording
//!            │             │               │
//! stream 7:  publish       │               topic    what its publishing thread does
//! callback (S, m):         publish                  what the handler of S does when it gets m
//! ```
//!
//! Lines that describe what the bus does by itself (list changes, queue entries, callbacks, the
//! publish of a subscription change) become no operations but what the run is compared with.

use super::trace::Trace;
use std::collections::HashMap;
use std::sync::Arc;

/// Index into [`Plan::operations`]; ascending in the order of lines.
pub(crate) type OperationId = u32;
/// Index into [`Plan::contexts`].
pub(crate) type ContextId = u32;
/// Index into [`Plan::publishes`].
pub(crate) type PublishId = u32;

/// An operation that the replay makes. Ids of objects are those of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    CreateType {
        ty: u32,
    },
    DropType {
        ty: u32,
    },
    CreateTopic {
        topic: u32,
    },
    /// Ask for a topic by name that is there: by name, or through its pool.
    LookUp {
        topic: u32,
    },
    DropTopic {
        topic: u32,
    },
    Subscribe {
        sub: u32,
    },
    Unsubscribe {
        sub: u32,
    },
    Join {
        sub: u32,
    },
    /// Type 0: the type is unknown to the subscriber, its filter is forced off.
    Accept {
        sub: u32,
        ty: u32,
    },
    Decline {
        sub: u32,
        ty: u32,
    },
    Mode {
        sub: u32,
        mode: u32,
    },
    Formatters {
        sub: u32,
        bits: u32,
    },
    Forward {
        forward: u32,
    },
    Cancel {
        forward: u32,
    },
    SelfForward {
        topic: u32,
    },
    Publish {
        publish: PublishId,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) line: u32,
    /// Line at which the original was through with it (its list changes made).
    pub(crate) done_line: u32,
    /// Recorded time, ns since the start.
    pub(crate) at: i64,
    pub(crate) context: ContextId,
    /// The operation during which this one is made: itself, or the publish (or unsubscribe) whose
    /// direct handler makes it.
    pub(crate) root: OperationId,
    pub(crate) action: Action,
    /// Counters that must have reached a value before it may start.
    pub(crate) needs: Vec<(Counter, u32)>,
    /// All operations of earlier lines must be done (end of a subscription by a plain thread).
    pub(crate) after_all: bool,
}

/// Who makes operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A recorded thread outside of callbacks. 0: what the replay adds to close an open trace.
    Thread(u32),
    /// The handler of a subscription, for one message; `during`: the operation that waits for it.
    Callback { sub: u32, during: Option<OperationId> },
}

#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) owner: Owner,
    pub(crate) operations: Vec<OperationId>,
}

/// Why a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Recorded,
    /// By the bus, because of a subscribe or unsubscribe of this subscription.
    Subscribed(u32),
    Unsubscribed(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) operation: OperationId,
    pub(crate) line: u32,
    /// Line at which it was done, its direct handlers called (where the trace says so).
    pub(crate) end_line: u32,
    pub(crate) thread: u32,
    /// How many publishes the recorded thread made before.
    pub(crate) sequence: u32,
    pub(crate) topic: u32,
    pub(crate) message: u32,
    pub(crate) ty: u32,
    /// Length of the flat list in the original.
    pub(crate) listed: u32,
    /// The subscription this is synchronous for, or 0.
    pub(crate) sync: u32,
    pub(crate) origin: Origin,
    /// Who got it in the original.
    pub(crate) recorded: Vec<Delivery>,
    /// Some of these callbacks make operations.
    pub(crate) has_callbacks: bool,
}

/// One delivery in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) sub: u32,
    /// Time the handler needed itself, ns.
    pub(crate) busy: u32,
    pub(crate) callback: Option<ContextId>,
}

/// Something the run counts and operations wait for, see [`Operation::needs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Counter {
    TopicMade(u32),
    TopicUsed(u32),
    TopicGone(u32),
    /// Forwards made from this topic.
    TopicLinked(u32),
    TypeMade(u32),
    TypeUsed(u32),
    SubscriptionMade(u32),
    SubscriptionUsed(u32),
    SubscriptionEnded(u32),
    ForwardMade(u32),
    /// Operations done by the first thread: it starts and sets up the whole program.
    Main,
}

/// The whole plan of one trace.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) trace: Arc<Trace>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) contexts: Vec<Context>,
    pub(crate) publishes: Vec<Publish>,
    /// Final delivery of each subscription in the original, by id.
    pub(crate) finals: Vec<Option<Delivery>>,
    /// Deliveries each subscription got in the original, by id: to size its log.
    pub(crate) expected: Vec<u32>,
    /// Names of topics whose recorded name another topic still had.
    pub(crate) renamed: HashMap<u32, String>,
    /// The publish of each subscription change: of the beginning (true) or the end of which subscription.
    pub(crate) changes: HashMap<(bool, u32), PublishId>,
    /// Some callback with a subscription change makes operations.
    pub(crate) changes_act: bool,
    /// Somebody waits for the end of this subscription, by id.
    pub(crate) joined: Vec<bool>,
    pub(crate) main_thread: u32,
    /// Queue entry to callback in the original, ns: own thread, shared pool.
    pub(crate) mailbox_wait: Vec<u64>,
    pub(crate) pool_wait: Vec<u64>,
    pub(crate) asides: Asides,
}

/// Lines that are counted and not replayed.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Asides {
    pub(crate) pools: u64,
    pub(crate) pool_creates: u64,
    pub(crate) pool_deletes: u64,
    pub(crate) levels: u64,
    pub(crate) caching_topics: u64,
    pub(crate) cache_events: u64,
    pub(crate) cache_lookups: u64,
    pub(crate) unpublished: u64,
    /// Final messages that the original did not hand to a handler whose filter rejects them.
    pub(crate) skipped_finals: u64,
    /// Operations added because the trace ends with objects alive.
    pub(crate) closing: u64,
}

impl Plan {
    /// Counters that an operation moves when it is done.
    pub(crate) fn moves(&self, operation: &Operation) -> Moves {
        use Counter::*;
        let mut moves = Moves::default();
        match operation.action {
            Action::CreateType { ty } => moves.push(TypeMade(ty)),
            Action::DropType { .. } | Action::Join { .. } => {}
            Action::CreateTopic { topic } => moves.push(TopicMade(topic)),
            Action::LookUp { topic } | Action::SelfForward { topic } => moves.push(TopicUsed(topic)),
            Action::DropTopic { topic } => moves.push(TopicGone(topic)),
            Action::Subscribe { sub } => {
                moves.push(SubscriptionMade(sub));
                moves.push(TopicUsed(self.topic_of(sub)));
            }
            Action::Unsubscribe { sub } => {
                moves.push(SubscriptionEnded(sub));
                moves.push(TopicUsed(self.topic_of(sub)));
            }
            Action::Accept { sub, ty } | Action::Decline { sub, ty } => {
                moves.push(SubscriptionUsed(sub));
                if ty != 0 {
                    moves.push(TypeUsed(ty));
                }
            }
            Action::Mode { sub, .. } | Action::Formatters { sub, .. } => moves.push(SubscriptionUsed(sub)),
            Action::Forward { forward } | Action::Cancel { forward } => {
                if let Action::Forward { .. } = operation.action {
                    moves.push(ForwardMade(forward));
                    moves.push(TopicLinked(self.trace.forwards.get(forward).map_or(0, |info| info.from)));
                }
                if let Some(info) = self.trace.forwards.get(forward) {
                    moves.push(TopicUsed(info.from));
                    moves.push(TopicUsed(info.to));
                }
            }
            Action::Publish { publish } => {
                let publish = &self.publishes[publish as usize];
                moves.push(TopicUsed(publish.topic));
                moves.push(TypeUsed(publish.ty));
                if publish.sync != 0 {
                    moves.push(SubscriptionUsed(publish.sync));
                }
            }
        }
        if self.contexts[operation.context as usize].owner == Owner::Thread(self.main_thread) {
            moves.push(Main);
        }
        moves
    }

    /// What must be there (and, where something ends, who must be done with it) before an action.
    /// `count` tells how often a counter has moved by all operations before.
    pub(crate) fn needs(&self, action: Action, count: impl Fn(Counter) -> u32) -> Vec<(Counter, u32)> {
        use Counter::*;
        let trace = &self.trace;
        let so_far = |counter| (counter, count(counter));
        match action {
            Action::CreateType { .. } | Action::CreateTopic { .. } => vec![],
            Action::DropType { ty } => vec![(TypeMade(ty), 1), so_far(TypeUsed(ty))],
            Action::LookUp { topic } | Action::SelfForward { topic } => vec![(TopicMade(topic), 1)],
            Action::DropTopic { topic } => vec![(TopicMade(topic), 1), so_far(TopicUsed(topic))],
            Action::Subscribe { sub } => vec![(TopicMade(self.topic_of(sub)), 1)],
            Action::Unsubscribe { sub } => vec![(SubscriptionMade(sub), 1), so_far(SubscriptionUsed(sub))],
            Action::Join { sub } => vec![(SubscriptionEnded(sub), 1)],
            Action::Accept { sub, ty } | Action::Decline { sub, ty } => {
                let mut needs = vec![(SubscriptionMade(sub), 1)];
                needs.extend((ty != 0).then_some((TypeMade(ty), 1)));
                needs
            }
            Action::Mode { sub, .. } | Action::Formatters { sub, .. } => vec![(SubscriptionMade(sub), 1)],
            Action::Forward { forward } => {
                let ends = trace.forwards.get(forward).map(|info| [info.from, info.to]);
                ends.into_iter().flatten().map(|topic| (TopicMade(topic), 1)).collect()
            }
            Action::Cancel { forward } => {
                let from = trace.forwards.get(forward).map_or(0, |info| info.from);
                vec![(ForwardMade(forward), 1), so_far(TopicUsed(from))]
            }
            Action::Publish { publish } => {
                let publish = &self.publishes[publish as usize];
                let mut needs = vec![(TopicMade(publish.topic), 1), (TypeMade(publish.ty), 1)];
                needs.push(so_far(TopicLinked(publish.topic)));
                needs.extend((publish.sync != 0).then_some((SubscriptionMade(publish.sync), 1)));
                needs
            }
        }
    }

    /// The name a topic has in the replay: as recorded, but for [`Plan::renamed`].
    pub(crate) fn name_of(&self, topic: u32) -> &str {
        let recorded = || self.trace.topics.get(topic).map_or("", |info| &info.name);
        self.renamed.get(&topic).map_or_else(recorded, String::as_str)
    }

    fn topic_of(&self, sub: u32) -> u32 {
        self.trace.subscriptions.get(sub).map_or(0, |info| info.topic)
    }

    /// Deliveries of the original, final messages included.
    pub(crate) fn recorded_deliveries(&self) -> u64 {
        let finals = self.finals.iter().flatten().count();
        self.publishes.iter().map(|publish| publish.recorded.len() as u64).sum::<u64>() + finals as u64
    }
}

/// The few counters of one operation, without allocation.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Moves {
    counters: [Option<Counter>; 5],
    used: usize,
}

impl Moves {
    fn push(&mut self, counter: Counter) {
        self.counters[self.used] = Some(counter);
        self.used += 1;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Counter> + '_ {
        self.counters[..self.used].iter().flatten().copied()
    }
}

/// Numbers for [`Counter`]s, so that they can live in one array.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CounterSpace {
    topics: usize,
    types: usize,
    subscriptions: usize,
    forwards: usize,
}

impl CounterSpace {
    pub(crate) fn of(trace: &Trace) -> Self {
        CounterSpace {
            topics: trace.topics.bound(),
            types: trace.types.bound(),
            subscriptions: trace.subscriptions.bound(),
            forwards: trace.forwards.bound(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.index(Counter::Main) + 1
    }

    pub(crate) fn index(&self, counter: Counter) -> usize {
        let types = 4 * self.topics;
        let subscriptions = types + 2 * self.types;
        let forwards = subscriptions + 3 * self.subscriptions;
        match counter {
            Counter::TopicMade(id) => id as usize,
            Counter::TopicUsed(id) => self.topics + id as usize,
            Counter::TopicGone(id) => 2 * self.topics + id as usize,
            Counter::TopicLinked(id) => 3 * self.topics + id as usize,
            Counter::TypeMade(id) => types + id as usize,
            Counter::TypeUsed(id) => types + self.types + id as usize,
            Counter::SubscriptionMade(id) => subscriptions + id as usize,
            Counter::SubscriptionUsed(id) => subscriptions + self.subscriptions + id as usize,
            Counter::SubscriptionEnded(id) => subscriptions + 2 * self.subscriptions + id as usize,
            Counter::ForwardMade(id) => forwards + id as usize,
            Counter::Main => forwards + self.forwards,
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
