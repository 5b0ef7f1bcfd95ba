//! The bus of one run with all objects of the trace on it, and how each operation is made.

use super::clock::Clock;
use super::listener::{Call, Listener, Payload};
use super::plan::{Action, ContextId, OperationId, Plan, PublishId};
use super::recorded::Turns;
use super::threads::Crew;
use super::trace::Kind;
use stasis_bus::{
    Bus, ChangeKind, Delivery, FilterMode, Formatters, Forward, Home, MessageType, PublishError, PublishSyncError,
    Subscription, SubscriptionChange, Topic,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// How long a join may take before the run counts as failed.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// How long a subscribe may take to say which number it got.
const ID_LIMIT: Duration = Duration::from_secs(1);

thread_local! {
    /// Subscriptions that this thread is making, the innermost last.
    static SUBSCRIBING: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Who decides when the operations of a callback are made.
#[derive(Debug)]
pub(crate) enum Conductor {
    Recorded(Box<Turns>),
    Threads(Box<Crew>),
}

/// Choices of the user that matter while running.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Handlers are busy as long as in the recording.
    pub(crate) work: bool,
    /// Subscriptions that had a thread of their own get one here too.
    pub(crate) mailbox_threads: bool,
    /// Recorded time divided by this is the time of the run; `None`: as fast as possible.
    pub(crate) speed: Option<f64>,
}

/// A message type of the trace on our bus.
#[derive(Clone)]
enum TypeHandle {
    Replayed(MessageType<Payload>),
    /// The type of subscription changes belongs to the bus.
    Change,
}

type Slot<V> = RwLock<Option<V>>;

/// Everything a run shares between its threads and the handlers.
pub(crate) struct Stage {
    pub(crate) plan: Arc<Plan>,
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) conductor: Conductor,
    pub(crate) bus: Bus,
    types: Vec<Slot<TypeHandle>>,
    topics: Vec<Slot<Topic>>,
    subscriptions: Vec<Slot<Arc<Subscription>>>,
    forwards: Vec<Slot<Forward>>,
    /// Ids the bus gave our subscriptions, and which subscription has an id.
    ids: Vec<OnceLock<u64>>,
    by_id: Mutex<HashMap<u64, u32>>,
    /// Start and end of each operation; 0: not made.
    spans: Vec<(AtomicU64, AtomicU64)>,
    /// Most entries that waited for each subscription, when it left.
    queues: Vec<AtomicU64>,
    logs: Mutex<Vec<(u32, Vec<Call>)>>,
    handlers_dropped: Vec<AtomicU32>,
    /// Held by the formatters of every type, so that its count tells whether types are gone.
    type_token: Arc<()>,
    pub(crate) full: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What is left of a stage after the run.
pub(crate) struct Remains {
    pub(crate) spans: Vec<(u64, u64)>,
    pub(crate) queues: Vec<u64>,
    pub(crate) logs: Vec<(u32, Vec<Call>)>,
    pub(crate) handlers_dropped: Vec<u32>,
    pub(crate) ids: Vec<Option<u64>>,
    pub(crate) types_alive: usize,
    pub(crate) full: u64,
    pub(crate) failures: Vec<String>,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stage").field("bus", &self.bus.name()).finish_non_exhaustive()
    }
}

fn slots<V>(count: usize) -> Vec<Slot<V>> {
    (0..count).map(|_| RwLock::new(None)).collect()
}

fn put<V>(slot: &Slot<V>, value: Option<V>) -> Option<V> {
    std::mem::replace(&mut *slot.write().unwrap_or_else(PoisonError::into_inner), value)
}

impl Stage {
    pub(crate) fn new(plan: Arc<Plan>, settings: Settings, conductor: Conductor, bus: Bus) -> Stage {
        let trace = &plan.trace;
        Stage {
            types: slots(trace.types.bound()),
            topics: slots(trace.topics.bound()),
            subscriptions: slots(trace.subscriptions.bound()),
            forwards: slots(trace.forwards.bound()),
            ids: (0..trace.subscriptions.bound()).map(|_| OnceLock::new()).collect(),
            by_id: Mutex::default(),
            spans: plan.operations.iter().map(|_| Default::default()).collect(),
            queues: (0..trace.subscriptions.bound()).map(|_| AtomicU64::new(0)).collect(),
            logs: Mutex::new(Vec::new()),
            handlers_dropped: (0..trace.subscriptions.bound()).map(|_| AtomicU32::new(0)).collect(),
            type_token: Arc::new(()),
            full: AtomicU64::new(0),
            failures: Mutex::new(Vec::new()),
            plan,
            settings,
            conductor,
            bus,
            clock: Clock::start(),
        }
    }

