//! Whatever a user event is made of: its JSON, AMI text and events say what was put in, and nothing of what is kept
//! from the consumer.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run json -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/json_check.rs"]
mod json_check;

use json_check::{Object, Seed};

libfuzzer_sys::fuzz_target!(|input: (String, Vec<(String, Seed)>, Vec<Object>)| {
    let (name, fields, objects) = input;
    json_check::check(&name, &fields, &objects);
});
