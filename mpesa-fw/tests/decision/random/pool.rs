//! The few addresses and ports of one case: at the bounds of what its policies name, and just beside them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mpesa_fw::policy::model::{Claim, Policy};
use rand::seq::IndexedRandom;

use super::{
    Chance,
    policy::{LOCAL, SERVERS},
};
use crate::{case, frames::ip};

/// By family.
pub(super) struct Pool {
    pub(super) local: [Vec<IpAddr>; 2],
    pub(super) remote: [Vec<IpAddr>; 2],
    pub(super) ports: Vec<u16>,
    /// Peers that may be name servers, of both families.
    pub(super) servers: Vec<IpAddr>,
}

/// Peers that are always among them: in a nest of prefixes, on the link, far away.
const REMOTE: [[&str; 4]; 2] = [
    ["10.1.2.3", "196.201.214.200", "203.0.113.9", "8.8.8.8"],
    ["fd00:1:2::3", "2c0f:fe38::200", "fe80::1", "2600::1"],
];
const PORTS: [u16; 7] = [0, 1, 53, 80, 443, 4000, 65535];

impl Pool {
    pub(super) fn of(chance: &mut Chance, policies: &[String]) -> Self {
        let policies: Vec<Policy> = policies.iter().map(|policy| case::load(policy)).collect();
        let (mut local, mut remote, mut ports) =
            ([const { Vec::new() }; 2], [const { Vec::new() }; 2], Vec::new());
        let mut servers = Vec::new();
        for policy in &policies {
            let listed = policy.egress.allow.iter().filter(|allow| allow.name == SERVERS);
            servers.extend(listed.flat_map(|allow| &allow.to.prefixes).flat_map(bounds));
            for prefix in policy.ingress.services.iter().flat_map(|service| &service.to) {
                local[family(prefix.network())].extend(bounds(prefix));
            }
            for prefix in prefixes(policy) {
                remote[family(prefix.network())].extend(bounds(prefix));
            }
            ports.extend(
                policy.ingress.services.iter().flat_map(|service| &service.claims).flat_map(port_bounds),
            );
            ports.extend(policy.egress.allow.iter().flat_map(|allow| &allow.claims).flat_map(port_bounds));
        }
        for family in 0..2 {
            local[family] = chance.few(&local[family], 2, &LOCAL[family].map(ip), 2);
            remote[family] = chance.few(&remote[family], 5, &REMOTE[family].map(ip), 2);
        }
        let peers: Vec<IpAddr> = remote.iter().flatten().copied().collect();
        servers = chance.few(&servers, 4, &peers, 1);
        Self { local, remote, ports: chance.few(&ports, 5, &PORTS, 3), servers }
    }

    /// Most of the local addresses, and at times one of a peer.
    pub(super) fn own(&self, chance: &mut Chance) -> Vec<IpAddr> {
        let mut own: Vec<IpAddr> =
            self.local.iter().flatten().filter(|_| !chance.one_in(4)).copied().collect();
        if chance.one_in(3) {
            own.push(chance.pick(&self.remote[0]));
        }
        own.sort();
        own.dedup();
        own
    }
}

impl Chance {
    /// Some of these and some of those, at least one.
    fn few<T: Copy>(&mut self, these: &[T], of_these: usize, those: &[T], of_those: usize) -> Vec<T> {
        let mut few: Vec<T> = these.choose_multiple(&mut self.0, of_these).copied().collect();
        few.extend(those.choose_multiple(&mut self.0, of_those));
        few
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

/// Every prefix that a peer may be in.
fn prefixes(policy: &Policy) -> impl Iterator<Item = &IpNet> {
    let sets = policy.sets.iter().flat_map(|set| set.prefixes.iter().chain(&set.watch));
    let sources = policy.ingress.services.iter().flat_map(|service| &service.from.prefixes);
    let destinations = policy.egress.allow.iter().flat_map(|allow| &allow.to.prefixes);
    sets.chain(sources).chain(destinations)
}

/// The first and the last address, and those beside them.
fn bounds(prefix: &IpNet) -> [IpAddr; 4] {
    match prefix {
        IpNet::V4(prefix) => {
            let (first, last) = (u32::from(prefix.network()), u32::from(prefix.broadcast()));
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|bits| Ipv4Addr::from(bits).into())
        }
        IpNet::V6(prefix) => {
            let (first, last) = (u128::from(prefix.network()), u128::from(prefix.broadcast()));
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|bits| Ipv6Addr::from(bits).into())
        }
    }
}

/// The bounds of each range, and the ports beside them.
fn port_bounds(claim: &Claim) -> Vec<u16> {
    match claim {
        Claim::Tcp(ranges) | Claim::Udp(ranges) => ranges
            .iter()
            .flat_map(|range| {
                let (first, last) = (*range.start(), *range.end());
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
            })
            .collect(),
        Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_) => Vec::new(),
    }
}
