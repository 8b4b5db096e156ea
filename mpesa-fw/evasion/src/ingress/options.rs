//! Options of IPv4 and TCP, of every length: a parser with fixed offsets reads ports out of them.

use mpesa_fw_common::DropReason::{Malformed, NoService, SourceNotAllowed};

use crate::{
    case::{Case, Drop, Pass, drop_for},
    field::{ALLOWED, ATTACKER4, CALLBACKS, HOST4, SAFARICOM4, STRAY},
    frames::{ACK, SYN, TCP, V4, ip, ipv4, packet, tcp_segment},
};

/// Options by their first two bytes; the length is set to what is sent.
const KINDS: [(&str, u8); 8] = [
    ("no-operation", 1),
    ("end of list", 0),
    ("record route", 7),
    ("timestamp", 68),
    ("loose source route", 131),
    ("strict source route", 137),
    ("router alert", 148),
    ("unknown", 222),
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = KINDS.iter().map(|(name, kind)| every_length(name, *kind)).collect();
    cases.push(header_lengths());
    cases.push(ports_in_options());
    cases.extend(ALLOWED.map(|(source, host)| tcp_offsets(source, host)));
    cases
}

/// From 0 to 40 bytes, towards the service, towards a stray port, and from another source.
fn every_length(name: &str, kind: u8) -> Case {
    let mut case = Case::new(format!("IPv4 option {name}, 0 to 40 bytes"));
    for length in (0..=40).step_by(4) {
        let mut options = vec![kind; length];
        if kind > 1 && length > 0 {
            options = [&[kind, length as u8, 4][..], &vec![0; length - 3]].concat();
        }
        let header = V4 { options, ..V4::default() };
        let frame = |source: &str, port| {
            ipv4(ip(source), ip(HOST4), TCP, &tcp_segment(4000, port, SYN, &[]), &header)
        };
        case = case
            .frame(frame(SAFARICOM4, CALLBACKS), Pass("callbacks"))
            .frame(frame(SAFARICOM4, STRAY), drop_for(NoService))
            .frame(frame(ATTACKER4, CALLBACKS), Drop(SourceNotAllowed, "callbacks"));
    }
    case
}

/// IHL 0 to 15 over the same bytes: only 5 finds the TCP header, beyond it are zeros.
fn header_lengths() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 60]);
    let frames = (0..=15).map(|header| {
        let frame =
            ipv4(ip(SAFARICOM4), ip(HOST4), TCP, &segment, &V4 { header: Some(header), ..V4::default() });
        (frame, if header == 5 { Pass("callbacks") } else { drop_for(Malformed) })
    });
    Case::new("IHL 0 to 15").frames(frames)
}

/// The bytes where a header without options would have its ports say 443.
fn ports_in_options() -> Case {
    let decoy = [1, 1, 0x01, 0xbb];
    let frames = (1..=10).map(|words| {
        let options = decoy.repeat(words);
        ipv4(
            ip(SAFARICOM4),
            ip(HOST4),
            TCP,
            &tcp_segment(CALLBACKS, STRAY, SYN, &[]),
            &V4 { options, ..V4::default() },
        )
    });
    Case::new("options that look like the service's port").all(drop_for(NoService), frames)
}

/// Data offset 0 to 15, 40 bytes being there behind the plain header.
fn tcp_offsets(source: &str, host: &str) -> Case {
    let mut case = Case::new(format!("TCP data offset 0 to 15, from {source}"));
    for words in 0..=15u8 {
        for (port, rule) in [(CALLBACKS, Pass("callbacks")), (STRAY, drop_for(NoService))] {
            for there in [0, 40] {
                let mut segment = tcp_segment(4000, port, ACK, &vec![1; there]);
                segment[12] = words << 4;
                let is_whole = words >= 5 && usize::from(words) * 4 <= 20 + there;
                let expected = if is_whole { rule } else { drop_for(Malformed) };
                case = case.frame(packet(ip(source), ip(host), TCP, &segment), expected);
            }
        }
    }
    case
}
