//! Completed connections: a program at the root of the cgroups counts them. Where there is none, packets are judged all the same.

use std::{io, net::IpAddr};

use mpesa_fw_common::{counter::counter_index, settings::Direction};

use super::{
    Datapath, Result,
    cgroup::CgroupProgram,
    counters::{direction_of, in_use},
    error::Context,
    registry::name_of,
    slots,
    state::State,
};
use crate::compile::RegistryRows;

/// What is known of the handshakes of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshakes {
    /// Name of the service.
    pub service: String,
    /// SYNs without ACK that it let pass, retransmissions included.
    pub syns: u64,
    /// Connections whose handshake was finished.
    pub completed: u64,
    /// Monotonic clock of the last of these, nanoseconds; 0: never.
    pub last: u64,
}

/// Somebody who finished a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the service.
    pub service: String,
    /// The peer.
    pub source: IpAddr,
    /// How often, since it was last forgotten for want of room.
    pub connections: u64,
    /// Monotonic clock of the last time, nanoseconds, coarse.
    pub last_seen: u64,
}

impl Datapath {
    /// SYNs and completed connections of every service, sums over all interfaces. None: completed connections are not counted
    /// (no cgroup v2, or somebody detached the program).
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn handshakes(&self) -> Result<Option<Vec<Handshakes>>> {
        if CgroupProgram::Connections.attached(&self.pins).is_none() {
            return Ok(None);
        }
        handshakes(&self.state, &self.registry).map(Some)
    }

    /// Who finished handshakes with services lately: the last few thousand callers that services list, and as many of services
    /// that are open to any.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn recent_callers(&self) -> Result<Vec<Caller>> {
        callers(&self.state, &self.registry)
    }
}

/// The handshakes of every service that has or had a row.
pub(super) fn handshakes(state: &State, registry: &RegistryRows) -> Result<Vec<Handshakes>> {
    let places = slots::taken(state)?;
    let services = in_use(&registry.rules).filter(|(_, slot)| direction_of(slot) == Direction::Ingress);
    let one = |(row, service): (u32, String)| -> io::Result<Handshakes> {
        let count = state.connections.get(&row)?.unwrap_or_default();
        let mut syns = 0;
        for place in &places {
            let blocks = state.counters.per_cpu(&counter_index(place.number, row))?;
            syns += blocks.iter().map(|block| block.passed_syns).sum::<u64>();
        }
        Ok(Handshakes { service, syns, completed: count.completed, last: count.last })
    };
    services
        .map(|(row, slot)| one((row, name_of(&slot.name))))
        .collect::<io::Result<_>>()
        .context(|| "read the counts of connections")
}

/// Everybody who is known to have finished a handshake with a service of the registry.
pub(super) fn callers(state: &State, registry: &RegistryRows) -> Result<Vec<Caller>> {
    let mut callers = Vec::new();
    for map in [&state.callers, &state.strangers] {
        map.for_each(|key, count| {
            let slot = registry.rules.get(key.slot as usize).filter(|slot| slot.status != 0);
            callers.extend(slot.map(|slot| Caller {
                service: name_of(&slot.name),
                source: key.source.into(),
                connections: count.completed,
                last_seen: count.last,
            }));
        })
        .context(|| "read who called")?;
    }
    Ok(callers)
}

/// Forgets what is kept under rows that are about to have a new owner.
pub(super) fn forget(state: &State, rows: &[u32]) -> io::Result<()> {
    for row in rows {
        state.connections.put(row, &Default::default())?;
    }
    if rows.is_empty() {
        return Ok(());
    }
    for map in [&state.callers, &state.strangers] {
        let mut gone = Vec::new();
        map.for_each(|key, _| gone.extend(rows.contains(&key.slot).then_some(*key)))?;
        for key in gone {
            map.remove(&key)?;
        }
    }
    Ok(())
}
