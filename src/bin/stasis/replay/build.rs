//! From records to the [`Plan`]: one pass that follows what every recorded thread is inside of.

use super::plan::{
    Action, Asides, Context, ContextId, Counter, CounterSpace, Delivery, Operation, OperationId, Origin, Owner, Plan,
    Publish, PublishId,
};
use super::trace::{Kind, Op, Record, Trace};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// What a callback is for.
#[derive(Debug, Clone, Copy)]
enum Reason {
    /// The how-manieth delivery of which publish.
    Message(PublishId, usize),
    Final,
}

#[derive(Debug)]
enum Frame {
    Publish {
        publish: PublishId,
        began: i64,
    },
    Unsubscribe {
        operation: OperationId,
        began: i64,
    },
    Callback {
        sub: u32,
        reason: Reason,
        began: i64,
        nested: i64,
        context: Option<ContextId>,
        during: Option<OperationId>,
        /// The subscription is direct and in a callback already, further out.
        again: bool,
    },
}

#[derive(Debug, Default)]
struct Thread {
    frames: Vec<Frame>,
    stream: Option<ContextId>,
    publishes: u32,
    /// The subscribe or unsubscribe whose subscription change comes next.
    change: Option<(OperationId, Origin)>,
    /// Last change of lists, which the `sl` and `su` lines after it belong to.
    control: Option<OperationId>,
}

struct Builder<'t> {
    trace: &'t Trace,
    plan: Plan,
    threads: HashMap<u32, Thread>,
    queued: HashMap<(u32, u32), VecDeque<(Reason, i64)>>,
    space: CounterSpace,
    /// How often each counter has moved by the operations so far.
    moved: Vec<u32>,
    /// Last topic of each name, and whether it is gone.
    names: HashMap<&'t str, (u32, bool)>,
}

impl Plan {
    /// Plans a checked trace.
    pub(crate) fn of(trace: &Arc<Trace>) -> Plan {
        let plan = Plan {
            trace: Arc::clone(trace),
            operations: Vec::with_capacity(trace.records.len() / 4),
            contexts: Vec::new(),
            publishes: Vec::with_capacity(trace.messages.bound()),
            finals: vec![None; trace.subscriptions.bound()],
            renamed: HashMap::new(),
            changes: HashMap::new(),
            changes_act: false,
            joined: vec![false; trace.subscriptions.bound()],
            expected: vec![0; trace.subscriptions.bound()],
            main_thread: trace.records.first().map_or(1, |record| record.thread),
            mailbox_wait: Vec::new(),
            pool_wait: Vec::new(),
            asides: Asides::default(),
        };
        let space = CounterSpace::of(trace);
        let mut builder = Builder {
            trace,
            plan,
            threads: HashMap::new(),
            queued: HashMap::new(),
            space,
            moved: vec![0; space.len()],
            names: HashMap::new(),
        };
        for record in &trace.records {
            builder.record(record);
        }
        builder.close();
        let mut plan = builder.plan;
        plan.changes_act = plan.changes.values().any(|&publish| plan.publishes[publish as usize].has_callbacks);
        plan.asides.unpublished = (trace.messages.len() as u64).saturating_sub(distinct_messages(&plan));
        plan
    }
}

fn distinct_messages(plan: &Plan) -> u64 {
    let mut seen = vec![false; plan.trace.messages.bound()];
    plan.publishes.iter().filter(|p| !std::mem::replace(&mut seen[p.message as usize], true)).count() as u64
}

