//! The evasion suite: what `cargo xtask evade` shows as a table.

use std::path::Path;

use anyhow::Result;
use evasion::{Part, Report, try_part};

/// Tries one part; any difference fails, and is told with the frames.
fn holds(part: Part) -> Result<()> {
    let mut report = Report::default();
    try_part(part, Path::new(env!("CARGO_BIN_EXE_mpesa-fw")), &mut report)?;
    println!("{}", report.summary());
    for (attack, why) in report.skipped() {
        testbed::left_out(&attack, why);
    }
    assert_eq!(report.differences(), 0, "{}", report.different());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_witness_sees_what_no_firewall_stops() -> Result<()> {
    holds(Part::Bare)
}

#[test]
#[ignore = "needs root and a kernel"]
fn ingress_at_native_xdp() -> Result<()> {
    holds(Part::Native)
}

#[test]
#[ignore = "needs root and a kernel"]
fn ingress_at_generic_xdp() -> Result<()> {
    holds(Part::Generic)
}

#[test]
#[ignore = "needs root and a kernel"]
fn ingress_at_tc() -> Result<()> {
    holds(Part::Tc)
}

#[test]
#[ignore = "needs root and a kernel"]
fn egress() -> Result<()> {
    holds(Part::Egress)
}

#[test]
#[ignore = "needs root and a kernel"]
fn genuine_traffic() -> Result<()> {
    holds(Part::Genuine)
}
