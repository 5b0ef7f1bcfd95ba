//! The program `stasis replay` as its users meet it: exit codes, verdicts, JSON, damaged input.

#![cfg(feature = "cli")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const TINY: &str = include_str!("../src/bin/stasis/replay/fixtures/tiny.jsonl");

fn stasis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stasis")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn replay(arguments: &[&str]) -> (i32, String, String) {
    let output = stasis(&[&["replay", "--quiet"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

fn recording(name: &str) -> String {
    format!("{}/traces/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file of its own for each test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Scratch {
        let path = std::env::temp_dir().join(format!("stasis-replay-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Scratch(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn both_orders_hold_on_a_small_trace() {
    let trace = Scratch::new("small", TINY);
    for order in ["recorded", "threads"] {
        let (code, out, err) = replay(&["--order", order, "--repeat", "5", trace.path()]);
        assert_eq!(code, 0, "{order}: {out}{err}");
        assert!(out.contains("all verdicts hold"));
        assert!(!out.contains("FAIL"));
    }
}

#[test]
fn both_orders_hold_on_start_and_shutdown_of_the_original() {
    let trace = recording("startup-shutdown.jsonl.zst");
    for order in ["recorded", "threads"] {
        for mailbox in ["thread", "lane"] {
            let (code, out, err) = replay(&["--order", order, "--mailbox", mailbox, &trace]);
            assert_eq!(code, 0, "{order}, {mailbox}: {out}{err}");
        }
    }
    let (_, out, _) = replay(&["--order", "recorded", &trace]);
    assert!(out.contains("859 (recorded: 859)"), "{out}");
}

#[test]
fn the_built_in_trace_needs_no_argument() {
    for arguments in [&[][..], &["replay"]] {
        let output = stasis(arguments);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{out}");
        assert!(out.contains("(built in)") && out.contains("all verdicts hold"), "{out}");
    }
}

#[test]
fn json_has_its_stable_keys() {
    let trace = Scratch::new("json-in", TINY);
    let json = Scratch::new("json-out", "");
    let (code, _, err) = replay(&["--order", "recorded", "--json", json.path(), trace.path()]);
    assert_eq!(code, 0, "{err}");
    let text = std::fs::read_to_string(&json.0).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["published"].as_u64(), value["delivered"].as_u64()), (Some(4), Some(13)));
    for zero in ["dropped", "lost", "duplicated", "reordered", "after_final", "leaked", "handlers_alive", "disagreeing"]
    {
        assert_eq!(value[zero].as_u64(), Some(0), "{zero}");
    }
    for times in ["publish_ns", "latency_ns"] {
        for quantile in ["p50", "p99", "p999", "max"] {
            assert!(value[times][quantile].as_u64().is_some_and(|ns| ns > 0), "{times}.{quantile}");
        }
    }
    assert!(value["wall_s"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(value["ops"]["create_topic"].as_u64(), Some(3));
    assert_eq!(value["ok"].as_bool(), Some(true));

    let (_, _, err) = replay(&["--json", json.path(), trace.path(), trace.path()]);
    let both: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json.0).unwrap()).unwrap();
    assert_eq!(both.as_array().map(Vec::len), Some(2), "{err}");
}

#[test]
fn a_changed_recording_fails_the_comparison() {
    let missing: String = TINY
        .lines()
        .filter(|line| !line.contains("\"S\":2,\"m\":6"))
        .map(|line| line.replace("\"o\":\"pe\",\"T\":1,\"m\":6,\"n\":2", "\"o\":\"pe\",\"T\":1,\"m\":6,\"n\":1") + "\n")
        .collect();
    let added: String = TINY
        .lines()
        .map(|line| {
            let extra =
                "{\"d\":1,\"h\":3,\"o\":\"b\",\"S\":2,\"m\":4}\n{\"d\":1,\"h\":3,\"o\":\"e\",\"S\":2,\"m\":4}\n";
            let before = if line.contains("\"o\":\"pe\",\"T\":2,\"m\":4") { extra } else { "" };
            format!("{before}{line}\n")
        })
        .collect();
    for (name, text) in [("missing", missing), ("added", added)] {
        let trace = Scratch::new(name, text);
        let (code, out, err) = replay(&["--order", "recorded", trace.path()]);
        assert_eq!(code, 1, "{name}: {out}{err}");
        assert!(out.contains("FAIL disagreeing") && out.contains("NOT all verdicts hold"), "{name}: {out}");
        // Only the comparison fails: the bus itself did right.
        assert_eq!(out.matches("FAIL").count(), 1, "{name}: {out}");
        assert_eq!(replay(&["--order", "threads", trace.path()]).0, 0, "{name}");
    }
}

/// Forwards in circles, handlers in handlers, those of subscription changes too, hundreds of topics, objects alive at
/// the end: see `tests/shapes/generate.py`.
#[test]
fn both_orders_hold_on_shapes_the_recordings_do_not_have() {
    for shape in ["circles", "nested", "nested-2", "many", "open"] {
        let trace = format!("{}/tests/shapes/{shape}.jsonl.zst", env!("CARGO_MANIFEST_DIR"));
        for order in ["recorded", "threads"] {
            let (code, out, err) = replay(&["--order", order, &trace]);
            assert_eq!(code, 0, "{shape}, {order}: {out}{err}");
        }
    }
}

/// Two ways lead from topic 1 to a subscription of topic 4: the original delivers twice, this bus once (G3). What
/// either callback did is done.
#[test]
fn g03_a_message_that_came_twice_comes_once_and_that_is_explained() {
    let line = |keys: &str| format!("{{\"d\":9,\"h\":1,{keys}}}\n");
    let mut text = line("\"o\":\"y\",\"y\":1,\"n\":\"news\",\"v\":0");
    for topic in 1..=4 {
        text += &line(&format!("\"o\":\"tn\",\"T\":{topic},\"n\":\"topic {topic}\""));
    }
    for (forward, (from, to)) in [(1, 2), (1, 3), (2, 4), (3, 4)].into_iter().enumerate() {
        text += &line(&format!("\"o\":\"f\",\"F\":{},\"A\":{from},\"B\":{to}", forward + 1));
    }
    text += &line("\"o\":\"s\",\"S\":1,\"T\":4,\"k\":\"m\",\"f\":\"twice\"");
    text += &line("\"o\":\"m\",\"m\":1,\"y\":1");
    text += &line("\"o\":\"p\",\"T\":1,\"m\":1,\"n\":2");
    let api = text.clone();
    text += &line("\"o\":\"q\",\"S\":1,\"m\":1").repeat(2);
    text += &line("\"o\":\"pe\",\"T\":1,\"m\":1,\"n\":2");
    for topic in 5..=6 {
        text += &line("\"o\":\"b\",\"S\":1,\"m\":1");
        text += &line(&format!("\"o\":\"tn\",\"T\":{topic},\"n\":\"topic {topic}\""));
        text += &line("\"o\":\"e\",\"S\":1,\"m\":1");
    }
    let json = Scratch::new("twice-json", "");
    for (name, text, topics) in [("twice", &text, 6), ("twice-api", &api, 4)] {
        let trace = Scratch::new(name, text);
        assert_eq!(replay(&["--order", "threads", trace.path()]).0, 0, "{name}");
        let (code, out, err) = replay(&["--order", "recorded", "--json", json.path(), trace.path()]);
        assert_eq!(code, 0, "{name}: {out}{err}");
        let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json.0).unwrap()).unwrap();
        assert_eq!(value["explained"]["once"].as_u64(), Some(1), "{name}: {out}");
        assert_eq!(value["delivered"].as_u64(), Some(3), "its beginning, the message once, its end: {out}");
        assert_eq!(value["ops"]["create_topic"].as_u64(), Some(topics), "{name}");
    }
}

#[test]
fn damage_is_reported_with_its_line() {
    let lines: Vec<&str> = TINY.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        lines.join("\n")
    };
    let cases = [
        (with(6, "{\"d\":10,\"h\":1,"), "line 7: not a JSON object: EOF while parsing a value, at column 14"),
        (with(6, "[1,2]"), "line 7: a key is missing"),
        (with(6, "{\"d\":10,\"h\":1,\"o\":\"u\",\"S\":\"x\"}"), "line 7: a key is missing, twice there or has"),
        (with(6, "{\"d\":10,\"h\":1,\"o\":\"u\",\"S\":99999999999}"), "line 7: a key is missing, twice there or has"),
        (with(6, "{\"d\":10,\"h\":1,\"o\":\"u\",\"S\":4}"), "line 7: subscription 4 has not been made"),
        (with(6, "{\"d\":10,\"h\":1,\"o\":\"what\"}"), "line 7: unknown operation \"what\""),
        (with(6, "{\"d\":10,\"h\":1,\"o\":\"s\",\"S\":1}"), "line 7: operation \"s\" needs the key \"T\""),
        (with(5, "{\"d\":10,\"h\":1,\"o\":\"f\",\"F\":1,\"A\":1,\"B\":9}"), "line 6: topic 9 has not been made"),
        (lines[..40].join("\n"), "line 40: the trace ends while thread"),
        (String::new(), "the trace has no lines"),
    ];
    for (number, (text, expected)) in cases.into_iter().enumerate() {
        let trace = Scratch::new(&format!("damaged-{number}"), text);
        let (code, out, err) = replay(&[trace.path()]);
        assert_eq!(code, 2, "{expected}: {out}{err}");
        assert!(err.contains(expected), "{expected}: {err}");
        assert!(out.is_empty(), "{out}");
    }
}

#[test]
fn packed_traces_are_known_by_their_first_bytes() {
    let packed = zstd::encode_all(TINY.as_bytes(), 3).unwrap();
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(6)).unwrap();
    writer.write_all(TINY.as_bytes()).unwrap();
    let xz = writer.finish().unwrap();
    for (name, bytes) in [("zstd.txt", &packed), ("xz.bin", &xz)] {
        let whole = Scratch::new(name, bytes);
        assert_eq!(replay(&[whole.path()]).0, 0, "{name}");
        for cut in [8, bytes.len() / 2, bytes.len() - 2] {
            let trace = Scratch::new(&format!("cut-{cut}-{name}"), &bytes[..cut]);
            let (code, _, err) = replay(&[trace.path()]);
            assert_eq!(code, 2, "{name} cut at {cut}: {err}");
            assert!(err.contains("damaged or cut short"), "{name} cut at {cut}: {err}");
            let line = err.split(": line ").nth(1).and_then(|rest| rest.split(':').next());
            let line: usize = line.and_then(|line| line.parse().ok()).unwrap_or_default();
            assert!((1..=TINY.lines().count() + 1).contains(&line), "{name} cut at {cut}: {err}");
        }
    }
}

