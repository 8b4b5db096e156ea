//! ICMP errors, and what they quote: passing one can reset a connection or shrink its packets.

use mpesa_fw_common::DropReason::{NoService, SourceNotAllowed};

use crate::{
    case::{Case, Drop, Expected, Pass, drop_for},
    field::{
        API4, API6, ATTACKER4, ATTACKER6, CALLBACKS, ECHO, FLOW, HOST4, HOST6, QUERY, SAFARICOM4, SAFARICOM6,
        STRAY, at,
    },
    frames::{ACK, UDP, fragment, icmp, icmp_error, icmp_number, ip, packet, tcp, udp},
};

const NOT: Expected = drop_for(NoService);
/// A router on the way, which may be anybody.
const ROUTERS: [&str; 2] = ["198.51.100.1", "2001:db8:0:666::1"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![types4(), types6(), redirects(), of_udp()];
    for (number, router) in ROUTERS.into_iter().enumerate() {
        let host = [HOST4, HOST6][number];
        let peer = [API4, API6][number];
        cases.extend([genuine(router, host, peer), forged(router, host, peer), nested(router, host, peer)]);
        cases.push(of_fragments(router, host, peer));
    }
    cases
}

const fn unreachable(router: &str) -> u8 {
    if router.len() < 15 { 3 } else { 1 }
}

/// Path MTU and the like: about what this host sent along a flow, or as a service.
fn genuine(router: &str, host: &str, peer: &str) -> Case {
    let visitor = if peer == API4 { SAFARICOM4 } else { SAFARICOM6 };
    let flow = tcp(&at(host, FLOW), &at(peer, 443), ACK);
    let reply = tcp(&at(host, CALLBACKS), &at(visitor, 4000), ACK);
    let types: &[u8] = if peer == API4 { &[3, 11, 12] } else { &[1, 2, 3, 4] };
    let frames =
        types.iter().flat_map(|kind| [&flow, &reply].map(|quoted| icmp_error(router, host, *kind, quoted)));
    Case::new(format!("errors about what the host sent to {peer} and to visitors")).all(Pass(""), frames)
}

/// About what this host never sent.
fn forged(router: &str, host: &str, peer: &str) -> Case {
    let stranger = if peer == API4 { ATTACKER4 } else { ATTACKER6 };
    let quoted = [
        tcp(&at(host, FLOW), &at(stranger, 443), ACK),
        tcp(&at(host, FLOW), &at(peer, 444), ACK),
        tcp(&at(host, FLOW + 2), &at(peer, 443), ACK),
        tcp(&at(stranger, FLOW), &at(peer, 443), ACK),
        // The other way round: the error would be the peer's to hear.
        tcp(&at(peer, 443), &at(host, FLOW), ACK),
        tcp(&at(host, CALLBACKS), &at(stranger, 4000), ACK),
        tcp(&at(host, STRAY), &at(stranger, 4000), ACK),
        udp(&at(host, FLOW), &at(peer, 443)),
        packet(ip(host), ip(peer), 132, &[0x9c, 0x40, 1, 0xbb, 0, 0, 0, 0]),
        icmp(host, peer, if peer == API4 { 8 } else { 128 }, FLOW),
    ];
    let mut frames: Vec<Vec<u8>> =
        quoted.iter().map(|quoted| icmp_error(router, host, unreachable(router), quoted)).collect();
    // Quotes whose header is wrong, or of the other family.
    let flow = tcp(&at(host, FLOW), &at(peer, 443), ACK);
    for (place, value) in [(14, 0x75), (14, 0x05), (14, 0x00)] {
        let mut wrong = flow.clone();
        wrong[place] = value;
        frames.push(icmp_error(router, host, unreachable(router), &wrong));
    }
    let (other_host, other_peer) = if peer == API4 { (HOST6, API6) } else { (HOST4, API4) };
    let other = tcp(&at(other_host, FLOW), &at(other_peer, 443), ACK);
    frames.push(icmp_error(router, host, unreachable(router), &other));
    Case::new(format!("errors about what the host never sent to {peer}")).all(NOT, frames)
}

