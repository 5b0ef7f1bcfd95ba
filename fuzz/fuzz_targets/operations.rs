//! Any bytes are a program of bus operations; the bus must deliver what the naive bus delivers.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run operations -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::operations::{Operation, run};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let program: Vec<Operation> = bytes.as_chunks::<4>().0.iter().map(|word| Operation::decode(*word)).collect();
    run(&program);
});
