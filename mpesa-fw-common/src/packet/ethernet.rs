//! Ethernet II and 802.3, with up to two VLAN tags.

use super::PacketBytes;

const HEADER: u32 = 14;
const TAG: u32 = 4;
/// 802.1Q in 802.1ad is the deepest that a host is given; a third tag is an unknown ethertype.
const VLAN_TAGS: u32 = 2;
/// Values up to this are a length (IEEE 802.3 3.2.6), from 1536 on an ethertype, between them nothing.
const LLC_LENGTH: u16 = 1500;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const SLOW_PROTOCOLS: u16 = 0x8809;
const EAPOL: u16 = 0x888e;
const SERVICE_VLAN: u16 = 0x88a8;
const LLDP: u16 = 0x88cc;
/// SNAP behind LLC can carry any ethertype, IP too; nothing that the link layer needs uses it.
const LLC_SNAP: [u8; 2] = [0xaa, 0xaa];

/// What is behind the link header.
pub(super) enum Next {
    /// At this offset.
    Ipv4(u32),
    /// At this offset.
    Ipv6(u32),
    LinkLayer,
    Unknown,
    Malformed,
}

#[inline(always)]
pub(super) fn walk<B: PacketBytes>(bytes: &B) -> Next {
    let Some(kind) = bytes.read::<2>(HEADER - 2) else {
        return Next::Malformed;
    };
    let (mut kind, mut offset) = (u16::from_be_bytes(kind), HEADER);
    let mut tags = bytes.stripped_tags();
    // Verifier: a fixed number of steps, unrolled; the loop ends at the first untagged type.
    for _ in 0..VLAN_TAGS {
        if (kind == VLAN || kind == SERVICE_VLAN) && tags < VLAN_TAGS {
            let Some(inner) = bytes.read::<2>(offset + TAG - 2) else {
                return Next::Malformed;
            };
            kind = u16::from_be_bytes(inner);
            offset += TAG;
            tags += 1;
        }
    }
    match kind {
        IPV4 => Next::Ipv4(offset),
        IPV6 => Next::Ipv6(offset),
        ARP | SLOW_PROTOCOLS | EAPOL | LLDP => Next::LinkLayer,
        length if length <= LLC_LENGTH => match bytes.read::<2>(offset) {
            Some(LLC_SNAP) => Next::Unknown,
            Some(_) => Next::LinkLayer,
            None => Next::Malformed,
        },
        _ => Next::Unknown,
    }
}
