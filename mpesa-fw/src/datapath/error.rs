//! What can go wrong between the agent and the kernel, and what to do then.

use std::{error::Error, io};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::Result;
use crate::fault::Injected;

/// A failure of the datapath. It says what was tried, on what, why it failed and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}\n  help: {help}")]
pub struct DatapathError {
    kind: ErrorKind,
    what: String,
    why: String,
    help: String,
}

/// What class of failure it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not enough privileges.
    Permission,
    /// The kernel lacks something or refused.
    Kernel,
    /// Another program owns the hook, and the choice of hooks allows no other.
    Foreign,
    /// What is pinned was made by another version or with other options.
    Shape,
    /// A table of fixed size is full.
    Full,
    /// The interface is not there.
    Interface,
    /// This program was built or used in a wrong way.
    Internal,
}

impl DatapathError {
    /// A failure with all that is to be said of it.
    pub(super) fn new(
        kind: ErrorKind,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { kind, what: what.into(), why: why.into(), help: help.into() }
    }

    /// A system call that failed.
    pub(super) fn system(what: impl Into<String>, error: &io::Error) -> Self {
        let (kind, help) = classify(error);
        Self::new(kind, what, error.to_string(), help)
    }

    /// The same failure with what was done about it.
    pub(super) fn and(mut self, more: &str) -> Self {
        self.why = format!("{}; {more}", self.why);
        self
    }

    /// What class of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Exit code of a command that fails with it: 4 for kernel or permission, 70 for a mistake of this program.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Internal => 70,
            ErrorKind::Permission
            | ErrorKind::Kernel
            | ErrorKind::Foreign
            | ErrorKind::Shape
            | ErrorKind::Full
            | ErrorKind::Interface => 4,
        }
    }
}

fn classify(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::Permission,
            "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (mounting: CAP_SYS_ADMIN)",
        ),
        Some(libc::ENODEV | libc::ENXIO) => {
            (ErrorKind::Interface, "the interface is gone; `ip link` shows what is there")
        }
        Some(libc::ENOMEM | libc::ENOSPC | libc::E2BIG) => (
            ErrorKind::Kernel,
            "not enough memory or room; see MemoryMax of the service and the size of the policy's sets",
        ),
        Some(libc::EROFS) => {
            (ErrorKind::Kernel, "the bpffs is mounted read-only: `mount -o remount,rw` on its mount point")
        }
        Some(libc::EMFILE | libc::ENFILE) => (ErrorKind::Kernel, "raise LimitNOFILE of the service"),
        Some(libc::ENOSYS | libc::EOPNOTSUPP) => (
            ErrorKind::Kernel,
            "the kernel lacks this feature; Linux 5.18 is the oldest that can do what is needed",
        ),
        Some(libc::EINVAL) => (ErrorKind::Kernel, "the kernel may be too old for this; `dmesg` may say more"),
        _ => (ErrorKind::Kernel, "`dmesg` may say more"),
    }
}

impl From<Injected> for DatapathError {
    fn from(injected: Injected) -> Self {
        Self::new(ErrorKind::Kernel, "take a step", injected.to_string(), "none")
    }
}

/// Says what was tried when something fails.
pub(super) trait Context<T> {
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| DatapathError::system(what(), &error))
    }
}

macro_rules! context_by_cause {
    ($($error:ty),+) => {$(
        impl<T> Context<T> for Result<T, $error> {
            fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
                self.map_err(|error| of_chain(what(), &error))
            }
        }
    )+};
}

context_by_cause!(EbpfError, MapError);

impl<T> Context<T> for Result<T, ProgramError> {
    fn context<W: Into<String>>(self, what: impl FnOnce() -> W) -> Result<T> {
        self.map_err(|error| {
            if let ProgramError::LoadError { io_error, verifier_log } = &error {
                return refused(what(), io_error, &verifier_log.to_string());
            }
            of_chain(what(), &error)
        })
    }
}

/// A program that the verifier refused. Its log is thousands of lines, and the reason stands at the end.
fn refused(what: impl Into<String>, error: &io::Error, log: &str) -> DatapathError {
    let what = what.into();
    if log.trim().is_empty() {
        return DatapathError::system(what, error);
    }
    tracing::debug!(what, log, "the verifier's log");
    let lines: Vec<_> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(12)..].join("\n    ");
    DatapathError::new(
        ErrorKind::Kernel,
        what,
        format!("the kernel's verifier refused it ({error}); the end of its log:\n    {end}"),
        "this kernel's verifier is not among those tested: please report its version (`uname -r`) and the whole log (RUST_LOG=debug)",
    )
}

/// aya's errors say little themselves: the system error at the end of the chain decides what to do.
fn of_chain(what: impl Into<String>, error: &(dyn Error + 'static)) -> DatapathError {
    let mut why = error.to_string();
    let (mut kind, mut help) = (ErrorKind::Internal, "please report this");
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            (kind, help) = classify(error);
        }
        let text = error.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        cause = error.source();
    }
    DatapathError::new(kind, what, why, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let denied = io::Error::from_raw_os_error(libc::EPERM);
        let error = DatapathError::system("pin the map /x", &denied);
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Permission, 4));
        let text = error.and("nothing has changed").to_string();
        for part in ["pin the map /x", "not permitted", "nothing has changed", "CAP_BPF"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_system_error_at_the_end_of_a_chain_decides() {
        let cause = MapError::CreateError {
            name: String::from("FLOWS"),
            io_error: io::Error::from_raw_os_error(libc::EPERM),
        };
        let error = Err::<(), _>(EbpfError::MapError(cause)).context(|| "create the maps").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        let error = refused("load x", &io::Error::from_raw_os_error(libc::EACCES), "1\n2\nR0 invalid\n");
        assert!(error.kind() == ErrorKind::Kernel && error.to_string().contains("R0 invalid"));
    }
}
