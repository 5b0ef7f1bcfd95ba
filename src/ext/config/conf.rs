//! `stasis.conf`: the general syntax of Asterisk's configuration files.
//!
//! ```text
//!   [section]   [section](!)  only a template       #include "file"   #include <dir/*.conf>
//!   key = value [section](a,b) inherits from a, b   #tryinclude file  if it is there
//!   key => value [section](+) adds to the one above #exec program     refused
//! ```
//!
//! Names of sections and keys are compared without regard to ASCII case. A section inherits what the other
//! holds at that line. Sections of one name are read one after another. An included file stands where its
//! `#include` stands, in the section it stands in; its path is relative to the file that includes it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::Problem;
use super::files::{ConfigFiles, decode, normal, without_mark};
use super::lines::{Line, lines};
use super::reading::{Case, Place, Reading};
use super::schema::{CONF_SECTIONS, Raw};
use super::settings::Config;
use super::suggest::closest;
use super::{ConfigErrors, Disk};

/// Files within files.
const DEEPEST: usize = 10;
/// Files altogether.
const MOST_FILES: usize = 1000;
/// Sections altogether.
const MOST_SECTIONS: usize = 10_000;
/// Settings altogether, inherited ones counted.
const MOST_SETTINGS: usize = 100_000;

#[derive(Debug)]
struct Setting {
    key: (String, Place),
    value: (String, Place),
}

#[derive(Debug)]
struct Section {
    name: String,
    place: Place,
    is_template: bool,
    settings: Vec<Rc<Setting>>,
}

/// Which section settings go to.
#[derive(Clone, Copy, Debug)]
enum Current {
    /// There was none yet.
    None,
    /// The last header was wrong, which has been said.
    Broken,
    At(usize),
}

struct Parser<'a> {
    files: &'a dyn ConfigFiles,
    reading: Reading,
    sections: Vec<Section>,
    current: Current,
    /// Files we are in.
    path: Vec<PathBuf>,
    read: usize,
    settings: usize,
}

impl Config {
    /// Reads a `stasis.conf`. `file` names it in errors, and included files are looked for beside it on
    /// the disk.
    ///
    /// Sections: `threadpool`, `taskpool`, `declined_message_types`. A later value replaces an earlier one,
    /// `decline` adds up. A pool's size that is not given follows one that is: `max_size = 3` alone makes
    /// `initial_size` 3.
    ///
    /// # Errors
    /// [`ConfigErrors`]: all that is wrong in it and what it includes.
    pub fn from_stasis_conf(text: &str, file: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::from_stasis_conf_in(text, file, &Disk)
    }

    /// As [`from_stasis_conf`](Self::from_stasis_conf), with included files from elsewhere.
    ///
    /// # Errors
    /// As there.
    pub fn from_stasis_conf_in(
        text: &str,
        file: impl AsRef<Path>,
        files: &dyn ConfigFiles,
    ) -> Result<Self, ConfigErrors> {
        let mut parser = Parser {
            files,
            reading: Reading::new(Case::Ignored),
            sections: Vec::new(),
            current: Current::None,
            path: vec![normal(file.as_ref())],
            read: 1,
            settings: 0,
        };
        parser.text(without_mark(text), &file.as_ref().into());
        parser.end()
    }
}

