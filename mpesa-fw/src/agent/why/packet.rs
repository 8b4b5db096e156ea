//! Frames made from what somebody says of a packet.

use std::net::IpAddr;

use mpesa_fw_common::packet::protocol;

/// TCP flags.
pub(in crate::agent) mod flags {
    pub(in crate::agent) const SYN: u8 = 0x02;
    pub(in crate::agent) const ACK: u8 = 0x10;
}

/// A packet without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Packet {
    pub(in crate::agent) source: IpAddr,
    pub(in crate::agent) target: IpAddr,
    /// IANA.
    pub(in crate::agent) protocol: u8,
    /// Of TCP and UDP.
    pub(in crate::agent) source_port: u16,
    /// Likewise.
    pub(in crate::agent) target_port: u16,
    /// Of TCP.
    pub(in crate::agent) flags: u8,
    /// Of ICMP and ICMPv6.
    pub(in crate::agent) icmp_type: u8,
}

impl Packet {
    /// A TCP segment.
    pub(in crate::agent) const fn tcp(source: (IpAddr, u16), target: (IpAddr, u16), flags: u8) -> Self {
        Self {
            source: source.0,
            target: target.0,
            protocol: protocol::TCP,
            source_port: source.1,
            target_port: target.1,
            flags,
            icmp_type: 0,
        }
    }

    /// The Ethernet frame. Checksums are left 0: no hook looks at them. None where the two ends are of different families.
    pub(in crate::agent) fn frame(&self) -> Option<Vec<u8>> {
        let payload = self.transport();
        let length = payload.len() as u16;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (self.source, self.target) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((20 + length).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, self.hop_limit(), self.protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([self.protocol, self.hop_limit()]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        frame.extend(payload);
        Some(frame)
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.protocol {
            protocol::TCP => {
                bytes.extend(self.source_port.to_be_bytes());
                bytes.extend(self.target_port.to_be_bytes());
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            protocol::UDP => {
                bytes.extend(self.source_port.to_be_bytes());
                bytes.extend(self.target_port.to_be_bytes());
                bytes.extend([0, 8, 0, 0]);
            }
            protocol::ICMP | protocol::ICMPV6 => bytes.extend([self.icmp_type, 0, 0, 0, 0, 1, 0, 1]),
            _ => bytes.extend([0; 8]),
        }
        bytes
    }

    /// What honest senders use: neighbour discovery 255 (RFC 4861), MLD 1 (RFC 3810).
    const fn hop_limit(&self) -> u8 {
        match (self.protocol, self.icmp_type) {
            (protocol::ICMPV6, 133..=137) => 255,
            (protocol::ICMPV6, 130..=132 | 143) => 1,
            _ => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    fn packet(source: &str, target: &str, protocol: u8) -> Packet {
        Packet {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            protocol,
            source_port: 4000,
            target_port: 443,
            flags: flags::SYN,
            icmp_type: 8,
        }
    }

    #[test]
    fn another_parser_reads_what_was_meant() {
        for (source, target) in [("192.0.2.1", "10.0.0.5"), ("2001:db8::1", "2001:db8::5")] {
            for protocol in [6, 17, 1, 58, 132] {
                let frame = packet(source, target, protocol).frame().unwrap();
                let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
                let length = match sliced.net.unwrap() {
                    NetSlice::Ipv4(ip) => {
                        assert_eq!(ip.header().source_addr().to_string(), source);
                        14 + usize::from(ip.header().total_len())
                    }
                    NetSlice::Ipv6(ip) => {
                        assert_eq!(ip.header().destination_addr().to_string(), target);
                        54 + usize::from(ip.header().payload_length())
                    }
                    NetSlice::Arp(_) => panic!("no ARP"),
                };
                assert_eq!(length, frame.len());
                match (protocol, sliced.transport) {
                    (6, Some(TransportSlice::Tcp(tcp))) => {
                        assert!(tcp.syn() && !tcp.ack());
                        assert_eq!((tcp.source_port(), tcp.destination_port()), (4000, 443));
                    }
                    (17, Some(TransportSlice::Udp(udp))) => assert_eq!(udp.destination_port(), 443),
                    (1, Some(TransportSlice::Icmpv4(icmp))) => assert_eq!(icmp.slice()[0], 8),
                    (58, Some(TransportSlice::Icmpv6(icmp))) => assert_eq!(icmp.slice()[0], 8),
                    (132, None) => {}
                    (_, other) => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn two_families_make_no_packet() {
        assert_eq!(packet("192.0.2.1", "2001:db8::5", 6).frame(), None);
    }
}
