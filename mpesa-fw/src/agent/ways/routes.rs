//! From the routes of a host to the ways by which packets leave: nothing here asks the kernel.
//!
//! [`Way::Protected`] is a promise, so whatever the kernel might decide by more than the address is [`Way::Unsure`].

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use mpesa_fw_common::{
    Address,
    attempt::{Way, WayKey},
};

/// Tables that the standard rules look into, in this order.
pub(super) const TABLES: [u32; 3] = [255, 254, 253];
/// The first of them: local.
const LOCAL: usize = 0;

/// A route, as far as it matters by which way packets leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Its table.
    pub(super) table: u32,
    /// To where.
    pub(super) to: IpNet,
    /// By which interface.
    pub(super) leads: Leads,
    /// The kernel may take a route to more addresses instead: one of IPv6 by a gateway that does not answer (`rt6_check_neigh`,
    /// `fib6_backtrack`).
    pub(super) may_fall_back: bool,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// To this host itself, or to all in a subnet.
    Here,
    /// By one of these interfaces (indices).
    By(Vec<u32>),
    /// Not told, or not the same for all packets.
    Unclear,
}

/// What an interface with a hook does; those that have none are elsewhere.
pub(super) type Hooks = BTreeMap<u32, Way>;

/// Where no look-up of routes decides, or a program names the interface itself: what is said of these prefixes counts for everything in them.
const FIXED: [(IpAddr, u8, Way); 9] = [
    (v4(0, 0), 8, Way::Unsure), // this host (RFC 1122 3.2.1.3)
    (v4(127, 0), 8, Way::Elsewhere),
    (v4(169, 254), 16, Way::Unsure),                    // link-local
    (v4(224, 0), 4, Way::Unsure),                       // multicast
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32, Way::Unsure), // limited broadcast
    (v6(0, 0), 128, Way::Unsure),                       // this host
    (v6(0, 1), 128, Way::Elsewhere),                    // loopback
    (v6(0xfe80, 0), 10, Way::Unsure),                   // link-local: with a scope
    (v6(0xff00, 0), 8, Way::Unsure),                    // multicast
];

const fn v4(first: u8, second: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(first, second, 0, 0))
}

const fn v6(first: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last))
}

/// The way to each prefix.
pub(super) fn ways(routes: &[Route], hooks: &Hooks) -> BTreeMap<WayKey, Way> {
    let fixed: Vec<(IpNet, Way)> = FIXED
        .into_iter()
        .filter_map(|(address, length, way)| Some((IpNet::new(address, length).ok()?, way)))
        .collect();
    let mut tables: BTreeMap<IpNet, [Option<Told>; TABLES.len()]> = BTreeMap::new();
    for route in routes {
        let is_fixed = fixed.iter().any(|(prefix, _)| prefix.contains(&route.to));
        let Some(table) = TABLES.iter().position(|table| *table == route.table) else { continue };
        if is_fixed || is_mapped(&route.to) {
            continue;
        }
        let told = Told {
            length: route.to.prefix_len(),
            way: way_of(&route.leads, hooks),
            may_fall_back: route.may_fall_back,
        };
        let known = &mut tables.entry(route.to).or_default()[table];
        *known = Some(known.map_or(told, |known| known.or(told)));
    }
    let mut ways = BTreeMap::new();
    // IPv4 lies inside of IPv6: `::/0` says nothing of it.
    ways.insert(key(&IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0)), Way::Unsure);
    // In this order a prefix comes before those inside of it.
    let mut around: Vec<(IpNet, [Option<Told>; TABLES.len()])> = Vec::new();
    for (prefix, mut own) in tables {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&prefix)) {
            around.pop();
        }
        let outer = around.last().map_or([None; TABLES.len()], |(_, told)| *told);
        for (own, outer) in own.iter_mut().zip(outer) {
            *own = own.map_or(outer, |own| Some(own.within(outer)));
        }
        ways.insert(key(&prefix), decide(own));
        around.push((prefix, own));
    }
    ways.extend(fixed.iter().map(|(prefix, way)| (key(prefix), *way)));
    ways
}

/// What one table says of a prefix.
#[derive(Clone, Copy)]
struct Told {
    /// Of the route's prefix.
    length: u8,
    way: Way,
    may_fall_back: bool,
}

impl Told {
    /// Of two routes to the same prefix: metrics, a type of service and gateways that do not answer decide.
    fn or(self, other: Self) -> Self {
        let way = if self.way == other.way { self.way } else { Way::Unsure };
        Self { way, may_fall_back: self.may_fall_back || other.may_fall_back, ..self }
    }

    /// Inside of a prefix that another route of the table leads to.
    fn within(self, outer: Option<Self>) -> Self {
        match outer {
            Some(outer) if self.may_fall_back && outer.way != self.way => Self { way: Way::Unsure, ..self },
            Some(_) | None => self,
        }
    }
}

/// The first table that says something counts. With two exceptions, in which only what both say counts: as long as there are but the
/// standard rules IPv4 has one tree of the tables local and main (`fib_trie_unmerge`), in which the longer prefix counts; and in the
/// table default nobody expects more than a default route.
fn decide(told: [Option<Told>; TABLES.len()]) -> Way {
    let mut found: Option<(usize, Told)> = None;
    for (table, told) in told.into_iter().enumerate() {
        let Some(told) = told else { continue };
        match found {
            None => found = Some((table, told)),
            Some((first, before)) => {
                let counts_too =
                    told.length > before.length || first != LOCAL && told.length == before.length;
                if counts_too && told.way != before.way {
                    return Way::Unsure;
                }
            }
        }
    }
    found.map_or(Way::Unsure, |(_, told)| told.way)
}

fn way_of(leads: &Leads, hooks: &Hooks) -> Way {
    match leads {
        Leads::Here => Way::Elsewhere,
        Leads::Unclear => Way::Unsure,
        Leads::By(interfaces) => {
            let mut ways = interfaces.iter().map(|index| hooks.get(index).copied().unwrap_or(Way::Elsewhere));
            let first = ways.next().unwrap_or(Way::Unsure);
            if ways.all(|way| way == first) { first } else { Way::Unsure }
        }
    }
}

/// Whether a prefix of IPv6 lies where IPv4 is kept. No packet has such an address.
fn is_mapped(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(_) => false,
        IpNet::V6(prefix) => prefix.prefix_len() >= 96 && prefix.addr().to_ipv4_mapped().is_some(),
    }
}

fn key(prefix: &IpNet) -> WayKey {
    const V4_BEGINS: u32 = 96;
    let begins = if prefix.addr().is_ipv4() { V4_BEGINS } else { 0 };
    WayKey::new(&Address::from(prefix.network()), begins + u32::from(prefix.prefix_len()))
}

#[cfg(test)]
mod tests;
