//! Reads the routes of both families.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums grow with the kernel; what they gain is not understood here"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use mpesa_fw_common::attempt::WAYS_CAPACITY;
use netlink_packet_core::Parseable as _;
use netlink_sys::protocols::NETLINK_ROUTE;
use rtnetlink::packet_route::{
    AddressFamily,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
    },
};

use super::routes::{Leads, Route};
use crate::agent::ask::ask;

const RTM_GETROUTE: u16 = 26;
/// `struct rtmsg`.
const QUESTION: usize = 12;
/// Routes of a family, those of other tables too: a router's are not read to the end.
const LIMIT: usize = 4 * WAYS_CAPACITY as usize;

/// All routes of the network namespace of this thread.
///
/// # Errors
/// The kernel does not answer, or not in a way that is understood; or there are very many.
pub(super) fn routes() -> io::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = [0; QUESTION];
        question[0] = family.into();
        let answers = match ask(NETLINK_ROUTE, RTM_GETROUTE, &question, LIMIT) {
            Ok(answers) => answers,
            Err(error) if is_without_family(&error) => continue,
            Err(error) => return Err(error),
        };
        for answer in answers {
            let message = RouteMessage::parse(&answer).map_err(io::Error::other)?;
            if message.header.address_family == family {
                routes.extend(route(&message)?);
            }
        }
    }
    Ok(routes)
}

/// A kernel without IPv6 has no routes of it.
pub(super) fn is_without_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EOPNOTSUPP))
}

/// None: what the kernel remembers of a single destination.
fn route(message: &RouteMessage) -> io::Result<Option<Route>> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let mut to: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = (*address).into(),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let to = IpNet::new(to, header.destination_prefix_length).map_err(io::Error::other)?.trunc();
    let may_fall_back = to.addr().is_ipv6() && has_gateway(message);
    Ok(Some(Route { table, to, leads: leads(message), may_fall_back }))
}

fn leads(message: &RouteMessage) -> Leads {
    let header = &message.header;
    match header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => return Leads::Here,
        RouteType::Unicast => {}
        // Blackhole, unreachable, prohibit: nothing leaves. Throw: another table says.
        _ => return Leads::Unclear,
    }
    // A route whose interface has no carrier may be passed over (`ignore_routes_with_linkdown`).
    let is_passed_over = header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown);
    if header.tos != 0 || header.source_prefix_length != 0 || is_passed_over {
        return Leads::Unclear;
    }
    let mut interfaces = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interfaces.push(*index),
            RouteAttribute::MultiPath(hops) => {
                if hops.iter().any(is_odd) {
                    return Leads::Unclear;
                }
                interfaces.extend(hops.iter().map(|hop| hop.interface_index));
            }
            other if is_changed_by(other) => return Leads::Unclear,
            _ => {}
        }
    }
    // Without one: an object (`ip nexthop`) that is listed elsewhere.
    if interfaces.is_empty() { Leads::Unclear } else { Leads::By(interfaces) }
}

fn is_odd(hop: &RouteNextHop) -> bool {
    hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown)
        || hop.attributes.iter().any(is_changed_by)
}

/// Whether packets leave as others than they were sent (light-weight tunnels, MPLS, SRv6), or nobody here knows how.
fn is_changed_by(attribute: &RouteAttribute) -> bool {
    matches!(
        attribute,
        RouteAttribute::Encap(_)
            | RouteAttribute::EncapType(_)
            | RouteAttribute::NewDestination(_)
            | RouteAttribute::NewDestinationAddress(_)
            | RouteAttribute::Source(_)
            | RouteAttribute::Other(_)
    )
}

