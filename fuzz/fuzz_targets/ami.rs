//! Whatever names, keys and values are: an AMI block is one event that says what was put in, or is refused.
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run ami -- -max_total_time=20 -max_len=512`
#![no_main]

#[path = "../../tests/common/ami_check.rs"]
mod ami_check;

libfuzzer_sys::fuzz_target!(|input: (String, [u8; 2], Vec<(String, String, bool)>)| {
    let (name, classes, fields) = input;
    ami_check::check(&name, classes.map(usize::from), &fields);
    ami_check::check_parse(&name);
});
