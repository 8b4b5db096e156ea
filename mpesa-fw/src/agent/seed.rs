//! Connections that this host had open before the firewall attached keep their replies.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use mpesa_fw_common::{
    DropReason, Mode,
    state::{FlowKey, FlowState},
    tables::RuleIndex,
};
use serde::{Deserialize, Serialize};

use super::{clock, error::AgentError, judge::Judge, sockets::Sockets};
use crate::datapath::Datapath;

/// Listed at most; the rest is only counted.
const LISTED: usize = 64;

/// What became of the connections that were open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seeded {
    /// Recorded as flows.
    pub seeded: usize,
    /// Not permitted by egress: their replies are dropped (in observe mode counted).
    pub denied: Vec<Denied>,
    /// Of those, how many there were.
    pub denied_total: usize,
}

/// A connection of this host that the policy does not permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denied {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Why.
    pub reason: String,
}

impl Denied {
    fn new(key: &FlowKey, reason: DropReason) -> Self {
        Self {
            protocol: protocol(key.protocol),
            local: SocketAddr::new(key.local.into(), key.local_port),
            remote: SocketAddr::new(key.remote.into(), key.remote_port),
            reason: reason.label().to_owned(),
        }
    }
}

/// Records the flows of the sockets that exist, as far as egress permits them. Flows that are known stay as they are.
///
/// # Errors
/// The kernel does not list its sockets, or refuses a flow.
pub(super) fn seed(
    datapath: &Datapath,
    judge: &Judge<'_>,
    mode: Mode,
    generation: u32,
    own: &HashSet<IpAddr>,
) -> Result<Seeded, AgentError> {
    let sockets = Sockets::dump().map_err(AgentError::netlink("list the sockets of this host"))?;
    let known: HashSet<FlowKey> = datapath.flows()?.into_iter().map(|(key, _)| key).collect();
    let mut seeded = Seeded::default();
    for connected in sockets.outgoing() {
        let key = connected.key;
        // Packets to an address of this host go over loopback, which is never touched.
        if known.contains(&key) || own.contains(&IpAddr::from(key.remote)) {
            continue;
        }
        let (rule, would_drop) = match (judge.flow(&key), mode) {
            (Ok(rule), _) => (rule, 0),
            (Err(reason), Mode::Observe) => {
                seeded.deny(&key, reason);
                (RuleIndex::NONE, reason as u8 + 1)
            }
            (Err(reason), Mode::Enforce) => {
                seeded.deny(&key, reason);
                continue;
            }
        };
        let state = FlowState {
            last_seen: clock::monotonic(),
            cookie: 0,
            generation,
            phase: connected.phase as u8,
            rule: rule.raw(),
            would_drop,
            reserved: 0,
        };
        datapath.put_flow(&key, &state)?;
        seeded.seeded += 1;
    }
    Ok(seeded)
}

impl Seeded {
    fn deny(&mut self, key: &FlowKey, reason: DropReason) {
        self.denied_total += 1;
        if self.denied.len() < LISTED {
            self.denied.push(Denied::new(key, reason));
        }
    }

    /// Leaves out what was said before.
    pub(super) fn without(mut self, known: &[Denied]) -> Self {
        self.denied.retain(|denied| !known.contains(denied));
        self.denied_total = self.denied.len();
        self
    }

    /// Says it in the log.
    pub(super) fn log(&self, mode: Mode) {
        if self.seeded > 0 {
            tracing::info!(
                connections = self.seeded,
                "connections that were open are known: their replies pass"
            );
        }
        let consequence = match mode {
            Mode::Enforce => {
                "an open connection is not permitted by egress: its packets are dropped from now on"
            }
            Mode::Observe => {
                "an open connection is not permitted by egress: it would be dropped in enforce mode"
            }
        };
        for Denied { protocol, local, remote, reason } in &self.denied {
            tracing::warn!(%protocol, %local, %remote, %reason, "{consequence}");
        }
        if self.denied_total > self.denied.len() {
            tracing::warn!(more = self.denied_total - self.denied.len(), "{consequence}");
        }
    }
}

/// The name of a protocol, or its number.
#[must_use]
pub(super) fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}
