//! The packets that are rated. An address of each, and of some a number, is varied in the kernel.

use std::net::IpAddr;

use anyhow::Result;
use etherparse::{IpNumber, PacketBuilder};

/// The port of the callbacks.
pub(crate) const PORT: u16 = 443;
/// This host.
pub(crate) const LOCAL4: [u8; 4] = [10, 0, 0, 5];
/// This host.
pub(crate) const LOCAL6: [u8; 16] = [0x2c, 0x0f, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
/// What is varied, before it is.
const PEER4: [u8; 4] = [192, 0, 2, 1];
const PEER6: [u8; 16] = [0x20; 16];
/// Of a peer.
const HIGH_PORT: u16 = 40000;
/// MSS 1460, selective acknowledgements, two of nothing.
const SYN_OPTIONS: [u8; 8] = [2, 4, 5, 180, 4, 2, 1, 1];
const ETHERNET: usize = 14;

/// A SYN to a port of this host, of 60 bytes and more, as Linux sends it.
pub(crate) fn syn(v4: bool, port: u16) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let network = if v4 { link.ipv4(PEER4, LOCAL4, 64) } else { link.ipv6(PEER6, LOCAL6, 64) };
    let packet = network.tcp(HIGH_PORT, port, 1, 64240).syn().options_raw(&SYN_OPTIONS)?;
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[])?;
    Ok(bytes)
}

/// A SYN of this host to a port of a peer, IPv4.
pub(crate) fn opening(port: u16) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let packet =
        link.ipv4(LOCAL4, PEER4, 64).tcp(HIGH_PORT, port, 1, 64240).syn().options_raw(&SYN_OPTIONS)?;
    let mut bytes = Vec::with_capacity(packet.size(0));
    packet.write(&mut bytes, &[])?;
    Ok(bytes)
}

/// 64 bytes along an open connection of this host with a port of a peer, IPv4.
pub(crate) fn segment(towards_host: bool, port: u16) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = if towards_host {
        link.ipv4(PEER4, LOCAL4, 64).tcp(port, HIGH_PORT, 1, 500)
    } else {
        link.ipv4(LOCAL4, PEER4, 64).tcp(HIGH_PORT, port, 1, 500)
    };
    let packet = packet.ack(1).psh();
    let mut bytes = Vec::with_capacity(packet.size(64));
    packet.write(&mut bytes, &[0; 64])?;
    Ok(bytes)
}

/// A part of a UDP datagram to a port of this host, IPv4: the first 64 bytes behind the header, or later ones.
pub(crate) fn fragment(port: u16, first: bool) -> Result<Vec<u8>> {
    /// In units of 8 bytes.
    const LATER: u16 = (8 + 64) / 8;
    const MORE: u16 = 0x2000;
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = link.ipv4(PEER4, LOCAL4, 64).udp(HIGH_PORT, port);
    let mut bytes = Vec::with_capacity(packet.size(64));
    packet.write(&mut bytes, &[0; 64])?;
    let offset = if first { MORE } else { MORE | LATER };
    bytes[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&offset.to_be_bytes());
    if first {
        // What the whole datagram has.
        bytes[ETHERNET + 24..ETHERNET + 26].copy_from_slice(&1000_u16.to_be_bytes());
    }
    Ok(bytes)
}

/// What a name server answers to a question for the addresses of a name, IPv4.
pub(crate) fn answer(server: [u8; 4], local_port: u16, name: &str, addresses: u16) -> Result<Vec<u8>> {
    /// Response, recursion desired and available (RFC 1035 4.1.1).
    const FLAGS: [u8; 2] = [0x81, 0x80];
    /// The name at octet 12, type A, class IN, a TTL of 60 seconds, four octets.
    const RECORD: [u8; 12] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4];
    let mut message = [&[0, 7][..], &FLAGS, &[0, 1], &addresses.to_be_bytes(), &[0; 4]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    for n in 0..addresses {
        message.extend(RECORD);
        message.extend([198, 19, 0, n as u8]);
    }
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let packet = link.ipv4(server, LOCAL4, 64).udp(53, local_port);
    let mut bytes = Vec::with_capacity(packet.size(message.len()));
    packet.write(&mut bytes, &message)?;
    Ok(bytes)
}

/// A SYN to a port of this host behind one of each extension header, in the order of RFC 8200 4.1.
pub(crate) fn behind_extension_headers(port: u16) -> Result<Vec<u8>> {
    /// PadN: six bytes of nothing.
    const NOTHING: [u8; 6] = [1, 4, 0, 0, 0, 0];
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const OPTIONS: u8 = 60;
    let syn = syn(false, port)?;
    let (network, transport) = syn.split_at(ETHERNET + 40);
    let headers = [
        // Hop-by-hop options.
        &[OPTIONS, 0][..],
        &NOTHING,
        // Destination options.
        &[ROUTING, 0],
        &NOTHING,
        // A routing header of an experiment (RFC 4727) with no segments left.
        &[FRAGMENT, 0, 253, 0, 0, 0, 0, 0],
        // A fragment that is the whole packet (RFC 6946).
        &[AUTHENTICATION, 0, 0, 0, 0, 0, 0, 7],
        // Authentication: 6 words of 4 bytes, less two.
        &[OPTIONS, 4],
        &[0; 22],
        // Destination options.
        &[IpNumber::TCP.0, 0],
        &NOTHING,
    ]
    .concat();
    let mut bytes = network.to_vec();
    bytes[ETHERNET + 6] = HOP_BY_HOP;
    let payload = (headers.len() + transport.len()) as u16;
    bytes[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&payload.to_be_bytes());
    bytes.extend(headers);
    bytes.extend(transport);
    Ok(bytes)
}

/// This host's address of a family.
pub(crate) fn local(v4: bool) -> IpAddr {
    if v4 { IpAddr::from(LOCAL4) } else { IpAddr::from(LOCAL6) }
}
