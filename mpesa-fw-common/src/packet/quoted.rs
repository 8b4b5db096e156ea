//! The packet that an ICMP error quotes (RFC 792, RFC 4443 2.4).

use super::{PacketBytes, PacketMeta, ipv6::is_extension, protocol};
use crate::address::{Address, Family};

const ERROR_HEADER: u32 = 8;

/// The beginning of a quoted packet. Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source address.
    pub source: Address,
    /// Target address.
    pub target: Address,
    /// Source port.
    pub source_port: u16,
    /// Target port.
    pub target_port: u16,
    /// Identifier of an ICMP echo.
    pub icmp_id: u16,
    /// Type of ICMP and ICMPv6.
    pub icmp_type: u8,
    /// Upper-layer protocol.
    pub protocol: u8,
    /// IP version; the quoting packet's.
    pub family: Family,
}

impl Quoted {
    /// Reads what the ICMP error `meta` quotes. None where that can't be matched to anything: a later
    /// fragment, a packet cut before its ports, a chain of more than one extension header.
    #[inline(always)]
    pub fn read<B: PacketBytes>(bytes: &B, meta: &PacketMeta) -> Option<Self> {
        let start = meta.transport_offset + ERROR_HEADER;
        let mut quoted = match meta.family {
            Family::V4 => Self::network4(bytes, start)?,
            Family::V6 => Self::network6(bytes, start)?,
        };
        let (offset, quoted) = (quoted.0, &mut quoted.1);
        if offset + 8 > meta.end {
            return None;
        }
        let h = bytes.read::<8>(offset)?;
        match (quoted.protocol, quoted.family) {
            (protocol::TCP | protocol::UDP, _) => {
                quoted.source_port = u16::from_be_bytes([h[0], h[1]]);
                quoted.target_port = u16::from_be_bytes([h[2], h[3]]);
            }
            (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
                quoted.icmp_type = h[0];
                quoted.icmp_id = u16::from_be_bytes([h[4], h[5]]);
            }
            _ => {}
        }
        Some(*quoted)
    }

    /// Offset of the quoted transport header, and what the quoted IPv4 header says.
    #[inline(always)]
    fn network4<B: PacketBytes>(bytes: &B, start: u32) -> Option<(u32, Self)> {
        let h = bytes.read::<20>(start)?;
        let header = u32::from(h[0] & 0x0f) * 4;
        let is_later_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
        if h[0] >> 4 != 4 || header < 20 || is_later_fragment {
            return None;
        }
        let source = Address::from_v4_octets([h[12], h[13], h[14], h[15]]);
        let target = Address::from_v4_octets([h[16], h[17], h[18], h[19]]);
        Some((start + header, Self::between(Family::V4, h[9], source, target)))
    }

    /// Likewise for IPv6, over one extension header at most (a too-big quotes fragments).
    #[inline(always)]
    fn network6<B: PacketBytes>(bytes: &B, start: u32) -> Option<(u32, Self)> {
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        let h = bytes.read::<8>(start)?;
        let source = Address::from_v6_octets(bytes.read::<16>(start + 8)?);
        let target = Address::from_v6_octets(bytes.read::<16>(start + 24)?);
        if h[0] >> 4 != 6 {
            return None;
        }
        let (mut next, mut offset) = (h[6], start + 40);
        if is_extension(next) {
            let e = bytes.read::<8>(offset)?;
            if next == FRAGMENT && u16::from_be_bytes([e[2], e[3]]) & !7 != 0 {
                return None;
            }
            offset += match next {
                FRAGMENT => 8,
                AUTHENTICATION => (u32::from(e[1]) + 2) * 4,
                _ => (u32::from(e[1]) + 1) * 8,
            };
            next = e[0];
        }
        Some((offset, Self::between(Family::V6, next, source, target)))
    }

    #[inline(always)]
    const fn between(family: Family, protocol: u8, source: Address, target: Address) -> Self {
        Self { source, target, source_port: 0, target_port: 0, icmp_id: 0, icmp_type: 0, protocol, family }
    }
}