/// A trace cut in the middle: the line is that of the cut, not the first.
#[test]
fn a_cut_packed_trace_says_how_far_it_goes() {
    let whole = std::fs::read(recording("startup-shutdown.jsonl.zst")).unwrap();
    let text = zstd::decode_all(&whole[..]).unwrap();
    // Two streams, the second one cut: xz hands out whole blocks.
    let (first, second) = text.split_at(text.len() / 2);
    let half = first.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let xz = |text: &[u8]| {
        let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(3)).unwrap();
        writer.write_all(text).unwrap();
        writer.finish().unwrap()
    };
    let two = [xz(first), xz(second)].concat();
    let good = Scratch::new("two-streams", &two);
    assert_eq!(replay(&[good.path()]).0, 0, "xz files may be put one behind the other");
    for (name, bytes, least) in [("zst", &whole, 2), ("xz", &two, half)] {
        let cut = Scratch::new(&format!("far.{name}"), &bytes[..bytes.len() * 9 / 10]);
        let (code, _, err) = replay(&[cut.path()]);
        assert_eq!(code, 2, "{name}: {err}");
        let line = err.split(": line ").nth(1).and_then(|rest| rest.split(':').next());
        let line: usize = line.and_then(|line| line.parse().ok()).unwrap_or_default();
        assert!((least..7774).contains(&line), "{name}: {err}");
    }
}

