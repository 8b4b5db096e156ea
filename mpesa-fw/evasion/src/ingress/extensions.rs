//! IPv6 extension headers: odd orders, too many, unknown, and lengths that lead astray.

use mpesa_fw_common::DropReason::{Malformed, NoService, SourceNotAllowed};

use crate::{
    case::{Case, Drop, Pass, drop_for},
    field::{ATTACKER6, CALLBACKS, HOST6, SAFARICOM6, STRAY},
    frames::{SYN, TCP, V6, chain, ip, ipv6, tcp_segment},
};

const HOP_BY_HOP: u8 = 0;
/// Those that may stand anywhere: routing, fragment (atomic), authentication, destination options, mobility, HIP, shim6.
const MOVABLE: [u8; 7] = [43, 44, 51, 60, 135, 139, 140];

pub(super) fn cases() -> Vec<Case> {
    vec![
        orders(),
        counts(),
        hop_by_hop(),
        unknown(),
        no_next(),
        lengths(),
        authentication_lengths(),
        option_contents(),
    ]
}

fn behind(source: &str, kinds: &[u8], port: u16) -> Vec<u8> {
    let (next, payload) = chain(kinds, TCP, &tcp_segment(4000, port, SYN, &[]));
    ipv6(ip(source), ip(HOST6), next, &payload, V6::default())
}

/// Every ordered pair, and every triple that begins with hop-by-hop options: the ports behind them count.
fn orders() -> Case {
    let mut case = Case::new("every order of two movable headers, hop-by-hop first or not");
    for first in MOVABLE {
        for second in MOVABLE.into_iter().filter(|second| *second != first || first != 44) {
            for kinds in [&[first, second][..], &[HOP_BY_HOP, first, second]] {
                case = case
                    .frame(behind(SAFARICOM6, kinds, CALLBACKS), Pass("callbacks"))
                    .frame(behind(SAFARICOM6, kinds, STRAY), drop_for(NoService))
                    .frame(behind(ATTACKER6, kinds, CALLBACKS), Drop(SourceNotAllowed, "callbacks"));
            }
        }
    }
    case
}

/// As many as RFC 8200 lists, and no more.
fn counts() -> Case {
    let mut case = Case::new("1 to 20 headers, of which 6 are walked");
    for count in 1..=20 {
        for kind in [43, 51, 60, 135] {
            let expected = |right| if count <= 6 { right } else { drop_for(Malformed) };
            let kinds = vec![kind; count];
            case = case
                .frame(behind(SAFARICOM6, &kinds, CALLBACKS), expected(Pass("callbacks")))
                .frame(behind(SAFARICOM6, &kinds, STRAY), expected(drop_for(NoService)))
                .frame(behind(ATTACKER6, &kinds, CALLBACKS), expected(Drop(SourceNotAllowed, "callbacks")));
        }
    }
    case
}

fn hop_by_hop() -> Case {
    let frames = MOVABLE.into_iter().flat_map(|kind| {
        [&[kind, HOP_BY_HOP][..], &[HOP_BY_HOP, HOP_BY_HOP], &[HOP_BY_HOP, kind, HOP_BY_HOP]]
            .map(|kinds| behind(SAFARICOM6, kinds, CALLBACKS))
    });
    Case::new("hop-by-hop options that are not first").all(drop_for(Malformed), frames)
}

/// Unassigned numbers may be headers that can't be walked; the service's port behind them is bait.
fn unknown() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[]);
    let frame = |kind: u8| {
        let payload = [&[TCP, 0, 1, 4, 0, 0, 0, 0][..], &segment].concat();
        ipv6(ip(SAFARICOM6), ip(HOST6), kind, &payload, V6::default())
    };
    let unassigned = (147..=252).chain([255]);
    Case::new("unassigned next headers: 147 to 252, 255").all(drop_for(Malformed), unassigned.map(frame))
}

/// 59 says that nothing follows, whatever follows.
fn no_next() -> Case {
    let mut case = Case::new("no next header (59), with a segment behind it");
    for kinds in [&[][..], &[60], &[0, 60]] {
        let (next, payload) = chain(kinds, 59, &tcp_segment(4000, CALLBACKS, SYN, &[]));
        case =
            case.frame(ipv6(ip(SAFARICOM6), ip(HOST6), next, &payload, V6::default()), drop_for(NoService));
    }
    let empty = ipv6(ip(SAFARICOM6), ip(HOST6), 59, &[], V6::default());
    case.frame(empty, drop_for(NoService))
}

/// The header says it is 8 to 2048 bytes long; only what is there can be walked, and only 8 bytes lead to the segment.
fn lengths() -> Case {
    let mut case = Case::new("header length field 0 to 255");
    for kind in [HOP_BY_HOP, 43, 60, 135] {
        for length in 0..=255u8 {
            let mut payload = vec![TCP, length, 1, 4, 0, 0, 0, 0];
            payload.extend(tcp_segment(4000, CALLBACKS, SYN, &[0; 200]));
            let expected = if length == 0 { Pass("callbacks") } else { drop_for(Malformed) };
            case = case.frame(ipv6(ip(SAFARICOM6), ip(HOST6), kind, &payload, V6::default()), expected);
        }
    }
    case
}

/// Counted in words of four bytes, less two (RFC 4302): read as eights, it ends elsewhere.
fn authentication_lengths() -> Case {
    let mut case = Case::new("authentication header, every length");
    for length in 0..=20u8 {
        let size = usize::from(length) * 4 + 8;
        for (port, expected) in [(CALLBACKS, Pass("callbacks")), (STRAY, drop_for(NoService))] {
            let mut payload = vec![TCP, length, 0, 0];
            payload.resize(size, 0);
            payload.extend(tcp_segment(4000, port, SYN, &[]));
            case = case.frame(ipv6(ip(SAFARICOM6), ip(HOST6), 51, &payload, V6::default()), expected);
        }
    }
    case
}

/// What options say is the stack's business (it drops the unknown ones that say so); where they end is not.
fn option_contents() -> Case {
    let mut case = Case::new("option types 0 to 255 in hop-by-hop and destination options");
    for kind in 0..=255u8 {
        for header in [HOP_BY_HOP, 60] {
            let option = [TCP, 0, kind, 4, 0, 0, 0, 0];
            let payload = [&option[..], &tcp_segment(4000, STRAY, SYN, &[])].concat();
            case = case
                .frame(ipv6(ip(SAFARICOM6), ip(HOST6), header, &payload, V6::default()), drop_for(NoService));
        }
    }
    case
}
