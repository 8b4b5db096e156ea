//! IPv6 and its extension headers (RFC 8200).

use super::{FragmentKind, PacketBytes, PacketMeta, is_aggregate};
use crate::address::{Address, Family};

const HEADER: u32 = 40;
/// Every extension header in the order of RFC 8200 4.1, ESP apart, which ends the walk: hop-by-hop, destination
/// options, routing, fragment, authentication, destination options. A longer chain is malformed.
pub(super) const EXTENSION_HEADERS: usize = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NO_NEXT_HEADER: u8 = 59;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Where the walk along the chain stands.
struct Chain {
    next: u8,
    offset: u32,
    /// Behind a fragment header, of the first fragment.
    in_first_fragment: bool,
    seen_fragment: bool,
    done: bool,
}

/// Fills in what the header and its chain say. None: malformed.
#[inline(always)]
pub(super) fn walk<B: PacketBytes>(bytes: &B, start: u32, meta: &mut PacketMeta) -> Option<()> {
    let h = bytes.read::<8>(start)?;
    meta.family = Family::V6;
    meta.source = Address::from_v6_octets(bytes.read::<16>(start + 8)?);
    meta.target = Address::from_v6_octets(bytes.read::<16>(start + 24)?);
    meta.hop_limit = h[7];
    meta.protocol = h[6];
    // A mapped address is for sockets, never for the wire (RFC 4038 4.2); in our tables it is one of IPv4, so what names
    // resolve to would let it out. As a source it is impossible, which is another matter.
    if h[0] >> 4 != 6 || meta.target.is_v4() {
        return None;
    }
    let claimed = u32::from(u16::from_be_bytes([h[4], h[5]]));
    let payload = if is_aggregate(bytes, start + HEADER, claimed) {
        bytes.length().checked_sub(start + HEADER)?
    } else {
        claimed
    };
    meta.end = start + HEADER + payload;
    // Length 0 is right only where nothing follows; jumbograms (RFC 2675) don't exist on an Ethernet.
    if !bytes.holds(meta.end) || (payload == 0 && h[6] != NO_NEXT_HEADER) {
        return None;
    }

    let mut chain = Chain {
        next: h[6],
        offset: start + HEADER,
        in_first_fragment: false,
        seen_fragment: false,
        done: false,
    };
    // Verifier: unrolled by hand. As a `while` 6.1 rejects it (back-edge) and 6.18 needs 94,000 steps.
    step(bytes, &mut chain, meta, true)?;
    step(bytes, &mut chain, meta, false)?;
    step(bytes, &mut chain, meta, false)?;
    step(bytes, &mut chain, meta, false)?;
    step(bytes, &mut chain, meta, false)?;
    step(bytes, &mut chain, meta, false)?;
    const { assert!(EXTENSION_HEADERS == 6, "as many steps as headers") };

    meta.protocol = chain.next;
    meta.transport_offset = chain.offset;
    if chain.done {
        return Some(());
    }
    (!is_extension(chain.next) && is_assigned(chain.next)).then_some(())
}

/// Walks over one extension header, if there is one. None: malformed.
#[inline(always)]
fn step<B: PacketBytes>(bytes: &B, chain: &mut Chain, meta: &mut PacketMeta, first: bool) -> Option<()> {
    if chain.done || !is_extension(chain.next) {
        return Some(());
    }
    let header = if chain.offset + 8 <= meta.end { bytes.read::<8>(chain.offset) } else { None };
    let Some(h) = header else {
        return chain.cut_short(meta);
    };
    let length = match chain.next {
        FRAGMENT => {
            let offset = u16::from_be_bytes([h[2], h[3]]);
            if chain.seen_fragment {
                return None;
            }
            chain.seen_fragment = true;
            meta.fragment_protocol = h[0];
            meta.fragment_id = u32::from_be_bytes([h[4], h[5], h[6], h[7]]);
            meta.fragment = FragmentKind::of(u32::from(offset >> 3), offset & 1 != 0, h[0]);
            chain.in_first_fragment = matches!(meta.fragment, FragmentKind::First);
            // Nothing behind the header of a later fragment is a header.
            chain.done = matches!(meta.fragment, FragmentKind::Later | FragmentKind::Unjudgeable);
            if u32::from(offset & !7) + (meta.end - chain.offset - 8) > 0xffff {
                return None;
            }
            8
        }
        AUTHENTICATION => (u32::from(h[1]) + 2) * 4,
        HOP_BY_HOP if !first => return None,
        _ => (u32::from(h[1]) + 1) * 8,
    };
    chain.next = h[0];
    chain.offset += length;
    if chain.offset > meta.end {
        return chain.cut_short(meta);
    }
    Some(())
}

impl Chain {
    /// The packet ends within the chain. A first fragment must hold all of it (RFC 7112): that is for the
    /// fragment rule to drop; any other packet is malformed.
    #[inline(always)]
    fn cut_short(&mut self, meta: &mut PacketMeta) -> Option<()> {
        if !self.in_first_fragment {
            return None;
        }
        meta.fragment = FragmentKind::Unjudgeable;
        self.done = true;
        Some(())
    }
}

#[inline(always)]
pub(super) const fn is_extension(number: u8) -> bool {
    matches!(
        number,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS | MOBILITY | HIP | SHIM6
    )
}

/// Whether IANA knows the number (147 to 252 are unassigned, 255 reserved): another might be an extension header
/// that this code can't walk.
#[inline(always)]
const fn is_assigned(number: u8) -> bool {
    number < 147 || number == 253 || number == 254
}
