//! Serial queues of tasks on the lanes of a bus: many queues, few threads.
//!
//! ```text
//!   push(f) ─► message { f } ─► private topic ─► lane ─► handler takes f out and runs it
//! ```
//!
//! Each serializer is a topic with one subscription, so order (G2), one task at a time (G4), containment
//! (G12) and the end (G5, G11) are those of the bus. A push takes two short locks of its own besides the
//! publish: the task's slot and the gauge.

use std::any::Any;
use std::fmt;
use std::time::{Duration, Instant};

use super::error::{CreateError, PushError, PushWaitError};
use super::gauge::Gauge;
use super::group::ShutdownGroup;
use super::processor::next_id;
use super::registry::{Entry, RegistryInner, Stats, Taskprocessors};
use super::task::{self, LocalData, Running, Task};
use super::wait::Slot;
use crate::bus::{Bus, Completion, Delivery, Home, Received, Subscription, Topic};
use crate::error::{PublishError, PublishSyncError, TypeError};
use crate::message::{Message, MessageType};
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Mutex, Ordering, Weak, lock};

/// A task on its way through the bus. Only its own serializer takes it out.
struct Parcel {
    owner: u64,
    task: Mutex<Option<Task>>,
}

impl Parcel {
    fn take(message: &Message, owner: u64) -> Option<Task> {
        let parcel = message.payload::<Self>().filter(|parcel| parcel.owner == owner)?;
        lock(&parcel.task).take()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.task).take() {
            task.drop_quietly();
        }
    }
}

/// Makes serializers on one bus.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::{Serializers, Taskprocessors};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = stasis_bus::Bus::builder().lanes(1).build()?;
/// let serializers = Serializers::new(&bus, &Taskprocessors::new())?;
/// let call = serializers.serializer("pjsip/call-1")?;
/// call.push(|| println!("invite"))?;
/// assert_eq!(call.push_wait(|| "answered").unwrap(), "answered");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Serializers {
    bus: Bus,
    kind: MessageType<Parcel>,
    registry: Taskprocessors,
}

impl Serializers {
    /// For serializers on the lanes of `bus` that are listed, and counted in alerts, with `registry`. It
    /// keeps the bus from ending by itself; serializers do not.
    ///
    /// # Errors
    /// [`TypeError`] if the bus declines types named `taskprocessor_task`, or too many types are alive.
    pub fn new(bus: &Bus, registry: &Taskprocessors) -> Result<Self, TypeError> {
        let kind = MessageType::new(bus, "taskprocessor_task")?;
        Ok(Self { bus: bus.clone(), kind, registry: registry.clone() })
    }

    /// A new serializer.
    ///
    /// # Errors
    /// [`CreateError::NoName`], [`CreateError::NameTaken`], [`CreateError::Closed`];
    /// [`CreateError::Unserved`] if the bus is shut down.
    pub fn serializer(&self, name: impl AsRef<str>) -> Result<Serializer, CreateError> {
        self.make(name.as_ref(), Home::default(), None)
    }

    /// A new serializer that is a member of `group` until it has ended.
    ///
    /// # Errors
    /// As [`serializer`](Self::serializer).
    pub fn serializer_in(&self, name: impl AsRef<str>, group: &ShutdownGroup) -> Result<Serializer, CreateError> {
        self.make(name.as_ref(), Home::default(), Some(group))
    }

    /// A new serializer on a chosen lane.
    ///
    /// # Errors
    /// As [`serializer`](Self::serializer); [`CreateError::Unserved`] if there is no such lane.
    pub fn serializer_at(
        &self,
        name: impl AsRef<str>,
        home: Home,
        group: Option<&ShutdownGroup>,
    ) -> Result<Serializer, CreateError> {
        self.make(name.as_ref(), home, group)
    }

