//! Writing a configuration in both forms.

use std::fmt::Write;
use std::path::Path;

use toml::{Table, Value};

use super::ConfigErrors;
use super::error::{ConfigError, Problem};
use super::schema::WAITS;
use super::settings::{BusSettings, Config, OrOff, TaskPool, ThreadPool};
use crate::Pinning;

impl Config {
    /// As TOML, such that [`from_toml`](Self::from_toml) reads an equal configuration.
    ///
    /// # Errors
    /// [`ConfigErrors`] for values that could not be read either (such as 1000 lanes), set by hand.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::config::Config;
    /// let config = Config::from_stasis_conf("[declined_message_types]\ndecline = agi_exec_start", "stasis.conf").unwrap();
    /// let text = config.to_toml().unwrap();
    /// assert!(text.contains("decline = [\"agi_exec_start\"]"));
    /// assert_eq!(Config::from_toml(&text, "stasis.toml").unwrap(), config);
    /// ```
    pub fn to_toml(&self) -> Result<String, ConfigErrors> {
        let mut table = Table::new();
        let bus = self.bus_table();
        if !bus.is_empty() {
            table.insert("bus".to_owned(), Value::Table(bus));
        }
        for (section, sizes) in self.pools() {
            let sizes = sizes.into_iter().map(|(key, size)| (key.to_owned(), Value::Integer(size.into()))).collect();
            table.insert(section.to_owned(), Value::Table(sizes));
        }
        let names: Vec<Value> = self.declined_types.iter().map(|name| Value::String(name.clone())).collect();
        let declined = Table::from_iter([("decline".to_owned(), Value::Array(names))]);
        table.insert("declined_message_types".to_owned(), Value::Table(declined));
        let text = toml::to_string(&table).map_err(|error| cannot("toml", &error.to_string()))?;
        let again = Self::from_toml(&text, "toml")?;
        if again == *self { Ok(text) } else { Err(cannot("toml", "a value that cannot be written")) }
    }

    /// As `stasis.conf`, such that [`from_stasis_conf`](Self::from_stasis_conf) reads an equal
    /// configuration but for [`bus`](Self::bus), which that form has no place for.
    ///
    /// # Errors
    /// [`ConfigErrors`] for values that could not be read either, set by hand.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::config::Config;
    /// let mut config = Config::default();
    /// config.declined_types.insert("ast_channel_varset_type".into());
    /// assert!(config.to_stasis_conf().unwrap().ends_with("decline = ast_channel_varset_type\n"));
    /// config.declined_types.insert("no\n[name]".into());
    /// assert!(config.to_stasis_conf().is_err());
    /// ```
    pub fn to_stasis_conf(&self) -> Result<String, ConfigErrors> {
        let mut text = String::new();
        for (section, sizes) in self.pools() {
            let _ = writeln!(text, "[{section}]");
            for (key, size) in sizes {
                let _ = writeln!(text, "{key} = {size}");
            }
            text.push('\n');
        }
        text += "[declined_message_types]\n";
        for name in &self.declined_types {
            let _ = writeln!(text, "decline = {}", name.replace(';', "\\;"));
        }
        let again = Self::from_stasis_conf_in(&text, "conf", &std::collections::BTreeMap::new())?;
        let expected = Self { bus: BusSettings::default(), ..self.clone() };
        if again == expected { Ok(text) } else { Err(cannot("conf", "a value that cannot be written")) }
    }

    fn pools(&self) -> [(&'static str, Vec<(&'static str, u32)>); 2] {
        let ThreadPool { initial_size, idle_timeout_sec, max_size } = self.threadpool;
        let threads =
            vec![("initial_size", initial_size), ("idle_timeout_sec", idle_timeout_sec), ("max_size", max_size)];
        let TaskPool { minimum_size, initial_size, idle_timeout_sec, max_size } = self.taskpool;
        let tasks = vec![
            ("minimum_size", minimum_size),
            ("initial_size", initial_size),
            ("idle_timeout_sec", idle_timeout_sec),
            ("max_size", max_size),
        ];
        [("threadpool", threads), ("taskpool", tasks)]
    }

    fn bus_table(&self) -> Table {
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
        let number = |number: usize| whole(number as u128);
        let pinning = pinning.as_ref().map(|pinning| match pinning {
            Pinning::Cores => Value::from("cores"),
            Pinning::Off => Value::from("off"),
            Pinning::List(cores) => Value::Array(cores.iter().copied().map(number).collect()),
        });
        let wait = wait.and_then(|wait| WAITS.iter().find(|(_, known)| *known == wait));
        let entries = [
            ("name", name.clone().map(Value::String)),
            ("lanes", lanes.map(number)),
            ("pinning", pinning),
            ("wait", wait.map(|(name, _)| Value::from(*name))),
            ("ring_capacity", ring_capacity.map(number)),
            ("memory_budget", memory_budget.map(number)),
            ("watchdog_usec", watchdog.map(|period| or_off(period, |period| whole(period.as_micros())))),
            ("spare_threads", spare_threads.map(number)),
            ("feedback_limit", feedback_limit.map(|limit| or_off(limit, |limit| whole(limit.into())))),
            ("depth_marks", depth_marks.map(|marks| or_off(marks, |(low, high)| pair(low.into(), high.into())))),
            (
                "age_marks_msec",
                age_marks.map(|marks| or_off(marks, |(low, high)| pair(low.as_millis(), high.as_millis()))),
            ),
        ];
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// What is too large for TOML is too large to be read as well.
fn whole(number: u128) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn pair(low: u128, high: u128) -> Value {
    Value::Array(vec![whole(low), whole(high)])
}

fn or_off<T>(value: OrOff<T>, write: impl Fn(T) -> Value) -> Value {
    value.on().map_or_else(|| Value::from("off"), write)
}

fn cannot(form: &str, why: &str) -> ConfigErrors {
    let mut errors = ConfigErrors::none();
    let problem = Problem::Syntax(why.to_owned());
    errors.push(ConfigError { file: Path::new(form).to_owned(), position: None, problem });
    errors
}