impl Parser<'_> {
    fn text(&mut self, text: &str, file: &Rc<Path>) {
        let (lines, open) = lines(text);
        for line in &lines {
            if self.settings > MOST_SETTINGS {
                return;
            }
            match line.text.as_bytes()[0] {
                b'[' => self.header(line, file),
                b'#' => self.directive(line, file),
                _ => self.setting(line, file),
            }
        }
        if let Some((position, problem)) = open {
            self.reading.wrong(&Place { file: Rc::clone(file), position: Some(position) }, problem);
        }
    }

    /// `[name]`, perhaps with `(options)`.
    fn header(&mut self, line: &Line, file: &Rc<Path>) {
        self.current = Current::Broken;
        let place = place(line, file, 0);
        let syntax = |what: &str| Problem::Syntax(what.to_owned());
        let Some((name, after)) = line.text[1..].split_once(']') else {
            return self.reading.wrong(&place, syntax("a section needs a ']' after its name"));
        };
        if name.is_empty() {
            return self.reading.wrong(&place, syntax("a section needs a name"));
        }
        let options = match after.strip_prefix('(') {
            Some(options) => options.strip_suffix(')'),
            None => after.is_empty().then_some(""),
        };
        let Some(options) = options else {
            let at = self::place(line, file, line.text.len() - after.len());
            return self
                .reading
                .wrong(&at, syntax("after ']' comes nothing, or options in parentheses without a space before"));
        };
        self.open_section(name, options, &place);
    }

    fn open_section(&mut self, name: &str, options: &str, place: &Place) {
        let options: Vec<&str> = options.split(',').map(str::trim).filter(|option| !option.is_empty()).collect();
        if self.sections.len() == MOST_SECTIONS {
            return self.reading.wrong(place, TOO_MANY_SECTIONS);
        }
        let index = if options.contains(&"+") {
            let Some(index) = self.find(name) else {
                return self.reading.wrong(place, Problem::NothingToAddTo(name.to_owned()));
            };
            index
        } else {
            self.sections.len()
        };
        let mut settings = Vec::new();
        for base in options.iter().filter(|option| !["!", "+"].contains(option)) {
            let Some(base_index) = self.find(base) else {
                // Looking for near misses is not free: only for errors that are told.
                let near = || closest(base, self.sections.iter().map(|section| &section.name)).cloned();
                let suggestion = if self.reading.is_full() { None } else { near() };
                let problem = Problem::NoTemplate { name: (*base).to_owned(), suggestion };
                return self.reading.wrong(place, problem);
            };
            let inherited = &self.sections[base_index].settings;
            if !count(&mut self.settings, inherited.len()) {
                return self.reading.wrong(place, TOO_MANY_SETTINGS);
            }
            settings.extend(inherited.iter().cloned());
        }
        if index == self.sections.len() {
            let (name, place) = (name.to_owned(), place.clone());
            self.sections.push(Section { name, place, is_template: false, settings: Vec::new() });
        }
        let section = &mut self.sections[index];
        section.is_template |= options.contains(&"!");
        section.settings.extend(settings);
        self.current = Current::At(index);
    }

    /// The latest section of this name.
    fn find(&self, name: &str) -> Option<usize> {
        self.sections.iter().rposition(|section| section.name.eq_ignore_ascii_case(name))
    }

    /// `key = value` or `key => value`.
    fn setting(&mut self, line: &Line, file: &Rc<Path>) {
        let key_place = place(line, file, 0);
        let Some((key, after)) = line.text.split_once('=') else {
            let what = "neither a [section], nor key = value, nor a #directive".to_owned();
            return self.reading.wrong(&key_place, Problem::Syntax(what));
        };
        let key = key.trim_end();
        let value = after.strip_prefix('>').unwrap_or(after).trim_start();
        let index = match self.current {
            Current::At(index) => index,
            Current::Broken => return,
            Current::None => return self.reading.wrong(&key_place, Problem::NoSection(key.to_owned())),
        };
        if key.is_empty() {
            return self.reading.wrong(&key_place, Problem::Syntax("a value without a key".to_owned()));
        }
        if !count(&mut self.settings, 1) {
            return self.reading.wrong(&key_place, TOO_MANY_SETTINGS);
        }
        let value_place = place(line, file, line.text.len() - value.len());
        let setting = Setting { key: (key.to_owned(), key_place), value: (value.to_owned(), value_place) };
        self.sections[index].settings.push(Rc::new(setting));
    }

    fn directive(&mut self, line: &Line, file: &Rc<Path>) {
        let place = place(line, file, 0);
        let text = &line.text[1..];
        let (word, argument) = text.split_once(|c: char| c.is_whitespace()).unwrap_or((text, ""));
        let argument = unquoted(argument.trim());
        match word.to_ascii_lowercase().as_str() {
            "exec" => self.reading.wrong(&place, Problem::Exec),
            "include" | "tryinclude" if argument.is_empty() => {
                self.reading.wrong(&place, Problem::Syntax(format!("#{word} needs a file")));
            }
            "include" => self.include(argument, &place, true),
            "tryinclude" => self.include(argument, &place, false),
            _ => {
                let near = closest(word, ["include", "tryinclude", "exec"]);
                let near = near.map_or_else(String::new, |near| format!(", did you mean '#{near}'?"));
                let what = format!("unknown directive '#{word}'{near}; directives are #include and #tryinclude");
                self.reading.wrong(&place, Problem::Syntax(what));
            }
        }
    }

    fn include(&mut self, argument: &str, place: &Place, is_needed: bool) {
        let folder = place.file.parent().unwrap_or(Path::new(""));
        let target = folder.join(argument);
        let missing = || Problem::NoInclude(target.display().to_string());
        let paths = if argument.contains(['*', '?']) { self.matching(&target) } else { vec![target.clone()] };
        if paths.is_empty() && is_needed {
            self.reading.wrong(place, missing());
        }
        for path in paths {
            self.read += 1;
            let whole = normal(&path);
            if self.path.contains(&whole) {
                return self.reading.wrong(place, Problem::Cycle(path.display().to_string()));
            }
            if self.path.len() > DEEPEST || self.read > MOST_FILES {
                return self.reading.wrong(place, TOO_MANY_FILES);
            }
            let bytes = match self.files.read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    if is_needed {
                        self.reading.wrong(place, missing());
                    }
                    continue;
                }
                Err(error) => {
                    let what = format!("'{}': {error}", path.display());
                    self.reading.wrong(place, Problem::Unreadable(what));
                    continue;
                }
            };
            match decode(&bytes) {
                Ok(text) => {
                    self.path.push(whole);
                    self.text(&text, &path.as_path().into());
                    self.path.pop();
                }
                Err(why) => {
                    let what = format!("'{}': {why}", path.display());
                    self.reading.wrong(place, Problem::Unreadable(what));
                }
            }
        }
    }

    /// Files whose name matches the last part of a path with `*` and `?`, by name. None if the folder
    /// cannot be listed.
    fn matching(&self, target: &Path) -> Vec<PathBuf> {
        let (Some(folder), Some(pattern)) = (target.parent(), target.file_name()) else { return Vec::new() };
        let pattern: Vec<char> = pattern.to_string_lossy().chars().collect();
        let is_match = |path: &PathBuf| {
            let name: Vec<char> = path.file_name().unwrap_or_default().to_string_lossy().chars().collect();
            (name.first() != Some(&'.') || pattern.first() == Some(&'.')) && matches(&pattern, &name)
        };
        let mut paths: Vec<_> = self.files.list(folder).unwrap_or_default().into_iter().filter(is_match).collect();
        paths.sort();
        paths
    }

    fn end(mut self) -> Result<Config, ConfigErrors> {
        for section in self.sections.iter().filter(|section| !section.is_template) {
            let Some(name) = self.reading.section(&section.name, &section.place, CONF_SECTIONS) else { continue };
            for setting in &section.settings {
                let (key, value) = (&setting.key, &setting.value);
                self.reading.setting(name, (&key.0, &key.1), (&Raw::Bare(&value.0), &value.1));
            }
        }
        self.reading.end()
    }
}

const TOO_MANY_SETTINGS: Problem = Problem::TooMuch("more than 100000 settings, inherited ones counted");
const TOO_MANY_SECTIONS: Problem = Problem::TooMuch("more than 10000 sections");
const TOO_MANY_FILES: Problem = Problem::TooMuch("files are included more than 10 deep, or more than 1000 of them");

/// Adds to the number of settings; whether they are few enough.
fn count(settings: &mut usize, more: usize) -> bool {
    *settings += more;
    *settings <= MOST_SETTINGS
}

fn place(line: &Line, file: &Rc<Path>, offset: usize) -> Place {
    Place { file: Rc::clone(file), position: Some(line.at(offset)) }
}

fn unquoted(text: &str) -> &str {
    [('"', '"'), ('<', '>')]
        .iter()
        .find_map(|(open, close)| text.strip_prefix(*open)?.strip_suffix(*close))
        .unwrap_or(text)
}

/// Whether a name matches a pattern with `*` and `?`. Linear but for going back to the last star.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}
