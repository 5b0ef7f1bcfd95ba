//! The recorded trace in memory: one compact record per line, names in tables.
//!
//! ```text
//! bytes --input--> text --line::read--> Record --check::Checker--> Trace --> plan
//! ```
//!
//! Reading is strict about what the replay relies on and lenient about the rest: every key an
//! operation needs must be there, every id must have been made by an earlier line, callbacks and
//! publishes must nest; extra keys are ignored. The first line that breaks a rule ends the reading
//! with its number and the cause ([`TraceError`]).

use super::check::Checker;
use super::line;
use std::collections::HashSet;

/// How a subscription got its messages in the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// `n`: called by the publisher.
    Direct,
    /// `m`: own queue, own thread.
    Mailbox,
    /// `p`: own queue, served by the shared pool.
    Pool,
}

/// One line of the trace. Ids are those of the file and count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Thread,
    Type {
        ty: u32,
    },
    TypeFreed {
        ty: u32,
    },
    Topic {
        topic: u32,
    },
    TopicAgain {
        topic: u32,
    },
    TopicFreed {
        topic: u32,
    },
    Pool {
        topic: u32,
    },
    PoolGet {
        parent: u32,
        topic: u32,
        existed: bool,
    },
    PoolDrop {
        parent: u32,
        topic: u32,
    },
    Subscribe {
        sub: u32,
    },
    /// `sl` (on) and `su` (off), with the new length of the list; `None` where nothing was removed.
    Listed {
        sub: u32,
        topic: u32,
        on: bool,
        length: Option<u32>,
    },
    Unsubscribe {
        sub: u32,
    },
    UnsubscribeEnd {
        sub: u32,
    },
    SubscriptionFreed {
        sub: u32,
    },
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
    Message {
        message: u32,
        ty: u32,
    },
    MessageFreed {
        message: u32,
    },
    Publish {
        topic: u32,
        message: u32,
        listed: u32,
        sync: u32,
    },
    PublishEnd {
        topic: u32,
        message: u32,
        accepted: u32,
    },
    Queue {
        sub: u32,
        message: u32,
        is_final: bool,
    },
    /// `skipped`: the original only pretended to call (its filter rejects the final message).
    Begin {
        sub: u32,
        message: u32,
        is_final: bool,
        skipped: bool,
    },
    End {
        sub: u32,
        message: u32,
    },
    Join {
        sub: u32,
    },
    JoinEnd {
        sub: u32,
    },
    /// A caching topic made over another topic.
    Caching {
        topic: u32,
        original: u32,
        cache: u32,
    },
    /// A caching topic handled a message.
    Cached {
        topic: u32,
        message: u32,
        change: Change,
    },
    /// A look-up, and what it found (0: nothing).
    CacheGet {
        cache: u32,
        ty: u32,
        message: u32,
    },
    /// A cache was dumped, with so many entries.
    CacheDump {
        cache: u32,
        ty: u32,
        entries: u32,
    },
    /// Queue alert levels were set: counted only.
    Levels,
}

/// What a message did to a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Inserted,
    Updated,
    Removed,
    Nothing,
}

/// A line with its place in the file, its time (ns since the start) and its thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub(crate) line: u32,
    pub(crate) thread: u32,
    pub(crate) at: i64,
    pub(crate) op: Op,
}

#[derive(Debug, Clone)]
pub(crate) struct TypeInfo {
    pub(crate) name: String,
    pub(crate) formatters: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct TopicInfo {
    pub(crate) name: String,
    pub(crate) detail: String,
}

#[derive(Debug, Clone)]
pub(crate) struct SubscriptionInfo {
    pub(crate) topic: u32,
    pub(crate) kind: Kind,
    /// file:line:function of the subscriber in the original.
    pub(crate) origin: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ForwardInfo {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// A checked trace. Tables are indexed by id; entry 0 is unused.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) records: Vec<Record>,
    pub(crate) types: Table<TypeInfo>,
    pub(crate) topics: Table<TopicInfo>,
    pub(crate) subscriptions: Table<SubscriptionInfo>,
    pub(crate) forwards: Table<ForwardInfo>,
    /// Type of each message.
    pub(crate) messages: Table<u32>,
    /// Messages that a cache of the original calculated from others.
    pub(crate) aggregates: HashSet<u32>,
    /// False for a trace without deliveries (`-api`): what they must have been is computed.
    pub(crate) has_deliveries: bool,
}

/// Name of the message type that the bus itself publishes on subscribe and unsubscribe.
pub(crate) const CHANGE_TYPE: &str = "stasis_subscription_change_type";

impl Trace {
    /// Reads and checks a whole trace.
    pub(crate) fn parse(name: &str, text: &[u8]) -> Result<Trace, TraceError> {
        let mut trace = Trace { name: name.to_owned(), ..Trace::default() };
        trace.records.reserve(text.len() / 44);
        let mut checker = Checker::default();
        let (mut at, mut number) = (0i64, 0u32);
        for raw in text.split(|&byte| byte == b'\n') {
            number += 1;
            if raw.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let fail = |cause| TraceError { name: name.to_owned(), line: number, cause };
            let parsed = line::Line::parse(raw).map_err(fail)?;
            at = parsed.after(at).map_err(fail)?;
            let op = parsed.operation(&mut trace).map_err(fail)?;
            let record = Record { line: number, thread: parsed.thread, at, op };
            checker.check(&trace, &record).map_err(fail)?;
            trace.records.push(record);
        }
        let end = |cause| TraceError { name: name.to_owned(), line: number, cause };
        if trace.records.is_empty() {
            return Err(end(Cause::Empty));
        }
        trace.has_deliveries = checker.finish().map_err(end)?;
        Ok(trace)
    }

