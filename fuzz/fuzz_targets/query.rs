//! See `mercure_fuzz::query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::query(data));
