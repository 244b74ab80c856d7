//! See `mercure_fuzz::urlpattern`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mercure_fuzz::urlpattern(data));
