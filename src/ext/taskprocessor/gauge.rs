//! How many tasks wait, and alerts when they are too many.
//!
//! ```text
//!   size ──────────╱╲────── high: alert raised, once
//!        ─────────╱──╲───── low:  alert cleared, once
//! ```
//!
//! Guarantees: raised when the size reaches the high level, cleared when it has come down to the low one;
//! between the two nothing changes. The callback sees the crossings of one queue in order, one at a time, each
//! once, and no lock is held meanwhile (`tests/taskprocessors.rs`:
//! `an_alert_is_raised_at_high_and_cleared_at_low_once_each`).

use std::collections::{HashMap, VecDeque};
use std::fmt;

use super::error::LevelError;
use crate::contain::quietly;
use crate::sync::{Arc, Mutex, lock};

/// High level of a new taskprocessor, as in Stasis.
pub const DEFAULT_HIGH_WATER: usize = 500;

/// The low level that goes with a high one unless another is given: 90 % of it, as in Stasis.
pub(super) const fn default_low(high: usize) -> usize {
    high / 10 * 9 + high % 10 * 9 / 10
}

/// A queue has grown to its high level, or come down to its low one.
///
/// # Examples
/// ```
/// use stasis_bus::taskprocessor::Taskprocessors;
/// let processors = Taskprocessors::new();
/// processors.on_alert(|alert| println!("{}: {} tasks, raised: {}", alert.name(), alert.size(), alert.is_raised()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    name: Arc<str>,
    size: usize,
    is_raised: bool,
}

impl Alert {
    /// Name of the taskprocessor.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part of the name before the first `/`; empty if there is none.
    #[must_use]
    pub fn subsystem(&self) -> &str {
        subsystem(&self.name)
    }

    /// Tasks that waited at that moment.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Raised, or cleared.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.is_raised
    }
}

/// The part of a name before the first `/`; empty if there is none.
pub(super) fn subsystem(name: &str) -> &str {
    name.split_once('/').map_or("", |(subsystem, _)| subsystem)
}

type Callback = Arc<dyn Fn(&Alert) + Send + Sync>;

/// All alerts of a registry.
#[derive(Default)]
pub(super) struct Board {
    counts: Mutex<Counts>,
    callback: Mutex<Option<Callback>>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    subsystems: HashMap<Box<str>, usize>,
}

impl Board {
    pub(super) fn all(&self) -> usize {
        lock(&self.counts).all
    }

    pub(super) fn of(&self, subsystem: &str) -> usize {
        lock(&self.counts).subsystems.get(subsystem).copied().unwrap_or(0)
    }

    pub(super) fn subsystems(&self) -> Vec<(Box<str>, usize)> {
        let mut all: Vec<_> = lock(&self.counts).subsystems.iter().map(|(name, n)| (name.clone(), *n)).collect();
        all.sort();
        all
    }

    pub(super) fn set_callback(&self, callback: Option<Callback>) {
        let old = std::mem::replace(&mut *lock(&self.callback), callback);
        quietly(|| drop(old));
    }

    fn count(&self, name: &str, is_raised: bool) {
        let mut counts = lock(&self.counts);
        let subsystem = subsystem(name);
        counts.all = if is_raised { counts.all + 1 } else { counts.all - 1 };
        if subsystem.is_empty() {
            return;
        }
        if is_raised {
            *counts.subsystems.entry(subsystem.into()).or_default() += 1;
        } else if let Some(n) = counts.subsystems.get_mut(subsystem) {
            *n -= 1;
            if *n == 0 {
                counts.subsystems.remove(subsystem);
            }
        }
    }

    fn tell(&self, alert: &Alert) {
        self.count(&alert.name, alert.is_raised);
        let callback = lock(&self.callback).clone();
        if let Some(callback) = callback {
            quietly(|| callback(alert));
            quietly(|| drop(callback));
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("alerts", &self.all()).finish_non_exhaustive()
    }
}

/// The size of one queue.
#[derive(Debug)]
pub(super) struct Gauge {
    name: Arc<str>,
    board: Arc<Board>,
    level: Mutex<Level>,
}

#[derive(Debug)]
struct Level {
    size: usize,
    most: usize,
    low: usize,
    high: usize,
    is_raised: bool,
    /// Not yet told.
    crossings: VecDeque<Alert>,
    /// Somebody is telling.
    is_telling: bool,
}

/// A moment's view.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) size: usize,
    pub(super) most: usize,
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) is_raised: bool,
}

impl Gauge {
    pub(super) fn new(name: Arc<str>, board: Arc<Board>) -> Self {
        let (low, high) = (default_low(DEFAULT_HIGH_WATER), DEFAULT_HIGH_WATER);
        let level =
            Level { size: 0, most: 0, low, high, is_raised: false, crossings: VecDeque::new(), is_telling: false };
        Self { name, board, level: Mutex::new(level) }
    }

    /// A task is about to be queued.
    pub(super) fn grew(&self) {
        self.change(|level| {
            level.size += 1;
            level.most = level.most.max(level.size);
            (!level.is_raised && level.size >= level.high).then_some(true)
        });
    }

    /// A task was taken, or not queued after all.
    pub(super) fn shrank(&self) {
        self.change(|level| {
            level.size -= 1;
            (level.is_raised && level.size <= level.low).then_some(false)
        });
    }

    pub(super) fn set_levels(&self, low: Option<usize>, high: usize) -> Result<(), LevelError> {
        let low = low.unwrap_or(default_low(high));
        if high == 0 || high < low {
            return Err(LevelError { low, high });
        }
        self.change(|level| {
            (level.low, level.high) = (low, high);
            let is_raised = level.size >= high || level.is_raised && level.size > low;
            (is_raised != level.is_raised).then_some(is_raised)
        });
        Ok(())
    }

    pub(super) fn read(&self) -> Reading {
        let level = lock(&self.level);
        let Level { size, most, low, high, is_raised, .. } = *level;
        Reading { size, most, low, high, is_raised }
    }

    pub(super) fn forget_most(&self) {
        let mut level = lock(&self.level);
        level.most = level.size;
    }

    /// Changes the level; a crossing is told by this thread, or by the one that is telling.
    fn change(&self, change: impl FnOnce(&mut Level) -> Option<bool>) {
        let mut level = lock(&self.level);
        let Some(is_raised) = change(&mut level) else { return };
        level.is_raised = is_raised;
        let alert = Alert { name: Arc::clone(&self.name), size: level.size, is_raised };
        level.crossings.push_back(alert);
        if std::mem::replace(&mut level.is_telling, true) {
            return;
        }
        while let Some(alert) = level.crossings.pop_front() {
            drop(level);
            self.board.tell(&alert);
            level = lock(&self.level);
        }
        level.is_telling = false;
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        // A queue dropped with tasks in it is no longer in alert.
        let read = self.read();
        if read.is_raised {
            self.board.tell(&Alert { name: Arc::clone(&self.name), size: 0, is_raised: false });
        }
    }
}
