//! A second opinion on parsing: etherparse, which knows nothing of us, comes to the same facts, or one of both refuses the
//! frame for a reason that is written here.

use std::{collections::BTreeMap, net::IpAddr};

use etherparse::{
    EtherType, Ipv4Slice, Ipv6ExtensionSlice, Ipv6Slice, LinkExtSlice, LinkSlice, NetSlice, SlicedPacket,
    TransportSlice,
    err::{Layer, LenError, ipv6_exts::HeaderError, packet::SliceError},
};
use mpesa_fw::reference::{Facts, Fragment, Packet, Upper};

use crate::{
    case::Packet as Step,
    catalogue,
    host::{self, Frame},
    random::Chance,
};

/// Frames by chance besides those of the catalogue.
const CASES: usize = 150;
/// How often each of those is spoilt.
const SPOILT: usize = 8;

/// What both can come to about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Agree,
    BothRefuse,
    NotIp,
    /// We refuse, it does not.
    WeRefuse(Strict),
    /// It refuses, we do not.
    ItRefuses(Lax),
    /// Both parse; it comes to something else, for it walks a chain differently.
    Apart(Lax),
}

/// Why we refuse what etherparse takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strict {
    /// A host is given two at most.
    ThirdTag,
    /// Tags of 802.1Q and 802.1ad are walked; the type of QinQ before there was a standard, and MACsec, are unknown.
    OtherTag,
    /// RFC 8200 has six kinds of them, once each but for one.
    TooManyHeaders,
    /// A fragment of a fragment: nobody sends it.
    SecondFragmentHeader,
    /// Might be an extension header that can't be walked.
    UnassignedHeader,
    /// Walked by us, and malformed behind it; etherparse stops before it.
    BehindWhatItDoesNotWalk,
    /// RFC 4038 4.2.
    MappedTarget,
    /// Put together it would be longer than a packet can be.
    PingOfDeath,
    /// A jumbogram (RFC 2675), which Ethernet has not.
    LengthZero,
    /// UDP that says it is shorter than its own header.
    UdpLength,
    /// A header in a first fragment, which etherparse does not read.
    InFirstFragment,
}

/// Why etherparse refuses what we take, or reads it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lax {
    /// It walks authentication headers of IPv4; to us AH is a protocol like others, which needs a rule.
    AuthenticationOfIpv4,
    /// It wants all of a timestamp message; type and identifier are enough for us.
    Timestamp,
    /// To us ICMP in IPv6 and ICMPv6 in IPv4 are neither.
    IcmpOfTheOtherFamily,
    /// RFC 4302 2 has none that says 0; Linux walks over it as we do (`ipv6_authlen`), and what is behind it is judged.
    AuthenticationTooShort,
    /// It goes on behind the header of a later fragment, where data are.
    BehindLaterFragment,
    /// We say of a first fragment that it can't be judged, which is a drop, not that it is malformed.
    CutFirstFragment,
    /// Mobility, HIP, SHIM6: it stops there.
    HeaderItDoesNotWalk,
    /// It takes reserved bits of a fragment header for its flag, and the packet for a fragment.
    ReservedBits,
}

