//! Any bytes are a program of bus operations; the bus must deliver what the naive bus delivers. The first byte says
//! on which bus: one with threads, or one whose lanes are driven by the calling thread in an order of its own.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run operations -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use common::operations::{Operation, run, run_on};
use stasis_bus::testing::ManualBus;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let program: Vec<Operation> = bytes.as_chunks::<4>().0.iter().map(|word| Operation::decode(*word)).collect();
    match usize::from(how % 4) {
        0 => run(&program),
        lanes => {
            let builder = ManualBus::builder().lanes(lanes);
            let builder = if how < 128 { builder } else { builder.seed(how.into()) };
            run_on(builder.build().expect("a bus").bus().clone(), &program);
        }
    }
});
