//! The shape of the sources: who may use whom, and what may be named where. Reads `src/` (the program in
//! `src/bin` uses the public interface only and is left out).
//!
//! ```text
//!   6  reference, model           oracle and models: above everything
//!   5  ext
//!   4  bus
//!   3  exec
//!   2  message
//!   1  ring, snapshot, reclaim, stats, clock
//!   0  sync, error, contain
//! ```
//!
//! A module uses its own level or lower ones. Test code at the end of a file is not looked at.

use std::fmt;
use std::fs;
use std::path::Path;

const LEVELS: [&[&str]; 7] = [
    &["sync", "error", "contain"],
    &["ring", "snapshot", "reclaim", "stats", "clock"],
    &["message", "pinned"],
    &["exec"],
    &["bus"],
    &["ext"],
    &["reference", "model"],
];

/// Upward uses that are meant: user, used, why.
const UPWARD: [(&str, &str, &str); 1] = [("error.rs", "message", "errors of a publish hand the message back")];

/// Words that may stand in some files only.
const CONFINED: [(&str, Match, &[&str]); 6] = [
    ("std::sync::atomic", Match::Text, &["sync/", "model.rs"]),
    ("loom", Match::Cfg, &["sync/", "snapshot.rs", "reclaim.rs", "lib.rs"]),
    ("SeqCst", Match::Word, &["sync/fence.rs"]),
    ("crossbeam_epoch", Match::Word, &["reclaim.rs"]),
    ("arc_swap", Match::Word, &["snapshot.rs"]),
    ("core_affinity", Match::Word, &["exec/affinity.rs"]),
];

/// The only files with `unsafe`: kernels of a few hundred lines, and what models need to reach them.
const UNSAFE: [&str; 30] = [
    "sync/cores.rs",
    "sync/prefetch.rs",
    "sync/membarrier.rs",
    "sync/stack.rs",
    "sync/model.rs",
    "ring/slot.rs",
    "ring/segments.rs",
    "exec/serial.rs",
    "exec/slab.rs",
    "exec/audience/entry.rs",
    "exec/audience/cells.rs",
    "exec/audience/front.rs",
    "exec/part.rs",
    "exec/worker.rs",
    "exec/walk.rs",
    "exec/calls.rs",
    "bus/any_handler.rs",
    "exec/takeover.rs",
    "exec/mailbox.rs",
    "exec/inline.rs",
    "pinned.rs",
    "message/mod.rs",
    "message/block.rs",
    "message/bulk.rs",
    "message/recycle.rs",
    "message/span.rs",
    "message/types.rs",
    "model.rs",
    "model/spans.rs",
    "lib.rs",
];

/// Lines of code, without tests, comments and empty lines.
const LONGEST: usize = 400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    /// Anywhere in the code.
    Text,
    /// Not as a part of a longer name.
    Word,
    /// As a word in a `cfg`.
    Cfg,
}

/// A broken rule.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.file, self.line, self.what)
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_name) && !line[at + word.len()..].starts_with(is_name))
}

/// The code of a file with line numbers: no comments, no test module.
fn code(text: &str) -> Vec<(usize, &str)> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("#[cfg(test)]") || trimmed.starts_with("#[cfg(all(test,") {
            break;
        }
        let comment = line.match_indices("//").find(|(at, _)| line[..*at].chars().all(|c| c != '"' && c != '\''));
        let line = comment.map_or(line, |(at, _)| &line[..at]);
        if !line.trim().is_empty() {
            lines.push((number + 1, line));
        }
    }
    lines
}

fn level_of(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

/// Top-level modules named on a line: after `crate::`, or after so many `super::` that the root is reached.
fn named_modules<'a>(file: &str, line: &'a str) -> Vec<&'a str> {
    // `a.rs` and `a/mod.rs` are one step from the root, `a/b.rs` two.
    let depth = file.matches('/').count() + usize::from(!file.ends_with("mod.rs"));
    let mut found = Vec::new();
    let mut look = |after: &'a str| {
        let list = match after.strip_prefix('{') {
            Some(group) => group.split(',').collect(),
            None => vec![after],
        };
        let first = |path: &'a str| path.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
        found.extend(list.into_iter().map(first));
    };
    line.match_indices("crate::").for_each(|(at, root)| look(&line[at + root.len()..]));
    let to_root = "super::".repeat(depth.max(1));
    for (at, root) in line.match_indices(&to_root) {
        if !line[..at].ends_with("super::") {
            look(&line[at + root.len()..]);
        }
    }
    found
}

fn upward(file: &str, text: &str) -> Vec<Broken> {
    let module = file.split('/').next().unwrap_or(file).trim_end_matches(".rs");
    if file == "lib.rs" {
        return Vec::new();
    }
    let Some(own) = level_of(module) else {
        return vec![broken(file, 1, format!("module '{module}' has no level: add it to LEVELS"))];
    };
    let is_meant = |used: &str| UPWARD.iter().any(|(user, what, _)| (*user, *what) == (file, used));
    let mut all = Vec::new();
    for (number, line) in code(text) {
        for used in named_modules(file, line) {
            if level_of(used).is_some_and(|level| level > own) && !is_meant(used) {
                all.push(broken(file, number, format!("'{module}' (level {own}) uses '{used}' above it")));
            }
        }
    }
    all
}

fn broken(file: &str, line: usize, what: String) -> Broken {
    Broken { file: file.to_owned(), line, what }
}

fn is_allowed(file: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|place| file == *place || place.ends_with('/') && file.starts_with(place))
}

