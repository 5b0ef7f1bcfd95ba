//! Taskprocessors by name.
//!
//! ```text
//!   Taskprocessors ─► names ─weak─► Taskprocessor        alerts: all, per subsystem
//! ```
//!
//! Guarantees: one taskprocessor per name (ASCII case does not matter) while it takes tasks; no lock is held
//! while listeners run.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::error::{CreateError, EndError};
use super::gauge::{Alert, Board, subsystem};
use super::listener::{Listener, OwnThread};
use super::processor::{LastHandle, Shared, Taskprocessor};
use super::serializer;
use crate::sync::plain::AtomicU64;
use crate::sync::{Arc, Mutex, Ordering, Weak, lock};

/// Figures of a taskprocessor or serializer: a moment's view (`core show taskprocessors`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Name.
    pub name: String,
    /// Tasks run.
    pub processed: u64,
    /// Tasks that panicked; counted as run, too.
    pub panics: u64,
    /// Tasks that wait.
    pub in_queue: usize,
    /// Most tasks that waited.
    pub max_depth: usize,
    /// Size at which an alert is cleared.
    pub low_water: usize,
    /// Size at which the alert is raised.
    pub high_water: usize,
    /// Whether it is in alert.
    pub is_alerted: bool,
    /// Whether it is suspended.
    pub is_suspended: bool,
    /// Where the running task was pushed, and for how long it has been running.
    pub running: Option<(String, Duration)>,
    /// Age of the oldest task that waits (serializers on lanes: not known).
    pub oldest_wait: Option<Duration>,
    /// Longest time from push to begin.
    pub longest_wait: Duration,
}

impl Stats {
    /// The part of the name before the first `/`; empty if there is none.
    #[must_use]
    pub fn subsystem(&self) -> &str {
        subsystem(&self.name)
    }
}

/// What a name stands for.
pub(super) enum Entry {
    Processor(u64, Weak<LastHandle>),
    Serializer(u64, Weak<serializer::Inner>),
}

impl Entry {
    fn id(&self) -> u64 {
        match self {
            Self::Processor(id, _) | Self::Serializer(id, _) => *id,
        }
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Processor(_, handle) => handle.strong_count() > 0,
            Self::Serializer(_, inner) => inner.strong_count() > 0,
        }
    }
}

#[derive(Default)]
pub(super) struct RegistryInner {
    pub(super) board: Arc<Board>,
    sequence: AtomicU64,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// By name in lower case.
    entries: HashMap<String, Entry>,
    is_closed: bool,
}

impl RegistryInner {
    /// The name is free again, if it is still this one's.
    pub(super) fn forget(&self, name: &str, id: u64) {
        let mut names = lock(&self.names);
        let key = name.to_ascii_lowercase();
        if names.entries.get(&key).is_some_and(|entry| entry.id() == id) {
            names.entries.remove(&key);
        }
    }

    /// Whether a new one of this name could be.
    pub(super) fn check(&self, name: &str) -> Result<(), CreateError> {
        if name.is_empty() {
            return Err(CreateError::NoName);
        }
        let names = lock(&self.names);
        if names.is_closed {
            return Err(CreateError::Closed);
        }
        match names.entries.get(&name.to_ascii_lowercase()) {
            Some(entry) if entry.is_alive() => Err(CreateError::NameTaken(name.into())),
            _ => Ok(()),
        }
    }

    /// Whether the name belongs to a serializer on lanes.
    fn is_serializer(&self, name: &str) -> bool {
        let names = lock(&self.names);
        matches!(names.entries.get(&name.to_ascii_lowercase()), Some(entry @ Entry::Serializer(..)) if entry.is_alive())
    }

    /// Enters a new one; the name may have been taken meanwhile.
    pub(super) fn enter(&self, name: &str, entry: Entry) -> Result<(), CreateError> {
        let mut names = lock(&self.names);
        if names.is_closed {
            return Err(CreateError::Closed);
        }
        let key = name.to_ascii_lowercase();
        if names.entries.get(&key).is_some_and(Entry::is_alive) {
            return Err(CreateError::NameTaken(name.into()));
        }
        names.entries.insert(key, entry);
        Ok(())
    }
}

/// Taskprocessors by name. Many registries may live; handles are cheap to clone. A taskprocessor lives by its
/// own handles, not by the registry's.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::Taskprocessors;
/// let processors = Taskprocessors::new();
/// let name = processors.sequence_name("pjsip/distributor");
/// let distributor = processors.get(&name).unwrap();
/// assert_eq!(distributor.name(), "pjsip/distributor-00000001");
/// assert_eq!(distributor.subsystem(), "pjsip");
/// assert!(processors.find(&name).is_some());
/// drop(distributor);
/// assert!(processors.find(&name).is_none());
/// ```
#[derive(Clone, Default)]
pub struct Taskprocessors(pub(super) Arc<RegistryInner>);

impl Taskprocessors {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The taskprocessor of this name; if there is none, a new one with its own thread. ASCII case does not
    /// matter; the name is kept as first written.
    ///
    /// # Errors
    /// [`CreateError::NoName`], [`CreateError::Closed`], [`CreateError::Listener`] if the system refuses the
    /// thread, [`CreateError::NameTaken`] if a serializer on lanes has the name.
    pub fn get(&self, name: impl AsRef<str>) -> Result<Taskprocessor, CreateError> {
        let name = name.as_ref();
        loop {
            if let Some(known) = self.find(name) {
                return Ok(known);
            }
            match self.create(name, Arc::new(OwnThread::new()), 0) {
                // Another thread was first, and its taskprocessor may be gone again.
                Err(CreateError::NameTaken(_)) if !self.0.is_serializer(name) => {}
                other => return other,
            }
        }
    }

