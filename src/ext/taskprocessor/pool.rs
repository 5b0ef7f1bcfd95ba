//! A pool of threads for work that blocks: grows when all are busy, shrinks when they idle.
//!
//! ```text
//!   push ─► one queue ─► an idle thread ... or a new one, up to the maximum
//!   serializers (any number) ─► one queued job each while they have tasks
//! ```
//!
//! Guarantees: a task never waits behind a busy thread while another is idle or may be started
//! (`tests/task_pool.rs`: `a_task_never_waits_behind_a_busy_executor`, model `the_idle_worker_takes_it`); accepted
//! tasks are run, also after the pool has ended; a panic ends neither thread nor pool.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::crew::{Crew, Limits, Take};
use super::error::{CreateError, EndError, PushError, PushWaitError, Unfinished};
use super::group::{Member, ShutdownGroup};
use super::listener::Listener;
use super::processor::{Executed, LastHandle, Runner, Taskprocessor, next_id};
use super::registry::Taskprocessors;
use super::task::{LocalData, Task};
use super::wait::Slot;
use crate::contain::quietly;
use crate::exec::affinity;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Mutex, Ordering, Weak, local, lock, thread};

/// How often a pool's thread that waits looks whether it can lend a hand.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(5);

local! {
    static POOL: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// The pool whose thread this is; zero: none.
pub(super) fn worker_of() -> u64 {
    POOL.try_with(std::cell::Cell::get).unwrap_or(0)
}

/// Learns what happens in a pool. Callbacks come on any thread, also at the same time; no lock is held; a
/// panic is contained. They come while the pool has a handle (`shutdown`: always).
///
/// # Examples
/// Growing a pool oneself:
/// ```
/// use stasis_bus::taskprocessor::{PoolListener, TaskPool};
/// struct Grow;
/// impl PoolListener for Grow {
///     fn task_pushed(&self, pool: &TaskPool, _was_empty: bool) {
///         if pool.idle() == 0 && pool.size() < 4 {
///             let _ = pool.set_size(pool.size() + 1);
///         }
///     }
/// }
/// let pool = TaskPool::builder("lookup").auto_increment(0).listener(Grow).build().unwrap();
/// assert_eq!(pool.push_wait(|| 6 * 7).unwrap(), 42);
/// ```
pub trait PoolListener: Send + Sync + 'static {
    /// A thread became active or idle, began or left. The numbers are a moment's view.
    fn state_changed(&self, pool: &TaskPool, active: usize, idle: usize) {
        let _ = (pool, active, idle);
    }

    /// A task was pushed. `was_empty`: none was waiting.
    fn task_pushed(&self, pool: &TaskPool, was_empty: bool) {
        let _ = (pool, was_empty);
    }

    /// A task has ended, none is waiting and no other one running.
    fn emptied(&self, pool: &TaskPool) {
        let _ = pool;
    }

    /// The pool has ended, and its last thread. The last call.
    fn shutdown(&self) {}
}

type Callback = Option<Arc<dyn Fn() + Send + Sync>>;

/// A pool in the making.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::TaskPool;
/// use std::time::Duration;
/// let pool = TaskPool::builder("stasis/pool")
///     .initial_size(2)
///     .minimum_size(1)
///     .max_size(20)
///     .auto_increment(2)
///     .idle_timeout(Duration::from_secs(20))
///     .build()
///     .unwrap();
/// assert_eq!(pool.size(), 2);
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct TaskPoolBuilder {
    name: String,
    initial: usize,
    minimum: usize,
    maximum: usize,
    increment: usize,
    idle_timeout: Option<Duration>,
    listener: Option<Arc<dyn PoolListener>>,
    thread_start: Callback,
    thread_end: Callback,
    registry: Option<Taskprocessors>,
}

impl TaskPoolBuilder {
    /// Threads to begin with; the minimum if that is more. Default: 0.
    pub fn initial_size(mut self, threads: usize) -> Self {
        self.initial = threads;
        self
    }

    /// Threads that do not leave for idling. Default: 0.
    pub fn minimum_size(mut self, threads: usize) -> Self {
        self.minimum = threads;
        self
    }

    /// Most threads; 0: no limit. Default: 50.
    pub fn max_size(mut self, threads: usize) -> Self {
        self.maximum = threads;
        self
    }

    /// Threads to add when a task finds none idle; 0: none. Default: 1.
    pub fn auto_increment(mut self, threads: usize) -> Self {
        self.increment = threads;
        self
    }

    /// How long a thread idles before it leaves; zero: for ever. Default: 60 s. Where threads take turns, so that
    /// each is used now and then: for how long one more than needed was there.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// Who is told what happens.
    pub fn listener(mut self, listener: impl PoolListener) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Called by each thread when it begins.
    pub fn thread_start(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_start = Some(Arc::new(call));
        self
    }

