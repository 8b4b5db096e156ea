//! The evasion suite: what evasion tools and insiders know, tried on a running mpesa-fw between network namespaces.
//!
//! `cargo xtask evade` prints its table, `cargo xtask test` runs the same cases. A case says which frames reach the
//! network stack, and which counters move by how much; seen is what a witness *behind* the hooks was given, what the
//! sockets there heard, and what the agent's metrics say. Any difference fails.

mod case;
mod checksum;
mod egress;
mod field;
#[path = "../../tests/decision/frames.rs"]
#[expect(dead_code, reason = "the catalogue of packets in mpesa-fw uses more of it")]
mod frames;
mod genuine;
mod ingress;
mod judge;
mod mode;
mod packet_socket;
mod report;

use std::{path::Path, time::Instant};

use anyhow::Result;
use testbed::not_interrupted;

use mode::Mode;
pub use report::{Report, Status};

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What outsiders send, judged at native XDP.
    Native,
    /// Likewise at generic XDP.
    Generic,
    /// Likewise at TC, where a foreign XDP program owns the interface.
    Tc,
    /// Likewise without a firewall: whether the witness sees what a firewall would have to stop.
    Bare,
    /// What programs on the host send.
    Egress,
    /// Honest traffic that looks odd, in every mode.
    Genuine,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 6] =
        [Self::Bare, Self::Native, Self::Generic, Self::Tc, Self::Egress, Self::Genuine];

    /// The word for it on command lines and in the table.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
            Self::Bare => "bare",
            Self::Egress => "egress",
            Self::Genuine => "genuine",
        }
    }
}

/// Tries one part on this binary, and notes it.
///
/// # Errors
/// Something could not even be tried.
pub fn try_part(part: Part, binary: &Path, report: &mut Report) -> Result<()> {
    not_interrupted()?;
    let begun = Instant::now();
    match part {
        Part::Native => judge::ingress(Mode::Native, binary, report),
        Part::Generic => judge::ingress(Mode::Generic, binary, report),
        Part::Tc => judge::ingress(Mode::Tc, binary, report),
        Part::Bare => judge::ingress(Mode::Bare, binary, report),
        Part::Egress => egress::run(binary, report),
        Part::Genuine => [Mode::Native, Mode::Generic, Mode::Tc]
            .into_iter()
            .try_for_each(|mode| genuine::run(mode, binary, report)),
    }?;
    report.took(part, begun.elapsed());
    Ok(())
}
