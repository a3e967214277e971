#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| media_core::fuzzing::video_layers_allocation(data));