    /// Called by each thread before it leaves.
    pub fn thread_end(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.thread_end = Some(Arc::new(call));
        self
    }

    /// Where the pool's serializers are listed and counted. Default: a registry of its own.
    pub fn registry(mut self, registry: &Taskprocessors) -> Self {
        self.registry = Some(registry.clone());
        self
    }

    /// Makes the pool and its first threads.
    ///
    /// # Errors
    /// [`CreateError::NoName`]; [`CreateError::Sizes`] if minimum or initial size are above the maximum;
    /// [`CreateError::Thread`].
    pub fn build(self) -> Result<TaskPool, CreateError> {
        if self.name.is_empty() {
            return Err(CreateError::NoName);
        }
        let maximum = if self.maximum == 0 { usize::MAX } else { self.maximum };
        let initial = self.initial.max(self.minimum);
        if initial > maximum {
            return Err(CreateError::Sizes { minimum: initial, maximum });
        }
        let inner = Arc::new(Inner {
            id: next_id(),
            name: self.name,
            crew: Crew::new(Limits { minimum: self.minimum, maximum, increment: self.increment }),
            idle_timeout: self.idle_timeout,
            listener: self.listener,
            thread_start: self.thread_start,
            thread_end: self.thread_end,
            registry: self.registry.unwrap_or_default(),
            numbers: AtomicU64::new(0),
            processed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            running: Mutex::new(BTreeMap::new()),
            serializers: Mutex::new(Vec::new()),
            handle: Mutex::new(Weak::new()),
            is_over: Mutex::new(false),
        });
        let last = Arc::new(LastPoolHandle(Arc::clone(&inner)));
        *lock(&inner.handle) = Arc::downgrade(&last);
        let pool = TaskPool(last);
        let start = inner.crew.resize(initial);
        inner.start_workers(start).map_err(CreateError::Thread)?;
        Ok(pool)
    }
}

impl fmt::Debug for TaskPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPoolBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

struct Inner {
    id: u64,
    name: String,
    crew: Crew<Task>,
    idle_timeout: Option<Duration>,
    listener: Option<Arc<dyn PoolListener>>,
    thread_start: Callback,
    thread_end: Callback,
    registry: Taskprocessors,
    numbers: AtomicU64,
    processed: AtomicU64,
    panics: AtomicU64,
    /// Tasks that run, by number of the thread: where pushed, since when.
    running: Mutex<BTreeMap<u64, (String, Instant)>>,
    serializers: Mutex<Vec<Weak<LastHandle>>>,
    handle: Mutex<Weak<LastPoolHandle>>,
    is_over: Mutex<bool>,
}

impl Inner {
    fn tell(&self, f: impl FnOnce(&dyn PoolListener, &TaskPool)) {
        let Some(listener) = &self.listener else { return };
        let pool = lock(&self.handle).upgrade().map(TaskPool);
        if let Some(pool) = pool {
            quietly(|| f(&**listener, &pool));
        }
    }

    fn tell_state(&self) {
        self.tell(|listener, pool| {
            let count = self.crew.count();
            listener.state_changed(pool, count.active, count.idle);
        });
    }

    /// Starts workers that are counted already. On an error the rest is taken back.
    fn start_workers(self: &Arc<Self>, count: usize) -> Result<(), std::io::Error> {
        for done in 0..count {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
            let inner = Arc::clone(self);
            let builder = thread::Builder::new().name(format!("{}-{number}", self.name));
            if let Err(error) = builder.spawn(affinity::unbound(move || inner.work(number))) {
                (done..count).for_each(|_| self.crew.not_started());
                return Err(error);
            }
        }
        Ok(())
    }

    fn work(self: &Arc<Self>, number: u64) {
        POOL.with(|pool| pool.set(self.id));
        if let Some(call) = &self.thread_start {
            quietly(|| call());
        }
        let mut next = self.crew.arrive();
        loop {
            let take = next.unwrap_or_else(|| {
                self.tell_state();
                self.crew.take(self.idle_timeout)
            });
            match take {
                Take::Task(task) => {
                    self.tell_state();
                    self.run(task, number);
                }
                Take::Leave => break,
            }
            next = self.crew.try_take();
        }
        if let Some(call) = &self.thread_end {
            quietly(|| call());
        }
        self.tell_state();
        self.maybe_over();
    }

    fn run(&self, task: Task, number: u64) {
        lock(&self.running).insert(number, (task.location.to_string(), Instant::now()));
        self.ran(task);
        let is_last = {
            let mut running = lock(&self.running);
            running.remove(&number);
            running.is_empty()
        };
        if is_last && self.crew.count().waiting == 0 {
            self.tell(|listener, pool| listener.emptied(pool));
        }
    }

