//! See `mercure_fuzz::framing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::framing(data));