fn confined(file: &str, text: &str) -> Vec<Broken> {
    let mut all = Vec::new();
    for (number, line) in code(text) {
        for (word, how, allowed) in CONFINED {
            let is_there = match how {
                Match::Text => line.contains(word),
                Match::Word => has_word(line, word),
                Match::Cfg => line.contains("cfg") && has_word(line, word),
            };
            if is_there && !is_allowed(file, allowed) {
                all.push(broken(file, number, format!("'{word}' belongs into {allowed:?} only")));
            }
        }
        if has_word(line, "unsafe") && !is_allowed(file, &UNSAFE) {
            all.push(broken(file, number, "unsafe outside the listed kernels".to_owned()));
        }
    }
    all
}

fn too_long(file: &str, text: &str) -> Vec<Broken> {
    let lines = code(text).len();
    if lines > LONGEST {
        vec![broken(file, 1, format!("{lines} lines of code, at most {LONGEST}"))]
    } else {
        Vec::new()
    }
}

fn check(file: &str, text: &str) -> Vec<Broken> {
    [upward(file, text), confined(file, text), too_long(file, text)].into_iter().flatten().collect()
}

/// All sources of the library: path from `src/`, text.
fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, root: &Path, into: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            if path.is_dir() && name != "bin" {
                walk(&path, root, into);
            } else if name.ends_with(".rs") {
                into.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    walk(&root, &root, &mut all);
    all.sort();
    all
}

#[test]
fn the_sources_keep_the_rules() {
    let sources = sources();
    assert!(sources.len() > 30, "{} files only: is this the right folder?", sources.len());
    let broken: Vec<String> =
        sources.iter().flat_map(|(file, text)| check(file, text)).map(|broken| broken.to_string()).collect();
    assert!(broken.is_empty(), "{} rules broken:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_file_that_is_listed_exists() {
    // A rule about a file that is gone would allow a new one of that name everything.
    let files: Vec<String> = sources().into_iter().map(|(file, _)| file).collect();
    let listed = UNSAFE.iter().chain(CONFINED.iter().flat_map(|(_, _, allowed)| allowed.iter()));
    for place in listed {
        assert!(files.iter().any(|file| is_allowed(file, &[place])), "no file '{place}'");
    }
    for (user, used, why) in UPWARD {
        assert!(files.iter().any(|file| file == user) && level_of(used).is_some() && !why.is_empty());
    }
}

/// The number of rules broken by a snippet in a file.
#[track_caller]
fn count(file: &str, text: &str, expected: usize) {
    let found = check(file, text);
    assert_eq!(found.len(), expected, "{file}: {text}: {found:?}");
}

#[test]
fn an_upward_use_is_found() {
    count("ring/mpsc.rs", "use crate::exec::lane::Lane;", 1);
    count("ring/mpsc.rs", "use crate::stats::Tally;\nuse crate::sync::Arc;", 0);
    count("exec/worker.rs", "use crate::message::Message;", 0);
    count("message/mod.rs", "use crate::exec::quietly;", 1);
    count("exec/worker.rs", "use crate::{message, bus, sync};", 1);
    count("sync/stack.rs", "let x = crate::ring::Ring::new();", 1);
    count("exec/worker.rs", "use super::super::bus::Bus;", 1);
    count("exec/mod.rs", "use super::bus::Bus;", 1);
    count("exec/worker.rs", "use super::lane::Lane;", 0);
    count("bus/topic.rs", "use crate::reference::Reference;", 1);
    count("error.rs", "use crate::message::Message;", 0);
    count("error.rs", "use crate::bus::Topic;", 1);
    count("clock.rs", "use crate::message::Message;", 1);
    count("new.rs", "", 1);
}

#[test]
fn a_word_in_the_wrong_file_is_found() {
    count("bus/topic.rs", "use std::sync::atomic::AtomicBool;", 1);
    count("sync/mod.rs", "use std::sync::atomic::AtomicBool;", 0);
    count("ring/slot.rs", "#[cfg(not(loom))]", 1);
    count("ring/slot.rs", "if cfg!(loom) {", 1);
    count("ring/slot.rs", "#[cfg(feature = \"gloomy\")]", 0);
    count("sync/park.rs", "#[cfg(loom)]", 0);
    count("sync/mod.rs", "x.load(Ordering::SeqCst)", 1);
    count("sync/fence.rs", "x.load(Ordering::SeqCst)", 0);
    count("exec/part.rs", "crossbeam_epoch::pin()", 1);
    count("reclaim.rs", "crossbeam_epoch::pin()", 0);
    count("bus/topic.rs", "arc_swap::ArcSwap::new(x)", 1);
    count("exec/mod.rs", "core_affinity::get_core_ids()", 1);
}

#[test]
fn unsafe_in_the_wrong_file_is_found() {
    count("bus/topic.rs", "unsafe { x() }", 1);
    count("reclaim.rs", "unsafe impl Send for X {}", 1);
    count("ring/slot.rs", "unsafe { x() }", 0);
    count("bus/topic.rs", "#![allow(unsafe_code)]", 0);
}

#[test]
fn comments_and_tests_are_left_out() {
    count("bus/topic.rs", "//! std::sync::atomic\n/// SeqCst\nlet x = 1; // unsafe", 0);
    count("bus/topic.rs", "#[cfg(all(test, not(loom)))]\nmod tests {\n    use std::sync::atomic::AtomicBool;\n}", 0);
    count("bus/topic.rs", "let url = \"a//b\"; unsafe {}", 1);
}

#[test]
fn a_long_file_is_found() {
    let lines = |n: usize| "let x = 1;\n".repeat(n);
    count("bus/topic.rs", &lines(400), 0);
    count("bus/topic.rs", &lines(401), 1);
    count("bus/topic.rs", &format!("{}{}", lines(400), "\n// comment\n".repeat(100)), 0);
    count("bus/topic.rs", &format!("{}#[cfg(test)]\n{}", lines(400), lines(100)), 0);
}
