//! IPv4 (RFC 791).

use super::{FragmentKind, PacketBytes, PacketMeta, is_aggregate, protocol};
use crate::address::{Address, Family};

const HEADER: u32 = 20;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Fills in what the header says. None: malformed.
#[inline(always)]
pub(super) fn walk<B: PacketBytes>(bytes: &B, start: u32, meta: &mut PacketMeta) -> Option<()> {
    let h = bytes.read::<20>(start)?;
    meta.family = Family::V4;
    meta.source = Address::from_v4_octets([h[12], h[13], h[14], h[15]]);
    meta.target = Address::from_v4_octets([h[16], h[17], h[18], h[19]]);
    meta.protocol = h[9];
    meta.hop_limit = h[8];
    meta.fragment_protocol = h[9];
    meta.fragment_id = u32::from(u16::from_be_bytes([h[4], h[5]]));

    let header = u32::from(h[0] & 0x0f) * 4;
    if h[0] >> 4 != 4 || header < HEADER {
        return None;
    }
    let claimed = u32::from(u16::from_be_bytes([h[2], h[3]]));
    let is_aggregate = is_aggregate(bytes, start, claimed);
    let total = if is_aggregate { bytes.length().checked_sub(start)? } else { claimed };
    if total < header || !bytes.holds(start + total) {
        return None;
    }
    meta.transport_offset = start + header;
    meta.end = start + total;

    let flags = u16::from_be_bytes([h[6], h[7]]);
    let offset = u32::from(flags & OFFSET_MASK);
    meta.fragment = FragmentKind::of(offset, flags & MORE_FRAGMENTS != 0, h[9]);
    // More than 65,535 bytes when put together: the "ping of death".
    (offset * 8 + total - header <= 0xffff || is_aggregate).then_some(())
}

impl FragmentKind {
    /// From the fields of either family; `offset` in units of 8 bytes.
    #[inline(always)]
    pub(super) const fn of(offset: u32, more: bool, number: u8) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            (1, _) if number == protocol::TCP => Self::Unjudgeable,
            _ => Self::Later,
        }
    }
}