fn has_gateway(message: &RouteMessage) -> bool {
    let is_one = |attribute: &RouteAttribute| {
        matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::NhId(_))
    };
    message.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => hops.iter().any(|hop| hop.attributes.iter().any(is_one)),
        other => is_one(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unicast(attributes: &[RouteAttribute]) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = 254;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes.to_vec();
        message
    }

    fn leads_to(message: &RouteMessage) -> Leads {
        route(message).unwrap().unwrap().leads
    }

    fn hop(index: u32, attributes: &[RouteAttribute]) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = index;
        hop.attributes = attributes.to_vec();
        hop
    }

    #[test]
    fn a_default_route_by_one_or_two_interfaces() {
        let one = unicast(&[RouteAttribute::Oif(2)]);
        let told = route(&one).unwrap().unwrap();
        assert_eq!(told.to.to_string(), "0.0.0.0/0");
        assert_eq!((told.table, told.leads), (254, Leads::By(vec![2])));
        let two = [RouteAttribute::MultiPath(vec![hop(2, &[]), hop(3, &[])])];
        assert_eq!(leads_to(&unicast(&two)), Leads::By(vec![2, 3]));
        assert_eq!(route(&unicast(&[RouteAttribute::Table(1000)])).unwrap().unwrap().table, 1000);
    }

    #[test]
    fn what_more_than_the_address_decides_is_unclear() {
        let oif = RouteAttribute::Oif(2);
        let with = |change: &dyn Fn(&mut RouteMessage)| {
            let mut message = unicast(std::slice::from_ref(&oif));
            change(&mut message);
            leads_to(&message)
        };
        assert_eq!(with(&|_| {}), Leads::By(vec![2]));
        // `ip route add 10.0.0.0/8 tos 0x10 dev eth0`
        assert_eq!(with(&|message| message.header.tos = 0x10), Leads::Unclear);
        // `ip -6 route add 2001:db8::/32 from 2001:db8:1::/48 dev eth0`
        assert_eq!(with(&|message| message.header.source_prefix_length = 48), Leads::Unclear);
        assert_eq!(with(&|message| message.header.flags = RouteFlags::Linkdown), Leads::Unclear);
        assert_eq!(with(&|message| message.header.flags = RouteFlags::Dead), Leads::Unclear);
        for kind in [RouteType::BlackHole, RouteType::Unreachable, RouteType::Prohibit, RouteType::Throw] {
            assert_eq!(with(&|message| message.header.kind = kind), Leads::Unclear, "{kind:?}");
        }
        for kind in [RouteType::Local, RouteType::Broadcast, RouteType::Anycast] {
            assert_eq!(with(&|message| message.header.kind = kind), Leads::Here, "{kind:?}");
        }
        // `nexthop_compat_mode=0`: an object, and no interface.
        assert_eq!(leads_to(&unicast(&[RouteAttribute::NhId(1)])), Leads::Unclear);
        // `ip route add … encap mpls 100 …`, `… encap seg6 …`
        let encap = RouteAttribute::EncapType(rtnetlink::packet_route::route::RouteLwEnCapType::Mpls);
        assert_eq!(leads_to(&unicast(&[oif.clone(), encap.clone()])), Leads::Unclear);
        assert_eq!(
            leads_to(&unicast(&[RouteAttribute::MultiPath(vec![hop(2, &[]), hop(2, &[encap])])])),
            Leads::Unclear
        );
        let mut down = hop(3, &[]);
        down.flags = RouteNextHopFlags::Linkdown;
        assert_eq!(leads_to(&unicast(&[RouteAttribute::MultiPath(vec![hop(2, &[]), down])])), Leads::Unclear);
    }

    #[test]
    fn gateways_of_another_family_are_fine_and_memories_are_none() {
        let via = RouteAttribute::Via(rtnetlink::packet_route::route::RouteVia::Inet6(Ipv6Addr::LOCALHOST));
        assert_eq!(leads_to(&unicast(&[RouteAttribute::Oif(2), via.clone()])), Leads::By(vec![2]));
        let mut message = unicast(&[RouteAttribute::Oif(2), via]);
        assert!(!route(&message).unwrap().unwrap().may_fall_back, "IPv4 does not look for another");
        message.header.address_family = AddressFamily::Inet6;
        assert!(route(&message).unwrap().unwrap().may_fall_back);
        message.header.flags = RouteFlags::Cloned;
        assert_eq!(route(&message).unwrap(), None);
    }

    #[test]
    fn this_machine_has_itself() {
        let here = |route: &Route| route.leads == Leads::Here && route.to.to_string() == "127.0.0.1/32";
        assert!(routes().unwrap().iter().any(here));
    }
}
