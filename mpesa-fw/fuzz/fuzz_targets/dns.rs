#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mpesa_fw_fuzz::run("dns", data));
