//! What of a policy comes nearest to a packet.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::IpNet;
use mpesa_fw_common::{
    Family,
    event::Event,
    packet::{PacketMeta, protocol},
};

use crate::policy::model::{Addresses, Claim, Location, Policy};

/// Rules that are named at most.
const SHOWN: usize = 3;

/// What rules may claim a packet by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    Tcp(u16),
    Udp(u16),
    Icmp(u8),
    Icmpv6(u8),
    Other(u8),
}

impl Topic {
    /// Of a packet as one that asks for something.
    pub(super) fn of(meta: &PacketMeta) -> Self {
        Self::new(meta, meta.target_port, meta.icmp_type)
    }

    /// Of what a packet would be the answer to.
    pub(super) fn answered(meta: &PacketMeta, question: u8) -> Self {
        Self::new(meta, meta.source_port, question)
    }

    fn new(meta: &PacketMeta, port: u16, icmp_type: u8) -> Self {
        Self::by_numbers(meta.protocol, meta.family, port, icmp_type)
    }

    fn by_numbers(protocol: u8, family: Family, port: u16, icmp_type: u8) -> Self {
        match (protocol, family) {
            (protocol::TCP, _) => Self::Tcp(port),
            (protocol::UDP, _) => Self::Udp(port),
            (protocol::ICMP, Family::V4) => Self::Icmp(icmp_type),
            (protocol::ICMPV6, Family::V6) => Self::Icmpv6(icmp_type),
            (other, _) => Self::Other(other),
        }
    }

    /// Whether a rule claims it.
    pub(super) fn is_in(self, claims: &[Claim]) -> bool {
        claims.iter().any(|claim| match (claim, self) {
            (Claim::Tcp(ranges), Self::Tcp(port)) | (Claim::Udp(ranges), Self::Udp(port)) => {
                ranges.iter().any(|range| range.contains(&port))
            }
            (Claim::Icmp(types), Self::Icmp(kind)) | (Claim::Icmpv6(types), Self::Icmpv6(kind)) => {
                types.is_empty() || types.contains(&kind)
            }
            (Claim::Other(claimed), Self::Other(number)) => *claimed == number,
            (Claim::Tcp(_) | Claim::Udp(_) | Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_), _) => false,
        })
    }

    /// Whether a rule claims the same port of the other protocol that has ports.
    pub(super) fn is_in_by_another_protocol(self, claims: &[Claim]) -> bool {
        match self {
            Self::Tcp(port) => Self::Udp(port).is_in(claims),
            Self::Udp(port) => Self::Tcp(port).is_in(claims),
            Self::Icmp(_) | Self::Icmpv6(_) | Self::Other(_) => false,
        }
    }

    /// As a rule would say it.
    pub(super) fn yaml(self) -> String {
        match self {
            Self::Tcp(port) => format!("ports: [{port}]"),
            Self::Udp(port) => format!("protocol: udp, ports: [{port}]"),
            Self::Icmp(kind) => format!("protocol: icmp, types: [{kind}]"),
            Self::Icmpv6(kind) => format!("protocol: icmpv6, types: [{kind}]"),
            Self::Other(number) => format!("protocol: {number}"),
        }
    }
}

/// The destination that comes nearest to what left by none.
pub(in crate::agent) fn destination(policy: &Policy, event: &Event) -> Option<String> {
    let family = if event.target.is_v4() { Family::V4 } else { Family::V6 };
    let kind = event.target_port.to_le_bytes()[0];
    let topic = Topic::by_numbers(event.protocol, family, event.target_port, kind);
    let rules = policy.egress.allow.iter().map(|rule| (rule.name.as_str(), rule.claims.as_slice()));
    ports(topic, rules).into_iter().next()
}

/// Rules that claim ports (or types) of the protocol, the nearest first, with what they claim.
pub(super) fn ports<'r>(topic: Topic, rules: impl Iterator<Item = (&'r str, &'r [Claim])>) -> Vec<String> {
    let mut near: Vec<(u32, usize, String)> = Vec::new();
    for (position, (name, claims)) in rules.enumerate() {
        let claimed = claims.iter().filter_map(|claim| match (claim, topic) {
            (Claim::Tcp(ranges), Topic::Tcp(port)) | (Claim::Udp(ranges), Topic::Udp(port)) => {
                let range = ranges.iter().min_by_key(|range| distance(range, port))?;
                Some((distance(range, port), format!("{name} ({} {})", label(topic), shown(range))))
            }
            (Claim::Icmp(types), Topic::Icmp(_)) | (Claim::Icmpv6(types), Topic::Icmpv6(_)) => {
                let types: Vec<String> = types.iter().map(ToString::to_string).collect();
                Some((0, format!("{name} ({} types {})", label(topic), types.join(", "))))
            }
            (Claim::Tcp(_) | Claim::Udp(_) | Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_), _) => None,
        });
        near.extend(claimed.map(|(distance, text)| (distance, position, text)));
    }
    near.sort();
    near.into_iter().take(SHOWN).map(|(_, _, text)| text).collect()
}

