//! Why the agent could not do what it was asked for.

use std::{io, path::PathBuf};

use super::{interfaces::Refused, lock::LockError, would_cut::WouldCut};
use crate::{
    compile::{CompileError, RegistryError},
    datapath::{DatapathError, ErrorKind},
    policy::PolicyErrors,
};

/// What to do about a mistake of this program.
pub const DEFECT: &str = "this is a defect of mpesa-fw: please report it, with all that it said, `mpesa-fw --version` and \
     `uname -r`. What is in the kernel stays in force";

/// Why a start or a reload failed. In every case the running protection is as it was.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The policy file is not valid.
    #[error("{0}")]
    Policy(PolicyErrors),
    /// The policy is valid and has too many of something.
    #[error("the policy does not fit: {0}")]
    Registry(#[from] RegistryError),
    /// The policy is valid and does not fit the tables.
    #[error("the policy can't be compiled: {0}")]
    Compile(#[from] CompileError),
    /// The policy names an interface that can't be protected.
    #[error("interface `{}` can't be protected: {}", .0.name, .0.reason)]
    Unfit(Refused),
    /// The admin who asks would be cut off.
    #[error("{0}")]
    WouldCut(#[from] Box<WouldCut>),
    /// A reload would end a trial by accident.
    #[error("nothing was reloaded: generation {number} is on trial for {seconds} s more")]
    OnTrial {
        /// What is on trial.
        number: u32,
        /// What is left of it.
        seconds: u64,
    },
    /// The promise to take a generation back can't be given.
    #[error("nothing was reloaded, for it could not be taken back: {why}")]
    CannotTry {
        /// Why not.
        why: String,
    },
    /// There is nothing to confirm.
    #[error("nothing is on trial: there is nothing to confirm")]
    NoTrial,
    /// Something else is on trial.
    #[error("nothing was confirmed: generation {on_trial} is on trial, not {asked}")]
    AnotherTrial {
        /// What was meant.
        asked: u32,
        /// What is on trial.
        on_trial: u32,
    },
    /// The trial is over.
    #[error("nothing was confirmed: the time of generation {number} is over, it is being taken back")]
    TooLate {
        /// What was on trial.
        number: u32,
    },
    /// The file still says what was taken back.
    #[error(
        "nothing was reloaded: {} says what was taken back, for nobody confirmed it", .rules.display()
    )]
    TakenBack {
        /// The file.
        rules: PathBuf,
    },
    /// The text of a generation can't be had.
    #[error("cannot go back to generation {number}: {why}")]
    NotKept {
        /// The generation.
        number: u32,
        /// Why not.
        why: String,
    },
    /// There is no earlier generation.
    #[error("cannot go back: no earlier generation is kept")]
    NothingKept,
    /// The kernel or missing privileges are in the way.
    #[error("{0}")]
    Datapath(#[from] DatapathError),
    /// Another agent runs.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// A file, directory or socket can't be had.
    #[error("cannot {doing} {}: {source}", .path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not tell what interfaces or sockets there are.
    #[error("cannot {doing}: {why}")]
    Netlink {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        why: String,
    },
    /// Somebody detached the datapath, and the agent is about to end.
    #[error("the datapath was detached, and the agent is about to end")]
    Detached,
    /// Somebody means the pins of another agent.
    #[error("nothing was detached: the pins of this agent are in {}, not in {}", .own.display(), .meant.display())]
    OtherPins {
        /// What is meant.
        meant: PathBuf,
        /// What this agent has.
        own: PathBuf,
    },
    /// What was asked makes no sense.
    #[error("{0}")]
    Question(String),
    /// Events are asked for by a word that none can have.
    #[error("there is no {what} `{word}`")]
    Wanted {
        /// What it was meant to be.
        what: &'static str,
        /// What was asked for.
        word: String,
        /// Those that there are.
        known: String,
    },
    /// Too many clients follow events.
    #[error("{0} clients follow events already, which is all that there is room for")]
    TooManyFollowers(usize),
    /// A mistake of this program.
    #[error("{0}")]
    Internal(String),
}

/// What class of failure it is: decides the exit code and the metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// What was asked for is not valid.
    Invalid,
    /// It is valid and refused for the admin's own sake.
    Refused,
    /// The kernel, the system or missing privileges.
    Failed,
    /// A mistake of this program.
    Internal,
}

