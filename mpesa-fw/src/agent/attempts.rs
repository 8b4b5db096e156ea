//! Programs that were to connect or to send to where no packet may go: who they are.

use std::net::IpAddr;

use mpesa_fw_common::event::Event;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{clock, program::ProgramRecord, seed::protocol};

/// A program that was to connect, or to send a datagram, to where no packet may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// The destination charged; empty: none claims it.
    pub rule: String,
    /// A [`DropReason`](mpesa_fw_common::DropReason)'s label.
    pub reason: String,
    /// Name or number.
    pub protocol: String,
    /// Where to.
    pub target: IpAddr,
    /// Its port.
    pub target_port: u16,
    /// False: it was let go, in observe mode or because only the owner is wrong.
    pub refused: bool,
    /// Who.
    pub program: ProgramRecord,
    /// The name that this host had asked for last of those that the target was an answer to.
    pub asked_for: Option<String>,
    /// Where no destination claims it, the one that comes nearest, with what it claims.
    pub nearest: Option<String>,
    /// More of the same program to the same place within the minute after it.
    #[serde(default)]
    pub repeated: u64,
}

impl AttemptRecord {
    /// What the kernel told of it, and who it was.
    pub(super) fn new(
        event: &Event,
        rule: String,
        reason: &str,
        program: ProgramRecord,
        asked_for: Option<String>,
        nearest: Option<String>,
    ) -> Self {
        Self {
            time: clock::wall(event.time),
            rule,
            reason: reason.to_owned(),
            protocol: protocol(event.protocol),
            target: event.target.into(),
            target_port: event.target_port,
            refused: event.enforced != 0,
            program,
            asked_for,
            nearest,
            repeated: 0,
        }
    }
}