    /// Makes one operation on the bus and notes when.
    pub(crate) fn perform(self: &Arc<Self>, id: OperationId) {
        let operation = &self.plan.operations[id as usize];
        let start = self.clock.now();
        if let Err(cause) = self.act(operation.action) {
            self.fail(format!("line {}: {:?}: {cause}", operation.line, operation.action));
        }
        let end = self.clock.now();
        let span = &self.spans[id as usize];
        span.0.store(start, Relaxed);
        span.1.store(end, Relaxed);
    }

    fn act(self: &Arc<Self>, action: Action) -> Result<(), String> {
        match action {
            Action::Publish { publish } => self.publish(publish),
            Action::CreateType { ty } => self.create_type(ty),
            Action::DropType { ty } => gone(put(&self.types[ty as usize], None), "type"),
            Action::CreateTopic { topic } => {
                let info = self.plan.trace.topics.get(topic).ok_or("topic without a name")?;
                let made = self.bus.topic_with_detail(self.plan.name_of(topic), &info.detail).map_err(text)?;
                put(&self.topics[topic as usize], Some(made));
                Ok(())
            }
            Action::LookUp { topic } => self.topic(topic, |topic| match self.bus.find_topic(topic.name()) {
                Some(found) if found.id() == topic.id() => Ok(()),
                Some(_) => Err("another topic has this name".to_owned()),
                None => Err("the topic is not found by its name".to_owned()),
            }),
            Action::DropTopic { topic } => gone(put(&self.topics[topic as usize], None), "topic"),
            Action::Subscribe { sub } => self.subscribe(sub),
            Action::Unsubscribe { sub } => {
                let leaving = self.subscription(sub)?;
                self.queues[sub as usize].store(leaving.stats().queue_high_water, Relaxed);
                leaving.unsubscribe();
                if !self.plan.joined[sub as usize] {
                    put(&self.subscriptions[sub as usize], None);
                }
                Ok(())
            }
            Action::Join { sub } => {
                let leaving = put(&self.subscriptions[sub as usize], None);
                leaving.ok_or("the subscription is not there")?.join_timeout(JOIN_LIMIT).map_err(text)
            }
            Action::Accept { sub, ty: 0 } => {
                self.subscription(sub)?.set_filter_mode(FilterMode::ForcedNone);
                Ok(())
            }
            Action::Accept { sub, ty } => {
                let subscription = self.subscription(sub)?;
                match self.type_handle(ty)? {
                    TypeHandle::Replayed(ty) => subscription.accept(&ty),
                    TypeHandle::Change => subscription.accept(SubscriptionChange::message_type()),
                };
                Ok(())
            }
            Action::Decline { sub, ty } => {
                let subscription = self.subscription(sub)?;
                match self.type_handle(ty)? {
                    TypeHandle::Replayed(ty) => subscription.decline(&ty),
                    TypeHandle::Change => subscription.decline(SubscriptionChange::message_type()),
                };
                Ok(())
            }
            Action::Mode { sub, mode } => {
                let mode = [FilterMode::None, FilterMode::ForcedNone, FilterMode::Selective][mode as usize];
                self.subscription(sub)?.set_filter_mode(mode);
                Ok(())
            }
            Action::Formatters { sub, bits } => {
                self.subscription(sub)?.accept_formatters(Formatters::from_bits(bits as u8));
                Ok(())
            }
            Action::Forward { forward } => {
                let info = *self.plan.trace.forwards.get(forward).ok_or("forward without ends")?;
                let made = self.topic(info.from, |from| self.topic(info.to, |to| from.forward_to(to).map_err(text)))?;
                put(&self.forwards[forward as usize], Some(made));
                Ok(())
            }
            Action::Cancel { forward } => gone(put(&self.forwards[forward as usize], None), "forward"),
            Action::SelfForward { topic } => self.topic(topic, |topic| topic.forward_to(topic).map(drop).map_err(text)),
        }
    }

