//! Which interfaces to protect: the policy's patterns against what the kernel has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mpesa_fw_common::counter::INTERFACES;
use serde::{Deserialize, Serialize};

use super::view::{Layer, Link, View};
use crate::{datapath::Interface, policy::model::InterfacePattern};

/// An interface that the policy asks for and that can't be protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// An interface with addresses that no pattern matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unprotected {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What follows from patterns and view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// To be protected, by index, at most [`INTERFACES`].
    pub protect: BTreeMap<u32, Interface>,
    /// Named, and not there.
    pub missing: Vec<String>,
    /// There, and not fit.
    pub refused: Vec<Refused>,
}

/// Applies the patterns.
#[must_use]
pub fn choose(patterns: &[InterfacePattern], view: &View) -> Choice {
    let mut wanted: BTreeSet<u32> = BTreeSet::new();
    let mut missing = Vec::new();
    for pattern in patterns {
        match pattern {
            InterfacePattern::Default => {
                wanted.extend(default_interfaces(view));
                wanted.extend(&view.unfit_defaults); // to say why not
            }
            InterfacePattern::Name(name) => match view.links.values().find(|link| link.name == *name) {
                Some(link) => {
                    wanted.insert(link.index);
                }
                None => missing.push(name.clone()),
            },
            InterfacePattern::Glob(glob) => wanted.extend(
                view.links
                    .values()
                    .filter(|link| glob_may_match(link) && matches(glob.as_bytes(), link.name.as_bytes()))
                    .map(|link| link.index),
            ),
        }
    }
    let mut choice = Choice { missing, ..Choice::default() };
    for link in wanted.iter().filter_map(|index| view.links.get(index)) {
        match unfit(link, choice.protect.len()) {
            Some(reason) => choice.refused.push(Refused { name: link.name.clone(), reason }),
            None => {
                choice.protect.insert(link.index, Interface { name: link.name.clone(), index: link.index });
            }
        }
    }
    choice
}

/// Interfaces that carry an address and whose packets are not all judged at `protected`. Loopback never counts.
#[must_use]
pub fn unprotected(view: &View, protected: &BTreeSet<u32>) -> Vec<Unprotected> {
    view.links
        .values()
        .filter(|link| link.layer != Layer::Loopback && !view.is_covered(link.index, protected))
        .filter_map(|link| {
            let addresses: Vec<IpAddr> =
                view.addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, a)| *a).collect();
            (!addresses.is_empty()).then(|| Unprotected { name: link.name.clone(), addresses })
        })
        .collect()
}

/// The interfaces with a default route. While there is none, those that held it last and what is protected already; where
/// nobody knows them, every physical interface and what is protected already.
fn default_interfaces(view: &View) -> Vec<u32> {
    if view.remembered {
        let hooked = view.hooked.iter().filter(|index| view.links.contains_key(index));
        return view.default_routes.iter().chain(hooked).copied().collect();
    }
    if !view.default_routes.is_empty() {
        return view.default_routes.iter().copied().collect();
    }
    let is_physical = |link: &Link| link.kind.is_none() && link.layer == Layer::Ethernet;
    view.links
        .values()
        .filter(|link| is_physical(link) || view.hooked.contains(&link.index))
        .map(|link| link.index)
        .collect()
}

fn glob_may_match(link: &Link) -> bool {
    link.layer != Layer::Loopback && !matches!(link.kind.as_deref(), Some("veth" | "bridge"))
}

fn unfit(link: &Link, taken: usize) -> Option<String> {
    match &link.layer {
        Layer::Loopback => Some("loopback is never touched: leave it out of `interfaces`".to_owned()),
        Layer::Other(layer) => Some(format!(
            "it is not Ethernet ({layer}), and only Ethernet frames can be judged: name the Ethernet interface below it"
        )),
        Layer::Ethernet if taken >= INTERFACES => Some(format!(
            "{INTERFACES} interfaces are protected already, and no more fit: name fewer in `interfaces`"
        )),
        Layer::Ethernet => None,
    }
}

