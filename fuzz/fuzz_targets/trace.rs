//! Any bytes are a recorded trace or have an error with its line; what is read makes a plan.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run trace fuzz/corpus/trace src/bin/stasis/replay/fixtures -- -max_total_time=60
//! -max_len=2048` (the last folder has a trace to begin with)
#![no_main]
// The program's own files: what only the program uses of them is unused here.
#![allow(dead_code)]

#[path = "../../src/bin/stasis/replay/build.rs"]
mod build;
#[path = "../../src/bin/stasis/replay/check.rs"]
mod check;
#[path = "../../src/bin/stasis/replay/line.rs"]
mod line;
#[path = "../../src/bin/stasis/replay/plan.rs"]
mod plan;
#[path = "../../src/bin/stasis/replay/trace.rs"]
mod trace;

use std::sync::Arc;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    match trace::Trace::parse("fuzz", text) {
        Ok(trace) => {
            // Counts of it may be absurd, but it is made.
            drop(plan::Plan::of(&Arc::new(trace)));
        }
        Err(error) => {
            let lines = text.iter().filter(|&&byte| byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&(error.line as usize)), "{error}");
        }
    }
});
