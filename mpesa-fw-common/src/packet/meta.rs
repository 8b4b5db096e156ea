//! What a decision asks of a packet.

use super::{Parsed, Quoted, icmp, icmpv6, protocol};
use crate::{
    address::{Address, Family},
    settings::Direction,
    state::{FlowKey, FragmentKey},
    tables::ClaimIndex,
};

/// How a packet is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FragmentKind {
    /// Not at all (an IPv6 atomic fragment, RFC 6946, is whole).
    Whole,
    /// The first of several, with its transport header.
    First,
    /// A later one.
    Later,
    /// A first one that cuts its transport header, or a later one of TCP that would overlap it (offset 1, RFC 3128).
    Unjudgeable,
}

/// The facts of one packet. Offsets and lengths are in bytes, offsets from the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketMeta {
    /// Source address.
    pub source: Address,
    /// Target address.
    pub target: Address,
    /// Where the transport header starts.
    pub transport_offset: u32,
    /// Where the packet ends; link-layer padding is behind it.
    pub end: u32,
    /// Identification of a fragment.
    pub fragment_id: u32,
    /// Bytes behind a TCP header.
    pub payload: u32,
    /// Source port of TCP and UDP, else 0.
    pub source_port: u16,
    /// Target port of TCP and UDP, else 0.
    pub target_port: u16,
    /// Identifier of an ICMP echo or timestamp.
    pub icmp_id: u16,
    /// Upper-layer protocol; of a later fragment what its headers say.
    pub protocol: u8,
    /// Protocol in the header that fragments the packet; part of its identity.
    pub fragment_protocol: u8,
    /// IP version.
    pub family: Family,
    /// How it is fragmented.
    pub fragment: FragmentKind,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Type of ICMP and ICMPv6, else 0.
    pub icmp_type: u8,
    /// What the walk came to; where it is not [`Parsed::Ip`], no other field counts.
    pub parsed: Parsed,
    /// What an ICMP error quotes.
    pub quoted: Quoted,
}

const TCP_FIN: u8 = 0x01;
const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;

impl PacketMeta {
    /// Nothing known yet.
    pub const EMPTY: Self = Self {
        source: Address::UNSPECIFIED,
        target: Address::UNSPECIFIED,
        transport_offset: 0,
        end: 0,
        fragment_id: 0,
        payload: 0,
        source_port: 0,
        target_port: 0,
        icmp_id: 0,
        protocol: 0,
        fragment_protocol: 0,
        family: Family::V4,
        fragment: FragmentKind::Whole,
        hop_limit: 0,
        tcp_flags: 0,
        icmp_type: 0,
        parsed: Parsed::Malformed,
        quoted: Quoted::NOTHING,
    };

    /// Whether it is TCP.
    #[inline(always)]
    #[must_use]
    pub const fn is_tcp(&self) -> bool {
        self.protocol == protocol::TCP
    }

    /// Whether it is UDP.
    #[inline(always)]
    #[must_use]
    pub const fn is_udp(&self) -> bool {
        self.protocol == protocol::UDP
    }

    /// Whether it is ICMP in IPv4 or ICMPv6 in IPv6 (the other two combinations are neither).
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        match self.family {
            Family::V4 => self.protocol == protocol::ICMP,
            Family::V6 => self.protocol == protocol::ICMPV6,
        }
    }

    /// Whether it is an ICMP message that asks for nothing and answers nothing: it reports on another packet, which it
    /// quotes.
    #[inline(always)]
    #[must_use]
    pub const fn is_icmp_error(&self) -> bool {
        self.is_icmp()
            && match self.family {
                Family::V4 => matches!(
                    self.icmp_type,
                    icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM
                ),
                Family::V6 => {
                    self.icmp_type >= icmpv6::UNREACHABLE && self.icmp_type <= icmpv6::PARAMETER_PROBLEM
                }
            }
    }

    /// A SYN without ACK: it opens a connection, whatever other flags it carries.
    #[inline(always)]
    #[must_use]
    pub const fn opens_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }

    /// A SYN with ACK: the answer to one that opens a connection.
    #[inline(always)]
    #[must_use]
    pub const fn accepts_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK
    }

    /// FIN or RST.
    #[inline(always)]
    #[must_use]
    pub const fn ends_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & (TCP_FIN | TCP_RST) != 0
    }

    /// RST.
    #[inline(always)]
    #[must_use]
    pub const fn resets_connection(&self) -> bool {
        self.is_tcp() && self.tcp_flags & TCP_RST != 0
    }

    /// A RST, ACK or FIN without SYN and without payload: all that the kernel says for a socket that is gone.
    #[inline(always)]
    #[must_use]
    pub const fn is_bare_tcp(&self) -> bool {
        self.is_tcp()
            && self.payload == 0
            && self.tcp_flags & TCP_SYN == 0
            && self.tcp_flags & (TCP_RST | TCP_ACK | TCP_FIN) != 0
    }

    /// What rules may claim the packet by, as one that asks for something.
    #[inline(always)]
    #[must_use]
    pub const fn claim(&self) -> ClaimIndex {
        claim(self.family, self.protocol, self.target_port, self.icmp_type)
    }

    /// Key of the flow that it would belong to.
    #[inline(always)]
    #[must_use]
    pub const fn flow_key(&self, direction: Direction) -> FlowKey {
        let (source_port, target_port) = match direction {
            _ if !self.is_icmp() => (self.source_port, self.target_port),
            Direction::Ingress => (question(self.family, self.icmp_type) as u16, self.icmp_id),
            Direction::Egress => (self.icmp_id, self.icmp_type as u16),
        };
        match direction {
            Direction::Ingress => {
                FlowKey::new(self.family, self.protocol, self.target, target_port, self.source, source_port)
            }
            Direction::Egress => {
                FlowKey::new(self.family, self.protocol, self.source, source_port, self.target, target_port)
            }
        }
    }

    /// Key of the fragmented packet that it is a part of.
    #[inline(always)]
    #[must_use]
    pub const fn fragment_key(&self, direction: Direction) -> FragmentKey {
        FragmentKey {
            source: self.source,
            target: self.target,
            id: self.fragment_id,
            protocol: self.fragment_protocol,
            direction: direction as u8,
            reserved: [0; 2],
        }
    }
}

/// The ICMP type that is answered by this one; itself where it is no answer.
#[inline(always)]
#[must_use]
pub const fn question(family: Family, icmp_type: u8) -> u8 {
    match (family, icmp_type) {
        (Family::V4, icmp::ECHO_REPLY) => icmp::ECHO_REQUEST,
        (Family::V4, icmp::TIMESTAMP_REPLY) => icmp::TIMESTAMP_REQUEST,
        (Family::V6, icmpv6::ECHO_REPLY) => icmpv6::ECHO_REQUEST,
        (_, other) => other,
    }
}

/// What rules may claim a packet by: its protocol with the port or ICMP type.
#[inline(always)]
#[must_use]
pub const fn claim(family: Family, number: u8, port: u16, icmp_type: u8) -> ClaimIndex {
    match (number, family) {
        (protocol::TCP, _) => ClaimIndex::tcp(port),
        (protocol::UDP, _) => ClaimIndex::udp(port),
        (protocol::ICMP, Family::V4) => ClaimIndex::icmp(icmp_type),
        (protocol::ICMPV6, Family::V6) => ClaimIndex::icmpv6(icmp_type),
        _ => ClaimIndex::protocol(number),
    }
}
