//! One taskprocessor: handle, runner, and what they share.
//!
//! ```text
//!   Taskprocessor (handles) ─► LastHandle ─► Shared: queue, gauge, local data, listener
//!   Runner (listener's) ───────────────────►   ▲
//! ```
//!
//! The last handle ends it: pushes are impossible then, what waits is still run, the listener's `shutdown`
//! comes, and the listener is dropped.

use std::any::Any;
use std::fmt;
use std::time::{Duration, Instant};

use super::error::{EndError, LevelError, PushError, PushWaitError, Unfinished};
use super::gauge::Gauge;
use super::listener::Listener;
use super::queue::{Begin, Close, TaskQueue};
use super::registry::{RegistryInner, Stats};
use super::task::{self, LocalData, Running, Task};
use super::wait::{Never, Slot, Waiting};
use crate::contain::quietly;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Condvar, Mutex, Ordering, Weak, lock, wait_while};

/// What an execution came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// A task was run, and more wait.
    More,
    /// Nothing waits (a task may have been run).
    Empty,
    /// It is suspended (a task may have been run before).
    Suspended,
    /// A task is running elsewhere, or this is its own thread; nothing was done.
    Busy,
}

/// The listener's side of a taskprocessor. Keeps its queue alive, not the taskprocessor from ending.
#[derive(Clone)]
pub struct Runner(pub(super) Arc<Shared>);

impl Runner {
    /// Runs the task that has waited longest, if none is running. Cost: four short locks.
    pub fn execute(&self) -> Executed {
        self.0.execute()
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tasks that wait. May be stale when it returns.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.gauge.read().size
    }

    /// Whether it has ended (the last tasks may still wait).
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.queue.is_ended()
    }

    /// A handle, as long as there is another one.
    #[must_use]
    pub fn taskprocessor(&self) -> Option<Taskprocessor> {
        self.0.handle()
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runner").field(&self.name()).finish()
    }
}

#[derive(Debug, Default)]
struct Now {
    /// Where the running task was pushed, and since when it has been running.
    running: Option<(String, Instant)>,
    longest_wait: Duration,
}

pub(super) struct Shared {
    pub(super) id: u64,
    /// Pool whose threads run the tasks; zero: none.
    pool: u64,
    pub(super) name: Arc<str>,
    queue: TaskQueue<Task>,
    pub(super) gauge: Gauge,
    local: Mutex<LocalData>,
    /// None after `shutdown`.
    listener: Mutex<Option<Arc<dyn Listener>>>,
    registry: Weak<RegistryInner>,
    handle: Mutex<Weak<LastHandle>>,
    now: Mutex<Now>,
    processed: AtomicU64,
    panics: AtomicU64,
    is_over: Mutex<bool>,
    over: Condvar,
}