    fn publish(&self, id: u32) -> Result<(), String> {
        let publish = &self.plan.publishes[id as usize];
        let TypeHandle::Replayed(ty) = self.type_handle(publish.ty)? else {
            return Err("subscription changes are published by the bus".to_owned());
        };
        let payload = Payload::new(id, publish.message, publish.thread, publish.sequence);
        let mut message = ty.message(payload);
        self.topic(publish.topic, |topic| {
            if publish.sync != 0 && self.may_wait(publish.operation) {
                let subscription = self.subscription(publish.sync)?;
                return loop {
                    match topic.publish_sync(message, &subscription) {
                        Ok(()) => break Ok(()),
                        Err(PublishSyncError::Publish(PublishError::Full(back))) => message = self.back_off(back),
                        Err(other) => break Err(text(other)),
                    }
                };
            }
            loop {
                match topic.publish(message) {
                    Ok(()) => return Ok(()),
                    Err(PublishError::Full(back)) => message = self.back_off(back),
                    Err(other) => return Err(text(other)),
                }
            }
        })
    }

    /// Whether a synchronous publish may wait for its handler: not if that handler waits for a turn.
    fn may_wait(&self, operation: OperationId) -> bool {
        match &self.conductor {
            Conductor::Recorded(turns) => turns.waits(operation),
            Conductor::Threads(_) => true,
        }
    }

    fn back_off<M>(&self, message: M) -> M {
        self.full.fetch_add(1, Relaxed);
        std::thread::sleep(Duration::from_micros(50));
        message
    }

    fn create_type(&self, ty: u32) -> Result<(), String> {
        let info = self.plan.trace.types.get(ty).ok_or("type without a name")?;
        let handle = if self.plan.trace.is_change(ty) {
            TypeHandle::Change
        } else {
            let mut builder = MessageType::<Payload>::builder(info.name.as_str());
            let bits = info.formatters;
            if bits & 1 != 0 {
                let token = Arc::clone(&self.type_token);
                builder = builder.to_json(move |payload: &Payload| {
                    let _keep = &token;
                    Some(format!("{{\"message\":{},\"thread\":{}}}", payload.message, payload.thread))
                });
            }
            if bits & 2 != 0 {
                let token = Arc::clone(&self.type_token);
                builder = builder.to_ami(move |payload: &Payload| {
                    let _keep = &token;
                    Some(format!("Message: {}\r\nSequence: {}\r\n", payload.message, payload.sequence))
                });
            }
            if bits & 4 != 0 {
                let token = Arc::clone(&self.type_token);
                builder = builder.to_event(move |_: &Payload| {
                    let _keep = &token;
                    None
                });
            }
            TypeHandle::Replayed(builder.create(&self.bus).map_err(text)?)
        };
        put(&self.types[ty as usize], Some(handle));
        Ok(())
    }