    fn make(&self, name: &str, home: Home, group: Option<&ShutdownGroup>) -> Result<Serializer, CreateError> {
        self.registry.0.check(name)?;
        let id = next_id();
        let name: Arc<str> = name.into();
        let unserved = |error: Box<dyn std::error::Error + Send + Sync>| CreateError::Unserved(error);
        let topic = self.bus.topic(format!("taskprocessor:{name}#{id}")).map_err(|error| unserved(error.into()))?;
        let work = Arc::new(Work {
            id,
            gauge: Gauge::new(Arc::clone(&name), Arc::clone(&self.registry.0.board)),
            name: Arc::clone(&name),
            handle: Mutex::new(Weak::new()),
            processed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            now: Mutex::new(Now::default()),
        });
        let member = group.map(|group| group.enter(id, Arc::clone(&name)));
        let works = Arc::clone(&work);
        let handler = move |received: &Received<'_>| {
            let _stays_until_the_handler_goes = &member;
            if let Some(task) = Parcel::take(received.message(), id) {
                works.run(task);
            }
        };
        let subscriber = topic.subscriber().name(&*name).delivery(Delivery::Lane(home)).accept(&self.kind);
        let subscription = subscriber.subscribe(handler).map_err(|error| unserved(error.into()))?;
        let registry = Arc::downgrade(&self.registry.0);
        let inner = Arc::new(Inner { work, topic, subscription, kind: self.kind.clone(), registry });
        *lock(&inner.work.handle) = Arc::downgrade(&inner);
        self.registry.0.enter(&inner.work.name, Entry::Serializer(id, Arc::downgrade(&inner)))?;
        Ok(Serializer(inner))
    }
}

impl fmt::Debug for Serializers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serializers").field("bus", &self.bus.name()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Now {
    running: Option<(String, Instant)>,
    longest_wait: Duration,
}

/// What the handler knows.
struct Work {
    id: u64,
    name: Arc<str>,
    gauge: Gauge,
    handle: Mutex<Weak<Inner>>,
    processed: AtomicU64,
    panics: AtomicU64,
    now: Mutex<Now>,
}

impl Work {
    fn run(self: &Arc<Self>, task: Task) {
        self.gauge.shrank();
        let begun = Instant::now();
        {
            let mut now = lock(&self.now);
            now.longest_wait = now.longest_wait.max(begun.saturating_duration_since(task.pushed));
            now.running = Some((task.location.to_string(), begun));
        }
        let running = Running::enter(self.id, Arc::clone(self) as Arc<dyn Any + Send + Sync>);
        if !task.run_contained(&LocalData::default()) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        drop(running);
        lock(&self.now).running = None;
        self.processed.fetch_add(1, Ordering::Relaxed);
    }
}

/// What handles share. Dropping it unsubscribes: what was pushed is still run.
pub(super) struct Inner {
    work: Arc<Work>,
    topic: Topic,
    subscription: Subscription,
    kind: MessageType<Parcel>,
    registry: Weak<RegistryInner>,
}

impl Inner {
    pub(super) fn stats(&self) -> Stats {
        let level = self.work.gauge.read();
        let now = lock(&self.work.now);
        Stats {
            name: self.work.name.to_string(),
            processed: self.work.processed.load(Ordering::Relaxed),
            panics: self.work.panics.load(Ordering::Relaxed),
            in_queue: level.size,
            max_depth: level.most,
            low_water: level.low,
            high_water: level.high,
            is_alerted: level.is_raised,
            is_suspended: false,
            running: now.running.as_ref().map(|(location, since)| (location.clone(), since.elapsed())),
            oldest_wait: None,
            longest_wait: now.longest_wait,
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.work.name, self.work.id);
        }
    }
}

/// A serial queue of tasks that a lane runs, made by [`Serializers`]. Handles are cheap to clone; dropping the
/// last one ends it: what was pushed is still run. Tasks of one lane delay each other: for work that blocks
/// take [`TaskPool::serializer`](super::TaskPool::serializer).
///
/// Order: if one push returned before another began, its task runs first.
#[derive(Clone)]
pub struct Serializer(Arc<Inner>);

