#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::config::fuzzing::configuration(data));
