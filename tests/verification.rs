//! `docs/verification.md` names nothing that is not there.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

/// Folders a file of the table may be in, and what declares a name there.
const FOLDERS: [&str; 3] = ["tests", "loom-tests/tests", "fuzz/fuzz_targets"];

fn read(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// What stands between backticks in a line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn everything_named_exists() {
    if !Path::new(env!("CARGO_MANIFEST_DIR")).join("loom-tests").exists() {
        // In the published package models and targets are left out.
        return;
    }
    let page = read("docs/verification.md").expect("the page");
    let (mut files, mut names) = (0, 0);
    for line in page.lines() {
        let mut file: Option<&str> = None;
        for word in quoted(line) {
            if word.ends_with(".rs") && !word.contains('/') && word != "FILE.rs" {
                assert!(FOLDERS.iter().any(|folder| read(&format!("{folder}/{word}")).is_some()), "there is no {word}");
                file = Some(word);
                files += 1;
            } else if let Some(file) = file.filter(|_| is_name(word) && word.contains('_')) {
                let declared = format!("fn {word}(");
                let found = FOLDERS
                    .iter()
                    .filter_map(|folder| read(&format!("{folder}/{file}")))
                    .any(|text| text.contains(&declared));
                assert!(found, "{file} has no {word}");
                names += 1;
            } else if word.contains('/') && !word.contains([' ', '*', 'F']) && !word.ends_with('/') {
                let there = Path::new(env!("CARGO_MANIFEST_DIR")).join(word).exists();
                assert!(there, "there is no {word}");
            }
        }
    }
    assert!(files > 40 && names > 40, "the table is read: {files} files, {names} names");
}

#[test]
fn every_promise_with_a_test_has_a_line() {
    let page = read("docs/verification.md").expect("the page");
    for promise in 1..=14 {
        assert!(page.contains(&format!("\n| G{promise} ")), "G{promise}");
    }
}

/// The number in each line is that of the mutations tried against the models of the line.
#[test]
fn mutations_are_counted() {
    let (Some(page), Some(mutants)) = (read("docs/verification.md"), read("loom-tests/mutants.txt")) else { return };
    for line in page.lines().filter(|line| line.starts_with("| G")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let models = quoted(cells[3]);
        let of = |pair: &[&str]| format!("== {} {}:", pair[0].trim_end_matches(".rs"), pair[1]);
        let tried = models.chunks(2).map(|pair| mutants.matches(&of(pair)).count()).sum::<usize>();
        assert_eq!(cells[4], tried.to_string(), "mutations of {}", cells[1]);
    }
}

#[test]
fn pains_name_tests_that_exist() {
    let page = read("docs/overload.md").expect("the page");
    let mut names = 0;
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("`tests/")) {
        let mut file = String::new();
        for word in quoted(row) {
            if word.starts_with("tests/") {
                file = read(word).unwrap_or_else(|| panic!("there is no {word}"));
            } else if !file.is_empty() {
                assert!(file.contains(&format!("fn {word}(")), "{word} is not where the page says");
                names += 1;
            }
        }
    }
    assert!(names >= 9, "only {names} found: is the table still there?");
}
