//! Callers of the last minutes that a policy would keep out: callbacks are short, and few of them are open when somebody
//! reloads.

use std::{net::IpAddr, time::Duration};

use mpesa_fw_common::{Direction, DropReason, packet::protocol::TCP};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Agent, Running, SshConnection, clock,
    cuts::Open,
    guard::{inbound, passes_a_hook},
    interfaces::Choice,
    judge::Judge,
    sockets::Sockets,
    view::View,
};
use crate::{
    datapath::Caller,
    policy::model::{Claim, Service},
};

/// Callers that `status` lists.
const LISTED: usize = 50;

/// Somebody who finished a handshake with a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerStatus {
    /// The service.
    pub service: String,
    /// The peer.
    pub source: IpAddr,
    /// How often, since it was last forgotten for want of room.
    pub connections: u64,
    /// When the last time was.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen: OffsetDateTime,
}

impl Agent {
    /// The last callers, the latest first; none where completed connections are not counted.
    pub async fn last_callers(&self) -> Vec<CallerStatus> {
        let mut callers = self.kernel.with(|datapath| datapath.recent_callers()).await.unwrap_or_default();
        callers.sort_by_key(|caller| std::cmp::Reverse(caller.last_seen));
        callers.truncate(LISTED);
        let one = |caller: Caller| {
            let Caller { service, source, connections, last_seen } = caller;
            CallerStatus { service, source, connections, last_seen: clock::wall(last_seen) }
        };
        callers.into_iter().map(one).collect()
    }
}

/// Whoever called within it counts as a caller.
pub(super) const LATELY: Duration = Duration::from_secs(600);

/// A caller that would be kept out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostCaller {
    /// The service that it used.
    pub service: String,
    /// The peer.
    pub source: IpAddr,
    /// Completed connections, those before the last minutes included.
    pub connections: u64,
    /// Whether its packets would be dropped on the way in or the replies on the way out.
    pub direction: Direction,
    /// Why.
    pub reason: DropReason,
}

/// What judges packets now.
pub(super) struct Present<'a> {
    pub running: &'a Running,
    pub judge: &'a Judge<'a>,
}

/// Those that no port of their service would let in any more, of those that it lets in now. Sources of services that are
/// open to any are strangers.
pub(super) fn lost(
    open: &Open,
    present: &Present<'_>,
    next: &Judge<'_>,
    view: &View,
    choice: &Choice,
) -> Vec<LostCaller> {
    let at = clock::monotonic();
    let is_recent = |caller: &&Caller| at.saturating_sub(caller.last_seen) < LATELY.as_nanos() as u64;
    let one = |caller: &Caller| {
        let mut services = present.running.policy.ingress.services.iter();
        let service = services.find(|service| service.name == caller.service)?;
        // Whoever is kept out already loses nothing.
        let is_out = why_lost(service, caller.source, present.judge, &open.sockets, view, choice).is_some();
        if service.from.any || is_out {
            return None;
        }
        let (direction, reason) = why_lost(service, caller.source, next, &open.sockets, view, choice)?;
        let Caller { service, source, connections, .. } = caller.clone();
        Some(LostCaller { service, source, connections, direction, reason })
    };
    open.callers.iter().filter(is_recent).filter_map(one).collect()
}

/// None where some port of the service, at some address of this host, would still be open to it.
fn why_lost(
    service: &Service,
    source: IpAddr,
    next: &Judge<'_>,
    sockets: &Sockets,
    view: &View,
    choice: &Choice,
) -> Option<(Direction, DropReason)> {
    let own = view.addresses.iter().map(|(_, address)| *address);
    let ports = service.claims.iter().flat_map(|claim| match claim {
        Claim::Tcp(ranges) => ranges.iter().map(|range| *range.start()).collect(),
        Claim::Udp(_) | Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_) => Vec::new(),
    });
    // Where somebody waits it matters who: a port at which nobody does is open to no caller.
    let (served, silent): (Vec<u16>, Vec<u16>) =
        ports.partition(|port| sockets.serving.contains_key(&(TCP, *port)));
    let ports = if served.is_empty() { silent } else { served };
    let mut why = None;
    for server in own.filter(|own| own.is_ipv4() == source.is_ipv4() && !own.is_loopback()) {
        if !service.to.is_empty() && !service.to.iter().any(|net| net.contains(&server)) {
            continue;
        }
        for server_port in ports.iter().copied() {
            let call = SshConnection { client: source, client_port: 50_000, server, server_port };
            if !passes_a_hook(call, view, |index| choice.protect.contains_key(&index)) {
                return None;
            }
            match inbound(next, call, &sockets.servers(server, server_port)) {
                Ok(()) => return None,
                // The first port is the one that the author thought of.
                Err(reason) => why = why.or(Some(reason)),
            }
        }
    }
    why
}
