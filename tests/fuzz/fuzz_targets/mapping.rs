//! See `fuzzed::mapping`.
#![no_main]

#[allow(dead_code, reason = "shared by the targets")]
#[path = "../../it/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::mapping(input));