#[test]
fn etherparse_comes_to_the_same() {
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    let mut chance = Chance::of_case(crate::law::seed(), usize::MAX);
    let mut frames: Vec<Frame> =
        catalogue::all().iter().flat_map(|case| case.packets()).map(|p| p.frame.clone()).collect();
    for number in 0..CASES {
        let case = Chance::of_case(crate::law::seed(), number).case(false);
        frames.extend(case.packets().map(|Step { frame, .. }| frame.clone()));
    }
    // Aggregates (GSO, BIG TCP) are no packets of a wire: etherparse knows none, and their length fields say nothing.
    let is_of_a_wire = |frame: &&Frame| !frame.segmented && frame.bytes.len() <= 0xffff;
    for frame in frames.iter().filter(is_of_a_wire).filter(|frame| frame.stripped_tags == 0) {
        *outcomes.entry(outcome(&frame.bytes)).or_default() += 1;
        for _ in 0..SPOILT {
            let bytes = chance.spoilt(&frame.bytes);
            *outcomes.entry(outcome(&bytes)).or_default() += 1;
        }
    }
    outcomes.iter().for_each(|(outcome, count)| println!("{count:>9}  {outcome:?}"));
    use {Lax::*, Strict::*};
    let strict = [
        ThirdTag,
        OtherTag,
        TooManyHeaders,
        SecondFragmentHeader,
        UnassignedHeader,
        BehindWhatItDoesNotWalk,
        MappedTarget,
        PingOfDeath,
        LengthZero,
        UdpLength,
        InFirstFragment,
    ];
    let lax = [
        AuthenticationOfIpv4,
        Timestamp,
        IcmpOfTheOtherFamily,
        AuthenticationTooShort,
        BehindLaterFragment,
        CutFirstFragment,
    ];
    let wanted = strict.map(Outcome::WeRefuse).into_iter().chain(lax.map(Outcome::ItRefuses));
    let wanted = wanted.chain([
        Outcome::Agree,
        Outcome::BothRefuse,
        Outcome::NotIp,
        Outcome::Apart(HeaderItDoesNotWalk),
    ]);
    let missing: Vec<Outcome> = wanted.filter(|outcome| !outcomes.contains_key(outcome)).collect();
    assert!(missing.is_empty(), "no frame was {missing:?}");
}

/// Panics where they contradict each other for no reason that is known.
fn outcome(bytes: &[u8]) -> Outcome {
    let frame = Frame::from(bytes.to_vec());
    let facts = Facts::from(&host::facts(&frame));
    let sliced = SlicedPacket::from_ethernet(bytes);
    match (&facts, &sliced) {
        (Facts::Ip(ours), Ok(theirs)) => {
            compare(ours, theirs).unwrap_or_else(|why| panic!("{why}\n{ours:?}\n{theirs:?}\n{bytes:02x?}"))
        }
        (Facts::Ip(ours), Err(error)) => match lax(ours, error) {
            Some(why) => Outcome::ItRefuses(why),
            None => panic!("{error}\n{ours:?}\n{bytes:02x?}"),
        },
        (Facts::Malformed | Facts::UnknownEthertype, Ok(theirs)) if is_ip(theirs) => match strict(theirs) {
            Some(why) => Outcome::WeRefuse(why),
            None => panic!("{facts:?}\n{theirs:?}\n{bytes:02x?}"),
        },
        (Facts::LinkLayer, Ok(theirs)) if is_ip(theirs) => {
            panic!("IP taken for the link layer: {bytes:02x?}")
        }
        (Facts::Malformed | Facts::UnknownEthertype | Facts::LinkLayer, Ok(_)) => Outcome::NotIp,
        (Facts::Malformed | Facts::UnknownEthertype | Facts::LinkLayer, Err(_)) => Outcome::BothRefuse,
    }
}

fn is_ip(theirs: &SlicedPacket<'_>) -> bool {
    matches!(theirs.net, Some(NetSlice::Ipv4(_) | NetSlice::Ipv6(_)))
}

/// What etherparse says of a fragment: identification, offset, whether more follow.
struct Theirs {
    source: IpAddr,
    target: IpAddr,
    hop_limit: u8,
    protocol: u8,
    /// Of the fragment header, what it says is next.
    fragment: Option<(u32, u16, bool, u8)>,
}

fn theirs(packet: &SlicedPacket<'_>) -> Option<Theirs> {
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => Some(theirs4(ip)),
        NetSlice::Ipv6(ip) => Some(theirs6(ip)),
        NetSlice::Arp(_) => None,
    }
}

fn theirs4(ip: &Ipv4Slice<'_>) -> Theirs {
    let header = ip.header();
    let (id, offset) = (u32::from(header.identification()), header.fragments_offset().value());
    let fragment =
        header.is_fragmenting_payload().then_some((id, offset, header.more_fragments(), header.protocol().0));
    Theirs {
        source: header.source_addr().into(),
        target: header.destination_addr().into(),
        hop_limit: header.ttl(),
        protocol: ip.payload().ip_number.0,
        fragment,
    }
}

