//! Who may talk to whom by the policy as it was written, rule by rule.

use std::net::IpAddr;

use ipnet::IpNet;
use mpesa_fw::policy::model::{Addresses, Claim, Policy};
use mpesa_fw_common::{
    Address, Family,
    packet::{PacketMeta, protocol},
    state::FlowKey,
};

use super::rules;
use crate::case::Rules;

/// What a packet asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) family: Family,
    protocol: u8,
    port: u16,
    icmp_type: u8,
}

impl Asked {
    pub(super) fn by(meta: &PacketMeta) -> Self {
        let PacketMeta { family, protocol, target_port, icmp_type, .. } = *meta;
        Self { family, protocol, port: target_port, icmp_type }
    }

    /// By the packet that opened a flow.
    pub(super) fn by_flow(key: &FlowKey) -> Self {
        let family = if key.family == 4 { Family::V4 } else { Family::V6 };
        Self { family, protocol: key.protocol, port: key.remote_port, icmp_type: key.remote_port as u8 }
    }

    fn is_claimed(&self, claim: &Claim) -> bool {
        let v4 = self.family == Family::V4;
        match claim {
            Claim::Tcp(ports) => {
                self.protocol == protocol::TCP && ports.iter().any(|range| range.contains(&self.port))
            }
            Claim::Udp(ports) => {
                self.protocol == protocol::UDP && ports.iter().any(|range| range.contains(&self.port))
            }
            Claim::Icmp(types) => {
                v4 && self.protocol == protocol::ICMP && (types.is_empty() || types.contains(&self.icmp_type))
            }
            Claim::Icmpv6(types) => {
                !v4 && self.protocol == protocol::ICMPV6
                    && (types.is_empty() || types.contains(&self.icmp_type))
            }
            Claim::Other(number) => self.protocol == *number,
        }
    }
}

/// An address in its own family: in IPv6, one that maps an IPv4 address is another address.
pub(super) fn address(family: Family, address: Address) -> IpAddr {
    match (IpAddr::from(address), family) {
        (IpAddr::V4(v4), Family::V6) => v4.to_ipv6_mapped().into(),
        (plain, _) => plain,
    }
}

/// The first service that allows it.
pub(super) fn service(rules: &Rules, asked: &Asked, local: Address, remote: Address) -> Option<usize> {
    let [local, remote] = [local, remote].map(|end| address(asked.family, end));
    let policy = &rules.policy;
    policy.ingress.services.iter().position(|service| {
        service.claims.iter().any(|claim| asked.is_claimed(claim))
            && among(policy, &service.from, remote)
            && (service.to.is_empty() || within(&service.to, local))
    })
}

/// The first destination that allows it.
pub(super) fn destination(rules: &Rules, asked: &Asked, remote: Address) -> Option<usize> {
    let remote = address(asked.family, remote);
    let policy = &rules.policy;
    policy.egress.allow.iter().position(|destination| {
        let named = |name: &String| rules::names_of(remote).any(|known| known == name);
        destination.claims.iter().any(|claim| asked.is_claimed(claim))
            && (among(policy, &destination.to, remote) || destination.names.iter().any(named))
    })
}

fn among(policy: &Policy, addresses: &Addresses, address: IpAddr) -> bool {
    addresses.any
        || within(&addresses.prefixes, address)
        || addresses.sets.iter().any(|set| within(&policy.sets[*set].prefixes, address))
}

fn within(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// Whether some destination names the protocol and port.
pub(super) fn is_claimed(rules: &Rules, asked: &Asked) -> bool {
    rules.policy.egress.allow.iter().any(|rule| rule.claims.iter().any(|claim| asked.is_claimed(claim)))
}
