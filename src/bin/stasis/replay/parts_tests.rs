//! Caches and pools against small recordings, and against damaged ones.

use super::super::testing::{plan, text};
use super::Parts;

fn parts(lines: &[&str]) -> Parts {
    Parts::of(&plan(&text(lines))).unwrap()
}

/// A cache over one topic: a snapshot comes, comes again, is cleared, is cleared again.
const CACHE: [&str; 22] = [
    r#"1 "o":"th","n":"main""#,
    r#"1 "o":"y","y":1,"n":"snapshot","v":0"#,
    r#"1 "o":"y","y":2,"n":"stasis_cache_clear_type","v":0"#,
    r#"1 "o":"tn","T":1,"n":"original""#,
    r#"1 "o":"tn","T":2,"n":"cached""#,
    r#"1 "o":"ct","T":2,"A":1,"c":1"#,
    r#"1 "o":"m","m":1,"y":1"#,
    r#"1 "o":"p","T":1,"m":1,"n":0"#,
    r#"1 "o":"c","T":2,"m":1,"r":1"#,
    r#"1 "o":"cg","c":1,"y":1,"m":1"#,
    r#"1 "o":"m","m":2,"y":1"#,
    r#"1 "o":"p","T":1,"m":2,"n":0"#,
    r#"1 "o":"c","T":2,"m":2,"r":2"#,
    r#"1 "o":"cg","c":1,"y":1,"m":2"#,
    r#"1 "o":"cd","c":1,"y":0,"n":1"#,
    r#"1 "o":"m","m":3,"y":2"#,
    r#"1 "o":"p","T":1,"m":3,"n":0"#,
    r#"1 "o":"c","T":2,"m":3,"r":3"#,
    r#"1 "o":"m","m":4,"y":2"#,
    r#"1 "o":"p","T":1,"m":4,"n":0"#,
    r#"1 "o":"c","T":2,"m":4,"r":4"#,
    r#"1 "o":"cd","c":1,"y":0,"n":0"#,
];

#[test]
fn what_was_recorded_comes_out_again() {
    let parts = parts(&CACHE);
    assert_eq!((parts.cache_changes, parts.cache_lookups, parts.differences()), (4, 4, 0), "{parts:?}");
}

#[test]
fn each_difference_is_counted_and_told() {
    // Another result, another find, another number of entries.
    for (find, put) in [
        (r#""m":1,"r":1"#, r#""m":1,"r":2"#),
        (r#""m":2,"r":2"#, r#""m":2,"r":1"#),
        (r#""m":3,"r":3"#, r#""m":3,"r":4"#),
        (r#""m":4,"r":4"#, r#""m":4,"r":3"#),
        (r#""y":1,"m":2"#, r#""y":1,"m":1"#),
        (r#""y":0,"n":1"#, r#""y":0,"n":2"#),
    ] {
        let lines: Vec<String> = CACHE
            .iter()
            .map(|line| if line.contains(r#""o":"m""#) { (*line).to_owned() } else { line.replace(find, put) })
            .collect();
        let parts = parts(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((parts.cache_differences, parts.examples.len()), (1, 1), "{find}: {parts:?}");
    }
}

/// A pool: a topic is made, asked for again, deleted, made again under its name.
const POOL: [&str; 9] = [
    r#"1 "o":"th","n":"main""#,
    r#"1 "o":"tn","T":1,"n":"queue:all""#,
    r#"1 "o":"po","T":1"#,
    r#"1 "o":"tn","T":2,"n":"queue:all/a""#,
    r#"1 "o":"pg","A":1,"T":2,"r":0"#,
    r#"1 "o":"pg","A":1,"T":2,"r":1"#,
    r#"1 "o":"pd","A":1,"T":2"#,
    r#"1 "o":"tn","T":3,"n":"queue:all/a""#,
    r#"1 "o":"pg","A":1,"T":3,"r":0"#,
];

#[test]
fn pools_do_what_was_recorded() {
    let parts = parts(&POOL);
    assert_eq!((parts.pool_operations, parts.differences()), (5, 0), "{parts:?}");
}

#[test]
fn a_pool_that_does_something_else_is_seen() {
    for (at, put) in [
        (4, r#"1 "o":"pg","A":1,"T":2,"r":1"#),
        (8, r#"1 "o":"pg","A":1,"T":3,"r":1"#),
        (3, r#"1 "o":"tn","T":2,"n":"queue:none""#),
    ] {
        let mut lines = POOL;
        lines[at] = put;
        let parts = parts(&lines);
        assert!(parts.pool_differences >= 1 && !parts.examples.is_empty(), "{put}: {parts:?}");
    }
    // Left out: the topic is still there when it is asked for again.
    let lines: Vec<&str> = POOL.iter().copied().filter(|line| !line.contains(r#""pd""#)).collect();
    assert_eq!(parts(&lines).pool_differences, 1);
}
