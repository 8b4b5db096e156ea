//! The bytes of a frame become a [`PacketMeta`]: everything a decision asks of a packet.
//!
//! Each header has its file. A step checks, advances and says what comes next; what can't be walked is
//! [`Parsed::Malformed`], never "assume fine".

mod ethernet;
mod ipv4;
mod ipv6;
mod meta;
mod quoted;
mod transport;

pub use meta::{FragmentKind, PacketMeta, claim, question};
pub use quoted::Quoted;

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP, RFC 792.
    pub const ICMP: u8 = 1;
    /// TCP, RFC 9293.
    pub const TCP: u8 = 6;
    /// UDP, RFC 768.
    pub const UDP: u8 = 17;
    /// ICMPv6, RFC 4443.
    pub const ICMPV6: u8 = 58;
}

/// ICMP types.
pub mod icmp {
    /// Answers [`ECHO_REQUEST`].
    pub const ECHO_REPLY: u8 = 0;
    /// Error.
    pub const UNREACHABLE: u8 = 3;
    /// Ping.
    pub const ECHO_REQUEST: u8 = 8;
    /// Error.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Error.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// RFC 792.
    pub const TIMESTAMP_REQUEST: u8 = 13;
    /// Answers [`TIMESTAMP_REQUEST`].
    pub const TIMESTAMP_REPLY: u8 = 14;
}

/// ICMPv6 types.
pub mod icmpv6 {
    /// The first error; they are 1 to 4 (RFC 4443, 2.1 knows no others yet).
    pub const UNREACHABLE: u8 = 1;
    /// The last error.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Ping.
    pub const ECHO_REQUEST: u8 = 128;
    /// Answers [`ECHO_REQUEST`].
    pub const ECHO_REPLY: u8 = 129;
    /// MLD query, RFC 3810.
    pub const MLD_QUERY: u8 = 130;
    /// MLDv1 report, RFC 2710.
    pub const MLD_REPORT: u8 = 131;
    /// MLDv1 done, RFC 2710.
    pub const MLD_DONE: u8 = 132;
    /// RFC 4861.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// RFC 4861.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// RFC 4861.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// RFC 4861.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// MLDv2 report, RFC 3810.
    pub const MLD2_REPORT: u8 = 143;
}

/// A frame, from its Ethernet header on.
pub trait PacketBytes {
    /// Bytes of the whole frame, whether they can be read here or not.
    fn length(&self) -> u32;
    /// Whether the frame has at least this many bytes; cheaper than to ask for its length.
    fn holds(&self, length: u32) -> bool;
    /// `N` bytes at `offset`, if they are in the part of the frame that can be read.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
    /// VLAN tags that were taken off before the hook sees the frame: 0 or 1.
    fn stripped_tags(&self) -> u32;
    /// Whether this is many segments in one (GSO, GRO). Their length fields may be 0 or that of one segment
    /// (BIG TCP, Linux 5.19 and 6.3), so the frame's own length counts instead.
    fn is_segmented(&self) -> bool;
}

/// What the walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Parsed {
    /// A protocol of the link layer that every network needs.
    LinkLayer,
    /// Neither that nor IP.
    UnknownEthertype,
    /// It can't be walked to an upper-layer header.
    Malformed,
    /// IP; the other fields are filled.
    Ip,
}

/// Walks a frame and fills `meta` as far as it comes.
#[inline(always)]
pub fn parse<B: PacketBytes>(bytes: &B, meta: &mut PacketMeta) {
    meta.parsed = match ethernet::walk(bytes) {
        ethernet::Next::Ipv4(offset) => internet(bytes, ipv4::walk(bytes, forget(offset), meta), meta),
        ethernet::Next::Ipv6(offset) => internet(bytes, ipv6::walk(bytes, forget(offset), meta), meta),
        ethernet::Next::LinkLayer => Parsed::LinkLayer,
        ethernet::Next::Unknown => Parsed::UnknownEthertype,
        ethernet::Next::Malformed => Parsed::Malformed,
    };
}

/// Verifier: each way to come here knows another constant (no tag, one, two; whole, first fragment), and whatever
/// follows is walked again for each. Behind the black box they are one.
#[inline(always)]
fn forget<T>(value: T) -> T {
    core::hint::black_box(value)
}

/// Whether the frame's own length counts, and not what the field of an IP header claims for the bytes from `start` on:
/// where the hook says that it is many segments, and where generic XDP, which can't tell, is given one of BIG TCP. That
/// says 0 and is longer than the field could say; no frame is on an Ethernet.
#[inline(always)]
fn is_aggregate<B: PacketBytes>(bytes: &B, start: u32, claimed: u32) -> bool {
    bytes.is_segmented() || claimed == 0 && bytes.holds(start + 0x1_0000)
}

/// What is behind the network header, if that could be walked.
#[inline(always)]
fn internet<B: PacketBytes>(bytes: &B, network: Option<()>, meta: &mut PacketMeta) -> Parsed {
    meta.fragment = forget(meta.fragment);
    meta.protocol = forget(meta.protocol);
    meta.transport_offset = forget(meta.transport_offset);
    match network.and_then(|()| transport::walk(bytes, meta)) {
        Some(()) => {
            if meta.is_icmp_error() && matches!(meta.fragment, FragmentKind::Whole) {
                let PacketMeta { family, target, transport_offset, end, quoted, .. } = meta;
                quoted.read(bytes, *family, *transport_offset, *end, target);
            }
            Parsed::Ip
        }
        None => Parsed::Malformed,
    }
}
