//! Upkeep of the flow table: what is over goes, what has a socket stays, what is no longer permitted goes at once.

use std::{
    collections::{BTreeSet, HashSet},
    net::IpAddr,
};

use mpesa_fw_common::{
    Mode,
    packet::protocol::TCP,
    state::{FlowKey, FlowState},
};

use super::{clock, error::AgentError, flow_owners::FlowOwners, judge::Judge, sockets::Sockets};
use crate::datapath::Datapath;

/// A TCP flow that has been idle for this long, nanoseconds, is asked for its socket.
const IDLE: u64 = 60_000_000_000;

/// What upkeep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upkeep {
    /// Peers of live flows.
    pub remotes: BTreeSet<IpAddr>,
    /// Flows that were over.
    pub expired: usize,
}

/// Removes expired flows and keeps those fresh whose socket still exists.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn upkeep(datapath: &Datapath) -> Result<Upkeep, AgentError> {
    let now = clock::monotonic();
    let flows = datapath.flows()?;
    let idle =
        |key: &FlowKey, state: &FlowState| key.protocol == TCP && now.saturating_sub(state.last_seen) > IDLE;
    let with_socket: HashSet<FlowKey> = if flows.iter().any(|(key, state)| idle(key, state)) {
        let sockets = Sockets::dump().map_err(AgentError::netlink("list the sockets of this host"))?;
        sockets.connected.iter().map(|c| c.key).collect()
    } else {
        HashSet::new()
    };
    let mut found = Upkeep::default();
    for (key, state) in flows {
        if idle(&key, &state) && with_socket.contains(&key) {
            datapath.update_flow(&key, &FlowState { last_seen: now, ..state })?;
        } else if state.is_expired(key.protocol, now) {
            datapath.remove_flow(&key)?;
            found.expired += 1;
            continue;
        }
        found.remotes.insert(key.remote.into());
    }
    datapath.keep_learnt(&found.remotes)?;
    Ok(found)
}

/// Keeps the names that flows were allowed by: they are asked again when the policy changes.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn keep_names(datapath: &Datapath) -> Result<(), AgentError> {
    let remotes = datapath.flows()?.iter().map(|(key, _)| key.remote.into()).collect();
    Ok(datapath.keep_learnt(&remotes)?)
}

/// Removes the flows that a new generation does not permit. Returns how many those were. In observe mode none is
/// removed: the kernel marks them as they pass. Whose a flow is counts as far as its socket is there to tell.
///
/// # Errors
/// The kernel does not answer.
pub(super) fn judge_again(datapath: &Datapath, judge: &Judge<'_>, mode: Mode) -> Result<usize, AgentError> {
    match mode {
        Mode::Observe => return Ok(0),
        Mode::Enforce => {}
    }
    // Before sockets are looked at: what has a flow now and no socket then is over, not forwarded.
    let flows = datapath.flows()?;
    let sockets = if judge.has_owners() {
        Sockets::dump().map_err(AgentError::netlink("list the sockets of this host"))?
    } else {
        Sockets::default()
    };
    let owners = FlowOwners::new(judge, &sockets);
    let mut removed = 0;
    for (key, flow) in flows {
        if judge.flow_of(&key, owners.of(&key, &flow).as_ref()).is_err() && datapath.remove_flow(&key)? {
            removed += 1;
        }
    }
    Ok(removed)
}
