//! Programs that were refused to connect or to send: who they are.

use std::net::IpAddr;

use mpesa_fw_common::attempt::{AttemptEvent, Program};
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{clock, processes::unit_of, seed::protocol};
use crate::printable::Printable;

/// A program that was refused to connect, or to send a datagram, to where no packet may go.
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
    /// False: observe mode let it go.
    pub refused: bool,
    /// Who.
    pub program: ProgramRecord,
}

/// A process at the moment of its attempt. The kernel says the first three; the rest was looked up a moment later, and is missing where
/// the process had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// Process id.
    pub process: u32,
    /// Name of the thread, as it says.
    pub name: String,
    /// Its real user, by number.
    pub user: u32,
    /// The file that it runs, if the agent may know it.
    pub executable: Option<String>,
    /// Who logged in, however he became another since (`/proc/PID/loginuid`).
    pub login_user: Option<u32>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Cookie of the socket, as `ss -e` shows it (`sk:`).
    pub socket: u64,
}

impl AttemptRecord {
    /// What the kernel told, and what is known of the process now.
    pub(super) fn new(told: &AttemptEvent, rule: String, reason: &str) -> Self {
        let AttemptEvent { event, program } = told;
        Self {
            time: clock::wall(event.time),
            rule,
            reason: reason.to_owned(),
            protocol: protocol(event.protocol),
            target: event.target.into(),
            target_port: event.target_port,
            refused: event.enforced != 0,
            program: ProgramRecord::of(program, event.time),
        }
    }
}

impl ProgramRecord {
    fn of(program: &Program, time: u64) -> Self {
        let name = program.name.split(|octet| *octet == 0).next().unwrap_or_default();
        let process = i32::try_from(program.process).ok().and_then(|pid| Process::new(pid).ok());
        let process = process.filter(|process| began_before(process, time));
        Self {
            process: program.process,
            name: Printable(&String::from_utf8_lossy(name)).to_string(),
            user: program.uid,
            executable: process
                .as_ref()
                .and_then(|process| process.exe().ok())
                .map(|path| Printable(&path.to_string_lossy()).to_string()),
            login_user: process
                .as_ref()
                .and_then(|process| process.loginuid().ok())
                .filter(|user| *user != NOBODY_LOGGED_IN),
            unit: process.as_ref().and_then(unit_of),
            socket: program.cookie,
        }
    }
}

/// Whether it is not another one that has the number meanwhile. (A machine that slept counts its own time otherwise, and then
/// nothing is said.)
fn began_before(process: &Process, time: u64) -> bool {
    let tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
    process.stat().is_ok_and(|stat| stat.starttime.saturating_mul(tick) <= time)
}

/// `INVALID_UID`: a daemon.
const NOBODY_LOGGED_IN: u32 = u32::MAX;