    /// The type of a message.
    pub(crate) fn type_of(&self, message: u32) -> u32 {
        self.messages.get(message).copied().unwrap_or(0)
    }

    /// Whether `ty` is the type of subscription changes, which the bus publishes itself.
    pub(crate) fn is_change(&self, ty: u32) -> bool {
        self.types.get(ty).is_some_and(|info| info.name == CHANGE_TYPE)
    }
}

/// Entries by id. Ids are nearly sequential (threads race for them), never far ahead.
#[derive(Debug, Clone)]
pub(crate) struct Table<V>(Vec<Option<V>>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Table(Vec::new())
    }
}

impl<V> Table<V> {
    /// How far an id may be ahead of those seen: a damaged id must not allocate the memory it names.
    const AHEAD: usize = 65_536;

    pub(crate) fn get(&self, id: u32) -> Option<&V> {
        self.0.get(id as usize)?.as_ref()
    }

    /// Enters a new id; false if it is zero, taken or absurdly far ahead.
    pub(crate) fn enter(&mut self, id: u32, value: V) -> bool {
        let index = id as usize;
        if index == 0 || index > self.0.len() + Self::AHEAD {
            return false;
        }
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        if self.0[index].is_some() {
            return false;
        }
        self.0[index] = Some(value);
        true
    }

    /// One more than the highest id: the size of an array indexed by these ids.
    pub(crate) fn bound(&self) -> usize {
        self.0.len().max(1)
    }

    /// Ids in ascending order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().enumerate().filter(|(_, value)| value.is_some()).map(|(id, _)| id as u32)
    }

    pub(crate) fn len(&self) -> usize {
        self.ids().count()
    }
}

/// Where and why a trace cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: line {line}: {cause}\n  {}", cause.advice())]
pub(crate) struct TraceError {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) cause: Cause,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    #[error("not a JSON object: {0}")]
    Json(String),
    #[error("a key is missing, twice there or has a value it cannot have: {0}")]
    Value(String),
    #[error("unknown operation \"{0}\"")]
    UnknownOperation(String),
    #[error("operation \"{operation}\" needs the key \"{key}\"")]
    MissingKey { operation: String, key: &'static str },
    #[error("operation \"{operation}\": key \"{key}\" has the value {value}, which means nothing here")]
    BadValue { operation: String, key: &'static str, value: String },
    #[error("{kind} {id} has not been made by an earlier line")]
    UnknownId { kind: &'static str, id: u32 },
    #[error("{kind} {id} cannot be made: the number is taken, zero or far ahead of the last one")]
    BadNewId { kind: &'static str, id: u32 },
    #[error("{kind} {id} was freed or ended by line {since} and is used again")]
    Gone { kind: &'static str, id: u32, since: u32 },
    #[error(
        "callback of subscription {sub} with message {message} ends, but it is not the one that thread {thread} is in"
    )]
    EndWithoutBegin { sub: u32, message: u32, thread: u32 },
    #[error("publish of message {message} on topic {topic} ends, but it is not the one that thread {thread} is in")]
    PublishEndWithoutPublish { topic: u32, message: u32, thread: u32 },
    #[error("unsubscribe of subscription {sub} ends, but it is not the one that thread {thread} is in")]
    UnsubscribeEndWithoutStart { sub: u32, thread: u32 },
    #[error("a subscription change is published outside subscribe and unsubscribe")]
    StrayChange,
    #[error("subscription {sub} gets message {message}, which is not being published here")]
    StrayDelivery { sub: u32, message: u32 },
    #[error("the trace ends while thread {thread} is inside {what} that began at line {since}")]
    Unfinished { thread: u32, what: &'static str, since: u32 },
    #[error("the trace has no lines")]
    Empty,
}

impl Cause {
    /// What the reader can do about it.
    fn advice(&self) -> &'static str {
        match self {
            Cause::Json(_) | Cause::Empty => {
                "the file is damaged or is no trace: take it again from where it came (git checkout traces/), lines are described in traces/FORMAT.md"
            }
            Cause::Unfinished { .. } => {
                "the end of the file is missing: take it again from where it came, or cut it where no callback is running"
            }
            Cause::UnknownOperation(_) | Cause::MissingKey { .. } | Cause::Value(_) | Cause::BadValue { .. } => {
                "traces/FORMAT.md lists the operations and their keys; correct the line or take the file again"
            }
            _ => {
                "a line before this one is missing, repeated or changed: take the file again from where it came, or correct it by traces/FORMAT.md"
            }
        }
    }
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
