//! Every protocol number, and tunnels with an inner packet that looks allowed: none is opened, none is let by.

use mpesa_fw_common::DropReason::{Malformed, NoService};

use crate::{
    case::{Case, Pass, drop_for},
    field::{ALLOWED, CALLBACKS, ECHO, HOST4, HOST6, SAFARICOM4, SAFARICOM6, at},
    frames::{NETWORK, SYN, V4, V6, ip, ipv4, ipv6, packet, tcp, tcp_segment, udp_datagram},
};

const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

pub(super) fn cases() -> Vec<Case> {
    vec![every_number(), every_next_header(), tunnels(), lookalikes(), other_family()]
}

/// The payload is a whole segment to the service.
fn every_number() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 20]);
    let frames = (0..=255u8).filter(|number| ![1, 6, 17].contains(number));
    let frames = frames.map(|number| ipv4(ip(SAFARICOM4), ip(HOST4), number, &segment, &V4::default()));
    Case::new("IPv4 protocols 0 to 255 with a segment to the service").all(drop_for(NoService), frames)
}

fn every_next_header() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 20]);
    let numbers = (0..=255u8).filter(|number| ![6, 17, 58].contains(number) && !EXTENSIONS.contains(number));
    let frames = numbers.map(|number| {
        let is_assigned = number < 147 || number == 253 || number == 254;
        let expected = drop_for(if is_assigned { NoService } else { Malformed });
        (ipv6(ip(SAFARICOM6), ip(HOST6), number, &segment, V6::default()), expected)
    });
    Case::new("IPv6 next headers 0 to 255 with a segment to the service").frames(frames)
}

fn tunnels() -> Case {
    let mut case =
        Case::new("IPIP, 6in4, 4in6, GRE, ESP, AH, EtherIP, L2TP, IPComp around an allowed packet");
    for (source, host) in ALLOWED {
        for (inner_source, inner_host) in ALLOWED {
            let inner = tcp(&at(inner_source, 4000), &at(inner_host, CALLBACKS), SYN);
            let (kind, inner) = (inner[12..14].to_vec(), inner[NETWORK..].to_vec());
            let is_v4 = kind == [8, 0];
            let mut wrap = |protocol: u8, header: &[u8]| {
                let payload = [header, &inner].concat();
                let frame = packet(ip(source), ip(host), protocol, &payload);
                case.frames.extend(Case::new("").frame(frame, drop_for(NoService)).frames);
            };
            wrap(if is_v4 { 4 } else { 41 }, &[]);
            wrap(47, &[&[0, 0][..], &kind].concat());
            wrap(47, &[&[0x20, 0][..], &kind, &[0, 0, 0, 7]].concat());
            wrap(50, &[0, 0, 1, 0, 0, 0, 0, 1]);
            wrap(94, &[]);
            wrap(97, &[&[0x30, 0][..], &[2; 12], &kind].concat());
            wrap(108, &[if is_v4 { 4 } else { 41 }, 0, 0, 1]);
            wrap(115, &[0, 0, 0, 7]);
            wrap(137, &[0, 0, 0x11, 64]);
            // AH is an extension header to IPv6, and its inner packet another protocol still.
            wrap(51, &[if is_v4 { 4 } else { 41 }, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]);
        }
    }
    case
}

/// They have ports where TCP and UDP have them; the service is for its own protocol alone.
fn lookalikes() -> Case {
    let mut case = Case::new("SCTP, DCCP, UDP-Lite and the other one of TCP and UDP to the services' ports");
    for (source, host) in ALLOWED {
        let frames = [132, 33, 136].into_iter().flat_map(|protocol| {
            [CALLBACKS, ECHO]
                .map(|port| packet(ip(source), ip(host), protocol, &tcp_segment(4000, port, SYN, &[])))
        });
        case = case.all(drop_for(NoService), frames);
        case = case
            .frame(packet(ip(source), ip(host), 17, &udp_datagram(4000, CALLBACKS, &[])), drop_for(NoService))
            .frame(packet(ip(source), ip(host), 6, &tcp_segment(4000, ECHO, SYN, &[])), drop_for(NoService))
            .frame(packet(ip(source), ip(host), 17, &udp_datagram(4000, ECHO, &[])), Pass("echo"));
    }
    case
}

/// ICMP in IPv6 and ICMPv6 in IPv4 are neither.
fn other_family() -> Case {
    let ping = |kind| crate::frames::icmp_message(kind, 1, &[]);
    Case::new("ICMP in IPv6, ICMPv6 in IPv4")
        .all(drop_for(NoService), [8, 128, 134].map(|kind| packet(ip(SAFARICOM6), ip(HOST6), 1, &ping(kind))))
        .all(
            drop_for(NoService),
            [8, 128, 134].map(|kind| packet(ip(SAFARICOM4), ip(HOST4), 58, &ping(kind))),
        )
}
