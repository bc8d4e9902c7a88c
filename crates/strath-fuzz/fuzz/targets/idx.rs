#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strath_fuzz::idx(bytes));
