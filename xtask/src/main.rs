//! Set-up, demo, tests, benches and packaging of mpesa-fw.

fn main() {}
