//! Sections, keys, and what their values can be: the same for both forms.

use std::fmt;
use std::time::Duration;

use super::settings::{Config, OrOff};
use super::suggest::closest;
use crate::Pinning;
use crate::WaitStrategy;

/// Sections of `stasis.conf`.
pub(super) const CONF_SECTIONS: &[&str] = &["threadpool", "taskpool", "declined_message_types"];
/// Sections of the TOML form.
pub(super) const TOML_SECTIONS: &[&str] = &["bus", "threadpool", "taskpool", "declined_message_types"];

/// Largest number Asterisk takes.
pub(super) const MOST: u64 = i32::MAX as u64;

/// Keys of a section.
pub(super) fn keys(section: &str) -> &'static [&'static str] {
    match section {
        "bus" => &[
            "name",
            "lanes",
            "pinning",
            "wait",
            "ring_capacity",
            "memory_budget",
            "watchdog_usec",
            "spare_threads",
            "feedback_limit",
            "depth_marks",
            "age_marks_msec",
        ],
        "threadpool" => &["initial_size", "idle_timeout_sec", "max_size"],
        "taskpool" => &["minimum_size", "initial_size", "idle_timeout_sec", "max_size"],
        "declined_message_types" => &["decline"],
        _ => &[],
    }
}

/// Names of wait strategies.
pub(super) const WAITS: [(&str, WaitStrategy); 4] = [
    ("adaptive", WaitStrategy::Adaptive),
    ("busy_spin", WaitStrategy::BusySpin),
    ("park", WaitStrategy::Park),
    ("yield", WaitStrategy::Yield),
];

/// A value as a file has it.
#[derive(Clone, Debug)]
pub(super) enum Raw<'a> {
    /// Text that may also be a number.
    Bare(&'a str),
    /// Text.
    Text(&'a str),
    /// Whole number; `None` if it is beyond 64 bits.
    Whole(Option<i64>, String),
    /// List of values.
    List(Vec<Raw<'a>>),
    /// Something no key takes.
    Other(String),
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bare(text) | Self::Text(text) => write!(f, "'{text}'"),
            Self::Whole(_, text) | Self::Other(text) => f.write_str(text),
            Self::List(_) => f.write_str("this list"),
        }
    }
}

/// Why a value was refused.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) allowed: String,
    pub(super) suggestion: Option<&'static str>,
}

fn refused<T>(allowed: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { allowed: allowed.into(), suggestion: None })
}

/// Puts a value into its place. Section and key are known ones.
pub(super) fn set(config: &mut Config, section: &str, key: &str, raw: &Raw<'_>) -> Result<(), Refused> {
    match (section, key) {
        ("declined_message_types", _) => {
            let names = match raw {
                Raw::List(names) => names.iter().map(declined).collect::<Result<Vec<_>, _>>()?,
                name => vec![declined(name)?],
            };
            config.declined_types.extend(names);
        }
        ("threadpool", "initial_size") => config.threadpool.initial_size = size(raw)?,
        ("threadpool", "idle_timeout_sec") => config.threadpool.idle_timeout_sec = size(raw)?,
        ("threadpool", "max_size") => config.threadpool.max_size = size(raw)?,
        ("taskpool", "minimum_size") => config.taskpool.minimum_size = size(raw)?,
        ("taskpool", "initial_size") => config.taskpool.initial_size = size(raw)?,
        ("taskpool", "idle_timeout_sec") => config.taskpool.idle_timeout_sec = size(raw)?,
        ("taskpool", "max_size") => config.taskpool.max_size = size(raw)?,
        ("bus", "name") => config.bus.name = Some(plain(raw, "a name, without control characters")?),
        ("bus", "lanes") => config.bus.lanes = Some(number(raw, 1, 256)? as usize),
        ("bus", "ring_capacity") => config.bus.ring_capacity = Some(number(raw, 1, 1 << 22)? as usize),
        ("bus", "memory_budget") => config.bus.memory_budget = Some(number(raw, 1, i64::MAX as u64)? as usize),
        ("bus", "spare_threads") => config.bus.spare_threads = Some(number(raw, 0, 65535)? as usize),
        ("bus", "watchdog_usec") => {
            let period = or_off(raw, "a whole number from 100 to 4294967295 (microseconds)", |raw| {
                Ok(Duration::from_micros(number(raw, 100, u32::MAX.into())?))
            })?;
            config.bus.watchdog = Some(period);
        }
        ("bus", "feedback_limit") => {
            let limit = or_off(raw, "a whole number from 1 to 65535", |raw| Ok(number(raw, 1, 65535)? as u16))?;
            config.bus.feedback_limit = Some(limit);
        }
        ("bus", "depth_marks") => {
            let marks = or_off(raw, "a list of a low and a high number of entries, from 1", pair)?;
            config.bus.depth_marks = Some(marks);
        }
        ("bus", "age_marks_msec") => {
            let marks = or_off(raw, "a list of a low and a high age, from 1 (milliseconds)", |raw| {
                pair(raw).map(|(low, high)| (Duration::from_millis(low), Duration::from_millis(high)))
            })?;
            config.bus.age_marks = Some(marks);
        }
        ("bus", "pinning") => config.bus.pinning = Some(pinning(raw)?),
        ("bus", "wait") => config.bus.wait = Some(wait(raw)?),
        _ => return refused("nothing"),
    }
    Ok(())
}