impl<'t> Builder<'t> {
    fn record(&mut self, record: &Record) {
        let at = record.at;
        match record.op {
            Op::Thread
            | Op::SubscriptionFreed { .. }
            | Op::Message { .. }
            | Op::MessageFreed { .. }
            | Op::Join { .. } => {}
            Op::Type { ty } => drop(self.add(record, Action::CreateType { ty })),
            Op::TypeFreed { ty } => drop(self.add(record, Action::DropType { ty })),
            Op::Topic { topic } => drop(self.add(record, Action::CreateTopic { topic })),
            Op::TopicAgain { topic } => drop(self.add(record, Action::LookUp { topic })),
            Op::TopicFreed { topic } => {
                self.add(record, Action::DropTopic { topic });
                let name = self.trace.topics.get(topic).map_or("", |info| &info.name);
                if let Some((last, gone)) = self.names.get_mut(name)
                    && *last == topic
                {
                    *gone = true;
                }
            }
            Op::Pool { .. } => self.plan.asides.pools += 1,
            Op::PoolGet { topic, existed: true, .. } => drop(self.add(record, Action::LookUp { topic })),
            Op::PoolGet { .. } => self.plan.asides.pool_creates += 1,
            Op::PoolDrop { .. } => self.plan.asides.pool_deletes += 1,
            Op::Subscribe { sub } => {
                let operation = self.add(record, Action::Subscribe { sub });
                let thread = self.thread(record.thread);
                thread.change = Some((operation, Origin::Subscribed(sub)));
                thread.control = Some(operation);
            }
            Op::Unsubscribe { sub } => {
                let operation = self.add(record, Action::Unsubscribe { sub });
                let thread = self.thread(record.thread);
                thread.change = Some((operation, Origin::Unsubscribed(sub)));
                thread.control = Some(operation);
                thread.frames.push(Frame::Unsubscribe { operation, began: at });
            }
            Op::UnsubscribeEnd { .. } | Op::PublishEnd { .. } => self.leave(record),
            Op::Listed { .. } => {
                if let Some(operation) = self.thread(record.thread).control {
                    self.plan.operations[operation as usize].done_line = record.line;
                }
            }
            // Nothing comes of a filter that changes after the end.
            Op::Accept { sub, .. } | Op::Decline { sub, .. } | Op::Mode { sub, .. } | Op::Formatters { sub, .. }
                if self.has_ended(sub) => {}
            Op::Accept { sub, ty } => drop(self.add(record, Action::Accept { sub, ty })),
            Op::Decline { sub, ty } => drop(self.add(record, Action::Decline { sub, ty })),
            Op::Mode { sub, mode } => drop(self.add(record, Action::Mode { sub, mode })),
            Op::Formatters { sub, bits } => drop(self.add(record, Action::Formatters { sub, bits })),
            Op::Forward { forward } => {
                let operation = self.add(record, Action::Forward { forward });
                self.thread(record.thread).control = Some(operation);
            }
            Op::Cancel { forward } => {
                let operation = self.add(record, Action::Cancel { forward });
                self.thread(record.thread).control = Some(operation);
            }
            Op::SelfForward { topic } => drop(self.add(record, Action::SelfForward { topic })),
            Op::Publish { topic, message, listed, sync } => self.publish(record, topic, message, listed, sync),
            Op::Queue { sub, message, is_final } => {
                let reason = self.delivered(record.thread, sub, is_final);
                self.queued.entry((sub, message)).or_default().push_back((reason, at));
            }
            Op::Begin { sub, message, is_final, skipped } => {
                self.plan.asides.skipped_finals += u64::from(skipped);
                self.begin(record, sub, message, is_final);
            }
            Op::End { .. } => self.leave(record),
            Op::JoinEnd { sub } => {
                // A second join of the same subscription finds nothing left to wait for.
                if !std::mem::replace(&mut self.plan.joined[sub as usize], true) {
                    self.add(record, Action::Join { sub });
                }
            }
            Op::Caching { .. } => self.plan.asides.caching_topics += 1,
            Op::Cached { .. } => self.plan.asides.cache_events += 1,
            Op::CacheGet { .. } | Op::CacheDump { .. } => self.plan.asides.cache_lookups += 1,
            Op::Levels => self.plan.asides.levels += 1,
        }
    }

    fn thread(&mut self, thread: u32) -> &mut Thread {
        self.threads.entry(thread).or_default()
    }

    /// Whether a line before has unsubscribed it.
    fn has_ended(&self, sub: u32) -> bool {
        self.count(Counter::SubscriptionEnded(sub)) > 0
    }

    fn publish(&mut self, record: &Record, topic: u32, message: u32, listed: u32, sync: u32) {
        // Nobody waits for one that has ended.
        let sync = if sync != 0 && self.has_ended(sync) { 0 } else { sync };
        let publish = self.plan.publishes.len() as PublishId;
        let ty = self.trace.type_of(message);
        let change = if self.trace.is_change(ty) { self.thread(record.thread).change.take() } else { None };
        match change {
            Some((_, Origin::Subscribed(sub))) => drop(self.plan.changes.insert((true, sub), publish)),
            Some((_, Origin::Unsubscribed(sub))) => drop(self.plan.changes.insert((false, sub), publish)),
            _ => {}
        }
        let thread = self.thread(record.thread);
        let sequence = thread.publishes;
        thread.publishes += 1;
        self.plan.publishes.push(Publish {
            operation: change.map_or(0, |(operation, _)| operation),
            line: record.line,
            end_line: record.line,
            thread: record.thread,
            sequence,
            topic,
            message,
            ty,
            listed,
            sync,
            origin: change.map_or(Origin::Recorded, |(_, origin)| origin),
            recorded: Vec::new(),
            has_callbacks: false,
        });
        if change.is_none() {
            let operation = self.add(record, Action::Publish { publish });
            self.plan.publishes[publish as usize].operation = operation;
        }
        // Without deliveries no line says where the publish ended, and nothing is inside it.
        if listed > 0 && self.trace.has_deliveries {
            self.thread(record.thread).frames.push(Frame::Publish { publish, began: record.at });
        }
    }

