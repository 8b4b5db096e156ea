//! Frames made from what somebody says of a packet.

use std::net::IpAddr;

use mpesa_fw_common::packet::protocol;

use crate::agent::frame::{Ends, HOP_LIMIT};

/// A packet without payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
    /// IANA.
    pub(super) protocol: u8,
    /// Of TCP and UDP.
    pub(super) source_port: u16,
    /// Likewise.
    pub(super) target_port: u16,
    /// Of TCP.
    pub(super) flags: u8,
    /// Of ICMP and ICMPv6.
    pub(super) icmp_type: u8,
}

impl Packet {
    /// The Ethernet frame. Checksums are left 0: no hook looks at them. None where the two ends are of different families.
    pub(super) fn frame(&self) -> Option<Vec<u8>> {
        let ends = Ends {
            source: (self.source, self.source_port).into(),
            target: (self.target, self.target_port).into(),
        };
        match self.protocol {
            protocol::TCP => ends.tcp(self.flags),
            protocol::UDP => ends.udp(),
            protocol::ICMP | protocol::ICMPV6 => {
                ends.frame(self.protocol, self.hop_limit(), &[self.icmp_type, 0, 0, 0, 0, 1, 0, 1])
            }
            other => ends.frame(other, HOP_LIMIT, &[0; 8]),
        }
    }

    /// What honest senders use: neighbour discovery 255 (RFC 4861), MLD 1 (RFC 3810).
    const fn hop_limit(&self) -> u8 {
        match (self.protocol, self.icmp_type) {
            (protocol::ICMPV6, 133..=137) => 255,
            (protocol::ICMPV6, 130..=132 | 143) => 1,
            _ => HOP_LIMIT,
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;
    use crate::agent::frame::SYN;

    fn packet(source: &str, target: &str, protocol: u8) -> Packet {
        Packet {
            source: source.parse().unwrap(),
            target: target.parse().unwrap(),
            protocol,
            source_port: 4000,
            target_port: 443,
            flags: SYN,
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
