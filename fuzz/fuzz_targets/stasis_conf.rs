//! Any text is a configuration or has errors with places; what is read is written and read again equally.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run stasis_conf -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/config_check.rs"]
mod config_check;

libfuzzer_sys::fuzz_target!(|text: &str| config_check::check(text));
