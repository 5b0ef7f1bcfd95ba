//! Any bytes are a program of cache operations; the cache must hold and tell what a simple model does.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run cache -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/cache_model.rs"]
mod cache_model;

use cache_model::{Operation, run};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let program: Vec<Operation> = rest.as_chunks::<2>().0.iter().map(|word| Operation::decode(*word)).collect();
    run(&program, first & 1 == 1);
});
