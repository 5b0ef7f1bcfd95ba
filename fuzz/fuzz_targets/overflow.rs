//! Any bytes are a policy and a program of publishes and deliveries; a subscription with a queue of its own must
//! deliver, drop and count what the simplest queue does.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run overflow -- -max_total_time=20 -max_len=256`
#![no_main]

#[path = "../../tests/common/overflow_model.rs"]
mod overflow_model;

use overflow_model::{Act, Setup, run};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&setup, acts)) = bytes.split_first_chunk() else { return };
    let acts: Vec<Act> = acts.iter().copied().map(Act::decode).collect();
    run(Setup::decode(setup), &acts);
});
