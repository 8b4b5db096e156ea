//! Connections that were ended, because the policy that came into force does not permit them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use mpesa_fw_common::{Direction, DropReason, state::FlowKey};
use serde::{Deserialize, Serialize};

use super::seed::protocol;

/// Listed at most; the rest is only counted.
const LISTED: usize = 64;

/// A connection that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Who opened it, as far as can be told: `ingress` for the other end, `egress` for this host.
    pub opened: String,
    /// Whether its packets are dropped on the way in or on the way out.
    pub direction: String,
    /// Why.
    pub reason: String,
}

impl Ended {
    /// From what the decision says.
    pub(super) fn new(
        key: &FlowKey,
        opened: Direction,
        (direction, reason): (Direction, DropReason),
    ) -> Self {
        Self {
            protocol: protocol(key.protocol),
            local: SocketAddr::new(IpAddr::from(key.local), key.local_port),
            remote: SocketAddr::new(IpAddr::from(key.remote), key.remote_port),
            opened: opened.label().to_owned(),
            direction: direction.label().to_owned(),
            reason: reason.label().to_owned(),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, local, remote, opened, direction, reason } = self;
        let (from, to) = if opened == Direction::Ingress.label() { (remote, local) } else { (local, remote) };
        write!(f, "{protocol} from {from} to {to} ({direction}: {reason})")
    }
}

/// The first of them, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EndedList {
    /// One by one.
    pub listed: Vec<Ended>,
    /// All of them.
    pub total: usize,
}

impl EndedList {
    /// One more.
    pub(super) fn add(&mut self, ended: Ended) {
        self.total += 1;
        if self.listed.len() < LISTED {
            self.listed.push(ended);
        }
    }

    /// Says it in the log.
    pub(super) fn log(&self) {
        const WHAT: &str = "an open connection is no longer permitted: its socket was ended";
        for Ended { protocol, local, remote, opened, direction, reason } in &self.listed {
            tracing::warn!(%protocol, %local, %remote, %opened, %direction, %reason, "{WHAT}");
        }
        if self.total > self.listed.len() {
            tracing::warn!(more = self.total - self.listed.len(), "{WHAT}");
        }
    }
}

#[cfg(test)]
mod tests {
    use mpesa_fw_common::{Address, Family, packet::protocol::TCP};

    use super::*;

    #[test]
    fn of_many_the_first_are_listed_and_all_are_counted() {
        let key = |port| {
            let (local, remote) = (Address::v4(0x0a00_0001), Address::v4(0xc633_6442));
            FlowKey::new(Family::V4, TCP, local, 443, remote, port)
        };
        let why = (Direction::Ingress, DropReason::SourceNotAllowed);
        let mut list = EndedList::default();
        for port in 0..100 {
            list.add(Ended::new(&key(port), Direction::Ingress, why));
        }
        assert_eq!((list.listed.len(), list.total), (LISTED, 100));
        let line = "tcp from 198.51.100.66:7 to 10.0.0.1:443 (ingress: source_not_allowed)";
        assert_eq!(list.listed[7].to_string(), line);
        let out = Ended::new(&key(7), Direction::Egress, (Direction::Egress, DropReason::NoDestination));
        assert_eq!(out.to_string(), "tcp from 10.0.0.1:443 to 198.51.100.66:7 (egress: no_destination)");
    }
}