/// The next id of a taskprocessor, serializer or pool.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Shared {
    pub(super) fn start(
        name: &str,
        listener: Arc<dyn Listener>,
        pool: u64,
        registry: &Arc<RegistryInner>,
    ) -> Result<Taskprocessor, Box<dyn std::error::Error + Send + Sync>> {
        let name: Arc<str> = name.into();
        let shared = Arc::new(Self {
            id: next_id(),
            pool,
            gauge: Gauge::new(Arc::clone(&name), Arc::clone(&registry.board)),
            name,
            queue: TaskQueue::new(),
            local: Mutex::new(LocalData::default()),
            listener: Mutex::new(Some(Arc::clone(&listener))),
            registry: Arc::downgrade(registry),
            handle: Mutex::new(Weak::new()),
            now: Mutex::new(Now::default()),
            processed: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            is_over: Mutex::new(false),
            over: Condvar::new(),
        });
        let last = Arc::new(LastHandle(Arc::clone(&shared)));
        *lock(&shared.handle) = Arc::downgrade(&last);
        let handle = Taskprocessor(last);
        let mut started = Ok(());
        let mut returned = false;
        quietly(|| {
            started = listener.start(&Runner(Arc::clone(&shared)));
            returned = true;
        });
        if !returned {
            started = Err("the listener panicked".into());
        }
        if let Err(error) = started {
            // Without telling the listener.
            let listener = lock(&shared.listener).take();
            quietly(|| drop(listener));
            return Err(error);
        }
        Ok(handle)
    }

    fn handle(&self) -> Option<Taskprocessor> {
        lock(&self.handle).upgrade().map(Taskprocessor)
    }

    fn tell(self: &Arc<Self>, f: impl FnOnce(&dyn Listener, &Runner)) {
        let listener = lock(&self.listener).clone();
        if let Some(listener) = listener {
            let runner = Runner(Arc::clone(self));
            quietly(|| f(&*listener, &runner));
            quietly(|| drop(listener));
        }
    }

    fn push(self: &Arc<Self>, task: Task) -> Result<(), PushError> {
        if self.queue.is_ended() {
            return Err(PushError::Ended(task));
        }
        self.gauge.grew();
        match self.queue.push(task) {
            Ok(was_empty) => {
                self.tell(|listener, runner| listener.task_pushed(runner, was_empty));
                Ok(())
            }
            Err(task) => {
                self.gauge.shrank();
                Err(PushError::Ended(task))
            }
        }
    }

    fn execute(self: &Arc<Self>) -> Executed {
        let task = match self.queue.begin() {
            Begin::Task(task) => task,
            Begin::Empty => return Executed::Empty,
            Begin::Suspended => return Executed::Suspended,
            Begin::Busy => return Executed::Busy,
        };
        self.gauge.shrank();
        let begun = Instant::now();
        {
            let mut now = lock(&self.now);
            now.longest_wait = now.longest_wait.max(begun.saturating_duration_since(task.pushed));
            now.running = Some((task.location.to_string(), begun));
        }
        let data = lock(&self.local).clone();
        let running = Running::enter(self.id, Arc::clone(self) as Arc<dyn Any + Send + Sync>);
        if !task.run_contained(&data) {
            self.panics.fetch_add(1, Ordering::Relaxed);
        }
        quietly(|| drop(data));
        drop(running);
        lock(&self.now).running = None;
        self.processed.fetch_add(1, Ordering::Relaxed);
        let finish = self.queue.finish();
        if finish.is_empty {
            self.tell(|listener, runner| listener.emptied(runner));
        }
        if finish.wake {
            self.tell(|listener, runner| listener.task_pushed(runner, true));
        }
        if finish.is_over {
            self.over();
        }
        match finish {
            finish if finish.is_empty => Executed::Empty,
            finish if finish.is_suspended => Executed::Suspended,
            _ => Executed::More,
        }
    }

    fn unsuspend(self: &Arc<Self>) {
        if self.queue.unsuspend() {
            self.tell(|listener, runner| listener.task_pushed(runner, true));
        }
    }

    pub(super) fn end(self: &Arc<Self>) {
        if let Some(registry) = self.registry.upgrade() {
            registry.forget(&self.name, self.id);
        }
        let Close { wake, is_over } = self.queue.close();
        if wake {
            self.tell(|listener, runner| listener.task_pushed(runner, true));
        }
        if is_over {
            self.over();
        }
    }

    /// The last task is done, and no other one will come.
    fn over(self: &Arc<Self>) {
        self.tell(|listener, runner| listener.shutdown(runner));
        let listener = lock(&self.listener).take();
        quietly(|| drop(listener));
        let data = std::mem::take(&mut *lock(&self.local));
        quietly(|| drop(data));
        *lock(&self.is_over) = true;
        self.over.notify_all();
    }

    /// Waits until it is over.
    pub(super) fn join(&self, limit: Duration) -> Result<(), EndError> {
        if task::is_running_here(self.id) {
            return Err(EndError::OwnTask);
        }
        let is_over = lock(&self.is_over);
        let is_over = wait_while(&self.over, is_over, limit, |is_over| !*is_over);
        let done = *is_over;
        drop(is_over);
        if done { Ok(()) } else { Err(EndError::Timeout(vec![self.unfinished()])) }
    }

    pub(super) fn unfinished(&self) -> Unfinished {
        let now = lock(&self.now);
        Unfinished {
            name: self.name.to_string(),
            running: now.running.as_ref().map(|(location, since)| (location.clone(), since.elapsed())),
            waiting: self.gauge.read().size,
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let level = self.gauge.read();
        let now = lock(&self.now);
        Stats {
            name: self.name.to_string(),
            processed: self.processed.load(Ordering::Relaxed),
            panics: self.panics.load(Ordering::Relaxed),
            in_queue: level.size,
            max_depth: level.most,
            low_water: level.low,
            high_water: level.high,
            is_alerted: level.is_raised,
            is_suspended: self.queue.is_suspended(),
            running: now.running.as_ref().map(|(location, since)| (location.clone(), since.elapsed())),
            oldest_wait: self.queue.oldest(|task| task.pushed.elapsed()),
            longest_wait: now.longest_wait,
        }
    }

    pub(super) fn reset_stats(&self) {
        self.gauge.forget_most();
        self.processed.store(0, Ordering::Relaxed);
        self.panics.store(0, Ordering::Relaxed);
        lock(&self.now).longest_wait = Duration::ZERO;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody serves it any more.
        self.queue.take_all().into_iter().for_each(Task::drop_quietly);
        let data = std::mem::take(&mut *lock(&self.local));
        quietly(|| drop(data));
    }
}

