//! What the oracle asks of rules and packets, one question a function.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::facts::{Header, Packet, Topic, Upper};
use crate::policy::model::{Addresses, Claim, Destination, Owner, Policy, Service};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const MLD_QUERY: u8 = 130;
const MLD_REPORTS: [u8; 3] = [131, 132, 143];

/// Whether a rule is about this.
pub(super) fn claims(claims: &[Claim], topic: Topic) -> bool {
    claims.iter().any(|claim| match (claim, topic) {
        (Claim::Tcp(ports), Topic::Tcp(port)) | (Claim::Udp(ports), Topic::Udp(port)) => {
            ports.iter().any(|range| range.contains(&port))
        }
        (Claim::Icmp(kinds), Topic::Icmp(kind)) | (Claim::Icmpv6(kinds), Topic::Icmpv6(kind)) => {
            kinds.is_empty() || kinds.contains(&kind)
        }
        (Claim::Other(claimed), Topic::Other(number)) => *claimed == number,
        _ => false,
    })
}

/// Whether a service may be sent to `local` by `remote`.
pub(super) fn admits(policy: &Policy, service: &Service, local: IpAddr, remote: IpAddr) -> bool {
    (service.to.is_empty() || contains(&service.to, local)) && is_among(policy, &service.from, remote)
}

/// Whether a destination is at `remote`, of which these are the names.
pub(super) fn is_at(
    policy: &Policy,
    destination: &Destination,
    remote: IpAddr,
    names: Option<&HashSet<String>>,
) -> bool {
    is_among(policy, &destination.to, remote)
        || destination.names.iter().any(|name| names.is_some_and(|names| names.contains(name)))
}

/// Whether a destination is given by names alone.
pub(super) fn is_by_name_only(destination: &Destination) -> bool {
    let Addresses { any, prefixes, sets } = &destination.to;
    !any && prefixes.is_empty() && sets.is_empty()
}

fn is_among(policy: &Policy, addresses: &Addresses, address: IpAddr) -> bool {
    addresses.any
        || contains(&addresses.prefixes, address)
        || addresses.sets.iter().any(|set| contains(&policy.sets[*set].prefixes, address))
}

/// Whether one of the prefixes holds the address.
pub(super) fn contains(prefixes: &[IpNet], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

/// A SYN without ACK.
pub(super) fn opens_connection(header: &Header) -> bool {
    matches!(header.upper, Upper::Tcp { flags, .. } if flags & (SYN | ACK) == SYN)
}

/// FIN or RST.
pub(super) fn ends_connection(header: &Header) -> bool {
    matches!(header.upper, Upper::Tcp { flags, .. } if flags & (FIN | RST) != 0)
}

/// Whether it opens a flow. TCP: a SYN without ACK, and what is forwarded in the middle of a connection, for no program
/// here knows who opened that; never an answer to a SYN, nor a RST. ICMP: what has an answer.
pub(super) fn opens_flow(header: &Header, is_of_a_program: bool) -> bool {
    match header.upper {
        Upper::Tcp { flags, .. } => {
            let answers = flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK;
            opens_connection(header) || !is_of_a_program && !answers
        }
        Upper::Icmp { kind, .. } => matches!(kind, 8 | 13),
        Upper::Icmpv6 { kind, .. } => kind == 128,
        Upper::Udp { .. } | Upper::Other(_) => true,
    }
}

/// What the kernel says for a socket that is gone: RST, ACK or FIN, no SYN, no payload.
pub(super) fn is_last_word(header: &Header) -> bool {
    matches!(header.upper, Upper::Tcp { flags, payload: 0, .. } if flags & SYN == 0 && flags & (RST | ACK | FIN) != 0)
}

/// No honest packet from the wire has this source, own addresses apart.
pub(super) fn is_impossible(header: &Header) -> bool {
    match header.source {
        IpAddr::V4(source) => {
            let asks_for_an_address = source == Ipv4Addr::UNSPECIFIED
                && matches!(header.upper, Upper::Udp { source: 68, target: 67 });
            source.is_loopback()
                || source.is_multicast()
                || source == Ipv4Addr::BROADCAST
                || source.octets()[0] == 0 && !asks_for_an_address
        }
        IpAddr::V6(source) => {
            let asks_for_an_address = source == Ipv6Addr::UNSPECIFIED
                && matches!(header.upper, Upper::Icmpv6 { kind, .. }
                    if [NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION].contains(&kind) || MLD_REPORTS.contains(&kind));
            source.is_loopback()
                || source.is_multicast()
                || source.to_ipv4_mapped().is_some()
                || source == Ipv6Addr::UNSPECIFIED && !asks_for_an_address
        }
    }
}

/// What comes to a host that lives on its link: DHCP, neighbour discovery (RFC 4861), MLD (RFC 3810).
pub(super) fn keeps_alive(packet: &Packet) -> bool {
    let is_near = is_link_local(packet.header.source);
    let is_unspecified = packet.header.source == Ipv6Addr::UNSPECIFIED;
    match (packet.header.upper, packet.hop_limit) {
        (Upper::Udp { source: 67, target: 68 }, _) => packet.header.source.is_ipv4(),
        (Upper::Udp { source: 547, target: 546 }, _) => is_near,
        (Upper::Icmpv6 { kind: NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT, .. }, 255) => true,
        (Upper::Icmpv6 { kind: ROUTER_ADVERTISEMENT, .. }, 255) => is_near,
        (Upper::Icmpv6 { kind: MLD_QUERY, .. }, 1) => is_near,
        (Upper::Icmpv6 { kind, .. }, 1) if MLD_REPORTS.contains(&kind) => is_near || is_unspecified,
        _ => false,
    }
}

/// What such a host says.
pub(super) fn asks_to_live(packet: &Packet) -> bool {
    match (packet.header.upper, packet.hop_limit) {
        (Upper::Udp { source: 68, target: 67 }, _) => is_near4(packet.header.target),
        (Upper::Udp { source: 546, target: 547 }, _) => {
            is_link_local(packet.header.target) || packet.header.target == ALL_DHCP_SERVERS
        }
        (Upper::Icmpv6 { kind, .. }, 255) => {
            [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT].contains(&kind)
        }
        (Upper::Icmpv6 { kind, .. }, 1) => MLD_REPORTS.contains(&kind),
        _ => false,
    }
}

/// RFC 8415 7.1.
const ALL_DHCP_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// Broadcast, private (RFC 1918), link-local (RFC 3927), shared (RFC 6598).
fn is_near4(address: IpAddr) -> bool {
    let IpAddr::V4(v4) = address else { return false };
    let is_shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
    v4 == Ipv4Addr::BROADCAST || v4.is_private() || v4.is_link_local() || is_shared
}

/// Whether a rule is for one of these owners, or for everybody; or it does not matter who they are.
pub(super) fn is_by(by: &[Owner], owners: Option<&[Owner]>) -> bool {
    by.is_empty() || owners.is_none_or(|owners| owners.iter().any(|owner| by.contains(owner)))
}

/// Whether an answer of a service has to come from the service's owner: not along a connection that he has accepted, nor from
/// the kernel, which answers pings.
pub(super) fn asks_owner(header: &Header) -> bool {
    match header.upper {
        Upper::Tcp { flags, .. } => flags & (SYN | ACK) == SYN | ACK,
        Upper::Icmp { .. } | Upper::Icmpv6 { .. } => false,
        Upper::Udp { .. } | Upper::Other(_) => true,
    }
}