#[test]
fn one_bad_trace_does_not_keep_the_others_from_being_replayed() {
    let (good, bad) = (Scratch::new("beside", TINY), Scratch::new("junk", [0, 159, 146, 150, 10, 255]));
    let json = Scratch::new("beside-json", "");
    let (code, out, err) = replay(&["--json", json.path(), bad.path(), good.path()]);
    assert_eq!(code, 2, "{out}{err}");
    assert!(err.contains(bad.path()) && err.contains("line 1: not a JSON object"), "{err}");
    assert!(out.contains("all verdicts hold"), "{out}");
    let value: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json.0).unwrap()).unwrap();
    assert_eq!(value[0]["ok"].as_bool(), Some(true));
}

#[test]
fn a_summary_that_nobody_reads_or_that_cannot_be_kept_ends_without_panic() {
    let trace = Scratch::new("closed", TINY);
    let mut child = Command::new(env!("CARGO_BIN_EXE_stasis"))
        .args(["replay", "--quiet", trace.path()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let (code, out, err) = replay(&["--json", "/does/not/exist/out.json", trace.path()]);
    assert_eq!((code, out.as_str()), (2, ""), "told before the run: {err}");
    assert!(err.contains("/does/not/exist/out.json cannot be written"), "{err}");
}

#[test]
fn standard_input_is_a_dash() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_stasis"))
        .args(["replay", "--quiet", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(TINY.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_core_that_is_not_there_is_said_and_does_no_harm() {
    let trace = Scratch::new("pin", TINY);
    let (code, out, err) = replay(&["--pin", "100000", "--lanes", "2", trace.path()]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(err.matches("refuses to pin a lane to this core; it runs unpinned (core 100000)").count(), 1, "{err}");
}

#[test]
fn bad_usage_ends_with_2() {
    for arguments in
        [&["replay", "/does/not/exist"][..], &["replay", "--lanes", "0"], &["replay", "--pin", "a"], &["nothing"]]
    {
        let output = stasis(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}