    fn subscribe(self: &Arc<Self>, sub: u32) -> Result<(), String> {
        let info = self.plan.trace.subscriptions.get(sub).ok_or("subscription without a topic")?;
        let takes_turns = match &self.conductor {
            Conductor::Recorded(turns) => turns.handler_takes_turns(sub),
            Conductor::Threads(_) => false,
        };
        let delivery = match info.kind {
            Kind::Direct => Delivery::Inline,
            Kind::Mailbox if self.settings.mailbox_threads => Delivery::Dedicated,
            // A handler that waits for its turn must not hold up a lane.
            _ if takes_turns => Delivery::Dedicated,
            _ => Delivery::Lane(Home::default()),
        };
        let listener = Listener::new(Arc::clone(self), sub);
        SUBSCRIBING.with_borrow_mut(|subs| subs.push(sub));
        let made = self.topic(info.topic, |topic| {
            topic.subscriber().name(info.origin.as_str()).delivery(delivery).subscribe_handler(listener).map_err(text)
        });
        SUBSCRIBING.with_borrow_mut(Vec::pop);
        let made = made?;
        let _ = self.ids[sub as usize].set(made.id());
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).insert(made.id(), sub);
        put(&self.subscriptions[sub as usize], Some(Arc::new(made)));
        Ok(())
    }

    /// Which recorded publish a subscription change of the bus stands for.
    ///
    /// It may come before `subscribe` has returned, and the number is known only then: to a direct handler,
    /// inside that very call, or to one on another thread, which waits the moment.
    pub(crate) fn publish_of(&self, change: &SubscriptionChange) -> Option<PublishId> {
        let since = Instant::now();
        let sub = loop {
            let known = self.by_id.lock().unwrap_or_else(PoisonError::into_inner).get(&change.subscription).copied();
            if let Some(sub) = known.or_else(|| self.subscribing_to(&change.topic)) {
                break sub;
            }
            if since.elapsed() > ID_LIMIT {
                return None;
            }
            std::thread::yield_now();
        };
        self.plan.changes.get(&(change.kind == ChangeKind::Subscribe, sub)).copied()
    }

    /// The subscription that this thread is making, if it is to this topic.
    fn subscribing_to(&self, topic: &str) -> Option<u32> {
        let sub = SUBSCRIBING.with_borrow(|subs| subs.last().copied())?;
        let own = self.plan.trace.subscriptions.get(sub)?.topic;
        (self.plan.name_of(own) == topic).then_some(sub)
    }

    /// Runs `use_it` with a topic. Nothing drops a topic while it is used: the plan sees to that.
    fn topic<R>(&self, topic: u32, use_it: impl FnOnce(&Topic) -> Result<R, String>) -> Result<R, String> {
        let slot = self.topics[topic as usize].read().unwrap_or_else(PoisonError::into_inner);
        use_it(slot.as_ref().ok_or_else(|| format!("topic {topic} is not there"))?)
    }

    fn type_handle(&self, ty: u32) -> Result<TypeHandle, String> {
        let slot = self.types[ty as usize].read().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or_else(|| format!("type {ty} is not there"))
    }

    fn subscription(&self, sub: u32) -> Result<Arc<Subscription>, String> {
        let slot = self.subscriptions[sub as usize].read().unwrap_or_else(PoisonError::into_inner);
        slot.clone().ok_or_else(|| format!("subscription {sub} is not there"))
    }

    /// Makes (or hands over) the operations of a callback, on the thread of its handler.
    pub(crate) fn callback(self: &Arc<Self>, context: ContextId) {
        match &self.conductor {
            Conductor::Recorded(turns) => turns.callback(self, context),
            Conductor::Threads(crew) => crew.callback(self, context),
        }
    }

    /// Keeps the processor busy until `busy` ns after `start`.
    pub(crate) fn spin(&self, start: u64, busy: u64) {
        while self.clock.now() - start < busy {
            std::hint::spin_loop();
        }
    }

    /// How long until an operation recorded at this time is due.
    pub(crate) fn until(&self, at: i64) -> Duration {
        let Some(speed) = self.settings.speed else { return Duration::ZERO };
        let since = at - self.plan.trace.records.first().map_or(0, |first| first.at);
        let due = Duration::from_nanos((since.max(0) as f64 / speed) as u64);
        due.saturating_sub(self.clock.elapsed())
    }

    pub(crate) fn fail(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(crate) fn handler_dropped(&self, sub: u32, log: Vec<Call>) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push((sub, log));
        self.handlers_dropped[sub as usize].fetch_add(1, Relaxed);
    }

    /// Drops all handles that are left.
    pub(crate) fn clear(&self) {
        self.subscriptions.iter().for_each(|slot| drop(put(slot, None)));
        self.forwards.iter().for_each(|slot| drop(put(slot, None)));
        self.topics.iter().for_each(|slot| drop(put(slot, None)));
        self.types.iter().for_each(|slot| drop(put(slot, None)));
    }

    /// Ends the stage after the bus has been shut down.
    pub(crate) fn remains(&self) -> Remains {
        Remains {
            spans: self.spans.iter().map(|(start, end)| (start.load(Relaxed), end.load(Relaxed))).collect(),
            queues: self.queues.iter().map(|most| most.load(Relaxed)).collect(),
            logs: std::mem::take(&mut *self.logs.lock().unwrap_or_else(PoisonError::into_inner)),
            handlers_dropped: self.handlers_dropped.iter().map(|count| count.load(Relaxed)).collect(),
            ids: self.ids.iter().map(|id| id.get().copied()).collect(),
            types_alive: Arc::strong_count(&self.type_token) - 1,
            full: self.full.load(Relaxed),
            failures: std::mem::take(&mut *self.failures.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn gone<V>(taken: Option<V>, what: &str) -> Result<(), String> {
    taken.map(drop).ok_or_else(|| format!("the {what} is not there"))
}