    /// The taskprocessor of this name, if there is one.
    #[must_use]
    pub fn find(&self, name: impl AsRef<str>) -> Option<Taskprocessor> {
        match lock(&self.0.names).entries.get(&name.as_ref().to_ascii_lowercase()) {
            Some(Entry::Processor(_, handle)) => handle.upgrade().map(Taskprocessor),
            _ => None,
        }
    }

    /// A new taskprocessor whose tasks the listener runs. Its `start` is called before anybody finds it.
    ///
    /// # Errors
    /// [`CreateError::NameTaken`] if there is one, [`CreateError::Listener`] if `start` refuses or panics,
    /// [`CreateError::NoName`], [`CreateError::Closed`].
    pub fn create_with_listener(
        &self,
        name: impl AsRef<str>,
        listener: impl Listener,
    ) -> Result<Taskprocessor, CreateError> {
        self.create(name.as_ref(), Arc::new(listener), 0)
    }

    /// `pool`: whose threads the listener uses, or zero.
    pub(super) fn create(
        &self,
        name: &str,
        listener: Arc<dyn Listener>,
        pool: u64,
    ) -> Result<Taskprocessor, CreateError> {
        self.0.check(name)?;
        let processor = Shared::start(name, listener, pool, &self.0).map_err(CreateError::Listener)?;
        self.0.enter(name, Entry::Processor(processor.shared().id, Arc::downgrade(&processor.0)))?;
        Ok(processor)
    }

    /// The next number of this registry, from 1.
    pub fn next_sequence(&self) -> u64 {
        self.0.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The prefix, a dash and the next number in hexadecimal: names that tell who they belong to.
    pub fn sequence_name(&self, prefix: impl AsRef<str>) -> String {
        format!("{}-{:08x}", prefix.as_ref(), self.next_sequence())
    }

    /// Figures of all, by name. Pushing goes on meanwhile.
    #[must_use]
    pub fn list(&self) -> Vec<Stats> {
        let mut all: Vec<Stats> = self.all().iter().map(Held::stats).collect();
        all.sort_by_cached_key(|stats| stats.name.to_ascii_lowercase());
        all
    }

    /// Handles of all taskprocessors, serializers of pools included, by name.
    #[must_use]
    pub fn all_taskprocessors(&self) -> Vec<Taskprocessor> {
        let only = |known| if let Held::Processor(processor) = known { Some(processor) } else { None };
        let mut all: Vec<Taskprocessor> = self.all().into_iter().filter_map(only).collect();
        all.sort_by_cached_key(|processor| processor.name().to_ascii_lowercase());
        all
    }

    fn all(&self) -> Vec<Held> {
        let upgrade = |entry: &Entry| match entry {
            Entry::Processor(_, handle) => handle.upgrade().map(|handle| Held::Processor(Taskprocessor(handle))),
            Entry::Serializer(_, inner) => inner.upgrade().map(Held::Serializer),
        };
        // Collected first: dropping a handle may end something, and that needs the lock.
        let names = lock(&self.0.names);
        names.entries.values().filter_map(upgrade).collect()
    }

    /// How many are in alert.
    #[must_use]
    pub fn alerts(&self) -> usize {
        self.0.board.all()
    }

    /// How many of a subsystem are in alert. The case matters, as in Stasis.
    #[must_use]
    pub fn subsystem_alerts(&self, subsystem: impl AsRef<str>) -> usize {
        self.0.board.of(subsystem.as_ref())
    }

    /// Subsystems with alerts, and how many.
    #[must_use]
    pub fn alerted_subsystems(&self) -> Vec<(Box<str>, usize)> {
        self.0.board.subsystems()
    }

    /// Calls this at every alert that is raised or cleared, in the thread that pushed or ran the task; in place
    /// of the callback before. It may push; a panic is contained.
    pub fn on_alert(&self, callback: impl Fn(&Alert) + Send + Sync + 'static) {
        self.0.board.set_callback(Some(Arc::new(callback)));
    }

    /// Ends all taskprocessors and waits for their last tasks; makes no new ones. Serializers on lanes end with
    /// their handles or their bus.
    ///
    /// # Errors
    /// [`EndError::Timeout`] naming those that had not ended; [`EndError::OwnTask`] from a task of one of them.
    /// All are ended in any case.
    pub fn shutdown(&self, limit: Duration) -> Result<(), EndError> {
        let start = Instant::now();
        lock(&self.0.names).is_closed = true;
        let all: Vec<Arc<Shared>> = self.all_taskprocessors().iter().map(|one| Arc::clone(one.shared())).collect();
        all.iter().for_each(Shared::end);
        if all.iter().any(|one| super::task::is_running_here(one.id)) {
            return Err(EndError::OwnTask);
        }
        let mut unfinished = Vec::new();
        for one in all {
            if let Err(EndError::Timeout(more)) = one.join(limit.saturating_sub(start.elapsed())) {
                unfinished.extend(more);
            }
        }
        if unfinished.is_empty() { Ok(()) } else { Err(EndError::Timeout(unfinished)) }
    }
}

impl std::fmt::Debug for Taskprocessors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = lock(&self.0.names).entries.len();
        f.debug_struct("Taskprocessors").field("entries", &count).finish_non_exhaustive()
    }
}

/// What a name stands for, held.
enum Held {
    Processor(Taskprocessor),
    Serializer(Arc<serializer::Inner>),
}

impl Held {
    fn stats(&self) -> Stats {
        match self {
            Self::Processor(processor) => processor.stats(),
            Self::Serializer(inner) => inner.stats(),
        }
    }
}
