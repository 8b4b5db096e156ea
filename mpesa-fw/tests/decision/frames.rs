//! Frames, built by hand: a header may say anything, right or wrong.

use std::net::{IpAddr, SocketAddr};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;

/// Where the network header of an untagged frame is.
pub(crate) const NETWORK: usize = 14;

/// An Ethernet frame.
pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frame with VLAN tags of these kinds, the outermost first; VLAN ids from 100 on.
pub(crate) fn tagged(kinds: &[u16], frame: &[u8]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    for (n, kind) in kinds.iter().enumerate() {
        tagged.extend(kind.to_be_bytes());
        tagged.extend((100 + n as u16).to_be_bytes());
    }
    tagged.extend(&frame[12..]);
    tagged
}

/// What stands in an IPv4 header besides addresses; `None`: what is right.
#[derive(Clone, Default)]
pub(crate) struct V4 {
    pub(crate) options: Vec<u8>,
    pub(crate) id: u16,
    /// Flags and fragment offset.
    pub(crate) fragment: u16,
    pub(crate) ttl: Option<u8>,
    pub(crate) version: Option<u8>,
    /// In words.
    pub(crate) header: Option<u8>,
    pub(crate) total: Option<u16>,
}

pub(crate) const MORE: u16 = 0x2000;

pub(crate) fn ipv4(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8], h: &V4) -> Vec<u8> {
    let words = (20 + h.options.len()) / 4;
    let total = (20 + h.options.len() + payload.len()) as u16;
    let mut packet = vec![(h.version.unwrap_or(4) << 4) | h.header.unwrap_or(words as u8), 0];
    packet.extend(h.total.unwrap_or(total).to_be_bytes());
    packet.extend(h.id.to_be_bytes());
    packet.extend(h.fragment.to_be_bytes());
    packet.extend([h.ttl.unwrap_or(64), protocol, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(target));
    packet.extend(&h.options);
    packet.extend(payload);
    ethernet(IPV4, &packet)
}

/// What stands in an IPv6 header besides addresses; `None`: what is right.
#[derive(Clone, Copy, Default)]
pub(crate) struct V6 {
    pub(crate) hop_limit: Option<u8>,
    pub(crate) version: Option<u8>,
    pub(crate) length: Option<u16>,
}

pub(crate) fn ipv6(source: IpAddr, target: IpAddr, next: u8, payload: &[u8], h: V6) -> Vec<u8> {
    let mut packet = vec![h.version.unwrap_or(6) << 4, 0, 0, 0];
    packet.extend(h.length.unwrap_or(payload.len() as u16).to_be_bytes());
    packet.extend([next, h.hop_limit.unwrap_or(64)]);
    packet.extend(octets(source));
    packet.extend(octets(target));
    packet.extend(payload);
    ethernet(IPV6, &packet)
}

/// Of either family, with headers that are right.
pub(crate) fn packet(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    if source.is_ipv4() {
        ipv4(source, target, protocol, payload, &V4::default())
    } else {
        ipv6(source, target, protocol, payload, V6::default())
    }
}

/// A fragment of either family; `offset` in units of 8 bytes.
pub(crate) fn fragment(
    (source, target): (IpAddr, IpAddr),
    protocol: u8,
    id: u16,
    offset: u16,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    if source.is_ipv4() {
        let fragment = offset | if more { MORE } else { 0 };
        return ipv4(source, target, protocol, payload, &V4 { id, fragment, ..V4::default() });
    }
    let header = fragment_header(protocol, u32::from(id), offset, more);
    ipv6(source, target, 44, &[&header, payload].concat(), V6::default())
}

pub(crate) fn fragment_header(next: u8, id: u32, offset: u16, more: bool) -> Vec<u8> {
    let mut header = vec![next, 0];
    header.extend(((offset << 3) | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    header
}

/// A chain of extension headers of 8 bytes each (authentication: 16) before `upper`: what the header in front of it
/// must say is next, and its bytes. Fragment headers are atomic.
pub(crate) fn chain(kinds: &[u8], upper: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (n, kind) in kinds.iter().enumerate() {
        let next = kinds.get(n + 1).copied().unwrap_or(upper);
        match kind {
            44 => bytes.extend(fragment_header(next, 7, 0, false)),
            51 => bytes.extend([&[next, 2][..], &[0; 14]].concat()),
            _ => bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    bytes.extend(payload);
    (kinds.first().copied().unwrap_or(upper), bytes)
}

/// A TCP segment without options.
pub(crate) fn tcp_segment(source: u16, target: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = source.to_be_bytes().to_vec();
    segment.extend(target.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

pub(crate) fn udp_datagram(source: u16, target: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = source.to_be_bytes().to_vec();
    datagram.extend(target.to_be_bytes());
    datagram.extend((8 + payload.len() as u16).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

pub(crate) fn icmp_message(kind: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(body);
    message
}

/// TCP of either family, `a.b.c.d:port` or `[a::b]:port`.
pub(crate) fn tcp(source: &str, target: &str, flags: u8) -> Vec<u8> {
    tcp_with(source, target, flags, &[])
}

pub(crate) fn tcp_with(source: &str, target: &str, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (source, target) = (socket(source), socket(target));
    packet(source.ip(), target.ip(), TCP, &tcp_segment(source.port(), target.port(), flags, payload))
}

pub(crate) fn udp(source: &str, target: &str) -> Vec<u8> {
    let (source, target) = (socket(source), socket(target));
    packet(source.ip(), target.ip(), UDP, &udp_datagram(source.port(), target.port(), b"data"))
}

/// ICMP or ICMPv6, as the addresses have it.
pub(crate) fn icmp(source: &str, target: &str, kind: u8, id: u16) -> Vec<u8> {
    let (source, target) = (ip(source), ip(target));
    packet(source, target, icmp_number(source), &icmp_message(kind, id, b"echo"))
}

/// ICMPv6 with this hop limit, as neighbour discovery has it.
pub(crate) fn icmpv6_hop(source: &str, target: &str, kind: u8, hop_limit: u8) -> Vec<u8> {
    let hop = V6 { hop_limit: Some(hop_limit), ..V6::default() };
    ipv6(ip(source), ip(target), ICMPV6, &icmp_message(kind, 0, &[0; 16]), hop)
}

/// An ICMP error from `source` to `target` that quotes the beginning of a packet, `quoted` a whole frame.
pub(crate) fn icmp_error(source: &str, target: &str, kind: u8, quoted: &[u8]) -> Vec<u8> {
    let (source, target) = (ip(source), ip(target));
    packet(source, target, icmp_number(source), &icmp_message(kind, 0, &quoted[NETWORK..]))
}

/// Port unreachable and the like: the error of each family that says so.
pub(crate) const fn unreachable(is_v4: bool) -> u8 {
    if is_v4 { 3 } else { 1 }
}

pub(crate) fn icmp_number(address: IpAddr) -> u8 {
    if address.is_ipv4() { ICMP } else { ICMPV6 }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
