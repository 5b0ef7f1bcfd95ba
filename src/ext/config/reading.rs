//! A configuration while it is read: settings so far, where they were given, what was wrong.

use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;

use super::error::{ConfigError, ConfigErrors, Position, Problem};
use super::schema::{self, Raw};
use super::settings::Config;
use super::suggest::closest;

/// Somewhere in a file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: Rc<Path>,
    pub(super) position: Option<Position>,
}

/// How names are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    Matters,
    Ignored,
}

#[derive(Debug)]
pub(super) struct Reading {
    config: Config,
    /// Where a key was given last.
    given: HashMap<(&'static str, &'static str), Place>,
    errors: ConfigErrors,
    case: Case,
}

impl Reading {
    pub(super) fn new(case: Case) -> Self {
        Self { config: Config::default(), given: HashMap::new(), errors: ConfigErrors::none(), case }
    }

    pub(super) fn wrong(&mut self, place: &Place, problem: Problem) {
        self.errors.push(ConfigError { file: place.file.to_path_buf(), position: place.position, problem });
    }

    /// Whether further errors are counted only.
    pub(super) fn is_full(&self) -> bool {
        self.errors.is_full()
    }

    fn find(&self, name: &str, known: &'static [&'static str]) -> Option<&'static str> {
        known.iter().copied().find(|known| match self.case {
            Case::Matters => *known == name,
            Case::Ignored => known.eq_ignore_ascii_case(name),
        })
    }

    /// The section of this name, if there is one.
    pub(super) fn section(
        &mut self,
        name: &str,
        place: &Place,
        allowed: &'static [&'static str],
    ) -> Option<&'static str> {
        let found = self.find(name, allowed);
        if found.is_none() {
            let suggestion = closest(name, allowed.iter().copied());
            self.wrong(place, Problem::UnknownSection { name: name.to_owned(), allowed, suggestion });
        }
        found
    }

    /// Takes in a setting. A later one replaces an earlier one; declined types add up.
    pub(super) fn setting(&mut self, section: &'static str, key: (&str, &Place), value: (&Raw<'_>, &Place)) {
        let allowed = schema::keys(section);
        let Some(name) = self.find(key.0, allowed) else {
            let suggestion = closest(key.0, allowed.iter().copied());
            let (section, key_name) = (section.to_owned(), key.0.to_owned());
            return self.wrong(key.1, Problem::UnknownKey { section, key: key_name, allowed, suggestion });
        };
        match schema::set(&mut self.config, section, name, value.0) {
            Ok(()) => drop(self.given.insert((section, name), value.1.clone())),
            Err(refused) => {
                let schema::Refused { allowed, suggestion } = refused;
                let (section, key, value_text) = (section.to_owned(), name.to_owned(), value.0.to_string());
                self.wrong(value.1, Problem::BadValue { section, key, value: value_text, allowed, suggestion });
            }
        }
    }

    /// The configuration, or all that was wrong with it.
    pub(super) fn end(mut self) -> Result<Config, ConfigErrors> {
        let mut config = std::mem::take(&mut self.config);
        let pool = &mut config.threadpool;
        self.settle("threadpool", &mut [("initial_size", &mut pool.initial_size)], &mut pool.max_size);
        let pool = &mut config.taskpool;
        let sizes = &mut [("minimum_size", &mut pool.minimum_size), ("initial_size", &mut pool.initial_size)];
        self.settle("taskpool", sizes, &mut pool.max_size);
        self.errors.or(config)
    }

    /// Keeps sizes of a pool within its maximum: what was not given follows what was.
    fn settle(&mut self, section: &'static str, sizes: &mut [(&'static str, &mut u32)], most: &mut u32) {
        let is_limited = self.given.contains_key(&(section, "max_size"));
        for (key, size) in sizes {
            match self.given.get(&(section, *key)).cloned() {
                _ if *most == 0 || **size <= *most => {}
                Some(_) if !is_limited => *most = **size,
                None => **size = *most,
                Some(place) => {
                    let (value, limit) = (**size, *most);
                    let section = section.to_owned();
                    self.wrong(&place, Problem::Contradiction { section, key, value, limit_key: "max_size", limit });
                }
            }
        }
    }
}
