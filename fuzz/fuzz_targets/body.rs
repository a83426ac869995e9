#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| connector_postgres::fuzzing::body(input));
