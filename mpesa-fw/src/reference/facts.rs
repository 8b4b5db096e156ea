//! A packet as facts, in plain types.

use std::net::{IpAddr, Ipv6Addr};

use mpesa_fw_common::{
    Address, Direction,
    address::Family,
    packet::{FragmentKind, PacketMeta, Parsed, Quoted},
};

/// What a frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Facts {
    /// A protocol that the link layer needs.
    LinkLayer,
    /// Neither that nor IP.
    UnknownEthertype,
    /// Headers that can't be walked.
    Malformed,
    /// IP.
    Ip(Packet),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who talks of what to whom.
    pub header: Header,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// How it is fragmented.
    pub fragment: Fragment,
    /// What an ICMP error quotes, if it can be made out: a packet whose source is the error's target.
    pub quoted: Option<Header>,
}

/// How a packet is fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not at all.
    Whole,
    /// The first, with its transport header; identification and protocol of the fragmented packet.
    First(u32, u8),
    /// A later one, likewise.
    Later(u32, u8),
    /// The first without its transport header, or one that would overlap it.
    Unjudgeable,
}

/// Addresses and upper-layer protocol of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Target address.
    pub target: IpAddr,
    /// What is inside.
    pub upper: Upper,
}

/// The upper-layer protocol with what a rule may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
        /// FIN is the lowest bit.
        flags: u8,
        /// Bytes behind the header.
        payload: u32,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Target port.
        target: u16,
    },
    /// ICMP in IPv4.
    Icmp {
        /// Type.
        kind: u8,
        /// Identifier.
        id: u16,
    },
    /// ICMPv6 in IPv6.
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Identifier.
        id: u16,
    },
    /// Any other, by its number.
    Other(u8),
}

/// What a rule claims a packet by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// TCP to this port.
    Tcp(u16),
    /// UDP to this port.
    Udp(u16),
    /// ICMP of this type.
    Icmp(u8),
    /// ICMPv6 of this type.
    Icmpv6(u8),
    /// Another protocol.
    Other(u8),
}

/// Both ends of a flow as this host opened it. The port here of ICMP is its identifier, that of other protocols 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conversation {
    /// This host's address.
    pub local: IpAddr,
    /// This host's port.
    pub port: u16,
    /// The peer's address.
    pub remote: IpAddr,
    /// What this host asked for.
    pub topic: Topic,
}

impl Header {
    /// What it asks for.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self.upper {
            Upper::Tcp { target, .. } => Topic::Tcp(target),
            Upper::Udp { target, .. } => Topic::Udp(target),
            Upper::Icmp { kind, .. } => Topic::Icmp(kind),
            Upper::Icmpv6 { kind, .. } => Topic::Icmpv6(kind),
            Upper::Other(number) => Topic::Other(number),
        }
    }

    /// What it would be an answer to: RFC 792 and RFC 4443 for ICMP.
    #[must_use]
    pub const fn answered_topic(&self) -> Option<Topic> {
        match self.upper {
            Upper::Tcp { source, .. } => Some(Topic::Tcp(source)),
            Upper::Udp { source, .. } => Some(Topic::Udp(source)),
            Upper::Icmp { kind: 0, .. } => Some(Topic::Icmp(8)),
            Upper::Icmp { kind: 14, .. } => Some(Topic::Icmp(13)),
            Upper::Icmpv6 { kind: 129, .. } => Some(Topic::Icmpv6(128)),
            Upper::Icmp { .. } | Upper::Icmpv6 { .. } => None,
            Upper::Other(number) => Some(Topic::Other(number)),
        }
    }

    /// The flow that it is of: as the one who opened it (egress), or as an answer (ingress).
    #[must_use]
    pub const fn conversation(&self, direction: Direction) -> Option<Conversation> {
        let Self { source, target, upper } = *self;
        let (source_port, target_port) = match upper {
            Upper::Tcp { source, target, .. } | Upper::Udp { source, target } => (source, target),
            Upper::Icmp { id, .. } | Upper::Icmpv6 { id, .. } => (id, id),
            Upper::Other(_) => (0, 0),
        };
        match (direction, self.answered_topic()) {
            (Direction::Egress, _) => {
                Some(Conversation { local: source, port: source_port, remote: target, topic: self.topic() })
            }
            (Direction::Ingress, Some(topic)) => {
                Some(Conversation { local: target, port: target_port, remote: source, topic })
            }
            (Direction::Ingress, None) => None,
        }
    }
}

impl From<&PacketMeta> for Facts {
    fn from(meta: &PacketMeta) -> Self {
        match meta.parsed {
            Parsed::LinkLayer => Self::LinkLayer,
            Parsed::UnknownEthertype => Self::UnknownEthertype,
            Parsed::Malformed => Self::Malformed,
            Parsed::Ip => Self::Ip(packet(meta)),
        }
    }
}

fn packet(meta: &PacketMeta) -> Packet {
    let (source, target) = (ip(meta.source, meta.family), ip(meta.target, meta.family));
    let upper = match (meta.protocol, meta.family) {
        // Behind the header of a later fragment, or one cut short, are no ports.
        (number, _) if matches!(meta.fragment, FragmentKind::Later | FragmentKind::Unjudgeable) => {
            Upper::Other(number)
        }
        (6, _) => Upper::Tcp {
            source: meta.source_port,
            target: meta.target_port,
            flags: meta.tcp_flags,
            payload: meta.payload,
        },
        (17, _) => Upper::Udp { source: meta.source_port, target: meta.target_port },
        (1, Family::V4) => Upper::Icmp { kind: meta.icmp_type, id: meta.icmp_id },
        (58, Family::V6) => Upper::Icmpv6 { kind: meta.icmp_type, id: meta.icmp_id },
        (number, _) => Upper::Other(number),
    };
    let fragment = match meta.fragment {
        FragmentKind::Whole => Fragment::Whole,
        FragmentKind::First => Fragment::First(meta.fragment_id, meta.fragment_protocol),
        FragmentKind::Later => Fragment::Later(meta.fragment_id, meta.fragment_protocol),
        FragmentKind::Unjudgeable => Fragment::Unjudgeable,
    };
    let quoted = quoted(&meta.quoted, target, meta.family);
    Packet { header: Header { source, target, upper }, hop_limit: meta.hop_limit, fragment, quoted }
}

fn quoted(quoted: &Quoted, sender: IpAddr, family: Family) -> Option<Header> {
    if !quoted.is_readable {
        return None;
    }
    let upper = match (quoted.protocol, family) {
        (6, _) => Upper::Tcp { source: quoted.source_port, target: quoted.target_port, flags: 0, payload: 0 },
        (17, _) => Upper::Udp { source: quoted.source_port, target: quoted.target_port },
        (1, Family::V4) => Upper::Icmp { kind: quoted.icmp_type, id: quoted.icmp_id },
        (58, Family::V6) => Upper::Icmpv6 { kind: quoted.icmp_type, id: quoted.icmp_id },
        (number, _) => Upper::Other(number),
    };
    Some(Header { source: sender, target: ip(quoted.target, family), upper })
}

/// The address as it stands in the packet: one of IPv6 that looks like a mapped one of IPv4 is one of IPv6.
fn ip(address: Address, family: Family) -> IpAddr {
    match family {
        Family::V4 => address.into(),
        Family::V6 => {
            let bits = address.words.iter().fold(0, |bits, word| bits << 32 | u128::from(*word));
            Ipv6Addr::from(bits).into()
        }
    }
}
