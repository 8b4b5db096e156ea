//! Revocation: a connection that the policy in force does not permit ends, whether or not anything is sent on it.
//!
//! Packets of such a connection are dropped already. Without more, its program waits for an answer as long as it likes, and
//! goes on if another policy lets packets pass again.

use std::{
    collections::{BTreeSet, HashSet},
    io,
};

use mpesa_fw_common::{
    Direction, DropReason, Mode,
    packet::protocol::{TCP, UDP},
    state::{FlowKey, FlowPhase},
};
use nix::errno::Errno;

use super::{
    cuts::as_call,
    destroy::{Destroyer, Fate},
    ended::{Ended, EndedList},
    error::AgentError,
    exits::{Exits, Side},
    guard::{inbound, inbound_udp, passes_a_hook},
    judge::Judge,
    sockets::{Connected, Sockets},
    view::View,
};
use crate::datapath::Datapath;

/// A policy that has come into force, and where.
pub(super) struct Revocation<'a> {
    /// Its decision.
    pub judge: &'a Judge<'a>,
    /// Whether it drops.
    pub mode: Mode,
    /// The interfaces of this host.
    pub view: &'a View,
    /// Those that it protects.
    pub protected: &'a BTreeSet<u32>,
    /// Whether every name of the policy has an address. What waits for an answer of DNS is not ended.
    pub names_are_known: bool,
}

/// Who opened a connection, and why it is not permitted.
type Denial = (Direction, (Direction, DropReason));

impl Revocation<'_> {
    /// Ends the sockets of this network namespace whose packets are dropped now. Flows have been judged again. Says which,
    /// and what is to be noted.
    ///
    /// # Errors
    /// The kernel does not list sockets or flows.
    pub(super) fn carry_out(&self, datapath: &Datapath) -> Result<(EndedList, Option<String>), AgentError> {
        match self.mode {
            Mode::Observe => return Ok((EndedList::default(), None)),
            Mode::Enforce => {}
        }
        // Sockets before flows: what got a flow meanwhile was judged by the policy in force, and passes.
        let sockets = Sockets::dump().map_err(AgentError::netlink("list the sockets of this host"))?;
        let flows: HashSet<FlowKey> = datapath.flows()?.into_iter().map(|(key, _)| key).collect();
        let mut exits = Exits::open(self.view, self.protected)
            .map_err(AgentError::netlink("ask for the routes of connections"))?;
        let denied: Vec<(&Connected, Denial)> = sockets
            .connected
            .iter()
            .filter(|connected| !flows.contains(&connected.key))
            .filter_map(|connected| Some((connected, self.denial(&sockets, connected)?)))
            .filter(|(connected, _)| self.is_judged(&mut exits, connected))
            .collect();
        Ok(end(&denied))
    }

    /// None: its packets pass, or there is no connection (yet).
    fn denial(&self, sockets: &Sockets, connected: &Connected) -> Option<Denial> {
        let key = &connected.key;
        let call = as_call(key);
        let servers = sockets.servers(call.server, call.server_port);
        let as_service = match (key.protocol, connected.phase) {
            (TCP, FlowPhase::Answered | FlowPhase::Closing) => inbound(self.judge, call, &servers).err()?,
            // It waits for its first answer like any other that egress denies: no connection yet.
            (TCP, FlowPhase::Opened) => return None,
            (UDP, _) => inbound_udp(self.judge, call, &connected.holder).err()?,
            _ => return None,
        };
        let serves = sockets.serve(key);
        // Without a flow no packet in the middle of a TCP connection passes egress but as a service's; of others each may
        // open one.
        if serves && key.protocol == TCP {
            return Some((Direction::Ingress, as_service));
        }
        let as_flow = self.judge.flow_of(key, self.judge.owner(&connected.holder).as_ref()).err()?;
        if as_flow == DropReason::NameNotAllowed && !self.names_are_known {
            return None;
        }
        Some(if serves {
            (Direction::Ingress, as_service)
        } else {
            (Direction::Egress, (Direction::Egress, as_flow))
        })
    }

    /// Whether its packets pass a hook: by its address, as the guard says, and by its way. What comes from a container to the
    /// address of a protected interface does not pass that interface.
    fn is_judged(&self, exits: &mut Exits<'_>, connected: &Connected) -> bool {
        let call = as_call(&connected.key);
        if !passes_a_hook(call, self.view, |index| self.protected.contains(&index)) {
            return false;
        }
        let side = match connected.interface {
            0 => exits.side_from(call.server, call.client),
            index => exits.side_of(index),
        };
        match side {
            // Without a route the address alone counts.
            Side::Outside | Side::Unknown => true,
            Side::Inside | Side::Here => false,
        }
    }
}

fn end(denied: &[(&Connected, Denial)]) -> (EndedList, Option<String>) {
    let mut list = EndedList::default();
    let mut failures = Failures::default();
    if denied.is_empty() {
        return (list, None);
    }
    let mut destroyer = match Destroyer::open() {
        Ok(destroyer) => destroyer,
        Err(error) => return (list, Some(Failures { count: denied.len(), first: Some(error) }.note())),
    };
    for (connected, (opened, why)) in denied {
        match destroyer.end(connected) {
            Ok(Fate::Ended) => list.add(Ended::new(&connected.key, *opened, *why)),
            Ok(Fate::Gone) => {}
            Err(error) => failures.add(error),
        }
    }
    (list, failures.first.is_some().then(|| failures.note()))
}

/// What the kernel refused: likely all for one reason, which is said once.
#[derive(Default)]
struct Failures {
    count: usize,
    first: Option<io::Error>,
}

impl Failures {
    fn add(&mut self, error: io::Error) {
        self.count += 1;
        self.first.get_or_insert(error);
    }

    fn note(&self) -> String {
        let why = match &self.first {
            Some(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                "this kernel was built without CONFIG_INET_DIAG_DESTROY".to_owned()
            }
            Some(error) => error.to_string(),
            None => "the kernel does not say why".to_owned(),
        };
        format!(
            "{} connection(s) that are no longer permitted could not be ended and hang, their packets are dropped all the same (but for those that somebody accepted who may not any \
             more): {why}",
            self.count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_can_not_is_said_once() {
        let mut failures = Failures::default();
        for _ in 0..3 {
            failures.add(Errno::EOPNOTSUPP.into());
        }
        let note = failures.note();
        assert!(note.starts_with("3 connection(s)") && note.contains("CONFIG_INET_DIAG_DESTROY"), "{note}");
    }
}
