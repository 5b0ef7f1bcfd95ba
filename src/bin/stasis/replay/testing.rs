//! Small traces for the tests of this folder.

use super::plan::Plan;
use super::trace::{Trace, TraceError};
use std::sync::Arc;

/// Two subscriptions, two threads, a nested publish, a callback with operations, a synchronous
/// publish; handlers end in order.
pub(crate) const TINY: &str = include_str!("fixtures/tiny.jsonl");

/// A trace of lines such as `1 "o":"tn","T":1,"n":"a"`: thread, then the keys; 10 ns apart.
pub(crate) fn text(lines: &[&str]) -> String {
    let line = |line: &&str| {
        let (thread, keys) = line.split_once(' ').unwrap_or_else(|| panic!("no thread in {line}"));
        format!("{{\"d\":10,\"h\":{thread},{keys}}}\n")
    };
    lines.iter().map(line).collect()
}

pub(crate) fn parse(text: &str) -> Result<Trace, TraceError> {
    Trace::parse("test", text.as_bytes())
}

pub(crate) fn plan(text: &str) -> Plan {
    Plan::of(&Arc::new(parse(text).unwrap_or_else(|error| panic!("{error}"))))
}

/// The tiny trace with the lines that contain `find` changed.
pub(crate) fn tiny_with(find: &str, change: impl Fn(&str) -> String) -> String {
    assert!(TINY.contains(find), "{find} is not in the tiny trace");
    TINY.lines().map(|line| if line.contains(find) { change(line) } else { format!("{line}\n") }).collect()
}