const fn label(topic: Topic) -> &'static str {
    match topic {
        Topic::Tcp(_) => "tcp",
        Topic::Udp(_) => "udp",
        Topic::Icmp(_) => "icmp",
        Topic::Icmpv6(_) => "icmpv6",
        Topic::Other(_) => "protocol",
    }
}

fn distance(range: &RangeInclusive<u16>, port: u16) -> u32 {
    let below = range.start().saturating_sub(port);
    let above = port.saturating_sub(*range.end());
    u32::from(below.max(above))
}

fn shown(range: &RangeInclusive<u16>) -> String {
    if range.start() == range.end() {
        range.start().to_string()
    } else {
        format!("{}-{}", range.start(), range.end())
    }
}

/// Whether these addresses hold this one.
pub(super) fn admits(policy: &Policy, addresses: &Addresses, address: IpAddr) -> bool {
    addresses.any || is_named(policy, addresses, address)
}

/// Whether they hold it by more than `any`.
pub(super) fn is_named(policy: &Policy, addresses: &Addresses, address: IpAddr) -> bool {
    prefixes(policy, addresses).any(|(_, prefix)| prefix.contains(&address))
}

/// A prefix, the set that it is in (else the rule itself), and how far away it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Near<'p> {
    pub(super) prefix: IpNet,
    pub(super) set: Option<(&'p str, &'p Location)>,
    distance: u128,
}

impl Display for Near<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.prefix.prefix_len() == self.prefix.max_prefix_len() {
            true => write!(f, "{}", self.prefix.addr())?,
            false => write!(f, "{}", self.prefix)?,
        }
        if let Some((set, at)) = self.set {
            write!(f, " of set {set} ({})", place(at))?;
        }
        match self.distance {
            0 => Ok(()),
            1 => write!(f, ", 1 address away"),
            far if far < 1 << 24 => write!(f, ", {far} addresses away"),
            _ => write!(f, ", far away"),
        }
    }
}

/// The prefix of these addresses that comes nearest to one, of the same family.
pub(super) fn prefix<'p>(policy: &'p Policy, addresses: &'p Addresses, address: IpAddr) -> Option<Near<'p>> {
    prefixes(policy, addresses)
        .filter_map(|(set, prefix)| Some(Near { prefix: *prefix, set, distance: away(prefix, address)? }))
        .min_by_key(|near| near.distance)
}

type InSet<'p> = (Option<(&'p str, &'p Location)>, &'p IpNet);

fn prefixes<'p>(policy: &'p Policy, addresses: &'p Addresses) -> impl Iterator<Item = InSet<'p>> {
    let sets = addresses.sets.iter().filter_map(|set| policy.sets.get(*set));
    let in_sets =
        sets.flat_map(|set| set.prefixes.iter().map(|prefix| (Some((set.name.as_str(), &set.at)), prefix)));
    addresses.prefixes.iter().map(|prefix| (None, prefix)).chain(in_sets)
}

/// Addresses between an address and a prefix; none where they are of different families.
fn away(prefix: &IpNet, address: IpAddr) -> Option<u128> {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    if prefix.addr().is_ipv4() != address.is_ipv4() {
        return None;
    }
    let (first, last, here) = (number(prefix.network()), number(prefix.broadcast()), number(address));
    Some(first.saturating_sub(here).max(here.saturating_sub(last)))
}

/// File and line.
pub(super) fn place(at: &Location) -> String {
    let name = at.file.file_name().unwrap_or(at.file.as_os_str());
    format!("{}:{}", name.to_string_lossy(), at.line)
}

/// An address as it may stand in a list of YAML.
pub(super) fn quoted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"{address}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_port_is_named_first() {
        let rules: [(&str, &[Claim]); 3] = [
            ("web", &[Claim::Tcp(vec![80..=80, 9000..=9010])]),
            ("callbacks", &[Claim::Tcp(vec![8443..=8443])]),
            ("dns", &[Claim::Udp(vec![53..=53])]),
        ];
        assert_eq!(
            ports(Topic::Tcp(8442), rules.into_iter()),
            ["callbacks (tcp 8443)", "web (tcp 9000-9010)"]
        );
        assert_eq!(ports(Topic::Tcp(9012), rules.into_iter())[0], "web (tcp 9000-9010)");
        assert!(ports(Topic::Other(47), rules.into_iter()).is_empty());
        assert!(Topic::Udp(8443).is_in_by_another_protocol(rules[1].1));
    }

    #[test]
    fn distances_are_counted_from_the_edges() {
        let prefix: IpNet = "196.201.212.0/24".parse().unwrap();
        let far = |address: &str| away(&prefix, address.parse().unwrap());
        assert_eq!(far("196.201.212.7"), Some(0));
        assert_eq!(far("196.201.213.1"), Some(2));
        assert_eq!(far("196.201.211.255"), Some(1));
        assert_eq!(far("2001:db8::1"), None);
    }
}
