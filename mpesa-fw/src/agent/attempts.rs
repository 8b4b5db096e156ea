//! Programs that were to connect or to send to where no packet may go: who they are.

use std::{net::IpAddr, os::unix::fs::MetadataExt as _};

use mpesa_fw_common::{
    attempt::{AttemptEvent, Program},
    event::Event,
};
use procfs::process::Process;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zerocopy::FromBytes as _;

use super::{
    clock,
    processes::{cgroups, unit_of},
    seed::protocol,
};
use crate::printable::Printable;

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
}

/// A process at the moment of its attempt. The kernel says the first three and the last; the rest was looked up a moment later, and is missing where
/// the process had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// Process id.
    pub process: u32,
    /// Name of the thread, as it says.
    pub name: String,
    /// Its real user, by number.
    pub user: u32,
    /// The file that it ran a moment later, if the agent may know it.
    pub executable: Option<String>,
    /// Who logged in, however he became another since (`/proc/PID/loginuid`).
    pub login_user: Option<u32>,
    /// Its systemd unit.
    pub unit: Option<String>,
    /// Cookie of the socket, as `ss -e` shows it (`sk:`).
    pub socket: u64,
}

impl AttemptRecord {
    /// What the kernel told of it, and who it was.
    pub(super) fn new(event: &Event, rule: String, reason: &str, program: ProgramRecord) -> Self {
        Self {
            time: clock::wall(event.time),
            rule,
            reason: reason.to_owned(),
            protocol: protocol(event.protocol),
            target: event.target.into(),
            target_port: event.target_port,
            refused: event.enforced != 0,
            program,
        }
    }
}

impl ProgramRecord {
    /// Who made the attempt in these bytes of the ring buffer; none: they are another event. Looks at the process, as it is now.
    pub(super) fn in_event(bytes: &[u8]) -> Option<Self> {
        // Told from the others by its size.
        let told = AttemptEvent::read_from_bytes(bytes).ok()?;
        Some(Self::of(&told.program, told.event.time))
    }

    fn of(program: &Program, time: u64) -> Self {
        let name = program.name.split(|octet| *octet == 0).next().unwrap_or_default();
        let process = i32::try_from(program.process).ok().and_then(|pid| Process::new(pid).ok());
        let process = process.filter(|process| {
            numbers_are_the_kernels() && began_before(process, time) && is_in(process, program.cgroup)
        });
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

/// Whether the agent knows processes by the numbers that the kernel says: not in a container that has numbers of its own.
fn numbers_are_the_kernels() -> bool {
    /// `PROC_PID_INIT_INO`
    const FIRST: &str = "pid:[4026531836]";
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|namespace| namespace.as_os_str() == FIRST)
}

/// Whether it is still in the cgroup of its attempt: one that was moved, or took the number since, is another to whoever asks.
fn is_in(process: &Process, cgroup: u64) -> bool {
    let Some(root) = cgroups() else { return true };
    let path = process.cgroups().ok().and_then(|all| {
        let of_version_2 = all.0.into_iter().find(|group| group.hierarchy == 0)?;
        Some(root.join(of_version_2.pathname.trim_start_matches('/')))
    });
    path.and_then(|path| path.metadata().ok()).is_some_and(|group| group.ino() == cgroup)
}

/// Whether it is not another one that has the number meanwhile. (A machine that slept counts its own time otherwise, and then
/// nothing is said.)
fn began_before(process: &Process, time: u64) -> bool {
    let tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
    process.stat().is_ok_and(|stat| stat.starttime.saturating_mul(tick) <= time)
}

/// `INVALID_UID`: a daemon.
const NOBODY_LOGGED_IN: u32 = u32::MAX;
