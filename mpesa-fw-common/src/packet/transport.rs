//! TCP, UDP and ICMP headers.

use super::{FragmentKind, PacketBytes, PacketMeta, protocol};

const TCP_HEADER: u32 = 20;
const UDP_HEADER: u32 = 8;
const ICMP_HEADER: u32 = 8;

/// Fills in ports, flags, types. None: malformed.
#[inline(always)]
pub(super) fn walk<B: PacketBytes>(bytes: &B, meta: &mut PacketMeta) -> Option<()> {
    match meta.fragment {
        FragmentKind::Later | FragmentKind::Unjudgeable => return Some(()),
        FragmentKind::Whole | FragmentKind::First => {}
    }
    let length = meta.end.checked_sub(meta.transport_offset)?;
    let fits = match meta.protocol {
        protocol::TCP => tcp(bytes, meta, length),
        protocol::UDP => udp(bytes, meta, length),
        protocol::ICMP | protocol::ICMPV6 if meta.is_icmp() => icmp(bytes, meta, length),
        _ => return Some(()),
    };
    match (fits, meta.fragment) {
        (Fit::Whole, _) => Some(()),
        (Fit::CutShort, FragmentKind::First) => {
            meta.fragment = FragmentKind::Unjudgeable;
            Some(())
        }
        (Fit::CutShort | Fit::Wrong, _) => None,
    }
}

/// How a transport header lies in its packet.
enum Fit {
    /// All of it is there and its lengths are right.
    Whole,
    /// The packet ends before the header does.
    CutShort,
    /// A field contradicts the others.
    Wrong,
}

#[inline(always)]
fn tcp<B: PacketBytes>(bytes: &B, meta: &mut PacketMeta, length: u32) -> Fit {
    if length < TCP_HEADER {
        return Fit::CutShort;
    }
    let Some(h) = bytes.read::<14>(meta.transport_offset) else {
        return Fit::Wrong;
    };
    meta.source_port = u16::from_be_bytes([h[0], h[1]]);
    meta.target_port = u16::from_be_bytes([h[2], h[3]]);
    meta.tcp_flags = h[13];
    let header = u32::from(h[12] >> 4) * 4;
    if header < TCP_HEADER {
        return Fit::Wrong;
    }
    if header > length {
        return Fit::CutShort;
    }
    meta.payload = length - header;
    Fit::Whole
}

#[inline(always)]
fn udp<B: PacketBytes>(bytes: &B, meta: &mut PacketMeta, length: u32) -> Fit {
    if length < UDP_HEADER {
        return Fit::CutShort;
    }
    let Some(h) = bytes.read::<6>(meta.transport_offset) else {
        return Fit::Wrong;
    };
    meta.source_port = u16::from_be_bytes([h[0], h[1]]);
    meta.target_port = u16::from_be_bytes([h[2], h[3]]);
    let claimed = u32::from(u16::from_be_bytes([h[4], h[5]]));
    let is_whole = matches!(meta.fragment, FragmentKind::Whole) && !bytes.is_segmented();
    if claimed < UDP_HEADER && !bytes.is_segmented() || is_whole && claimed > length {
        return Fit::Wrong;
    }
    Fit::Whole
}

#[inline(always)]
fn icmp<B: PacketBytes>(bytes: &B, meta: &mut PacketMeta, length: u32) -> Fit {
    if length < ICMP_HEADER {
        return Fit::CutShort;
    }
    let Some(h) = bytes.read::<6>(meta.transport_offset) else {
        return Fit::Wrong;
    };
    meta.icmp_type = h[0];
    meta.icmp_id = u16::from_be_bytes([h[4], h[5]]);
    Fit::Whole
}
