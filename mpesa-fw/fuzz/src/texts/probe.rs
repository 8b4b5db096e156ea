//! Compiled tables are asked about the borders of every prefix and range of their policy, and must answer as the policy
//! reads, rule by rule.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mpesa_fw::{
    compile::Compiled,
    policy::model::{Addresses, Claim, Policy},
};
use mpesa_fw_common::{
    Address, Family,
    decide::{Permission, service},
    packet::{claim, protocol},
    tables::{AddressTable, look_up},
};

/// Questions of one policy at most.
const ADDRESSES: usize = 48;
const CLAIMS: usize = 24;

/// Protocol, and port or type.
type Asked = (u8, u16);

pub(super) fn tables(policy: &Policy, compiled: &Compiled) {
    let addresses = borders(policy);
    for asked in asked(policy) {
        for remote in &addresses {
            served(policy, compiled, asked, *remote, addresses[0]);
            served(policy, compiled, asked, *remote, *remote);
        }
    }
    for remote in &addresses {
        sent(policy, compiled, *remote);
    }
}

/// What the tables of services say.
fn served(policy: &Policy, compiled: &Compiled, asked: Asked, remote: IpAddr, local: IpAddr) {
    let family = family(remote);
    if family != self::family(local) {
        return;
    }
    let rules = &policy.ingress.services;
    let claims = |claims: &[Claim]| claims.iter().any(|claim| is_claimed(claim, family, asked));
    let first_claim = rules.iter().position(|rule| claims(&rule.claims));
    let first = rules.iter().position(|rule| {
        claims(&rule.claims)
            && among(policy, &rule.from, remote)
            && (rule.to.is_empty() || rule.to.iter().any(|prefix| prefix.contains(&local)))
    });
    let index = claim(family, asked.0, asked.1, asked.1 as u8);
    let said = service(compiled, family, index, &Address::from(local), &Address::from(remote));
    let context = || format!("{asked:?} from {remote} to {local}: {said:?}\n{policy:#?}");
    match said {
        Permission::Allowed(allowed) => assert_eq!(allowed.first().index(), first, "{}", context()),
        Permission::Denied(_, charged, _) => {
            assert_eq!((first, charged.index()), (None, first_claim), "{}", context());
        }
        Permission::Unclaimed => assert_eq!(first_claim, None, "{}", context()),
    }
}

/// What the table of destinations says of an address, whatever is sent there.
fn sent(policy: &Policy, compiled: &Compiled, remote: IpAddr) {
    let class = look_up(compiled, AddressTable::Destination, family(remote), &Address::from(remote));
    let expected =
        policy.egress.allow.iter().enumerate().fold(0u64, |rules, (n, rule)| {
            if among(policy, &rule.to, remote) { rules | 1 << n } else { rules }
        });
    assert_eq!(class.expect("the tables answer").rules.0, expected, "{remote}\n{policy:#?}");
}

const fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn is_claimed(claim: &Claim, family: Family, (number, port): Asked) -> bool {
    let kinds = |types: &[u8]| types.is_empty() || types.iter().any(|kind| u16::from(*kind) == port);
    match claim {
        Claim::Tcp(ports) => number == protocol::TCP && ports.iter().any(|range| range.contains(&port)),
        Claim::Udp(ports) => number == protocol::UDP && ports.iter().any(|range| range.contains(&port)),
        Claim::Icmp(types) => family == Family::V4 && number == protocol::ICMP && kinds(types),
        Claim::Icmpv6(types) => family == Family::V6 && number == protocol::ICMPV6 && kinds(types),
        Claim::Other(other) => number == *other,
    }
}

fn among(policy: &Policy, addresses: &Addresses, address: IpAddr) -> bool {
    let within = |prefixes: &[IpNet]| prefixes.iter().any(|prefix| prefix.contains(&address));
    addresses.any
        || within(&addresses.prefixes)
        || addresses.sets.iter().any(|set| within(&policy.sets[*set].prefixes))
}

/// First and last address of each prefix, and their neighbours outside. Never empty.
fn borders(policy: &Policy) -> Vec<IpAddr> {
    let of_rules = |addresses: &Addresses| addresses.prefixes.clone();
    let mut prefixes: Vec<IpNet> = policy.sets.iter().flat_map(|set| set.prefixes.clone()).collect();
    for rule in &policy.ingress.services {
        prefixes.extend(of_rules(&rule.from).iter().chain(&rule.to));
    }
    prefixes.extend(policy.egress.allow.iter().flat_map(|rule| of_rules(&rule.to)));
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for prefix in prefixes {
        match (prefix.network(), prefix.broadcast()) {
            (IpAddr::V4(first), IpAddr::V4(last)) => {
                let ends = [first.to_bits().wrapping_sub(1), first.to_bits(), last.to_bits()];
                addresses.extend(ends.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))));
                addresses.push(IpAddr::V4(Ipv4Addr::from_bits(last.to_bits().wrapping_add(1))));
            }
            (IpAddr::V6(first), IpAddr::V6(last)) => {
                let ends = [first.to_bits().wrapping_sub(1), first.to_bits(), last.to_bits()];
                addresses.extend(ends.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
                addresses.push(IpAddr::V6(Ipv6Addr::from_bits(last.to_bits().wrapping_add(1))));
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => unreachable!("one family"),
        }
        if addresses.len() > ADDRESSES {
            break;
        }
    }
    // In IPv6 an address that maps one of IPv4 has no packet.
    addresses.retain(|address| !matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()));
    addresses
}

/// Borders of port ranges, types, protocols, and what is beside them.
fn asked(policy: &Policy) -> Vec<Asked> {
    let mut asked = vec![(protocol::TCP, 0), (protocol::UDP, u16::MAX), (protocol::ICMP, 8), (254, 0)];
    for claim in policy.ingress.services.iter().flat_map(|service| &service.claims) {
        let mut ports = |number: u8, ranges: &[std::ops::RangeInclusive<u16>]| {
            for range in ranges.iter().take(3) {
                let (first, last) = (*range.start(), *range.end());
                asked.extend(
                    [first.wrapping_sub(1), first, last, last.wrapping_add(1)].map(|port| (number, port)),
                );
            }
        };
        match claim {
            Claim::Tcp(ranges) => ports(protocol::TCP, ranges),
            Claim::Udp(ranges) => ports(protocol::UDP, ranges),
            Claim::Icmp(types) => asked.extend(types.iter().map(|kind| (protocol::ICMP, u16::from(*kind)))),
            Claim::Icmpv6(types) => {
                asked.extend(types.iter().map(|kind| (protocol::ICMPV6, u16::from(*kind))))
            }
            Claim::Other(number) => asked.push((*number, 0)),
        }
    }
    asked.truncate(CLAIMS);
    asked
}
