//! The packet that an ICMP error quotes (RFC 792, RFC 4443 2.4).

use super::{PacketBytes, ipv6::is_extension, protocol};
use crate::address::{Address, Family};

const ERROR_HEADER: u32 = 8;

/// The beginning of a quoted packet, which its sender gets back: its source is the target of the ICMP error.
/// Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Where the quoted packet was going.
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
    /// Whether anything is quoted that can be matched to a flow or a service. Not so: a packet of somebody else, a later
    /// fragment, a packet cut before its ports, a chain of more than one extension header.
    pub is_readable: bool,
}

impl Quoted {
    /// No quotation.
    pub const NOTHING: Self = Self {
        target: Address::UNSPECIFIED,
        source_port: 0,
        target_port: 0,
        icmp_id: 0,
        icmp_type: 0,
        protocol: 0,
        is_readable: false,
    };

    /// Reads what an ICMP error quotes; its header is at `error`, its end at `end`.
    #[inline(always)]
    pub(super) fn read<B: PacketBytes>(
        &mut self,
        bytes: &B,
        family: Family,
        error: u32,
        end: u32,
        sender: &Address,
    ) {
        self.is_readable = self.fill(bytes, family, error + ERROR_HEADER, end, sender).is_some();
    }

    #[inline(always)]
    fn fill<B: PacketBytes>(
        &mut self,
        bytes: &B,
        family: Family,
        start: u32,
        end: u32,
        sender: &Address,
    ) -> Option<()> {
        let offset = match family {
            Family::V4 => self.network4(bytes, start, sender)?,
            Family::V6 => self.network6(bytes, start, sender)?,
        };
        if offset + 8 > end {
            return None;
        }
        let h = bytes.read::<8>(offset)?;
        match (self.protocol, family) {
            (protocol::TCP | protocol::UDP, _) => {
                self.source_port = u16::from_be_bytes([h[0], h[1]]);
                self.target_port = u16::from_be_bytes([h[2], h[3]]);
            }
            (protocol::ICMP, Family::V4) | (protocol::ICMPV6, Family::V6) => {
                self.icmp_type = h[0];
                self.icmp_id = u16::from_be_bytes([h[4], h[5]]);
            }
            _ => {}
        }
        Some(())
    }

    /// Reads the quoted IPv4 header; offset of what is behind it.
    #[inline(always)]
    fn network4<B: PacketBytes>(&mut self, bytes: &B, start: u32, sender: &Address) -> Option<u32> {
        let h = bytes.read::<20>(start)?;
        let header = u32::from(h[0] & 0x0f) * 4;
        let is_later_fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff != 0;
        let source = u32::from_be_bytes([h[12], h[13], h[14], h[15]]);
        if h[0] >> 4 != 4 || header < 20 || is_later_fragment || source != sender.v4_bits() {
            return None;
        }
        self.protocol = h[9];
        self.target = Address::from_v4_octets([h[16], h[17], h[18], h[19]]);
        Some(start + header)
    }

    /// Likewise for IPv6, over one extension header at most (a too-big quotes fragments).
    #[inline(always)]
    fn network6<B: PacketBytes>(&mut self, bytes: &B, start: u32, sender: &Address) -> Option<u32> {
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        let h = bytes.read::<8>(start)?;
        let source = Address::from_v6_octets(bytes.read::<16>(start + 8)?);
        self.target = Address::from_v6_octets(bytes.read::<16>(start + 24)?);
        self.protocol = h[6];
        if h[0] >> 4 != 6 || source != *sender {
            return None;
        }
        let mut offset = start + 40;
        if is_extension(self.protocol) {
            let e = bytes.read::<8>(offset)?;
            if self.protocol == FRAGMENT && u16::from_be_bytes([e[2], e[3]]) & !7 != 0 {
                return None;
            }
            offset += match self.protocol {
                FRAGMENT => 8,
                AUTHENTICATION => (u32::from(e[1]) + 2) * 4,
                _ => (u32::from(e[1]) + 1) * 8,
            };
            self.protocol = e[0];
        }
        Some(offset)
    }
}