    fn ran(&self, task: Task) {
        if !task.run_contained(&LocalData::default()) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        self.processed.fetch_add(1, Ordering::Relaxed);
    }

    fn push(self: &Arc<Self>, task: Task, always: bool) -> Result<(), PushError> {
        let pushed = self.crew.push(task, always).map_err(PushError::Ended)?;
        if let Err(error) = self.start_workers(pushed.start) {
            tracing::error!(pool = self.name, %error, "cannot start a thread; tasks wait for those that are there");
        }
        self.tell(|listener, pool| listener.task_pushed(pool, pushed.was_empty));
        Ok(())
    }

    fn close(self: &Arc<Self>) {
        let start = self.crew.close();
        if let Err(error) = self.start_workers(start) {
            tracing::error!(pool = self.name, %error, "cannot start a thread for the last tasks");
        }
        self.maybe_over();
    }

    /// Tells the listener of the end, once.
    fn maybe_over(&self) {
        let count = self.crew.count();
        if self.crew.is_closed() && count.workers == 0 && count.waiting == 0 {
            let was_over = std::mem::replace(&mut *lock(&self.is_over), true);
            if let (false, Some(listener)) = (was_over, &self.listener) {
                quietly(|| listener.shutdown());
            }
        }
    }

    fn unfinished(&self) -> Vec<Unfinished> {
        let waiting = self.crew.count().waiting;
        let thread = |(number, (location, since)): (&u64, &(String, Instant))| Unfinished {
            name: format!("{}-{number}", self.name),
            running: Some((location.clone(), since.elapsed())),
            waiting: 0,
        };
        let mut all: Vec<Unfinished> = lock(&self.running).iter().map(thread).collect();
        if waiting > 0 || all.is_empty() {
            all.push(Unfinished { name: self.name.clone(), running: None, waiting });
        }
        all
    }
}

/// Ends the pool when the last handle is gone.
struct LastPoolHandle(Arc<Inner>);

impl Drop for LastPoolHandle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A pool of threads. Handles are cheap to clone; the pool lives while a handle or one of its serializers
/// does. Dropping the last one ends it without waiting: accepted tasks are still run, then the threads leave.
///
/// Tasks are begun in the order they were pushed, and run side by side. Cost of a push: a short lock, an
/// allocation, a wake-up; a thread if the pool grows.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::TaskPool;
/// use std::time::Duration;
/// let pool = TaskPool::builder("lookup").max_size(4).build().unwrap();
/// pool.push(|| println!("looking up")).unwrap();
/// assert_eq!(pool.push_wait(|| 6 * 7).unwrap(), 42);
/// pool.shutdown(Duration::from_secs(5)).unwrap();
/// ```
#[derive(Clone)]
pub struct TaskPool(Arc<LastPoolHandle>);

impl TaskPool {
    /// Starts making a pool.
    pub fn builder(name: impl Into<String>) -> TaskPoolBuilder {
        TaskPoolBuilder {
            name: name.into(),
            initial: 0,
            minimum: 0,
            maximum: 50,
            increment: 1,
            idle_timeout: Some(Duration::from_secs(60)),
            listener: None,
            thread_start: None,
            thread_end: None,
            registry: None,
        }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner().name
    }