    /// Enters a delivery of the original and says what it was for.
    fn delivered(&mut self, thread: u32, sub: u32, is_final: bool) -> Reason {
        self.plan.expected[sub as usize] += 1;
        let delivery = Delivery { sub, busy: 0, callback: None };
        match self.thread(thread).frames.last() {
            Some(&Frame::Publish { publish, .. }) if !is_final => {
                let recorded = &mut self.plan.publishes[publish as usize].recorded;
                recorded.push(delivery);
                Reason::Message(publish, recorded.len() - 1)
            }
            _ => {
                self.plan.finals[sub as usize] = Some(delivery);
                Reason::Final
            }
        }
    }

    fn begin(&mut self, record: &Record, sub: u32, message: u32, is_final: bool) {
        let kind = self.trace.subscriptions.get(sub).map_or(Kind::Direct, |info| info.kind);
        let (reason, during) = if kind == Kind::Direct {
            let around = match self.thread(record.thread).frames.last() {
                Some(&Frame::Publish { publish, .. }) => self.plan.publishes[publish as usize].operation,
                Some(&Frame::Unsubscribe { operation, .. }) => operation,
                _ => return,
            };
            let reason = self.delivered(record.thread, sub, is_final);
            (reason, Some(self.plan.operations[around as usize].root))
        } else {
            let Some((reason, since)) = self.queued.get_mut(&(sub, message)).and_then(VecDeque::pop_front) else {
                return;
            };
            let wait = (record.at - since).max(0) as u64;
            if kind == Kind::Pool { &mut self.plan.pool_wait } else { &mut self.plan.mailbox_wait }.push(wait);
            (reason, None)
        };
        // Here such a message comes when the handler has returned; what it leads to is made where it was made.
        let is_same = |frame: &Frame| matches!(frame, Frame::Callback { sub: outer, .. } if *outer == sub);
        let again = during.is_some() && self.thread(record.thread).frames.iter().any(is_same);
        let frame = Frame::Callback { sub, reason, began: record.at, nested: 0, context: None, during, again };
        self.thread(record.thread).frames.push(frame);
    }

    /// The innermost frame of a thread ends; its time is not time of the callback around it.
    fn leave(&mut self, record: &Record) {
        let Some(frame) = self.thread(record.thread).frames.pop() else { return };
        if let Frame::Publish { publish, .. } = frame {
            self.plan.publishes[publish as usize].end_line = record.line;
        }
        let began = match frame {
            Frame::Publish { began, .. } | Frame::Unsubscribe { began, .. } => began,
            Frame::Callback { sub, reason, began, nested, context, .. } => {
                let busy = (record.at - began - nested).clamp(0, i64::from(u32::MAX)) as u32;
                let delivery = match reason {
                    Reason::Message(publish, place) => {
                        let publish = &mut self.plan.publishes[publish as usize];
                        publish.has_callbacks |= context.is_some();
                        publish.recorded.get_mut(place)
                    }
                    Reason::Final => self.plan.finals[sub as usize].as_mut(),
                };
                if let Some(delivery) = delivery {
                    delivery.busy = busy;
                    delivery.callback = context;
                }
                began
            }
        };
        let took = record.at - began;
        let outer = self.thread(record.thread).frames.iter_mut().rev();
        if let (Frame::Publish { .. } | Frame::Unsubscribe { .. }, Some(Frame::Callback { nested, .. })) =
            (&frame, outer.into_iter().next())
        {
            *nested += took;
        }
    }

