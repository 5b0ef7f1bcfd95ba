//! `stasis soak`, shortly: a healthy bus passes, and each fault made on purpose is found, by its own verdict.
#![cfg(feature = "cli")]
#![allow(missing_docs)]

use std::process::Command;

/// Exit code, and the names of the verdicts that do not hold.
fn soak(arguments: &[&str]) -> (Option<i32>, Vec<String>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stasis"));
    // Quick enough for a fault, which comes with the hundredth message; slow enough for a busy machine.
    command.args(["soak", "--quiet", "--minutes", "0.03", "--seed", "7", "--rate", "3000"]).args(arguments);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = text.lines().filter_map(|line| line.strip_prefix("  FAIL  ")?.split(':').next());
    (output.status.code(), failed.map(str::to_owned).collect(), text)
}

#[test]
fn a_healthy_bus_passes() {
    let (code, failed, text) = soak(&[]);
    assert_eq!((code, failed.len()), (Some(0), 0), "{text}");
    assert!(text.contains("all verdicts hold"), "{text}");
}

#[test]
fn a_planted_fault_is_found_by_its_verdict() {
    let faults = [
        ("lose", "lost (G3)"),
        ("double", "doubled (G3)"),
        ("swap", "reordered (G2)"),
        ("late", "after final (G5)"),
        ("keep", "handlers dropped (G5)"),
        ("leak", "leaks (G10)"),
        ("miscount", "accounting (G3)"),
    ];
    std::thread::scope(|scope| {
        for (plant, verdict) in faults {
            scope.spawn(move || {
                let (code, failed, text) = soak(&["--plant", plant]);
                assert_eq!(code, Some(1), "{plant}: {text}");
                assert!(failed.iter().any(|name| name == verdict), "{plant}: {text}");
            });
        }
    });
}
