//! A second opinion on the bytes, where etherparse, which knows nothing of us, has one.

use std::net::IpAddr;

use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use mpesa_fw_common::{
    Address,
    packet::{FragmentKind, PacketMeta, Parsed, protocol},
};

use crate::host::Frame;

/// Offsets and lengths that must hold of whatever the parser calls IP.
pub(super) fn check_bounds(frame: &Frame, meta: &PacketMeta) {
    if meta.parsed != Parsed::Ip {
        return;
    }
    let length = frame.bytes.len() as u32;
    assert!(meta.end <= length, "it ends behind the frame: {meta:?}");
    assert!(meta.transport_offset >= 14 + 20, "the transport header begins in another: {meta:?}");
    if meta.fragment == FragmentKind::Unjudgeable {
        return; // as many facts as fit
    }
    if meta.fragment == FragmentKind::Later {
        assert_eq!(
            (meta.source_port, meta.target_port, meta.icmp_type),
            (0, 0, 0),
            "facts of a later fragment"
        );
        assert!(!meta.quoted.is_readable);
        return;
    }
    let least = match meta.protocol {
        protocol::TCP => 20,
        protocol::UDP => 8,
        _ if meta.is_icmp() => 8,
        _ => 0,
    };
    assert!(meta.transport_offset + least + meta.payload <= meta.end, "no room for the header: {meta:?}");
    if !meta.is_tcp() {
        assert_eq!((meta.tcp_flags, meta.payload), (0, 0));
    }
    if !meta.is_tcp() && !meta.is_udp() {
        assert_eq!((meta.source_port, meta.target_port), (0, 0));
    }
    if !meta.is_icmp() {
        assert_eq!((meta.icmp_type, meta.icmp_id), (0, 0));
    }
    assert!(!meta.quoted.is_readable || meta.is_icmp_error() && meta.fragment == FragmentKind::Whole);
}

/// Where both understand a frame they must understand the same; and what is plainly good may not be refused.
pub(super) fn compare(frame: &Frame, meta: &PacketMeta) {
    if frame.segmented || frame.stripped_tags != 0 {
        return;
    }
    let Ok(packet) = SlicedPacket::from_ethernet(&frame.bytes) else {
        return;
    };
    let Some(ends) = addresses(&packet) else {
        return;
    };
    if packet.link_exts.len() > 2 {
        assert_ne!(meta.parsed, Parsed::Ip, "a third tag");
        return;
    }
    if meta.parsed != Parsed::Ip {
        // A tag of another kind (0x9100, before 802.1ad; MACsec, 802.1AE) is none for us: dropped.
        let tags = [12, 16].map(|at| frame.bytes.get(at..at + 2) == Some(&[0x91, 0x00]));
        let is_macsec = packet.link_exts.iter().any(|ext| matches!(ext, LinkExtSlice::Macsec(_)));
        assert!(
            is_macsec || tags.contains(&true) || !is_plain(&packet) || is_mapped(ends[1]),
            "{:?}, but etherparse reads {packet:?}",
            meta.parsed
        );
        return;
    }
    assert_eq!(ends.map(Address::from), [meta.source, meta.target]);
    let whole = meta.fragment == FragmentKind::Whole;
    // Of IPv6 not asked: etherparse 0.19 takes reserved bits of the fragment header for the offset, and others for none.
    if let Some(NetSlice::Ipv4(ip)) = &packet.net {
        assert_eq!(ip.header().is_fragmenting_payload(), !whole, "fragment: {:?}", meta.fragment);
    }
    if let (true, Some(transport)) = (whole, &packet.transport) {
        same_transport(frame, meta, transport);
    }
}

fn addresses(packet: &SlicedPacket<'_>) -> Option<[IpAddr; 2]> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some([ip.header().source_addr().into(), ip.header().destination_addr().into()]),
        NetSlice::Ipv6(ip) => Some([ip.header().source_addr().into(), ip.header().destination_addr().into()]),
        NetSlice::Arp(_) => None,
    }
}

/// Never a target on the wire: refused.
fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// TCP or UDP as nearly every packet is: whole, no extension headers.
fn is_plain(packet: &SlicedPacket<'_>) -> bool {
    let transport = match &packet.transport {
        Some(TransportSlice::Udp(udp)) => udp.length() >= 8,
        Some(TransportSlice::Tcp(_)) => true,
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) | None => false,
    };
    let network = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => !ip.header().is_fragmenting_payload() && ip.extensions().auth.is_none(),
        // Length 0 is etherparse's "as much as there is".
        Some(NetSlice::Ipv6(ip)) => ip.extensions().is_empty() && ip.header().payload_length() != 0,
        Some(NetSlice::Arp(_)) | None => false,
    };
    transport && network
}

fn same_transport(frame: &Frame, meta: &PacketMeta, transport: &TransportSlice<'_>) {
    let offset = |slice: &[u8]| slice.as_ptr() as usize - frame.bytes.as_ptr() as usize;
    let at = meta.transport_offset as usize;
    match transport {
        // Of an authentication header in IPv4 etherparse tells what is behind it; here it is the protocol.
        _ if meta.protocol == 51 => {}
        TransportSlice::Tcp(tcp) => {
            let flags = [(tcp.fin(), 1), (tcp.syn(), 2), (tcp.rst(), 4), (tcp.psh(), 8), (tcp.ack(), 16)];
            let flags = flags.iter().fold(0, |all, (set, bit)| if *set { all | bit } else { all });
            assert_eq!(
                (meta.protocol, meta.source_port, meta.target_port, meta.tcp_flags & 0x1f, at),
                (protocol::TCP, tcp.source_port(), tcp.destination_port(), flags, offset(tcp.slice()))
            );
            assert_eq!(meta.payload as usize, tcp.payload().len());
        }
        TransportSlice::Udp(udp) => assert_eq!(
            (meta.protocol, meta.source_port, meta.target_port, at),
            (protocol::UDP, udp.source_port(), udp.destination_port(), offset(udp.slice()))
        ),
        TransportSlice::Icmpv4(icmp) if meta.is_icmp() => {
            assert_eq!((meta.icmp_type, at), (icmp.type_u8(), offset(icmp.slice())));
        }
        TransportSlice::Icmpv6(icmp) if meta.is_icmp() => {
            assert_eq!((meta.icmp_type, at), (icmp.type_u8(), offset(icmp.slice())));
        }
        // ICMP in IPv6, ICMPv6 in IPv4: neither, for us.
        TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) => assert!(!meta.is_icmp()),
    }
}
