//! The mutations as data (`mutants.txt`) still fit the sources, the models and the table in `MUTATIONS.md`; which
//! of them are noticed is tried by `mutants.sh`.
#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Models without a mutation of their own, with the reason.
const WITHOUT: [(&str, &str, &str); 0] = [];

#[derive(Debug, Default)]
struct Mutant {
    file: String,
    model: String,
    title: String,
    seen: String,
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
struct Change {
    path: String,
    old: String,
    new: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// As `mutants.sh` reads it.
fn mutants() -> Vec<Mutant> {
    let (mut mutants, mut is_new): (Vec<Mutant>, bool) = (Vec::new(), false);
    for line in read("loom-tests/mutants.txt").lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let (name, title) = head.split_once(": ").expect("a title");
            let (file, model) = name.split_once(' ').expect("file and model");
            mutants.push(Mutant { file: file.into(), model: model.into(), title: title.into(), ..Mutant::default() });
            continue;
        }
        let Some(mutant) = mutants.last_mut() else { continue };
        if let Some(path) = line.strip_prefix("-- ") {
            mutant.changes.push(Change { path: path.into(), ..Change::default() });
            is_new = false;
        } else if line == "++" {
            is_new = true;
        } else if let Some(seen) = line.strip_prefix("~~ ") {
            mutant.seen = seen.into();
        } else if mutant.seen.is_empty() {
            let change = mutant.changes.last_mut().expect("a path first");
            let text = if is_new { &mut change.new } else { &mut change.old };
            text.push_str(line);
            text.push('\n');
        }
    }
    mutants
}

/// Names of the models in `tests/FILE.rs`.
fn models(file: &str) -> Vec<String> {
    let text = read(&format!("loom-tests/tests/{file}.rs"));
    let lines: Vec<_> = text.lines().collect();
    let tests = lines.windows(2).filter(|pair| pair[0] == "#[test]");
    tests.filter_map(|pair| Some(pair[1].strip_prefix("fn ")?.split_once('(')?.0.to_owned())).collect()
}

fn files() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("loom-tests/tests")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
    names.filter(|name| name != "mutants" && name != "schedules").collect()
}

#[test]
fn every_mutation_applies_to_the_sources_of_today() {
    let mutants = mutants();
    assert!(mutants.len() > 100, "they are read");
    for mutant in &mutants {
        let name = format!("{} {}: {}", mutant.file, mutant.model, mutant.title);
        assert!(!mutant.changes.is_empty() && !mutant.seen.is_empty(), "{name}: nothing to change, or nothing seen");
        for change in &mutant.changes {
            let old = change.old.strip_suffix('\n').expect("some text");
            assert!(change.old != change.new, "{name} changes nothing");
            let found = read(&change.path).matches(old).count();
            assert_eq!(found, 1, "{name}: this is in {} {found} times:\n{old}", change.path);
        }
    }
}

#[test]
fn every_model_has_a_mutation_and_every_mutation_a_model() {
    let mut of: BTreeMap<(String, String), usize> = BTreeMap::new();
    for mutant in mutants() {
        *of.entry((mutant.file, mutant.model)).or_default() += 1;
    }
    for file in files() {
        for model in models(&file) {
            let excused = WITHOUT.iter().any(|(f, m, _)| (*f, *m) == (&*file, &*model));
            assert!(of.remove(&(file.clone(), model.clone())).is_some() != excused, "{file} {model}: no mutation");
        }
    }
    assert!(of.is_empty(), "no such models: {of:?}");
}

#[test]
fn the_table_is_that_of_the_data() {
    let text = read("loom-tests/MUTATIONS.md");
    let rows: BTreeSet<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
    let mutants = mutants();
    for mutant in &mutants {
        let mut paths: Vec<_> = mutant.changes.iter().map(|change| format!("`{}`", change.path)).collect();
        paths.dedup();
        let row = format!(
            "| `{}.rs` `{}` | {} | {} | {} |",
            mutant.file,
            mutant.model,
            mutant.title,
            paths.join(", "),
            mutant.seen
        );
        assert!(rows.contains(&*row), "not in MUTATIONS.md (mutants.sh -m makes the table):\n{row}");
    }
    assert_eq!(rows.len(), mutants.len(), "rows of mutations that are gone");
}