    /// How many frames of a thread may be around an action. What is done to a subscription by direct handlers that
    /// hear of its beginning is done when subscribing has returned: there is no handle before.
    fn outside(&self, thread: u32, action: Action) -> usize {
        let frames = self.threads.get(&thread).map_or(&[][..], |thread| &thread.frames);
        let own = match action {
            Action::Unsubscribe { sub }
            | Action::Accept { sub, .. }
            | Action::Decline { sub, .. }
            | Action::Mode { sub, .. }
            | Action::Formatters { sub, .. } => sub,
            _ => return frames.len(),
        };
        let hears_of_it = |frame: &Frame| match *frame {
            Frame::Callback { reason: Reason::Message(publish, _), during: Some(_), .. } => {
                self.plan.publishes[publish as usize].origin == Origin::Subscribed(own)
            }
            _ => false,
        };
        frames.iter().position(hears_of_it).unwrap_or(frames.len())
    }

    /// Adds an operation to the context its thread is in.
    fn add(&mut self, record: &Record, action: Action) -> OperationId {
        let id = self.plan.operations.len() as OperationId;
        let outside = self.outside(record.thread, action);
        let contexts = &mut self.plan.contexts;
        let thread = self.threads.entry(record.thread).or_default();
        let innermost = thread.frames[..outside].iter_mut().rev().find_map(|frame| match frame {
            Frame::Callback { sub, context, during, again: false, .. } => Some((*sub, context, *during)),
            _ => None,
        });
        let (slot, owner, root) = match innermost {
            Some((sub, context, during)) => (context, Owner::Callback { sub, during }, during.unwrap_or(id)),
            None => (&mut thread.stream, Owner::Thread(record.thread), id),
        };
        let first = slot.is_none();
        let is_stream = matches!(owner, Owner::Thread(_));
        let context = *slot.get_or_insert_with(|| {
            contexts.push(Context { owner, operations: Vec::new() });
            (contexts.len() - 1) as ContextId
        });
        contexts[context as usize].operations.push(id);
        let mut operation = Operation {
            line: record.line,
            done_line: record.line,
            at: record.at,
            context,
            root,
            action,
            needs: self.plan.needs(action, |counter| self.count(counter)),
            after_all: is_stream && matches!(action, Action::Unsubscribe { .. }),
        };
        if first && is_stream {
            operation.needs.push((Counter::Main, self.count(Counter::Main)));
        }
        if let Action::CreateTopic { topic } = action {
            // Here the same name means the same topic: the one before must be gone. If it is not in the recording
            // (its line may come a moment late), the new one is made under another name.
            let name = self.trace.topics.get(topic).map_or("", |info| &info.name);
            match self.names.insert(name, (topic, false)) {
                Some((before, true)) => operation.needs.push((Counter::TopicGone(before), 1)),
                Some((_, false)) => drop(self.plan.renamed.insert(topic, format!("{name} (topic {topic})"))),
                None => {}
            }
        }
        operation.needs.retain(|&(_, at_least)| at_least > 0);
        for counter in self.plan.moves(&operation).iter() {
            self.moved[self.space.index(counter)] += 1;
        }
        self.plan.operations.push(operation);
        id
    }

    fn count(&self, counter: Counter) -> u32 {
        self.moved[self.space.index(counter)]
    }

    /// Ends what the trace leaves alive, as the original would have at its end.
    fn close(&mut self) {
        let trace = self.trace;
        let Some(last) = trace.records.last() else { return };
        let ended: HashSet<_> = self.plan.operations.iter().filter_map(|operation| ends(operation.action)).collect();
        let subscriptions = trace.subscriptions.ids().map(|sub| Action::Unsubscribe { sub });
        let forwards = trace.forwards.ids().map(|forward| Action::Cancel { forward });
        let topics = trace.topics.ids().map(|topic| Action::DropTopic { topic });
        let types = trace.types.ids().map(|ty| Action::DropType { ty });
        for action in subscriptions.chain(forwards).chain(topics).chain(types) {
            if ends(action).is_some_and(|object| ended.contains(&object)) {
                continue;
            }
            let record = Record { line: last.line, thread: 0, at: last.at, op: Op::Thread };
            let operation = self.add(&record, action);
            self.plan.operations[operation as usize].after_all = true;
            self.plan.asides.closing += 1;
        }
    }
}

/// The object an action ends.
fn ends(action: Action) -> Option<(u8, u32)> {
    match action {
        Action::Unsubscribe { sub } => Some((0, sub)),
        Action::Cancel { forward } => Some((1, forward)),
        Action::DropTopic { topic } => Some((2, topic)),
        Action::DropType { ty } => Some((3, ty)),
        _ => None,
    }
}
