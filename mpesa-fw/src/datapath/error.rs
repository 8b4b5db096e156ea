//! What can go wrong between the agent and the kernel, and what to do then.

/// A failure of the datapath. Each says what was tried, on what, why it failed and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}\n  help: {help}")]
pub struct DatapathError {
    kind: ErrorKind,
    what: String,
    why: String,
    help: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What class of failure it is; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Not enough privileges.
    Permission,
    /// The kernel lacks something or refused.
    Kernel,
    /// Another program owns the hook and the choice of hooks allows no other.
    Foreign,
    /// What is pinned was made by another version or with other options.
    Shape,
    /// A table of fixed size is full.
    Full,
    /// The interface is not there.
    Interface,
    /// A mistake of this program.
    Internal,
}

impl DatapathError {
    /// A failure with all that is to be said of it.
    pub(crate) fn new(
        kind: ErrorKind,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self { kind, what: what.into(), why: why.into(), help: help.into(), source: None }
    }

    /// What class of failure it is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the kernel or missing privileges are the reason (exit code 4), not a mistake of this program (70).
    #[must_use]
    pub const fn is_kernel_or_permission(&self) -> bool {
        !matches!(self.kind, ErrorKind::Internal)
    }
}