/// Ends the taskprocessor when the last handle is gone.
pub(super) struct LastHandle(pub(super) Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A named queue whose tasks run one after the other, in order. Handles are cheap to clone; dropping the
/// last one ends it: what waits is still run (a suspension is lifted), without the drop waiting for it.
/// Made by [`Taskprocessors`](super::Taskprocessors), [`TaskPool::serializer`](super::TaskPool::serializer).
///
/// Order: if one push returned before another began, its task runs first. The next task sees all that the
/// one before did.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::Taskprocessors;
/// use std::time::Duration;
/// let processor = Taskprocessors::new().get("cdr/writer").unwrap();
/// processor.push(|| println!("first")).unwrap();
/// assert_eq!(processor.push_wait(|| 6 * 7).unwrap(), 42);
/// processor.end();
/// processor.join(Duration::from_secs(1)).unwrap();
/// ```
#[derive(Clone)]
pub struct Taskprocessor(pub(super) Arc<LastHandle>);

impl Taskprocessor {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    /// The taskprocessor whose task is running on this thread; `None` outside of tasks, in tasks of other
    /// kinds, and after its last handle is gone.
    #[must_use]
    pub fn current() -> Option<Self> {
        task::current::<Shared>().and_then(|shared| shared.handle())
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().name
    }

    /// The part of the name before the first `/`; empty if there is none.
    #[must_use]
    pub fn subsystem(&self) -> &str {
        super::gauge::subsystem(self.name())
    }

    /// Queues a task. Cost: three short locks and an allocation, and what the listener does.
    ///
    /// # Errors
    /// [`PushError::Ended`] with the task after [`end`](Self::end).
    #[track_caller]
    pub fn push(&self, task: impl FnOnce() + Send + 'static) -> Result<(), PushError> {
        self.push_task(Task::new(task))
    }

    /// As [`push`](Self::push), for a task that gets the local data as they are when it runs.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[track_caller]
    pub fn push_local(&self, task: impl FnOnce(&LocalData) + Send + 'static) -> Result<(), PushError> {
        self.push_task(Task::with_local(task))
    }

    /// As [`push`](Self::push), for a task that is made already.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_task(&self, task: Task) -> Result<(), PushError> {
        self.shared().push(task)
    }

    /// Queues a function and waits for its result. The wait blocks the calling thread: in a handler on a
    /// lane, its lane. A thread of the pool that the taskprocessor is served by lends a hand meanwhile.
    ///
    /// # Errors
    /// [`PushWaitError::OwnTask`] and [`PushWaitError::Circular`] if the wait could never end,
    /// [`PushWaitError::Ended`]: nothing was queued. [`PushWaitError::Panicked`], [`PushWaitError::Dropped`].
    #[track_caller]
    pub fn push_wait<R: Send + 'static, F: FnOnce() -> R + Send + 'static>(&self, f: F) -> Result<R, PushWaitError<F>> {
        let _waiting = match Waiting::announce(self.shared().id) {
            Ok(waiting) => waiting,
            Err(Never::OwnTask) => return Err(PushWaitError::OwnTask(f)),
            Err(Never::Circular) => return Err(PushWaitError::Circular(f)),
        };
        let (slot, ticket) = Slot::new(f);
        if let Err(error) = self.push(move || ticket.run()) {
            let f = slot.reclaim();
            error.into_task().drop_quietly();
            return Err(f.map_or(PushWaitError::Dropped, PushWaitError::Ended));
        }
        let can_help = self.shared().pool != 0 && self.shared().pool == super::pool::worker_of();
        loop {
            if let Some(result) = slot.try_result() {
                return result;
            }
            if !can_help {
                slot.wait(None);
            } else if matches!(self.shared().execute(), Executed::Busy | Executed::Suspended) {
                slot.wait(Some(super::pool::LOOK_AGAIN));
            }
        }
    }

    /// Runs the task that has waited longest, if none is running: for listeners that leave it to others.
    pub fn execute(&self) -> Executed {
        self.shared().execute()
    }

    /// From now on no task begins; one that runs is not waited for. Without effect after [`end`](Self::end).
    pub fn suspend(&self) {
        self.shared().queue.suspend();
    }

    /// Tasks begin again.
    pub fn unsuspend(&self) {
        self.shared().unsuspend();
    }

    /// Whether it is suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.shared().queue.is_suspended()
    }

    /// Tasks that wait, the running one not counted. May be stale when it returns.
    #[must_use]
    pub fn size(&self) -> usize {
        self.shared().gauge.read().size
    }

    /// Whether a task is running now. May be stale when it returns.
    #[must_use]
    pub fn is_executing(&self) -> bool {
        self.shared().queue.is_executing()
    }

    /// Whether the caller is (in) a task of this taskprocessor.
    #[must_use]
    pub fn is_task(&self) -> bool {
        task::is_running_here(self.shared().id)
    }

    /// Sets the data that [`push_local`](Self::push_local) hands to tasks which begin afterwards. The old
    /// data are dropped when no task has them any more. They are let go when the taskprocessor has ended.
    pub fn set_local<T: Any + Send + Sync>(&self, data: T) {
        let old = std::mem::replace(&mut *lock(&self.shared().local), LocalData(Some(Arc::new(data))));
        quietly(|| drop(old));
    }

    /// Sets the sizes at which the alert is raised and cleared; without `low`: 90 % of `high`. Takes effect
    /// at once.
    ///
    /// # Errors
    /// [`LevelError`] if `high` is zero or below `low`; nothing is changed.
    pub fn set_alert_levels(&self, low: Option<usize>, high: usize) -> Result<(), LevelError> {
        self.shared().gauge.set_levels(low, high)
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    /// Counts from zero again: processed, panics, maxima.
    pub fn reset_stats(&self) {
        self.shared().reset_stats();
    }

    /// Ends it for all handles: pushes are refused, what waits is still run (a suspension is lifted), and the
    /// name is free. Does not wait. Calling it again is harmless.
    pub fn end(&self) {
        self.shared().end();
    }

    /// Waits until it has ended and its last task, too. Somebody has to end it.
    ///
    /// # Errors
    /// [`EndError::OwnTask`] from its own task; [`EndError::Timeout`].
    pub fn join(&self, limit: Duration) -> Result<(), EndError> {
        self.shared().join(limit)
    }
}

impl fmt::Debug for Taskprocessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taskprocessor").field("name", &self.name()).field("size", &self.size()).finish_non_exhaustive()
    }
}