fn theirs6(ip: &Ipv6Slice<'_>) -> Theirs {
    let fragment = ip.extensions().clone().into_iter().find_map(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(fragment) => {
            // etherparse 0.19 takes other bits for offset and flag than RFC 8200 4.5 gives them.
            let bits = u16::from_be_bytes([fragment.slice()[2], fragment.slice()[3]]);
            let (offset, more) = (bits >> 3, bits & 1 != 0);
            let is_atomic = offset == 0 && !more;
            (!is_atomic).then(|| (fragment.identification(), offset, more, fragment.next_header().0))
        }
        Ipv6ExtensionSlice::HopByHop(_)
        | Ipv6ExtensionSlice::Routing(_)
        | Ipv6ExtensionSlice::DestinationOptions(_)
        | Ipv6ExtensionSlice::Authentication(_) => None,
    });
    Theirs {
        source: ip.header().source_addr().into(),
        target: ip.header().destination_addr().into(),
        hop_limit: ip.header().hop_limit(),
        protocol: ip.payload().ip_number.0,
        fragment,
    }
}

const NOT_WALKED: [u8; 3] = [135, 139, 140];

/// Both parse: every fact that etherparse has is ours.
fn compare(ours: &Packet, packet: &SlicedPacket<'_>) -> Result<Outcome, String> {
    let Some(theirs) = theirs(packet) else { return Err(String::from("it is not IP to etherparse")) };
    let same = |what: &str, is_same: bool| if is_same { Ok(()) } else { Err(format!("another {what}")) };
    same("source", ours.header.source == theirs.source)?;
    same("target", ours.header.target == theirs.target)?;
    same("hop limit", ours.hop_limit == theirs.hop_limit)?;
    if NOT_WALKED.contains(&theirs.protocol) && theirs.source.is_ipv6() {
        return Ok(Outcome::Apart(Lax::HeaderItDoesNotWalk));
    }
    let is_tcp = |next: u8| next == 6;
    match (ours.fragment, theirs.fragment) {
        (Fragment::Whole, None) => {}
        (Fragment::First(id, next), Some((theirs, 0, true, their_next))) => {
            return same("fragment", (id, next) == (theirs, their_next)).map(|()| Outcome::Agree);
        }
        (Fragment::Later(id, next), Some((theirs, offset, _, their_next))) => {
            same("offset", offset > 0 && !(offset == 1 && is_tcp(their_next)))?;
            return same("fragment", (id, next) == (theirs, their_next)).map(|()| Outcome::Agree);
        }
        (Fragment::Unjudgeable, Some((_, offset, _, next))) => {
            return same("fragment", offset == 0 || offset == 1 && is_tcp(next)).map(|()| Outcome::Agree);
        }
        (Fragment::Whole | Fragment::First(..) | Fragment::Later(..) | Fragment::Unjudgeable, _) => {
            return Err(String::from("another kind of fragment"));
        }
    }
    if packet.is_ip_payload_fragmented() {
        return Ok(Outcome::Apart(Lax::ReservedBits));
    }
    let is_v4 = theirs.source.is_ipv4();
    if is_v4 && ours.header.upper == Upper::Other(51) {
        return Ok(Outcome::Apart(Lax::AuthenticationOfIpv4));
    }
    let upper = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => Upper::Tcp {
            source: tcp.source_port(),
            target: tcp.destination_port(),
            flags: tcp.slice()[13],
            payload: tcp.payload().len() as u32,
        },
        Some(TransportSlice::Udp(udp)) => {
            Upper::Udp { source: udp.source_port(), target: udp.destination_port() }
        }
        Some(TransportSlice::Icmpv4(icmp)) if is_v4 => {
            let [a, b, ..] = icmp.bytes5to8();
            Upper::Icmp { kind: icmp.type_u8(), id: u16::from_be_bytes([a, b]) }
        }
        Some(TransportSlice::Icmpv6(icmp)) if !is_v4 => {
            let [a, b, ..] = icmp.bytes5to8();
            Upper::Icmpv6 { kind: icmp.type_u8(), id: u16::from_be_bytes([a, b]) }
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) | None => Upper::Other(theirs.protocol),
    };
    same("transport header", ours.header.upper == upper).map(|()| Outcome::Agree)
}

