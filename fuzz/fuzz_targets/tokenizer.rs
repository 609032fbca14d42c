#![no_main]

libfuzzer_sys::fuzz_target!(init: lowrank_fuzz::start(), |data: &[u8]| lowrank_fuzz::targets::tokenizer::run(data));
