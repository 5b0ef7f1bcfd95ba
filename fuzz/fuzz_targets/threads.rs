//! Publishers and churning threads from a seed; nothing may be lost, doubled or out of order.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run threads -- -max_total_time=20 -timeout=30`
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::storm::Storm;

libfuzzer_sys::fuzz_target!(|input: [u8; 12]| {
    let [publishers, messages, low, high, seed @ ..] = input;
    Storm {
        seed: u64::from_le_bytes(seed),
        publishers: 1 + publishers as usize % 4,
        messages: messages.into(),
        changes: u16::from_le_bytes([low, high]) as usize % 500,
    }
    .run();
});
