//! What a policy would cut, in words.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

use mpesa_fw_common::{Direction, DropReason};

use super::callers::{LATELY, LostCaller};

/// A connection that would be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// `tcp`, `udp` or a number.
    pub protocol: String,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Who opened it: [`Ingress`](Direction::Ingress) for the other end.
    pub opened: Direction,
    /// Whether its packets would be dropped on the way in or on the way out.
    pub direction: Direction,
    /// Why.
    pub reason: DropReason,
}

/// What a policy would cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WouldCut {
    /// The caller's own SSH connection.
    pub own: Option<Cut>,
    /// Others that pass now.
    pub others: Vec<Cut>,
    /// Callers of the last minutes that would be kept out.
    pub callers: Vec<LostCaller>,
}

/// Of each kind, what a refusal shows one by one.
const SHOWN: usize = 20;

impl std::error::Error for WouldCut {}

impl WouldCut {
    /// What to do.
    pub(super) const fn help(&self) -> &'static str {
        if self.own.is_some() {
            "allow that address in a service for the port, or use --force if you have another way in: your session ends at once"
        } else {
            "allow them, or use --force if they are to be cut (a first start: `mpesa-fw run --force`)"
        }
    }
}

impl fmt::Display for WouldCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Cut { local, remote, direction, reason, .. }) = &self.own {
            write!(
                f,
                "refused: this policy would cut your own SSH connection from {} to {} port {} ({}: {})",
                remote.ip(),
                local.ip(),
                local.port(),
                direction.label(),
                reason.label()
            )?;
        }
        let mut begin = if self.own.is_some() { "\nand" } else { "refused: this policy would cut" };
        if !self.others.is_empty() {
            write!(f, "{begin} {} connection(s) that are open now:", self.others.len())?;
            list(f, &self.others)?;
            begin = "\nand";
        }
        if !self.callers.is_empty() {
            let minutes = LATELY.as_secs() / 60;
            write!(f, "{begin} {} caller(s) of the last {minutes} minutes:", self.callers.len())?;
            list(f, &self.callers)?;
        }
        Ok(())
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, what: &[T]) -> fmt::Result {
    for one in what.iter().take(SHOWN) {
        write!(f, "\n  {one}")?;
    }
    if what.len() > SHOWN {
        write!(f, "\n  and {} more", what.len() - SHOWN)?;
    }
    Ok(())
}

impl fmt::Display for LostCaller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, source, connections, direction, reason } = self;
        write!(
            f,
            "{source}, who called {service} {connections} time(s) ({}: {})",
            direction.label(),
            reason.label()
        )
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, local, remote, opened, direction, reason } = self;
        let mut ends = String::new();
        match opened {
            Direction::Ingress => write!(ends, "{protocol} from {remote} to {local}")?,
            Direction::Egress => write!(ends, "{protocol} from {local} to {remote}")?,
        }
        write!(f, "{ends} ({}: {})", direction.label(), reason.label())
    }
}
