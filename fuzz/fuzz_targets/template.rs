//! See `mercure_fuzz::template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::template(data));
