//! What a configuration says.

use std::collections::BTreeSet;

use crate::Pinning;
use crate::WaitStrategy;
use crate::bus::BusBuilder;

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
        let BusSettings { name, lanes, pinning, wait, ring_capacity, memory_budget } = &self.bus;
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
}

/// Sizes of the pool of threads.
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

impl Default for TaskPool {
    fn default() -> Self {
        Self { minimum_size: 5, initial_size: 5, idle_timeout_sec: 20, max_size: 50 }
    }
}
