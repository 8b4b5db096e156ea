//! Fragments, as fragroute and Ptacek and Newsham's paper cut them: what the firewall lets by.

use std::net::IpAddr;

use mpesa_fw_common::DropReason::{self, NoService, SourceNotAllowed};

use crate::{
    case::{Case, Drop, Pass, drop_for},
    field::{ALLOWED, ATTACKER4, ATTACKER6, CALLBACKS, ECHO, HOST6, SAFARICOM6, STRAY},
    frames::{
        ACK, ICMPV6, SYN, TCP, UDP, V6, chain, fragment, fragment_header, icmp_message, icmp_number, ip,
        ipv6, tcp_segment, udp_datagram,
    },
};

const FRAGMENT: crate::case::Expected = drop_for(DropReason::Fragment);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, (source, host)) in ALLOWED.into_iter().enumerate() {
        let ends = (ip(source), ip(host));
        let other = (ip([ATTACKER4, ATTACKER6][number]), ip(host));
        let from = |what: &str| format!("{what}, from {source}");
        cases.extend([
            tiny(from("first fragment cut at every byte of its header"), ends),
            tcp_to_the_service(from("TCP in fragments"), ends),
            alone(from("later fragments without a first"), ends),
            of_another(from("later fragments of another's packet"), ends, other),
            second_first(from("a second first fragment with other ports"), ends),
            reused(from("identification used again"), ends),
            denied(from("fragments of what is denied"), ends, other),
            offset_one(from("offset 1, which overlaps a header"), ends),
            too_long(from("beyond 65,535 bytes (ping of death)"), ends),
            icmp(from("pings in fragments"), ends),
        ]);
    }
    cases.extend([chains_before(), chains_behind(), chain_cut(), nested(), atomic()]);
    cases
}

/// Each first fragment is followed by the rest, which must not get by either.
fn tiny(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let mut case = Case::new(name);
    for length in 0..8u16 {
        let datagram = udp_datagram(4000, ECHO, &[0; 24]);
        let first = fragment(ends, UDP, 100 + length, 0, true, &datagram[..usize::from(length)]);
        case = case.frame(first, FRAGMENT);
        case = case.frame(fragment(ends, UDP, 100 + length, 2, false, &datagram[16..]), FRAGMENT);
    }
    for length in 0..20u16 {
        let segment = tcp_segment(4000, CALLBACKS, SYN, &[]);
        let first = fragment(ends, TCP, 200 + length, 0, true, &segment[..usize::from(length)]);
        case = case.frame(first, FRAGMENT);
        case = case.frame(fragment(ends, TCP, 200 + length, 1, false, &segment[8..]), FRAGMENT);
    }
    case
}

fn tcp_to_the_service(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let segment = tcp_segment(4000, CALLBACKS, ACK, &[0; 100]);
    Case::new(name)
        .frame(fragment(ends, TCP, 300, 0, true, &segment[..80]), Drop(DropReason::Fragment, "callbacks"))
        .frame(fragment(ends, TCP, 300, 10, false, &segment[80..]), FRAGMENT)
        .frame(fragment(ends, TCP, 301, 10, false, &segment[80..]), FRAGMENT)
        .frame(fragment(ends, TCP, 301, 0, true, &segment[..80]), Drop(DropReason::Fragment, "callbacks"))
}

fn alone(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let offsets = [1u16, 2, 3, 185, 1000, 8000];
    let frames = offsets.into_iter().flat_map(|offset| {
        [UDP, TCP, 253].into_iter().flat_map(move |protocol| {
            [true, false].map(|more| fragment(ends, protocol, 400 + offset, offset, more, &[0x5a; 32]))
        })
    });
    // What looks like the header of the service, where a parser that forgets the offset would read it.
    let looks_right = fragment(ends, UDP, 499, 4, false, &udp_datagram(4000, ECHO, &[0; 24]));
    Case::new(name).all(FRAGMENT, frames).frame(looks_right, FRAGMENT)
}

