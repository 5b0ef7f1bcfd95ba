//! Each kind of damage is found, at its line, with its cause.

use super::super::testing::{TINY, parse, text, tiny_with};
use super::*;

fn cause(text: &str) -> (u32, Cause) {
    let error = parse(text).expect_err("the trace should not be accepted");
    (error.line, error.cause)
}

/// 1-based number of the first line with this text.
fn line_of(find: &str) -> u32 {
    TINY.lines().position(|line| line.contains(find)).map_or(0, |line| line as u32 + 1)
}

#[test]
fn a_good_trace_is_read() {
    let trace = parse(TINY).unwrap();
    assert_eq!(trace.records.len(), TINY.lines().count());
    assert_eq!((trace.topics.len(), trace.subscriptions.len(), trace.messages.len()), (3, 2, 8));
    assert!(trace.has_deliveries);
    assert!(trace.is_change(1) && !trace.is_change(2));
    assert_eq!(trace.records[3].at, 40);
}

#[test]
fn unknown_keys_and_empty_lines_do_not_matter() {
    let wider = TINY.replace("\"o\":", "\"new\":{\"a\":[1,2]},\"o\":").replace('\n', "\n\n");
    assert_eq!(parse(&wider).unwrap().records.len(), TINY.lines().count());
}

#[test]
fn names_may_be_escaped() {
    let trace = parse(&text(&["1 \"o\":\"tn\",\"T\":1,\"n\":\"a\\\"b\\u00e9\",\"x\":\"c\\td\""])).unwrap();
    assert_eq!(trace.topics.get(1).unwrap().name, "a\"b\u{e9}");
    assert_eq!(trace.topics.get(1).unwrap().detail, "c\td");
}

#[test]
fn bad_json_is_named() {
    let (line, found) = cause(&tiny_with("\"o\":\"fm\"", |line| line.replace('}', "\n")));
    assert_eq!(line, line_of("\"o\":\"fm\""));
    assert!(matches!(found, Cause::Json(_)), "{found}");
    assert!(matches!(cause("not json\n"), (1, Cause::Json(_))));
    assert!(matches!(cause("{\"d\":1,\"h\":1}\n"), (1, Cause::Value(text)) if text.contains("field `o`")));
}

#[test]
fn an_empty_trace_is_refused() {
    assert!(matches!(cause(""), (_, Cause::Empty)));
    assert!(matches!(cause("\n \n"), (_, Cause::Empty)));
}

#[test]
fn unknown_operations_are_named() {
    let (line, found) = cause(&tiny_with("\"o\":\"fm\"", |line| line.replace("\"fm\"", "\"zz\"") + "\n"));
    assert_eq!((line, found), (line_of("\"o\":\"fm\""), Cause::UnknownOperation("zz".into())));
}