impl Serializer {
    /// The serializer whose task is running on this thread; `None` outside of tasks, and after its last handle
    /// is gone.
    #[must_use]
    pub fn current() -> Option<Self> {
        let work = task::current::<Work>()?;
        let handle = lock(&work.handle).upgrade();
        handle.map(Self)
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.work.name
    }

    fn message(&self, task: Task) -> Message {
        self.0.kind.message(Parcel { owner: self.0.work.id, task: Mutex::new(Some(task)) })
    }

    /// The task of a message that was not published.
    fn unpack(&self, message: Message) -> Task {
        self.0.work.gauge.shrank();
        Parcel::take(&message, self.0.work.id).expect("a message that was not published has its task")
    }

    /// Queues a task. Cost: a publish, an allocation and two short locks.
    ///
    /// # Errors
    /// [`PushError`] with the task: [`Ended`](PushError::Ended) after the bus was shut down,
    /// [`Full`](PushError::Full) while it has no room.
    #[track_caller]
    pub fn push(&self, task: impl FnOnce() + Send + 'static) -> Result<(), PushError> {
        self.push_task(Task::new(task))
    }

    /// As [`push`](Self::push), for a task that is made already.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_task(&self, task: Task) -> Result<(), PushError> {
        self.0.work.gauge.grew();
        self.0.topic.publish(self.message(task)).map_err(|error| match error {
            PublishError::Full(message) => PushError::Full(self.unpack(message)),
            error => PushError::Ended(self.unpack(error.into_message())),
        })
    }

    /// Queues a function and waits for its result. In a handler or a task on a lane it serves that lane
    /// meanwhile.
    ///
    /// # Errors
    /// [`PushWaitError`], with the function where it was not queued: own task, circle of tasks, full, shut
    /// down.
    #[track_caller]
    pub fn push_wait<R: Send + 'static, F: FnOnce() -> R + Send + 'static>(&self, f: F) -> Result<R, PushWaitError<F>> {
        let (slot, ticket) = Slot::new(f);
        self.0.work.gauge.grew();
        let message = self.message(Task::new(move || ticket.run()));
        if let Err(error) = self.0.topic.publish_sync(message, &self.0.subscription) {
            let to: fn(F) -> PushWaitError<F> = match &error {
                PublishSyncError::OwnHandler(_) => PushWaitError::OwnTask,
                PublishSyncError::Circular(_) => PushWaitError::Circular,
                PublishSyncError::TooDeep(_) => PushWaitError::TooDeep,
                PublishSyncError::Publish(error) if error.is_full() => PushWaitError::Full,
                PublishSyncError::Publish(_) => PushWaitError::Ended,
            };
            let f = slot.reclaim();
            self.unpack(error.into_message()).drop_quietly();
            return Err(f.map_or(PushWaitError::Dropped, to));
        }
        slot.try_result().unwrap_or(Err(PushWaitError::Dropped))
    }

    /// Tasks that wait. May be stale when it returns.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.work.gauge.read().size
    }

    /// Whether the caller is (in) a task of this serializer.
    #[must_use]
    pub fn is_task(&self) -> bool {
        task::is_running_here(self.0.work.id)
    }

    /// Sets the sizes at which the alert is raised and cleared; without `low`: 90 % of `high`.
    ///
    /// # Errors
    /// [`LevelError`](super::LevelError) if `high` is zero or below `low`.
    pub fn set_alert_levels(&self, low: Option<usize>, high: usize) -> Result<(), super::LevelError> {
        self.0.work.gauge.set_levels(low, high)
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// Drops this handle. The result is done when the serializer has ended: the last handle is gone and its
    /// last task has run.
    pub fn release(self) -> Completion {
        self.0.subscription.completion()
    }
}

impl fmt::Debug for Serializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serializer").field("name", &self.name()).field("size", &self.size()).finish_non_exhaustive()
    }
}
