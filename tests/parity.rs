//! `docs/stasis-parity.md` names tests that exist, one at least for each function.
#![cfg(feature = "ext")]

use std::fs;
use std::path::Path;

/// `file.rs::test` in a text.
fn named(text: &str) -> Vec<(&str, &str)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(".rs::")
        .map(|(at, link)| {
            let file = text[..at].rsplit(|c| !is_name(c)).next().unwrap_or("");
            let test = text[at + link.len()..].split(|c| !is_name(c)).next().unwrap_or("");
            (file, test)
        })
        .collect()
}

fn has_test(file: &str, test: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join("tests"), root.join("loom-tests/tests")]
        .iter()
        .filter_map(|folder| fs::read_to_string(folder.join(format!("{file}.rs"))).ok())
        .any(|text| text.contains(&format!("fn {test}(")))
}

#[test]
fn every_function_has_a_test_that_exists() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/stasis-parity.md");
    let text = fs::read_to_string(page).unwrap();
    let (mut rows, mut wrong) = (0, Vec::new());
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Stasis function")) {
        rows += 1;
        let row = line.replace("\\|", "/");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, function, ours, tests, difference, _] = cells[..] else {
            wrong.push(format!("not four cells: {line}"));
            continue;
        };
        let tests_named = named(tests);
        // What is left out on purpose says why in the last cell.
        if tests_named.is_empty() && !(ours.starts_with("none") || ours.starts_with('-'))
            || difference.is_empty() && ours.is_empty()
        {
            wrong.push(format!("{function}: no test"));
        }
        for (file, test) in tests_named.into_iter().chain(named(difference)) {
            if !has_test(file, test) {
                wrong.push(format!("{function}: no test {file}.rs::{test}"));
            }
        }
    }
    assert!(rows > 150, "{rows} rows only: is this the right page?");
    assert!(wrong.is_empty(), "{} wrong of {rows}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn names_are_found_in_a_text() {
    assert_eq!(named("see `a.rs::b_1`, and c_d.rs::e."), [("a", "b_1"), ("c_d", "e")]);
    assert!(has_test("parity", "names_are_found_in_a_text") && !has_test("parity", "no_such_test"));
}
