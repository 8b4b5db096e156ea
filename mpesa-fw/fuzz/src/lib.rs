//! What the fuzz targets do with an input. The tests of mpesa-fw take the same files by their path and replay
//! `corpora` and `crashes` through them, so that the two can't drift apart.

#![allow(dead_code, reason = "of what the tests share with this crate it needs a part")]

#[path = "../../tests/decision/attempts.rs"]
mod attempts;
#[path = "../../tests/decision/case.rs"]
mod case;
pub mod corpus;
#[path = "../../tests/decision/frames.rs"]
mod frames;
#[path = "../../tests/decision/host.rs"]
mod host;
#[path = "../../tests/decision/kernel/mod.rs"]
mod kernel;
#[path = "../../tests/decision/learning.rs"]
mod learning;
#[path = "../../tests/decision/oracle.rs"]
mod oracle;
mod packets;
mod texts;
#[path = "../../tests/decision/twins.rs"]
mod twins;
pub mod words;

/// A target by its name.
pub fn run(target: &str, data: &[u8]) {
    match target {
        "packet" => packets::packet::run(data),
        "sequence" => packets::sequence::run(data),
        "kernel" => packets::kernel::run(data),
        "dns" => {
            packets::dns::on_host(data);
            packets::dns::in_kernel(data);
        }
        "policy" => texts::policy::run(data),
        "set_file" => texts::set_file::run(data),
        "control" => texts::control::run(data),
        other => panic!("no target {other}"),
    }
}
