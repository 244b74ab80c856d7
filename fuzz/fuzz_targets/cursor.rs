//! See `mercure_fuzz::cursor`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::cursor(data));