    /// Threads now, those that are starting included.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner().crew.count().workers
    }

    /// Threads that wait for a task.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.inner().crew.count().idle
    }

    /// Tasks that wait.
    #[must_use]
    pub fn queue_size(&self) -> usize {
        self.inner().crew.count().waiting
    }

    /// Tasks run so far; a serializer's job counts once.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.inner().processed.load(Ordering::Relaxed)
    }

    /// Tasks that panicked; counted as run, too. Those of serializers are counted there.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.inner().panics.load(Ordering::Relaxed)
    }

    /// Queues a task.
    ///
    /// # Errors
    /// [`PushError::Ended`] with the task after [`shutdown`](Self::shutdown).
    #[track_caller]
    pub fn push(&self, task: impl FnOnce() + Send + 'static) -> Result<(), PushError> {
        self.push_task(Task::new(task))
    }

    /// As [`push`](Self::push), for a task that is made already.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_task(&self, task: Task) -> Result<(), PushError> {
        self.inner().push(task, false)
    }

    /// Queues a function and waits for its result. On a thread of this pool it is run there and then: the pool
    /// may be at its maximum with all threads waiting.
    ///
    /// # Errors
    /// [`PushWaitError::Ended`] with the function after [`shutdown`](Self::shutdown);
    /// [`PushWaitError::Panicked`]; [`PushWaitError::Dropped`].
    #[track_caller]
    pub fn push_wait<R: Send + 'static, F: FnOnce() -> R + Send + 'static>(&self, f: F) -> Result<R, PushWaitError<F>> {
        let (slot, ticket) = Slot::new(f);
        let task = Task::new(move || ticket.run());
        if worker_of() == self.inner().id {
            self.inner().ran(task);
        } else if let Err(error) = self.push_task(task) {
            let f = slot.reclaim();
            error.into_task().drop_quietly();
            return Err(f.map_or(PushWaitError::Dropped, PushWaitError::Ended));
        }
        loop {
            if let Some(result) = slot.try_result() {
                return result;
            }
            slot.wait(None);
        }
    }

    /// Sets the number of threads, the maximum at most. Threads that are too many leave, idle ones first, busy
    /// ones when their task is done; while tasks wait, one stays (unless `auto_increment` is 0). Afterwards the
    /// pool grows and idles out as before.
    ///
    /// # Errors
    /// [`CreateError::Thread`] if the system refuses one.
    pub fn set_size(&self, threads: usize) -> Result<(), CreateError> {
        let start = self.inner().crew.resize(threads);
        self.inner().start_workers(start).map_err(CreateError::Thread)
    }

    /// A new taskprocessor whose tasks run one after the other on the threads of this pool.
    ///
    /// # Errors
    /// [`CreateError::NoName`], [`CreateError::NameTaken`] in the pool's registry; [`CreateError::Unserved`]
    /// after [`shutdown`](Self::shutdown).
    pub fn serializer(&self, name: impl AsRef<str>) -> Result<Taskprocessor, CreateError> {
        self.make_serializer(name.as_ref(), None)
    }

    /// A new serializer that is a member of `group` until it has ended.
    ///
    /// # Errors
    /// As [`serializer`](Self::serializer).
    pub fn serializer_in(&self, name: impl AsRef<str>, group: &ShutdownGroup) -> Result<Taskprocessor, CreateError> {
        self.make_serializer(name.as_ref(), Some(group))
    }

    fn make_serializer(&self, name: &str, group: Option<&ShutdownGroup>) -> Result<Taskprocessor, CreateError> {
        let inner = self.inner();
        let listener = Arc::new(OnPool { pool: self.clone(), member: Mutex::new(None) });
        let serializer = inner.registry.create(name, Arc::clone(&listener) as Arc<dyn Listener>, inner.id)?;
        if let Some(group) = group {
            let shared = serializer.shared();
            *lock(&listener.member) = Some(group.enter(shared.id, Arc::clone(&shared.name)));
        }
        let mut serializers = lock(&inner.serializers);
        serializers.retain(|known| known.strong_count() > 0);
        serializers.push(Arc::downgrade(&serializer.0));
        drop(serializers);
        // After entering it: shutdown closes first and then looks at the list.
        if inner.crew.is_closed() {
            serializer.end();
            return Err(CreateError::Unserved("the pool is shut down".into()));
        }
        Ok(serializer)
    }

    /// Ends the pool and its serializers: pushes are refused, what waits is still run, then the threads leave.
    ///
    /// # Errors
    /// [`EndError::Timeout`] naming the tasks that ran when the deadline passed; [`EndError::OwnTask`] from a
    /// thread of the pool. It ends in any case.
    pub fn shutdown(&self, limit: Duration) -> Result<(), EndError> {
        let start = Instant::now();
        let inner = self.inner();
        inner.close();
        let upgrade = |known: &Weak<LastHandle>| known.upgrade().map(Taskprocessor);
        let serializers: Vec<Taskprocessor> = lock(&inner.serializers).iter().filter_map(upgrade).collect();
        serializers.iter().for_each(Taskprocessor::end);
        if worker_of() == inner.id {
            return Err(EndError::OwnTask);
        }
        loop {
            let count = inner.crew.count();
            if count.workers == 0 && count.waiting == 0 {
                break;
            }
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(EndError::Timeout(inner.unfinished()));
            }
            inner.crew.wait_for_leaving(left);
        }
        // A push that was on its way may have called a thread back.
        serializers.iter().try_for_each(|serializer| serializer.join(limit.saturating_sub(start.elapsed())))
    }
}

impl fmt::Debug for TaskPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPool").field("name", &self.name()).field("count", &self.inner().crew.count()).finish()
    }
}

/// Runs a serializer's tasks on the pool: one job in the pool's queue while there are tasks.
struct OnPool {
    pool: TaskPool,
    member: Mutex<Option<Member>>,
}

impl Listener for OnPool {
    fn task_pushed(&self, runner: &Runner, was_empty: bool) {
        if was_empty {
            let runner = runner.clone();
            let job = Task::new(move || while runner.execute() == Executed::More {});
            // Always: these tasks were accepted.
            let _ = self.pool.inner().push(job, true);
        }
    }

    fn shutdown(&self, _: &Runner) {
        drop(lock(&self.member).take());
    }
}
