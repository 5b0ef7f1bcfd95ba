//! Configuration: `stasis.conf` as it is in the field, and the same in TOML.
//!
//! ```text
//!   stasis.conf ─ lines ─ sections, templates, includes ─┐
//!                                                        ├─ one table of keys ─► Config ─ apply ─► BusBuilder
//!   stasis.toml ─ toml ──────────────────────────────────┘      │
//!                                                               └─► ConfigErrors: file, line, column, what is allowed
//! ```
//!
//! A sample of the TOML form is in `examples/stasis.toml`.
//!
//! # Guarantees
//! - Any text gives a configuration or errors whose positions lie in the text, in time and memory bounded
//!   by its size and that of what it includes (fuzz target `stasis_conf`, `config::any_text_*`).
//! - All errors of a file are told together (`config::all_errors_*`); nothing is half applied.
//! - What is read is read again equally after [`Config::to_toml`] and [`Config::to_stasis_conf`]
//!   (`config::what_is_read_*`).
//! - A declined type is never made: there is no message of it, and nothing to filter
//!   (`config::declined_types_*`).
//! - No program is run, no file but the given one and those it includes is read, up to 4 MiB each
//!   (`config::exec_*`, `config::includes_*`).
//!
//! Names of declined types need not be known: types are made at run time.

mod conf;
mod error;
mod files;
mod lines;
mod reading;
mod schema;
mod settings;
mod suggest;
mod toml_form;
mod write;

use std::path::Path;

pub use error::{ConfigError, ConfigErrors, Position, Problem};
pub use files::{ConfigFiles, Disk};
pub use settings::{BusSettings, Config, OrOff, TaskPool, ThreadPool};

impl Config {
    /// Reads a file: `.conf` as [`from_stasis_conf`](Self::from_stasis_conf), `.toml` as
    /// [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// [`ConfigErrors`]: all that is wrong with it, or that it cannot be read.
    ///
    /// # Examples
    /// ```
    /// use stasis_bus::config::{Config, Problem};
    /// let errors = Config::load("/nowhere/stasis.conf").unwrap_err();
    /// assert!(matches!(errors.iter().next().unwrap().problem, Problem::Unreadable(_)));
    /// ```
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_from(path, &Disk)
    }

    /// As [`load`](Self::load), with all files from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn load_from(path: impl AsRef<Path>, files: &dyn ConfigFiles) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let whole = |problem| {
            let mut errors = ConfigErrors::none();
            errors.push(ConfigError { file: path.to_owned(), position: None, problem });
            errors
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let is_toml = match extension.as_deref() {
            Some("toml") => true,
            Some("conf") => false,
            _ => return Err(whole(Problem::UnknownForm)),
        };
        let bytes = files.read(path).map_err(|error| whole(Problem::Unreadable(error.to_string())))?;
        let text = files::decode(&bytes).map_err(|why| whole(Problem::Unreadable(why.to_owned())))?;
        if is_toml { Self::from_toml(&text, path) } else { Self::from_stasis_conf_in(&text, path, files) }
    }
}
