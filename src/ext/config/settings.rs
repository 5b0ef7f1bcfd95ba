//! What a configuration says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Pinning;
use crate::WaitStrategy;
use crate::WaterMarks;
use crate::bus::BusBuilder;
use crate::ext::taskprocessor::TaskPoolBuilder;

/// A configuration: settings of the bus, sizes of pools, types that are not made.
///
/// # Examples
/// ```
/// use stasis_bus::config::Config;
/// use stasis_bus::{Bus, MessageType, TypeError};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::from_stasis_conf(
///     "[threadpool]\n\
///      max_size = 20 ; threads\n\
///      [declined_message_types]\n\
///      decline => ast_channel_varset_type\n",
///     "stasis.conf",
/// )?;
/// assert_eq!(config.threadpool.max_size, 20);
/// let bus = config.apply(Bus::builder().lanes(1)).build()?;
/// let refused = MessageType::<u32>::new(&bus, "ast_channel_varset_type").unwrap_err();
/// assert_eq!(refused, TypeError::Declined("ast_channel_varset_type".into()));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Config {
    /// The bus itself: `[bus]`, TOML only.
    pub bus: BusSettings,
    /// `[threadpool]`.
    pub threadpool: ThreadPool,
    /// `[taskpool]`.
    pub taskpool: TaskPool,
    /// Names of message types that are not made: `decline` in `[declined_message_types]`.
    pub declined_types: BTreeSet<String>,
}

impl Config {
    /// Puts the settings into a bus in the making. What this configuration says replaces what the builder
    /// had; what it does not say stays; declined types are added.
    #[must_use]
    pub fn apply(&self, mut builder: BusBuilder) -> BusBuilder {
        let BusSettings {
            name,
            lanes,
            pinning,
            wait,
            ring_capacity,
            memory_budget,
            watchdog,
            spare_threads,
            feedback_limit,
            depth_marks,
            age_marks,
        } = &self.bus;
        if let Some(name) = name {
            builder = builder.name(name);
        }
        if let Some(lanes) = lanes {
            builder = builder.lanes(*lanes);
        }
        if let Some(pinning) = pinning {
            builder = builder.pinning(pinning.clone());
        }
        if let Some(wait) = wait {
            builder = builder.wait(*wait);
        }
        if let Some(entries) = ring_capacity {
            builder = builder.ring_capacity(*entries);
        }
        if let Some(bytes) = memory_budget {
            builder = builder.memory_budget(*bytes);
        }
        if let Some(period) = watchdog {
            builder = builder.watchdog(period.on());
        }
        if let Some(most) = spare_threads {
            builder = builder.spare_threads(*most);
        }
        if let Some(limit) = feedback_limit {
            builder = builder.feedback_limit(limit.on());
        }
        if depth_marks.is_some() || age_marks.is_some() {
            let mut marks = match age_marks.map(OrOff::on) {
                None => WaterMarks::default(),
                Some(None) => WaterMarks::none(),
                Some(Some((low, high))) => WaterMarks::none().age(low, high),
            };
            if let Some((low, high)) = depth_marks.and_then(OrOff::on) {
                marks = marks.depth(low, high);
            }
            builder = builder.water_marks(marks);
        }
        self.declined_types.iter().fold(builder, |builder, name| builder.decline_type(name.as_str()))
    }
}