/// An error about an error, which nobody sends (RFC 1122 3.2.2).
fn nested(router: &str, host: &str, peer: &str) -> Case {
    let flow = tcp(&at(host, FLOW), &at(peer, 443), ACK);
    let inner = icmp_error(host, peer, unreachable(router), &flow);
    let innermost = icmp_error(host, peer, unreachable(router), &inner);
    Case::new(format!("errors about errors to {peer}"))
        .all(NOT, [inner, innermost].map(|quoted| icmp_error(router, host, unreachable(router), &quoted)))
}

fn of_fragments(router: &str, host: &str, peer: &str) -> Case {
    let ends = (ip(host), ip(peer));
    let tcp_bytes = &tcp(&at(host, FLOW), &at(peer, 443), ACK);
    let segment = &tcp_bytes[tcp_bytes.len() - 20..];
    let first = fragment(ends, 6, 1, 0, true, segment);
    let later = fragment(ends, 6, 1, 1, false, segment);
    let pieces = fragment((ip(router), ip(host)), icmp_number(ip(router)), 4000, 0, true, &{
        let error = icmp_error(router, host, unreachable(router), tcp_bytes);
        error[error.len() - (tcp_bytes.len() - 14) - 8..].to_vec()
    });
    Case::new(format!("errors about fragments to {peer}, and in fragments"))
        .frame(icmp_error(router, host, unreachable(router), &first), Pass(""))
        .frame(icmp_error(router, host, unreachable(router), &later), NOT)
        .frame(pieces, NOT)
}

/// Every type, quoting a live flow: only errors pass by it.
fn types4() -> Case {
    let quoted = tcp(&at(HOST4, FLOW), &at(API4, 443), ACK);
    let frames = (0..=255u8).map(|kind| {
        let expected = match kind {
            3 | 11 | 12 => Pass(""),
            8 => Drop(SourceNotAllowed, "ping"),
            _ => NOT,
        };
        (icmp_error(ROUTERS[0], HOST4, kind, &quoted), expected)
    });
    Case::new("ICMP types 0 to 255, quoting a flow").frames(frames)
}

fn types6() -> Case {
    let quoted = tcp(&at(HOST6, FLOW), &at(API6, 443), ACK);
    let frames = (0..=255u8).map(|kind| {
        let expected = match kind {
            1..=4 => Pass(""),
            128 => Drop(SourceNotAllowed, "ping"),
            _ => NOT,
        };
        (icmp_error(ROUTERS[1], HOST6, kind, &quoted), expected)
    });
    Case::new("ICMPv6 types 0 to 255, quoting a flow").frames(frames)
}

/// A redirect sends this host's packets through whoever forged it.
fn redirects() -> Case {
    let v4 = tcp(&at(HOST4, FLOW), &at(API4, 443), ACK);
    let v6 = tcp(&at(HOST6, FLOW), &at(API6, 443), ACK);
    let frames = [
        icmp_error("203.0.113.1", HOST4, 5, &v4),
        icmp_error(ATTACKER4, HOST4, 5, &v4),
        icmp_error("fe80::1", HOST6, 137, &v6),
        crate::frames::icmpv6_hop("fe80::1", HOST6, 137, 255),
        crate::frames::icmpv6_hop("2001:db8:0:113::1", HOST6, 137, 255),
    ];
    Case::new("redirects, from the router too").all(NOT, frames)
}

fn of_udp() -> Case {
    Case::new("port unreachable for a UDP flow and for a service's answer")
        .frame(icmp_error(API4, HOST4, 3, &udp(&at(HOST4, QUERY), &at(API4, 53))), Pass(""))
        .frame(icmp_error(API4, HOST4, 3, &udp(&at(HOST4, QUERY), &at(API4, 54))), NOT)
        .frame(icmp_error(SAFARICOM4, HOST4, 3, &udp(&at(HOST4, ECHO), &at(SAFARICOM4, 4000))), Pass(""))
        .frame(icmp_error(ATTACKER4, HOST4, 3, &udp(&at(HOST4, ECHO), &at(ATTACKER4, 4000))), NOT)
        .frame(
            icmp_error(
                API4,
                HOST4,
                3,
                &packet(ip(HOST4), ip(API4), UDP, &crate::frames::udp_datagram(QUERY, 53, &[])[..4]),
            ),
            NOT,
        )
}
