//! How a command fails: the one place that knows exit codes.

use std::{io, process::ExitCode};

use crate::{
    agent::{AgentError, DEFECT, Kind},
    control::{ClientError, ListenerError, Refusal},
    datapath::DatapathError,
};

/// The answer is no.
const NO: u8 = 1;
/// The command line can't be understood.
pub(super) const USAGE: u8 = 2;
/// No agent answers.
const UNREACHABLE: u8 = 3;
/// The kernel or missing permissions.
const KERNEL: u8 = 4;
/// A defect of this program (`EX_SOFTWARE`).
const INTERNAL: u8 = 70;

/// Why a command ends without success.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    /// None: what there is to say was said on stdout.
    message: Option<String>,
    help: Option<String>,
}

impl Failure {
    /// The answer is no, and was printed.
    pub(super) const fn said() -> Self {
        Self { code: NO, message: None, help: None }
    }

    /// The answer is no, for this reason.
    pub(super) fn no(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: NO, message: Some(message.into()), help: Some(help.into()) }
    }

    /// The command line makes no sense.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: Some(message.into()), help: Some("see `mpesa-fw --help`".into()) }
    }

    /// No agent answers any more.
    pub(super) fn unreachable(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, message: Some(message.into()), help: Some(help.into()) }
    }

    /// The system is in the way.
    pub(super) fn system(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: KERNEL, message: Some(message.into()), help: Some(help.into()) }
    }

    /// A defect.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { code: INTERNAL, message: Some(message.into()), help: Some(DEFECT.into()) }
    }

    /// The agent answered another question than it was asked.
    pub(super) fn another_answer() -> Self {
        Self::internal("the agent answered another question")
    }

    /// Says it on stderr, and how the process ends.
    pub(super) fn report(self) -> ExitCode {
        use io::Write as _;
        let mut stderr = io::stderr().lock();
        // Where stderr is closed too, the exit code has to do.
        if let Some(message) = self.message {
            let prefix = if message.starts_with("error") { "" } else { "error: " };
            let _ = writeln!(stderr, "{prefix}{message}");
        }
        if let Some(help) = self.help {
            let _ = writeln!(stderr, "  help: {help}");
        }
        self.code.into()
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { kind, message, help }: Refusal) -> Self {
        let code = match kind {
            Kind::Invalid | Kind::Refused => NO,
            Kind::Failed => KERNEL,
            Kind::Internal => INTERNAL,
        };
        Self { code, message: Some(message), help }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        let (code, help) = match error {
            ClientError::Refused(refusal) => return refusal.into(),
            ClientError::NotThere(_) => (
                UNREACHABLE,
                "is it running (`systemctl status mpesa-fw`)? Does it have another --runtime-dir? What it put in the \
                 kernel stays in force without it",
            ),
            ClientError::Broken { .. } => (UNREACHABLE, "see its log: `journalctl -u mpesa-fw`"),
            ClientError::Forbidden { .. } => (KERNEL, "run this as root"),
        };
        Self { code, message: Some(message), help: Some(help.into()) }
    }
}

impl From<ListenerError> for Failure {
    fn from(error: ListenerError) -> Self {
        let help = match &error {
            ListenerError::Taken(_) => "stop that agent, or give this one its own --runtime-dir and --bpffs",
            ListenerError::Io { .. } => "run as root, and check that the runtime directory is writable",
        };
        Self::system(error.to_string(), help)
    }
}

impl From<DatapathError> for Failure {
    fn from(error: DatapathError) -> Self {
        AgentError::from(error).into()
    }
}

/// Writing to stdout. A reader that has gone (`| head`) has seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 0, message: None, help: None };
        }
        Self::system(format!("cannot write to stdout: {error}"), "is the disk full?")
    }
}
