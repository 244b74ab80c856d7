//! See `mercure_fuzz::form`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::form(data));