/// Settings of the bus; `None` is whatever the builder has. Meanings as of the methods of
/// [`BusBuilder`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BusSettings {
    /// Name.
    pub name: Option<String>,
    /// Number of lanes, 1 to 256.
    pub lanes: Option<usize>,
    /// Cores of lanes: `"cores"`, `"off"` or a list of core numbers.
    pub pinning: Option<Pinning>,
    /// How idle lanes wait: `"adaptive"`, `"busy_spin"`, `"park"` or `"yield"`.
    pub wait: Option<WaitStrategy>,
    /// Entries of a lane's queue that are always there, up to 4194304.
    pub ring_capacity: Option<usize>,
    /// Bytes all queues may take together.
    pub memory_budget: Option<usize>,
    /// How long a handler may keep its lane: `watchdog_usec`, from 100 us, or `"off"`.
    pub watchdog: Option<OrOff<Duration>>,
    /// Threads at most that take lanes over.
    pub spare_threads: Option<usize>,
    /// How deep publishes inside handlers may be, or `"off"`.
    pub feedback_limit: Option<OrOff<u16>>,
    /// Low and high number of entries at which queues recover and become congested: a list, or `"off"`. If only
    /// one of the two kinds of marks is given, the other one is as in [`WaterMarks::default`].
    pub depth_marks: Option<OrOff<(u64, u64)>>,
    /// Low and high age of the oldest entry, as [`depth_marks`](Self::depth_marks): `age_marks_msec`.
    pub age_marks: Option<OrOff<(Duration, Duration)>>,
}

/// A setting that may be `"off"`.
///
/// # Examples
/// ```
/// use stasis_bus::config::{Config, OrOff};
/// let text = "[bus]\nfeedback_limit = 32\nwatchdog_usec = 'off'\n";
/// let bus = Config::from_toml(text, "stasis.toml").unwrap().bus;
/// assert_eq!((bus.feedback_limit, bus.watchdog), (Some(OrOff::On(32)), Some(OrOff::Off)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrOff<T> {
    /// Off.
    Off,
    /// On, with this value.
    On(T),
}

impl<T> OrOff<T> {
    /// The value; `None` for `Off`.
    #[must_use]
    pub fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

/// Sizes of the pool of threads: for a [`TaskPool`](crate::taskprocessor::TaskPool) of one's own. (The lanes of
/// the bus are no pool: see [`BusSettings`].)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPool {
    /// Threads at the start. Default: 5, or `max_size` if that is less.
    pub initial_size: u32,
    /// Seconds after which an idle thread ends; 0: never. Default: 20.
    pub idle_timeout_sec: u32,
    /// Most threads; 0: no limit. Default: 50, or `initial_size` if that is more.
    pub max_size: u32,
}

impl ThreadPool {
    /// Puts the sizes into a pool in the making.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::config::Config;
    /// use stasis_bus::taskprocessor::TaskPool;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = Config::from_stasis_conf("[threadpool]\ninitial_size = 3\n", "stasis.conf")?;
    /// let pool = config.threadpool.apply(TaskPool::builder("stasis/pool")).build()?;
    /// assert_eq!(pool.size(), 3);
    /// # Ok(()) }
    /// ```
    pub fn apply(&self, builder: TaskPoolBuilder) -> TaskPoolBuilder {
        let Self { initial_size, idle_timeout_sec, max_size } = *self;
        TaskPool { minimum_size: 0, initial_size, idle_timeout_sec, max_size }.apply(builder)
    }
}

impl Default for ThreadPool {
    fn default() -> Self {
        Self { initial_size: 5, idle_timeout_sec: 20, max_size: 50 }
    }
}

/// Sizes of the pool of taskprocessors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskPool {
    /// Fewest taskprocessors. Default: 5, or `max_size` if that is less.
    pub minimum_size: u32,
    /// Taskprocessors at the start. Default: 5, or `max_size` if that is less.
    pub initial_size: u32,
    /// Seconds after which an idle taskprocessor ends; 0: never. Default: 20.
    pub idle_timeout_sec: u32,
    /// Most taskprocessors; 0: no limit. Default: 50, or the larger of the other two if that is more.
    pub max_size: u32,
}

impl TaskPool {
    /// Puts the sizes into a pool in the making, as [`ThreadPool::apply`].
    pub fn apply(&self, builder: TaskPoolBuilder) -> TaskPoolBuilder {
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        builder
            .minimum_size(size(self.minimum_size))
            .initial_size(size(self.initial_size))
            .max_size(size(self.max_size))
            .idle_timeout(Duration::from_secs(self.idle_timeout_sec.into()))
    }
}

impl Default for TaskPool {
    fn default() -> Self {
        Self { minimum_size: 5, initial_size: 5, idle_timeout_sec: 20, max_size: 50 }
    }
}
