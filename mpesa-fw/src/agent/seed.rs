//! Connections that this host had open before the firewall attached keep their replies.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use mpesa_fw_common::{
    DropReason, Mode,
    state::{FlowKey, FlowPhase, FlowState},
    tables::RuleIndex,
};
use serde::{Deserialize, Serialize};

use super::{
    clock,
    error::AgentError,
    guests::{self, Whereabouts},
    judge::Judge,
    sockets::Sockets,
};
use crate::datapath::Datapath;

/// Listed at most; the rest is only counted.
const LISTED: usize = 64;
/// The share of the flow table that guests' connections may fill, together with what is in it: the rest stays free for
/// what begins anew, which would otherwise displace connections of this host.
const GUESTS_SHARE: usize = 2;

/// What became of the connections that were open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seeded {
    /// Recorded as flows.
    pub seeded: usize,
    /// Of those, how many guests had opened.
    pub guests: usize,
    /// Of guests, permitted, and more than may be recorded.
    pub left_out: usize,
    /// Tracked connections that were not looked at in time.
    pub unread: usize,
    /// Why the connections of guests are not known.
    pub untold: Option<String>,
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
    /// The guest that opened it through this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<IpAddr>,
    /// The other end.
    pub remote: SocketAddr,
    /// Why.
    pub reason: String,
}

impl Denied {
    fn new(key: &FlowKey, guest: Option<IpAddr>, reason: DropReason) -> Self {
        Self {
            protocol: protocol(key.protocol),
            local: SocketAddr::new(key.local.into(), key.local_port),
            guest,
            remote: SocketAddr::new(key.remote.into(), key.remote_port),
            reason: reason.label().to_owned(),
        }
    }
}

/// What seeding goes by.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub datapath: &'a Datapath,
    pub judge: &'a Judge<'a>,
    pub mode: Mode,
    pub generation: u32,
    /// Addresses of this host.
    pub own: &'a HashSet<IpAddr>,
}

impl Ground<'_> {
    /// Records the flows of the sockets that exist, as far as egress permits them. Flows that are known stay as they are.
    ///
    /// # Errors
    /// The kernel does not list its sockets, or refuses a flow.
    pub(super) fn seed_sockets(self) -> Result<Seeded, AgentError> {
        let mut sower = Sower::new(self)?;
        sower.sockets()?;
        Ok(sower.seeded)
    }

    /// Likewise, and the flows of connections that guests behind this host have opened, as far as the kernel tracks them.
    /// That it does not tell is no error.
    ///
    /// # Errors
    /// The kernel does not list its sockets, or refuses a flow.
    pub(super) fn seed(self, whereabouts: Whereabouts<'_>) -> Result<Seeded, AgentError> {
        let mut sower = Sower::new(self)?;
        let sockets = sower.sockets()?;
        sower.guests(whereabouts, &sockets)?;
        Ok(sower.seeded)
    }
}

struct Sower<'a> {
    ground: Ground<'a>,
    known: HashSet<FlowKey>,
    seeded: Seeded,
}

impl<'a> Sower<'a> {
    fn new(ground: Ground<'a>) -> Result<Self, AgentError> {
        let known = ground.datapath.flows()?.into_iter().map(|(key, _)| key).collect();
        Ok(Self { ground, known, seeded: Seeded::default() })
    }

    fn sockets(&mut self) -> Result<Sockets, AgentError> {
        let sockets = Sockets::dump().map_err(AgentError::netlink("list the sockets of this host"))?;
        for connected in sockets.outgoing() {
            let key = connected.key;
            // Packets to an address of this host go over loopback, which is never touched.
            if self.known.contains(&key) || self.ground.own.contains(&IpAddr::from(key.remote)) {
                continue;
            }
            if let Some(state) = self.judge(&key, connected.phase, None) {
                self.record(&key, &state)?;
            }
        }
        Ok(sockets)
    }

    fn guests(&mut self, whereabouts: Whereabouts<'_>, sockets: &Sockets) -> Result<(), AgentError> {
        let share = self.ground.datapath.flows_capacity() as usize / GUESTS_SHARE;
        let room = share.saturating_sub(self.known.len());
        let mut result = Ok(());
        let unread = guests::read(
            whereabouts,
            |key| sockets.serve(key),
            |tracked| {
                if result.is_err() || self.known.contains(&tracked.key) {
                    return;
                }
                let Some(state) = self.judge(&tracked.key, tracked.phase, Some(tracked.opener)) else {
                    return;
                };
                if self.seeded.seeded >= room {
                    self.seeded.left_out += 1;
                    return;
                }
                match self.record(&tracked.key, &state) {
                    Ok(is_new) => self.seeded.guests += usize::from(is_new),
                    Err(error) => result = Err(error),
                }
            },
        );
        match unread {
            Ok(unread) => self.seeded.unread = unread,
            Err(error) => self.seeded.untold = Some(error.to_string()),
        }
        result
    }

    /// The flow that a connection gets, if it gets one. Whose it is asks whoever judges it next: a reload, or its first packet.
    fn judge(&mut self, key: &FlowKey, phase: FlowPhase, guest: Option<IpAddr>) -> Option<FlowState> {
        let (rule, would_drop) = match (self.ground.judge.flow(key), self.ground.mode) {
            (Ok(rule), _) => (rule, 0),
            (Err(reason), Mode::Observe) => {
                self.seeded.deny(key, guest, reason);
                (RuleIndex::NONE, reason as u8 + 1)
            }
            (Err(reason), Mode::Enforce) => {
                self.seeded.deny(key, guest, reason);
                return None;
            }
        };
        Some(FlowState {
            last_seen: clock::monotonic(),
            cookie: 0,
            generation: self.ground.generation,
            phase: phase as u8,
            rule: rule.raw(),
            would_drop,
            reserved: 0,
        })
    }

    /// False: egress has opened it meanwhile, and knows better.
    fn record(&mut self, key: &FlowKey, state: &FlowState) -> Result<bool, AgentError> {
        let is_new = self.ground.datapath.add_flow(key, state)?;
        self.seeded.seeded += usize::from(is_new);
        Ok(is_new)
    }
}

impl Seeded {
    fn deny(&mut self, key: &FlowKey, guest: Option<IpAddr>, reason: DropReason) {
        self.denied_total += 1;
        if self.denied.len() < LISTED {
            self.denied.push(Denied::new(key, guest, reason));
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
                of_guests = self.guests,
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
        for Denied { protocol, local, guest, remote, reason } in &self.denied {
            let guest = guest.map(tracing::field::display);
            tracing::warn!(%protocol, %local, guest, %remote, %reason, "{consequence}");
        }
        if self.denied_total > self.denied.len() {
            tracing::warn!(more = self.denied_total - self.denied.len(), "{consequence}");
        }
        let consequence = "they lose their replies until the guest sends again";
        if self.left_out > 0 {
            tracing::warn!(
                connections = self.left_out,
                "guests have more connections open than half the flow table holds (--flows-capacity): {consequence}"
            );
        }
        if self.unread > 0 {
            tracing::warn!(
                connections = self.unread,
                "conntrack was not read to its end in time: if they are of guests, {consequence}"
            );
        }
        if let Some(error) = &self.untold {
            tracing::warn!(
                %error,
                "conntrack can't be read (does the kernel have nf_conntrack_netlink?): if connections of guests are open, {consequence}"
            );
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