/// Whoever does not share source, target, identification and protocol with it rides on nobody's first fragment.
fn of_another(name: String, ends: (IpAddr, IpAddr), other: (IpAddr, IpAddr)) -> Case {
    let first = fragment(ends, UDP, 500, 0, true, &udp_datagram(4000, ECHO, &[0; 24]));
    Case::new(name)
        .frame(first, Pass("echo"))
        .frame(fragment(other, UDP, 500, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(ends, UDP, 501, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(ends, TCP, 500, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(ends, 253, 500, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(ends, UDP, 500, 4, false, &[0; 24]), Pass("echo"))
}

fn second_first(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let first = |port| fragment(ends, UDP, 600, 0, true, &udp_datagram(4000, port, &[0; 24]));
    Case::new(name)
        .frame(first(ECHO), Pass("echo"))
        .frame(first(STRAY), drop_for(NoService))
        .frame(fragment(ends, UDP, 600, 4, false, &[0; 24]), Pass("echo"))
}

/// What remains: within 30 seconds more pieces with that identification pass, from the allowed source alone. They can't
/// bring a header: every fragment at offset 0 is judged by its own ports.
fn reused(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let first = |port| fragment(ends, UDP, 700, 0, true, &udp_datagram(4000, port, &[0; 24]));
    let rest = || fragment(ends, UDP, 700, 4, false, &[0; 24]);
    Case::new(name)
        .frame(first(ECHO), Pass("echo"))
        .frame(rest(), Pass("echo"))
        .frame(rest(), Pass("echo"))
        .frame(first(STRAY), drop_for(NoService))
        .frame(rest(), Pass("echo"))
}

fn denied(name: String, ends: (IpAddr, IpAddr), other: (IpAddr, IpAddr)) -> Case {
    let stray = udp_datagram(4000, STRAY, &[0; 24]);
    let echo = udp_datagram(4000, ECHO, &[0; 24]);
    Case::new(name)
        .frame(fragment(ends, UDP, 800, 0, true, &stray), drop_for(NoService))
        .frame(fragment(ends, UDP, 800, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(other, UDP, 801, 0, true, &echo), Drop(SourceNotAllowed, "echo"))
        .frame(fragment(other, UDP, 801, 4, false, &[0; 24]), FRAGMENT)
        // The rest first: it is not kept, and the sender has to send again.
        .frame(fragment(ends, UDP, 802, 4, false, &[0; 24]), FRAGMENT)
        .frame(fragment(ends, UDP, 802, 0, true, &echo), Pass("echo"))
}

fn offset_one(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 4]);
    let datagram = udp_datagram(4000, ECHO, &[0; 24]);
    Case::new(name)
        // RFC 1858, 3128: the flags or the ports come from the second fragment.
        .frame(fragment(ends, TCP, 900, 0, true, &segment[..8]), FRAGMENT)
        .frame(fragment(ends, TCP, 900, 1, false, &segment[8..]), FRAGMENT)
        .frame(fragment(ends, TCP, 901, 0, true, &segment), Drop(DropReason::Fragment, "callbacks"))
        .frame(fragment(ends, TCP, 901, 1, false, &segment[8..]), FRAGMENT)
        // UDP ends its header there, and this is honest.
        .frame(fragment(ends, UDP, 902, 0, true, &datagram[..8]), Pass("echo"))
        .frame(fragment(ends, UDP, 902, 1, false, &datagram[8..]), Pass("echo"))
}

fn too_long(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let malformed = drop_for(DropReason::Malformed);
    let first = fragment(ends, UDP, 1000, 0, true, &udp_datagram(4000, ECHO, &[0; 24]));
    Case::new(name)
        .frame(first, Pass("echo"))
        .frame(fragment(ends, UDP, 1000, 0x1fff, false, &[0; 64]), malformed)
        .frame(fragment(ends, UDP, 1000, 0x1ffc, false, &[0; 64]), malformed)
        .frame(fragment(ends, UDP, 1000, 0x1fff, false, &[0; 7]), Pass("echo"))
}

fn icmp(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let number = icmp_number(ends.0);
    let (ask, mld) = if number == ICMPV6 { (128, 130) } else { (8, 5) };
    let ping = |kind| icmp_message(kind, 7, &[0; 24]);
    Case::new(name)
        .frame(fragment(ends, number, 1100, 0, true, &ping(ask)), Pass("ping"))
        .frame(fragment(ends, number, 1100, 4, false, &[0; 24]), Pass("ping"))
        .frame(fragment(ends, number, 1101, 0, true, &ping(ask)[..6]), FRAGMENT)
        // RFC 6980: no control traffic in pieces.
        .frame(fragment(ends, number, 1102, 0, true, &ping(mld)), drop_for(NoService))
}

fn behind(kinds: &[u8], rest: &[u8]) -> Vec<u8> {
    // `chain` makes its fragment headers atomic: these stand in front of ours.
    let (next, bytes) = chain(kinds, 44, rest);
    ipv6(ip(SAFARICOM6), ip(HOST6), next, &bytes, V6::default())
}

fn chains_before() -> Case {
    let mut case = Case::new("IPv6: headers before the fragment header");
    for (number, kinds) in
        [&[0][..], &[60], &[43], &[0, 60], &[0, 60, 43], &[0, 60, 43, 51]].iter().enumerate()
    {
        let id = 2000 + number as u32;
        let piece = |offset, more, bytes: &[u8]| {
            behind(kinds, &[&fragment_header(UDP, id, offset, more)[..], bytes].concat())
        };
        case = case
            .frame(piece(4, false, &[0; 24]), FRAGMENT)
            .frame(piece(0, true, &udp_datagram(4000, ECHO, &[0; 24])), Pass("echo"))
            .frame(piece(4, false, &[0; 24]), Pass("echo"))
            .frame(piece(0, true, &udp_datagram(4000, STRAY, &[0; 24])), drop_for(NoService));
    }
    case
}

fn chains_behind() -> Case {
    let mut case = Case::new("IPv6: headers behind the fragment header");
    for (number, kinds) in [&[60][..], &[43], &[60, 43], &[43, 60, 51]].iter().enumerate() {
        let id = 2100 + number as u32;
        let first = |port| {
            let (next, bytes) = chain(kinds, UDP, &udp_datagram(4000, port, &[0; 24]));
            behind(&[], &[fragment_header(next, id, 0, true), bytes].concat())
        };
        let rest = |next| behind(&[], &[&fragment_header(next, id, 9, false)[..], &[0; 24]].concat());
        case = case
            .frame(rest(kinds[0]), FRAGMENT)
            .frame(first(STRAY), drop_for(NoService))
            .frame(rest(kinds[0]), FRAGMENT)
            .frame(first(ECHO), Pass("echo"))
            .frame(rest(kinds[0]), Pass("echo"))
            .frame(rest(UDP), FRAGMENT);
    }
    // Hop-by-hop options stand first or nowhere.
    let (next, bytes) = chain(&[0], UDP, &udp_datagram(4000, ECHO, &[0; 24]));
    case.frame(
        behind(&[], &[fragment_header(next, 2190, 0, true), bytes].concat()),
        drop_for(DropReason::Malformed),
    )
}

/// RFC 7112: a first fragment holds the whole chain.
fn chain_cut() -> Case {
    let (next, bytes) = chain(&[60, 60], UDP, &udp_datagram(4000, ECHO, &[0; 24]));
    let frames = (0..24).flat_map(|length: usize| {
        let id = 2200 + length as u32;
        let first = [&fragment_header(next, id, 0, true)[..], &bytes[..length]].concat();
        let rest = [&fragment_header(next, id, 3, false)[..], &bytes[24..]].concat();
        [behind(&[], &first), behind(&[], &rest)]
    });
    Case::new("IPv6: chain cut by the first fragment, at every byte").all(FRAGMENT, frames)
}

fn nested() -> Case {
    let inner = |offset, more| {
        [&fragment_header(UDP, 2301, offset, more)[..], &udp_datagram(4000, ECHO, &[0; 24])].concat()
    };
    let malformed = drop_for(DropReason::Malformed);
    let mut case = Case::new("IPv6: fragment header behind a fragment header");
    for (offset, more) in [(0, false), (0, true)] {
        for (inner_offset, inner_more) in [(0, false), (0, true), (4, false)] {
            let outer = fragment_header(44, 2300, offset, more);
            let frame = behind(&[], &[outer, inner(inner_offset, inner_more)].concat());
            case = case.frame(frame, malformed);
        }
    }
    // Of a later fragment nothing is read.
    case.frame(behind(&[], &[fragment_header(44, 2300, 4, false), inner(0, false)].concat()), FRAGMENT)
}

/// RFC 6946: whole packets, judged as such.
fn atomic() -> Case {
    let piece =
        |next, bytes: &[u8]| behind(&[], &[&fragment_header(next, 2400, 0, false)[..], bytes].concat());
    let from_other =
        [&fragment_header(TCP, 2400, 0, false)[..], &tcp_segment(4000, CALLBACKS, SYN, &[])].concat();
    Case::new("IPv6: atomic fragments")
        .frame(piece(UDP, &udp_datagram(4000, ECHO, &[])), Pass("echo"))
        .frame(piece(TCP, &tcp_segment(4000, CALLBACKS, SYN, &[])), Pass("callbacks"))
        .frame(piece(TCP, &tcp_segment(4000, STRAY, SYN, &[])), drop_for(NoService))
        .frame(piece(TCP, &tcp_segment(4000, CALLBACKS, SYN, &[])[..12]), drop_for(DropReason::Malformed))
        .frame(piece(ICMPV6, &icmp_message(128, 1, &[])), Pass("ping"))
        // An atomic fragment opens no table to later ones.
        .frame(behind(&[], &[&fragment_header(UDP, 2400, 4, false)[..], &[0; 24]].concat()), FRAGMENT)
        .frame(
            ipv6(ip(ATTACKER6), ip(HOST6), 44, &from_other, V6::default()),
            Drop(SourceNotAllowed, "callbacks"),
        )
}