fn has_other_tag(packet: &SlicedPacket<'_>) -> bool {
    const OLD: EtherType = EtherType(0x9100);
    let outer = matches!(&packet.link, Some(LinkSlice::Ethernet2(ethernet)) if ethernet.ether_type() == OLD);
    outer
        || packet.link_exts.iter().any(|ext| match ext {
            LinkExtSlice::Vlan(tag) => tag.ether_type() == OLD,
            LinkExtSlice::Macsec(_) => true,
        })
}

/// Why we refuse what etherparse takes, by what it says of it.
fn strict(packet: &SlicedPacket<'_>) -> Option<Strict> {
    let tags = packet.link_exts.iter().filter(|ext| matches!(ext, LinkExtSlice::Vlan(_))).count();
    if tags > 2 {
        return Some(Strict::ThirdTag);
    }
    if has_other_tag(packet) {
        return Some(Strict::OtherTag);
    }
    let facts = theirs(packet)?;
    let (payload, length) = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => (ip.payload().payload, ip.header().payload_len().ok()?),
        NetSlice::Ipv6(ip) => {
            let extensions: Vec<Ipv6ExtensionSlice<'_>> = ip.extensions().clone().into_iter().collect();
            let is_fragment =
                |extension: &&Ipv6ExtensionSlice<'_>| matches!(extension, Ipv6ExtensionSlice::Fragment(_));
            if extensions.len() > 6 {
                return Some(Strict::TooManyHeaders);
            }
            if extensions.iter().filter(is_fragment).count() > 1 {
                return Some(Strict::SecondFragmentHeader);
            }
            if ip.header().payload_length() == 0 {
                return Some(Strict::LengthZero);
            }
            if NOT_WALKED.contains(&facts.protocol) {
                return Some(Strict::BehindWhatItDoesNotWalk);
            }
            if matches!(facts.protocol, 147..=252 | 255) {
                return Some(Strict::UnassignedHeader);
            }
            (ip.payload().payload, ip.header().payload_length())
        }
        NetSlice::Arp(_) => return None,
    };
    if matches!(facts.target, IpAddr::V6(target) if target.to_ipv4_mapped().is_some()) {
        return Some(Strict::MappedTarget);
    }
    if let Some((_, offset, _, _)) = facts.fragment {
        let is_too_long = u32::from(offset) * 8 + u32::from(length) > 0xffff;
        return match offset {
            0 => Some(Strict::InFirstFragment),
            _ if is_too_long => Some(Strict::PingOfDeath),
            _ => None,
        };
    }
    if packet.is_ip_payload_fragmented() {
        return Some(Strict::InFirstFragment); // for the reserved bits, see `Lax`
    }
    let claimed = payload.get(4..6).map(|length| u16::from_be_bytes([length[0], length[1]]));
    (facts.protocol == 17 && claimed.is_some_and(|claimed| claimed < 8)).then_some(Strict::UdpLength)
}

/// Why etherparse refuses what we take.
fn lax(ours: &Packet, error: &SliceError) -> Option<Lax> {
    let is_v4 = ours.header.source.is_ipv4();
    match (ours.fragment, ours.header.upper) {
        (_, Upper::Other(51)) if is_v4 => Some(Lax::AuthenticationOfIpv4),
        (Fragment::Later(..), _) if !is_v4 => Some(Lax::BehindLaterFragment),
        (Fragment::Unjudgeable, _) if !is_v4 => Some(Lax::CutFirstFragment),
        (_, Upper::Icmp { kind: 13 | 14, .. }) => Some(Lax::Timestamp),
        (_, Upper::Other(1 | 58)) => Some(Lax::IcmpOfTheOtherFamily),
        _ if matches!(error, SliceError::Ipv6Exts(HeaderError::IpAuth(_))) => {
            Some(Lax::AuthenticationTooShort)
        }
        _ if matches!(error, SliceError::Len(LenError { layer: Layer::IpAuthHeader, .. })) => {
            Some(Lax::AuthenticationTooShort)
        }
        _ => None,
    }
}
