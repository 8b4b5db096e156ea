//! Programs of this host that connected, or sent, to where no packet may go: who they are.

use std::os::unix::fs::MetadataExt as _;

use mpesa_fw_common::program::{Maker, Program};
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::processes::{cgroups, unit_of};
use crate::printable::Printable;

/// Who attempted to connect, or sent a packet. The kernel says process, name, user and socket; the rest was looked up a moment later,
/// and is missing where the process had ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRecord {
    /// Process id: of an attempt, the one that made it; of a packet, the last that connected its socket, sent a datagram by it to an
    /// address that went with it, or else made it. None: the kernel did not see that.
    pub process: Option<u32>,
    /// Name of its thread, as it says.
    pub name: String,
    /// By number: its real user; of a packet, whoever made the socket.
    pub user: u32,
    /// The file that it ran a moment later; where the agent may not know that (the one of the package has no CAP_SYS_PTRACE), when
    /// root asked for the event.
    pub executable: Option<String>,
    /// When it began, in ticks since boot, as in `/proc/PID/stat`: with the number it names one process. None: it had ended.
    pub began: Option<u64>,
    /// Who logged in, however he became another since (`/proc/PID/loginuid`).
    pub login_user: Option<u32>,
    /// The systemd unit that it, or the socket, belongs to.
    pub unit: Option<String>,
    /// Cookie of the socket, as `ss -e` shows it (`sk:`).
    pub socket: u64,
}

impl ProgramRecord {
    /// What is known of a program. Looks at the process, as it is now; `unit_of_group` is asked for what it does not say.
    pub(super) fn of(program: &Program, unit_of_group: impl FnOnce(u64) -> Option<String>) -> Self {
        let Maker { noted, process: number, name, .. } = program.maker;
        let name = name.split(|octet| *octet == 0).next().unwrap_or_default();
        let number = (number != 0).then_some(number);
        let process = number.and_then(|number| Process::new(i32::try_from(number).ok()?).ok());
        let process = process.filter(|process| {
            numbers_are_the_kernels() && began_before(process, noted) && is_in(process, program.cgroup)
        });
        Self {
            process: number,
            name: Printable(&String::from_utf8_lossy(name)).to_string(),
            user: program.uid,
            executable: process.as_ref().and_then(executable),
            began: process.as_ref().and_then(began),
            login_user: process
                .as_ref()
                .and_then(|process| process.loginuid().ok())
                .filter(|user| *user != NOBODY_LOGGED_IN),
            unit: process.as_ref().and_then(unit_of).or_else(|| unit_of_group(program.cgroup)),
            socket: program.cookie,
        }
    }

    /// Looks for the executable where the agent could not: for root's command line. Nothing is said of a process that has ended
    /// meanwhile, nor of another that has its number.
    pub fn look_for_executable(&mut self) {
        if let (None, Some(number), Some(at)) = (&self.executable, self.process, self.began) {
            let process = i32::try_from(number).ok().and_then(|number| Process::new(number).ok());
            let process = process.filter(|process| began(process) == Some(at));
            self.executable = process.as_ref().and_then(executable);
        }
    }
}

fn executable(process: &Process) -> Option<String> {
    process.exe().ok().map(|path| Printable(&path.to_string_lossy()).to_string())
}

fn began(process: &Process) -> Option<u64> {
    process.stat().ok().map(|stat| stat.starttime)
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