fn number(raw: &Raw<'_>, least: u64, most: u64) -> Result<u64, Refused> {
    let value = match raw {
        Raw::Whole(value, _) => value.and_then(|value| u64::try_from(value).ok()),
        Raw::Bare(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    match value {
        Some(value) if (least..=most).contains(&value) => Ok(value),
        _ => refused(format!("a whole number from {least} to {most}")),
    }
}

fn size(raw: &Raw<'_>) -> Result<u32, Refused> {
    Ok(number(raw, 0, MOST)? as u32)
}

/// 'off', or what `read` makes of it.
fn or_off<T>(raw: &Raw<'_>, allowed: &str, read: impl Fn(&Raw<'_>) -> Result<T, Refused>) -> Result<OrOff<T>, Refused> {
    let refused = |suggestion| Refused { allowed: format!("'off' or {allowed}"), suggestion };
    match raw {
        Raw::Text("off") => Ok(OrOff::Off),
        Raw::Text(text) => Err(refused(closest(text, ["off"]))),
        raw => read(raw).map(OrOff::On).map_err(|_| refused(None)),
    }
}

/// A low mark and a high one.
fn pair(raw: &Raw<'_>) -> Result<(u64, u64), Refused> {
    let Raw::List(marks) = raw else { return refused("") };
    let [low, high] = &marks[..] else { return refused("") };
    let high = number(high, 1, u32::MAX.into())?;
    Ok((number(low, 1, high)?, high))
}

/// A text that stays the same in both forms.
fn plain(raw: &Raw<'_>, allowed: &str) -> Result<String, Refused> {
    let (Raw::Bare(text) | Raw::Text(text)) = raw else { return refused(allowed) };
    let is_plain =
        !text.is_empty() && text.trim() == *text && !text.contains(|c: char| c.is_control() || c == '\u{fffd}');
    if is_plain { Ok((*text).to_owned()) } else { refused(allowed) }
}

fn declined(raw: &Raw<'_>) -> Result<String, Refused> {
    let wanted = match raw {
        Raw::Bare(_) => "the name of a message type",
        _ => "a list of names of message types",
    };
    plain(raw, wanted)
}

fn pinning(raw: &Raw<'_>) -> Result<Pinning, Refused> {
    let refused =
        || Refused { allowed: "'cores', 'off' or a list of core numbers from 0 to 65535".into(), suggestion: None };
    match raw {
        Raw::Text("cores") => Ok(Pinning::Cores),
        Raw::Text("off") => Ok(Pinning::Off),
        Raw::Text(text) => Err(Refused { suggestion: closest(text, ["cores", "off"]), ..refused() }),
        Raw::List(cores) if !cores.is_empty() => {
            let cores = cores.iter().map(|core| Ok(number(core, 0, 65535)? as usize)).collect::<Result<_, Refused>>();
            cores.map(Pinning::List).map_err(|_| refused())
        }
        _ => Err(refused()),
    }
}

fn wait(raw: &Raw<'_>) -> Result<WaitStrategy, Refused> {
    let names = WAITS.map(|(name, _)| name);
    let given = if let Raw::Text(text) = raw { text } else { "" };
    WAITS
        .iter()
        .find(|(name, _)| *name == given)
        .map(|(_, wait)| *wait)
        .ok_or_else(|| Refused { allowed: format!("one of {}", names.join(", ")), suggestion: closest(given, names) })
}