/// `*` and `?` as in a shell.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    match (glob.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, name) || name.split_first().is_some_and(|(_, n)| matches(glob, n))
        }
        (Some((b'?', rest)), Some((_, n))) => matches(rest, n),
        (Some((g, rest)), Some((c, n))) => g == c && matches(rest, n),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use mpesa_fw_common::state::OWN_ADDRESSES_CAPACITY;

    use super::*;

    fn view(links: &[(u32, &str, Option<&str>, Layer)]) -> View {
        View {
            links: links
                .iter()
                .map(|(index, name, kind, layer)| {
                    let link = Link {
                        index: *index,
                        name: (*name).into(),
                        kind: kind.map(Into::into),
                        layer: layer.clone(),
                        master: None,
                        parent: None,
                        xdp_program: 0,
                        mtu: 1500,
                    };
                    (*index, link)
                })
                .collect(),
            ..View::default()
        }
    }

    fn host() -> View {
        view(&[
            (1, "lo", None, Layer::Loopback),
            (2, "eth0", None, Layer::Ethernet),
            (3, "eth1", None, Layer::Ethernet),
            (4, "ethveth", Some("veth"), Layer::Ethernet),
            (5, "ethbr", Some("bridge"), Layer::Ethernet),
            (6, "wg0", Some("wireguard"), Layer::Other("None".into())),
        ])
    }

    fn names(choice: &Choice) -> Vec<&str> {
        choice.protect.values().map(|i| i.name.as_str()).collect()
    }

    #[test]
    fn globs_leave_out_veth_and_bridges() {
        assert_eq!(names(&choose(&[InterfacePattern::Glob("e*".into())], &host())), ["eth0", "eth1"]);
        assert_eq!(names(&choose(&[InterfacePattern::Glob("eth?".into())], &host())), ["eth0", "eth1"]);
        assert_eq!(names(&choose(&[InterfacePattern::Glob("*".into())], &host())), ["eth0", "eth1"]);
    }

    #[test]
    fn names_may_be_veth_and_are_waited_for() {
        let choice = choose(
            &[InterfacePattern::Name("ethveth".into()), InterfacePattern::Name("eth9".into())],
            &host(),
        );
        assert_eq!(names(&choice), ["ethveth"]);
        assert_eq!(choice.missing, ["eth9"]);
    }

    #[test]
    fn default_is_every_card_until_there_is_a_route() {
        let mut host = host();
        assert_eq!(names(&choose(&[InterfacePattern::Default], &host)), ["eth0", "eth1"]);
        host.hooked.insert(5);
        assert_eq!(names(&choose(&[InterfacePattern::Default], &host)), ["eth0", "eth1", "ethbr"]);
        host.default_routes.insert(4);
        assert_eq!(names(&choose(&[InterfacePattern::Default], &host)), ["ethveth"]);
    }

    #[test]
    fn nothing_is_let_go_for_a_default_route_that_can_not_be_judged() {
        let mut host = host();
        host.default_routes.insert(6);
        host.set_unfit_defaults_aside();
        let choice = choose(&[InterfacePattern::Default], &host);
        assert_eq!(names(&choice), ["eth0", "eth1"], "as while there is none");
        assert_eq!(choice.refused.iter().map(|refused| refused.name.as_str()).collect::<Vec<_>>(), ["wg0"]);
        host.default_routes.extend([3, 6]);
        host.set_unfit_defaults_aside();
        assert_eq!(names(&choose(&[InterfacePattern::Default], &host)), ["eth1"]);
    }

    #[test]
    fn nothing_is_let_go_while_the_default_route_is_only_remembered() {
        let mut host = host();
        host.remembered = true;
        host.default_routes.insert(4);
        host.hooked.extend([5, 99]);
        assert_eq!(names(&choose(&[InterfacePattern::Default], &host)), ["ethveth", "ethbr"]);
    }

    #[test]
    fn what_is_no_ethernet_is_refused_by_name() {
        let choice =
            choose(&[InterfacePattern::Name("wg0".into()), InterfacePattern::Name("lo".into())], &host());
        assert!(choice.protect.is_empty());
        assert_eq!(choice.refused.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["lo", "wg0"]);
    }

    #[test]
    fn the_ninth_is_refused() {
        let many: Vec<_> = (1..=9).map(|i| (i, format!("eth{i}"))).collect();
        let many: Vec<_> = many.iter().map(|(i, n)| (*i, n.as_str(), None, Layer::Ethernet)).collect();
        let choice = choose(&[InterfacePattern::Glob("eth*".into())], &view(&many));
        assert_eq!(choice.protect.len(), 8);
        assert_eq!(choice.refused.len(), 1);
    }

    #[test]
    fn broadcast_addresses_leave_the_table_to_own_addresses() {
        let mut host = host();
        let capacity = u8::try_from(OWN_ADDRESSES_CAPACITY / 256).unwrap();
        host.addresses = (0..capacity)
            .flat_map(|a| (0..=255).map(move |b| (2, IpAddr::from([10, 0, a, b]))))
            .skip(1)
            .collect();
        host.broadcasts = ["10.1.0.255", "10.2.0.255"].map(|address| address.parse().unwrap()).into();
        let sources = host.impossible_sources();
        assert_eq!(sources.len(), OWN_ADDRESSES_CAPACITY as usize);
        assert!(host.addresses.iter().all(|(_, own)| sources.contains(own)));
    }

    #[test]
    fn an_address_without_protection_is_listed() {
        let mut host = host();
        host.addresses.insert((1, "127.0.0.1".parse().unwrap()));
        host.addresses.insert((3, "10.0.0.1".parse().unwrap()));
        host.addresses.insert((2, "10.0.0.2".parse().unwrap()));
        let open = unprotected(&host, &BTreeSet::from([2]));
        assert_eq!(open, [Unprotected { name: "eth1".into(), addresses: vec!["10.0.0.1".parse().unwrap()] }]);
    }
    #[test]
    fn what_stands_on_protected_interfaces_is_protected() {
        let mut host = view(&[
            (2, "eth0", None, Layer::Ethernet),
            (3, "eth1", None, Layer::Ethernet),
            (4, "bond0", Some("bond"), Layer::Ethernet),
            (5, "bond0.10", Some("vlan"), Layer::Ethernet),
            (6, "docker0", Some("bridge"), Layer::Ethernet),
        ]);
        for (port, master) in [(2, 4), (3, 4)] {
            host.links.get_mut(&port).unwrap().master = Some(master);
        }
        host.links.get_mut(&5).unwrap().parent = Some(4);
        for (index, address) in [(4, "10.0.0.1"), (5, "10.0.1.1"), (6, "172.17.0.1")] {
            host.addresses.insert((index, address.parse().unwrap()));
        }
        let open = |protected: &[u32]| -> Vec<String> {
            let protected = protected.iter().copied().collect();
            unprotected(&host, &protected).into_iter().map(|open| open.name).collect()
        };
        assert_eq!(open(&[2, 3]), ["docker0"], "every port is protected");
        assert_eq!(open(&[4]), ["docker0"]);
        assert_eq!(open(&[5]), ["bond0", "docker0"], "a VLAN protects itself alone");
        assert_eq!(open(&[2]), ["bond0", "bond0.10", "docker0"], "packets come by the other port too");
        assert!(host.touches(5, &BTreeSet::from([2])) && !host.touches(6, &BTreeSet::from([2])));
        let below = |index, protected: &[u32]| {
            host.first_below(index, &protected.iter().copied().collect()).map(|link| link.name.as_str())
        };
        assert_eq!(below(5, &[5, 3]), Some("eth1"), "a VLAN of a bond of it");
        assert_eq!(below(5, &[5, 4, 3]), Some("bond0"), "the nearest");
        assert_eq!((below(5, &[5]), below(2, &[2, 4, 5]), below(6, &[2, 3, 4, 5, 6])), (None, None, None));
    }

    #[test]
    fn interfaces_that_stand_on_each_other_in_a_ring_end_the_search() {
        let mut host =
            view(&[(2, "a", Some("vlan"), Layer::Ethernet), (3, "b", Some("vlan"), Layer::Ethernet)]);
        host.links.get_mut(&2).unwrap().parent = Some(3);
        host.links.get_mut(&3).unwrap().parent = Some(2);
        assert!(!host.touches(2, &BTreeSet::from([9])));
        assert_eq!(host.first_below(2, &BTreeSet::from([9])), None);
    }
}
