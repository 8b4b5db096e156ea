//! What the kernel has of interfaces, addresses and default routes, and how interfaces stand on each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mpesa_fw_common::state::OWN_ADDRESSES_CAPACITY;

/// An interface as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, `vlan`; none for a network card.
    pub kind: Option<String>,
    /// What its frames begin with.
    pub layer: Layer,
    /// The bridge, bond or team that it is a port of, by index.
    pub master: Option<u32>,
    /// The interface that it is a part of (a VLAN, a macvlan), by index.
    pub parent: Option<u32>,
    /// Id of the XDP program that is attached, ours or another's; 0: none.
    pub xdp_program: u32,
    /// Largest packet, bytes.
    pub mtu: u32,
}

/// The link layer, `ARPHRD_…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Ethernet frames: what the datapath reads.
    Ethernet,
    /// `lo`.
    Loopback,
    /// ppp, tun, wg and others, by name.
    Other(String),
}

/// What the kernel says of the network at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Every interface, by index.
    pub links: BTreeMap<u32, Link>,
    /// Every address, with the index of its interface.
    pub addresses: BTreeSet<(u32, IpAddr)>,
    /// Directed broadcast addresses of their subnets.
    pub broadcasts: BTreeSet<IpAddr>,
    /// Ethernet interfaces that hold a default route of either family.
    pub default_routes: BTreeSet<u32>,
    /// Those that hold one too and are no Ethernet (a tunnel, a modem): nothing can be judged there, and no other is let go for them.
    pub unfit_defaults: BTreeSet<u32>,
    /// No interface holds a default route: the ones above held it last.
    pub remembered: bool,
    /// Interfaces that have a hook of ours: while nobody knows which one holds the default route, none of them is let go.
    pub hooked: BTreeSet<u32>,
}

impl View {
    /// Sets aside what holds a default route and can't be judged.
    pub fn set_unfit_defaults_aside(&mut self) {
        let is_ethernet =
            |index: &u32| self.links.get(index).is_some_and(|link| link.layer == Layer::Ethernet);
        let (fit, unfit) = self.default_routes.iter().partition(|index| is_ethernet(index));
        (self.default_routes, self.unfit_defaults) = (fit, unfit);
    }

    /// Sources that no packet from outside has: this host's own addresses, and as far as their table has room the broadcast
    /// addresses of its subnets. For that table alone: this host does not have the latter.
    #[must_use]
    pub fn impossible_sources(&self) -> BTreeSet<IpAddr> {
        let mut sources: BTreeSet<IpAddr> = self.addresses.iter().map(|(_, address)| *address).collect();
        for broadcast in &self.broadcasts {
            if sources.len() < OWN_ADDRESSES_CAPACITY as usize {
                sources.insert(*broadcast);
            }
        }
        sources
    }

    /// Names of the interfaces with a default route.
    #[must_use]
    pub fn default_names(&self) -> BTreeSet<String> {
        self.default_routes
            .iter()
            .filter_map(|index| self.links.get(index))
            .map(|link| link.name.clone())
            .collect()
    }

    /// The interfaces through which the packets of this one come and go: its ports, or the one that it is a part of.
    pub fn below(&self, index: u32) -> impl Iterator<Item = &Link> {
        let parent = self.links.get(&index).and_then(|link| link.parent);
        self.links
            .values()
            .filter(move |link| link.index != index)
            .filter(move |link| link.master == Some(index) || parent == Some(link.index))
    }

    /// Whether some packet of an interface passes one of `protected`: itself, or one below it at any depth.
    #[must_use]
    pub fn touches(&self, index: u32, protected: &BTreeSet<u32>) -> bool {
        self.touches_within(STACK, index, protected)
    }

    fn touches_within(&self, depth: usize, index: u32, protected: &BTreeSet<u32>) -> bool {
        let touches = |link: &Link| self.touches_within(depth - 1, link.index, protected);
        protected.contains(&index) || (depth > 0 && self.below(index).any(touches))
    }

    /// The first of `protected` below an interface: what passes both is judged twice.
    #[must_use]
    pub fn first_below(&self, index: u32, protected: &BTreeSet<u32>) -> Option<&Link> {
        self.first_below_within(STACK, index, protected)
    }

    fn first_below_within(&self, depth: usize, index: u32, protected: &BTreeSet<u32>) -> Option<&Link> {
        let deeper = |link: &Link| self.first_below_within(depth - 1, link.index, protected);
        let is_protected = |link: &&Link| protected.contains(&link.index);
        let found = self.below(index).find(is_protected);
        found.or_else(|| if depth > 0 { self.below(index).find_map(deeper) } else { None })
    }

    /// Whether every packet of an interface passes one of `protected`.
    #[must_use]
    pub fn is_covered(&self, index: u32, protected: &BTreeSet<u32>) -> bool {
        self.is_covered_within(STACK, index, protected)
    }

    fn is_covered_within(&self, depth: usize, index: u32, protected: &BTreeSet<u32>) -> bool {
        let is_covered = |link: &Link| self.is_covered_within(depth - 1, link.index, protected);
        protected.contains(&index)
            || (depth > 0 && self.below(index).next().is_some() && self.below(index).all(is_covered))
    }
}

/// Interfaces that stand on each other (a VLAN of a bridge of a bond of cards): the kernel allows 8.
const STACK: usize = 8;