#[test]
fn missing_and_bad_keys_are_named() {
    let missing = [
        ("\"T\":3,\"n\":\"scratch\"", "\"n\":\"scratch\"", "T"),
        ("\"o\":\"fa\"", "\"S\":2", "y"),
        ("\"o\":\"s\",\"S\":2", "\"o\":\"s\",\"S\":2,\"T\":1,\"k\":\"n\"", "f"),
        ("\"o\":\"je\"", "\"x\":\"\"", "S"),
    ];
    for (find, keys, key) in missing {
        let broken = tiny_with(find, |line| {
            let operation = line.split("\"o\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
            let keys = keys.strip_prefix(&format!("\"o\":\"{operation}\",")).unwrap_or(keys);
            format!("{{\"d\":10,\"h\":1,\"o\":\"{operation}\",{keys}}}\n")
        });
        let (line, found) = cause(&broken);
        assert_eq!(line, line_of(find));
        assert!(matches!(found, Cause::MissingKey { key: named, .. } if named == key), "{found}");
    }
    for (find, from, to) in [("\"k\":\"n\"", "\"n\"", "\"z\""), ("\"o\":\"fm\"", "\"v\":2", "\"v\":9")] {
        let (line, found) = cause(&tiny_with(find, |line| line.replacen(from, to, 1) + "\n"));
        assert_eq!(line, line_of(find));
        assert!(matches!(found, Cause::BadValue { .. }), "{found}");
    }
}

#[test]
fn unknown_and_taken_ids_are_named() {
    let unknown = [
        ("\"o\":\"u\",\"S\":2", "\"S\":2", "\"S\":7", "subscription"),
        ("\"o\":\"p\",\"T\":3", "\"T\":3", "\"T\":9", "topic"),
        ("\"o\":\"m\",\"m\":3", "\"y\":2", "\"y\":5", "type"),
        ("\"o\":\"fc\",\"F\":2", "\"F\":2", "\"F\":5", "forward"),
        ("\"o\":\"p\",\"T\":3", "\"m\":5", "\"m\":50", "message"),
    ];
    for (find, from, to, kind) in unknown {
        let (line, found) = cause(&tiny_with(find, |line| line.replace(from, to) + "\n"));
        assert_eq!(line, line_of(find));
        assert!(matches!(found, Cause::UnknownId { kind: named, .. } if named == kind), "{found}");
    }
    for id in ["1", "0", "4000000000"] {
        let (line, found) =
            cause(&tiny_with("\"n\":\"scratch\"", |line| line.replace("\"T\":3", &format!("\"T\":{id}")) + "\n"));
        assert_eq!(line, line_of("\"n\":\"scratch\""));
        assert!(matches!(found, Cause::BadNewId { kind: "topic", .. }), "{found}");
    }
}

#[test]
fn what_has_ended_cannot_be_used() {
    let again = tiny_with("\"o\":\"tf\",\"T\":3", |line| format!("{line}\n{line}\n"));
    assert!(matches!(cause(&again), (_, Cause::Gone { kind: "topic", id: 3, .. })));
    let again = tiny_with("\"o\":\"fc\",\"F\":1", |line| format!("{line}\n{line}\n"));
    assert!(matches!(cause(&again), (_, Cause::Gone { kind: "forward", id: 1, .. })));
}

#[test]
fn nesting_is_checked() {
    let (line, found) = cause(&tiny_with("\"o\":\"b\",\"S\":1,\"m\":4", |_| String::new()));
    assert_eq!(line, line_of("\"o\":\"e\",\"S\":1,\"m\":4") - 1);
    assert!(matches!(found, Cause::EndWithoutBegin { sub: 1, message: 4, thread: 2 }), "{found}");

    let (_, found) = cause(&tiny_with("\"o\":\"p\",\"T\":3", |_| String::new()));
    assert!(matches!(found, Cause::StrayDelivery { sub: 1, message: 5 }), "{found}");

    let (_, found) = cause(&tiny_with("\"o\":\"pe\",\"T\":2,\"m\":4", |line| format!("{line}\n{line}\n")));
    assert!(matches!(found, Cause::PublishEndWithoutPublish { message: 4, .. }), "{found}");

    let (_, found) = cause(&tiny_with("\"o\":\"ue\",\"S\":2", |line| line.replace("\"S\":2", "\"S\":1") + "\n"));
    assert!(matches!(found, Cause::UnsubscribeEndWithoutStart { sub: 1, .. }), "{found}");

    let (line, found) = cause(&tiny_with("\"o\":\"q\",\"S\":1,\"m\":4", |_| String::new()));
    assert_eq!(line, line_of("\"o\":\"b\",\"S\":1,\"m\":4") - 1);
    assert!(matches!(found, Cause::StrayDelivery { sub: 1, message: 4 }), "{found}");
}

#[test]
fn subscription_changes_belong_to_the_bus() {
    let stray = tiny_with("\"o\":\"m\",\"m\":6", |line| line.replace("\"y\":2", "\"y\":1") + "\n");
    assert!(matches!(cause(&stray), (_, Cause::StrayChange)));
}

#[test]
fn a_cut_trace_is_refused() {
    let cut =
        |find: &str| TINY.lines().take(line_of(find) as usize).map(|line| format!("{line}\n")).collect::<String>();
    for (find, inside) in [
        ("\"o\":\"b\",\"S\":2,\"m\":3", "a publish"),
        ("\"n\":\"scratch\"", "a callback"),
        ("\"o\":\"u\",\"S\":2", "an unsubscribe"),
        ("\"o\":\"pe\",\"T\":1,\"m\":3", "a queued delivery"),
    ] {
        let (_, found) = cause(&cut(find));
        assert!(matches!(found, Cause::Unfinished { what, .. } if what == inside), "{find}: {found}");
    }
    let half = &TINY[..TINY.len() - 5];
    assert!(matches!(cause(half), (_, Cause::Json(_))));
}

#[test]
fn an_error_says_where_why_and_what_to_do() {
    let message = parse("{\"d\":1,\"h\":1,\"o\":\"zz\"}").unwrap_err().to_string();
    assert!(message.starts_with("test: line 1: unknown operation \"zz\"\n  "), "{message}");
    assert!(message.contains("FORMAT.md"));
}

#[test]
fn without_deliveries_publishes_have_no_end() {
    let api = text(&[
        "1 \"o\":\"y\",\"y\":1,\"n\":\"a\",\"v\":0",
        "1 \"o\":\"tn\",\"T\":1,\"n\":\"t\"",
        "1 \"o\":\"m\",\"m\":1,\"y\":1",
        "1 \"o\":\"p\",\"T\":1,\"m\":1,\"n\":3",
    ]);
    assert!(!parse(&api).unwrap().has_deliveries);
}

#[test]
fn times_no_recording_has_are_refused() {
    for far in [i64::MAX.to_string(), i64::MIN.to_string(), (1_i64 << 62).to_string()] {
        let (line, found) =
            cause(&tiny_with("\"o\":\"fm\"", |line| line.replace("\"d\":10", &format!("\"d\":{far}")) + "\n"));
        assert_eq!(line, line_of("\"o\":\"fm\""));
        assert_eq!(found, Cause::BadValue { operation: "fm".into(), key: "d", value: far });
    }
}
