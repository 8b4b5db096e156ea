//! Whether one rule allows all that another allows.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::model::{AddressSet, Addresses, Claim, Destination, Location, Owner, Service};

/// Prefixes of two rules beyond which they are not compared: `check` is to answer at once.
const COMPARED: usize = 200_000;

/// What packets a rule allows.
pub(super) struct Matched<'p> {
    pub(super) name: &'p str,
    pub(super) at: &'p Location,
    claims: &'p [Claim],
    addresses: &'p Addresses,
    names: &'p [String],
    local: &'p [IpNet],
    limited: bool,
    by: &'p [Owner],
}

impl<'p> From<&'p Service> for Matched<'p> {
    fn from(service: &'p Service) -> Self {
        let Service { name, claims, to, from, limit, by, at } = service;
        Self { name, at, claims, addresses: from, names: &[], local: to, limited: limit.is_some(), by }
    }
}

impl<'p> From<&'p Destination> for Matched<'p> {
    fn from(destination: &'p Destination) -> Self {
        let Destination { name, claims, to, names, by, at } = destination;
        Self { name, at, claims, addresses: to, names, local: &[], limited: false, by }
    }
}

/// Whether `earlier` allows every packet that `later` does. "No" where it is not certain.
pub(super) fn covers(sets: &[AddressSet], earlier: &Matched<'_>, later: &Matched<'_>) -> bool {
    let local = || {
        earlier.local.is_empty()
            || (!later.local.is_empty() && within(later.local.iter(), earlier.local.iter()))
    };
    let names = || earlier.addresses.any || later.names.iter().all(|name| earlier.names.contains(name));
    let owners = || {
        earlier.by.is_empty()
            || (!later.by.is_empty() && later.by.iter().all(|owner| earlier.by.contains(owner)))
    };
    !earlier.limited
        && owners()
        && later.claims.iter().all(|claim| claimed(claim, earlier.claims))
        && names()
        && local()
        && addressed(sets, later.addresses, earlier.addresses)
}

fn claimed(claim: &Claim, by: &[Claim]) -> bool {
    by.iter().any(|by| match (by, claim) {
        (Claim::Tcp(by), Claim::Tcp(ports)) | (Claim::Udp(by), Claim::Udp(ports)) => {
            let by = merged(
                by.iter().map(|range| (u128::from(*range.start()), u128::from(*range.end()))).collect(),
            );
            ports.iter().all(|range| contained(&by, u128::from(*range.start()), u128::from(*range.end())))
        }
        (Claim::Icmp(by), Claim::Icmp(types)) | (Claim::Icmpv6(by), Claim::Icmpv6(types)) => {
            by.is_empty() || (!types.is_empty() && types.iter().all(|kind| by.contains(kind)))
        }
        (Claim::Other(by), Claim::Other(number)) => by == number,
        (Claim::Tcp(_) | Claim::Udp(_) | Claim::Icmp(_) | Claim::Icmpv6(_) | Claim::Other(_), _) => false,
    })
}

fn addressed(sets: &[AddressSet], addresses: &Addresses, by: &Addresses) -> bool {
    if by.any {
        return true;
    }
    if addresses.any {
        return false;
    }
    if addresses.prefixes.is_empty() && addresses.sets.iter().all(|set| by.sets.contains(set)) {
        return true;
    }
    let of = |addresses: &Addresses| {
        let prefixes: usize = addresses.sets.iter().map(|set| sets[*set].prefixes.len()).sum();
        prefixes + addresses.prefixes.len()
    };
    if of(addresses) + of(by) > COMPARED {
        return false;
    }
    within(addresses.prefixes(sets), by.prefixes(sets))
}

/// Whether a whole family is in these prefixes; of IPv6, all that is routed (2000::/3, RFC 4291).
pub(super) fn is_everywhere<'p>(prefixes: impl Iterator<Item = &'p IpNet>) -> bool {
    let prefixes: Vec<&IpNet> = prefixes.collect();
    let v4 = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into();
    let v6 = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3).into();
    [v4, v6].iter().any(|whole| within([whole].into_iter(), prefixes.iter().copied()))
}

fn within<'p>(prefixes: impl Iterator<Item = &'p IpNet>, by: impl Iterator<Item = &'p IpNet>) -> bool {
    let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) = by.partition(|prefix| prefix.addr().is_ipv4());
    let v4 = merged(v4.into_iter().map(range).collect());
    let v6 = merged(v6.into_iter().map(range).collect());
    let mut prefixes = prefixes;
    prefixes.all(|prefix| {
        let (first, last) = range(prefix);
        contained(if prefix.addr().is_ipv4() { &v4 } else { &v6 }, first, last)
    })
}

fn range(prefix: &IpNet) -> (u128, u128) {
    let number = |address| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    (number(prefix.network()), number(prefix.broadcast()))
}

/// Sorted, overlapping and adjacent ones joined.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<RangeInclusive<u128>> {
    ranges.sort_unstable();
    let mut merged: Vec<RangeInclusive<u128>> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if before.end().saturating_add(1) >= first => {
                *before = *before.start()..=last.max(*before.end());
            }
            Some(_) | None => merged.push(first..=last),
        }
    }
    merged
}

fn contained(merged: &[RangeInclusive<u128>], first: u128, last: u128) -> bool {
    let after = merged.partition_point(|range| *range.start() <= first);
    after.checked_sub(1).is_some_and(|index| last <= *merged[index].end())
}