impl AgentError {
    /// What class of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Policy(_)
            | Self::Registry(_)
            | Self::Unfit(_)
            | Self::Question(_)
            | Self::Wanted { .. } => Kind::Invalid,
            Self::Compile(CompileError::NoSlot { .. }) | Self::Internal(_) => Kind::Internal,
            Self::Compile(
                CompileError::TooManyRules { .. }
                | CompileError::TooManyWatchedSets { .. }
                | CompileError::TooManyClasses { .. }
                | CompileError::TooManyRanges { .. }
                | CompileError::TooManyLimits { .. }
                | CompileError::NestedWildcards { .. }
                | CompileError::LimitTooSlow { .. },
            ) => Kind::Invalid,
            Self::WouldCut(_)
            | Self::OnTrial { .. }
            | Self::NoTrial
            | Self::AnotherTrial { .. }
            | Self::TooLate { .. }
            | Self::TakenBack { .. }
            | Self::NotKept { .. }
            | Self::NothingKept
            | Self::Detached
            | Self::OtherPins { .. }
            | Self::TooManyFollowers(_) => Kind::Refused,
            Self::Datapath(error) => match error.kind() {
                ErrorKind::Internal => Kind::Internal,
                ErrorKind::Permission
                | ErrorKind::Kernel
                | ErrorKind::Foreign
                | ErrorKind::Shape
                | ErrorKind::Full
                | ErrorKind::Interface => Kind::Failed,
            },
            Self::CannotTry { .. } | Self::Lock(_) | Self::File { .. } | Self::Netlink { .. } => Kind::Failed,
        }
    }

    /// What to do, where the message does not say it.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Policy(_)
            | Self::Registry(_)
            | Self::Compile(_)
            | Self::Unfit(_)
            | Self::Question(_)
            | Self::Datapath(_) => None,
            Self::WouldCut(cut) => Some(cut.help().into()),
            Self::OnTrial { .. } => Some(
                "end the trial first, with `mpesa-fw confirm` or `mpesa-fw rollback`, or put this on trial too (--confirm-within)"
                    .into(),
            ),
            Self::CannotTry { .. } => {
                Some("look at the state directory (is the disk full?), or reload without --confirm-within".into())
            }
            Self::NoTrial | Self::AnotherTrial { .. } | Self::TooLate { .. } => {
                Some("`mpesa-fw status` shows what is in force".into())
            }
            Self::TakenBack { .. } => {
                Some("change the file, put it on trial again (--confirm-within), or use --force".into())
            }
            Self::NotKept { .. } => Some("`mpesa-fw rollback --list` shows those that are kept".into()),
            Self::NothingKept => Some("reload the file that you want: `mpesa-fw reload FILE`".into()),
            Self::Lock(LockError::Held { .. }) => Some(
                "stop that agent (`systemctl stop mpesa-fw`), or give this one its own --runtime-dir and --bpffs".into(),
            ),
            Self::Lock(LockError::Io { .. }) | Self::File { .. } => {
                Some("run as root, and check that the directory exists and is writable".into())
            }
            Self::Netlink { .. } => Some("the agent needs CAP_NET_ADMIN in its network namespace: run it as root".into()),
            Self::Detached => Some("start it again: `systemctl start mpesa-fw`".into()),
            Self::OtherPins { .. } => Some("give the --runtime-dir of the agent that has them".into()),
            Self::Wanted { known, .. } => Some(format!("possible: {known}")),
            Self::TooManyFollowers(_) => Some("end one of them, or ask without --follow".into()),
            Self::Internal(_) => Some(DEFECT.into()),
        }
    }

    /// For `map_err` on an operation with a path.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// For `map_err` on a question over netlink.
    pub fn netlink<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |why| Self::Netlink { doing, why: why.to_string() }
    }
}
