//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// Most problems that are told at a time.
const MOST: usize = 100;

/// A place in a text: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file's name ends neither in `.conf` nor in `.toml`.
    #[error("is neither a .conf nor a .toml file")]
    UnknownForm,
    /// Not written in the form the file has.
    #[error("{0}")]
    Syntax(String),
    /// There is no such section.
    #[error("unknown section '{name}'{}; sections are {}", maybe(suggestion), list(allowed))]
    UnknownSection {
        /// Name given.
        name: String,
        /// Names there are.
        allowed: &'static [&'static str],
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A section has no such key.
    #[error("unknown key '{key}' in section '{section}'{}; keys are {}", maybe(suggestion), list(allowed))]
    UnknownKey {
        /// Section.
        section: String,
        /// Key given.
        key: String,
        /// Keys there are.
        allowed: &'static [&'static str],
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// A key cannot have this value.
    #[error("'{key}' in section '{section}' cannot be {value}; it is {allowed}{}", maybe(suggestion))]
    BadValue {
        /// Section.
        section: String,
        /// Key.
        key: String,
        /// Value given, in quotes if it is a text.
        value: String,
        /// What is allowed.
        allowed: String,
        /// The one that was probably meant.
        suggestion: Option<&'static str>,
    },
    /// Two values do not go together.
    #[error("{key} {value} of section '{section}' is above its {limit_key} {limit}")]
    Contradiction {
        /// Section.
        section: String,
        /// Key of the value that is too large.
        key: &'static str,
        /// That value.
        value: u32,
        /// Key of the limit.
        limit_key: &'static str,
        /// The limit.
        limit: u32,
    },
    /// A setting stands before the first section.
    #[error("'{0}' stands before the first section")]
    NoSection(String),
    /// A section inherits from one that is not there (yet).
    #[error("no section '{name}' to inherit from before this line{}", said(suggestion))]
    NoTemplate {
        /// Name given.
        name: String,
        /// The one that was probably meant.
        suggestion: Option<String>,
    },
    /// `(+)` for a section that is not there (yet).
    #[error("no section '{0}' to add to before this line")]
    NothingToAddTo(String),
    /// A block comment has no end.
    #[error("this block comment never ends")]
    OpenComment,
    /// Programs are not run for a configuration.
    #[error(
        "#exec is refused: no program is run to read a configuration (put its output into a file and #include that)"
    )]
    Exec,
    /// An included file is not there.
    #[error("no file '{0}' to include")]
    NoInclude(String),
    /// A file includes itself, perhaps through others.
    #[error("'{0}' includes itself")]
    Cycle(String),
    /// Includes are nested too deeply, or the files together are too large.
    #[error("{0}")]
    TooMuch(&'static str),
}

/// A problem and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// File; for a text, the name it was given.
    pub file: PathBuf,
    /// Where in the file; `None` if it concerns all of it.
    pub position: Option<Position>,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// All that is wrong with a configuration (the first hundred problems), one a line when printed.
///
/// # Examples
/// ```
/// use stasis_bus::config::Config;
/// let errors = Config::from_stasis_conf("[threadpool]\nmax_sise = 9\ninitial_size = -1\n", "stasis.conf").unwrap_err();
/// assert_eq!(
///     errors.to_string(),
///     "stasis.conf:2:1: unknown key 'max_sise' in section 'threadpool', did you mean 'max_size'?; \
///      keys are initial_size, idle_timeout_sec, max_size\n\
///      stasis.conf:3:16: 'initial_size' in section 'threadpool' cannot be '-1'; \
///      it is a whole number from 0 to 2147483647"
/// );
/// assert_eq!(errors.iter().count(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    omitted: usize,
}

impl ConfigErrors {
    pub(super) fn none() -> Self {
        Self { errors: Vec::new(), omitted: 0 }
    }

    /// Adds an error, unless it is there already (an inherited setting is wrong once).
    pub(super) fn push(&mut self, error: ConfigError) {
        if self.is_full() {
            self.omitted += 1;
        } else if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Whether further errors are counted only.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() == MOST
    }

    /// `value` if nothing was wrong.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        let mut files: Vec<PathBuf> = Vec::new();
        for error in &self.errors {
            if !files.contains(&error.file) {
                files.push(error.file.clone());
            }
        }
        let file = |error: &ConfigError| files.iter().position(|file| *file == error.file);
        self.errors.sort_by_key(|error| (file(error), error.position));
        Err(self)
    }

    /// The errors, by file, line and column; files in the order they were met.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.errors.iter()
    }

    /// How many more there were.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            let before = if index == 0 { "" } else { "\n" };
            write!(f, "{before}{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

fn maybe(suggestion: &Option<&'static str>) -> String {
    said(suggestion)
}

fn said(suggestion: &Option<impl fmt::Display>) -> String {
    suggestion.as_ref().map_or_else(String::new, |name| format!(", did you mean '{name}'?"))
}
