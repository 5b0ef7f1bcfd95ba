//! Writes down what built the program: the head of every table says it.

use std::process::Command;

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = first_line(&rustc, &["--version"]).unwrap_or_else(|| "rustc unknown".into());
    let commit = first_line("git", &["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let changed = first_line("git", &["status", "--porcelain", "--", "../src", "../Cargo.toml"]).is_some();
    println!("cargo:rustc-env=PERF_RUSTC={rustc}");
    println!("cargo:rustc-env=PERF_COMMIT={commit}{}", if changed { " with changes" } else { "" });
    for path in ["../.git/HEAD", "../.git/logs/HEAD", "../src", "build.rs"] {
        println!("cargo:rerun-if-changed={path}");
    }
}
