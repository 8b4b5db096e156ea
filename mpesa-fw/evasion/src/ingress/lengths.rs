//! Lengths and versions that contradict the frame, and checksums that are wrong.

use mpesa_fw_common::DropReason::{Malformed, NoService};

use crate::{
    case::{Case, Pass, drop_for},
    field::{ALLOWED, CALLBACKS, ECHO, HOST4, HOST6, SAFARICOM4, SAFARICOM6, STRAY, at},
    frames::{SYN, TCP, UDP, V4, V6, ip, ipv4, ipv6, packet, tcp, tcp_segment, udp_datagram},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases =
        vec![versions(), total_lengths(), payload_lengths(), jumbograms(), trailing_bytes(), checksums()];
    cases.extend(ALLOWED.map(|(source, host)| udp_lengths(source, host)));
    cases
}

fn versions() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 24]);
    let frames = (0..=15u8).flat_map(|version| {
        let v4 = V4 { version: Some(version), ..V4::default() };
        let v6 = V6 { version: Some(version), ..V6::default() };
        let expected = |right| if version == right { Pass("callbacks") } else { drop_for(Malformed) };
        [
            (ipv4(ip(SAFARICOM4), ip(HOST4), TCP, &segment, &v4), expected(4)),
            (ipv6(ip(SAFARICOM6), ip(HOST6), TCP, &segment, v6), expected(6)),
        ]
    });
    Case::new("IP version 0 to 15 under either ethertype").frames(frames)
}

/// The frame holds 20 + 20 + 20 bytes.
fn total_lengths() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 20]);
    let lengths = (0..=70).chain([100, 1500, 0x7fff, 0xffff]);
    let frames = lengths.map(|total: u16| {
        let header = V4 { total: Some(total), ..V4::default() };
        let expected = if (40..=60).contains(&total) { Pass("callbacks") } else { drop_for(Malformed) };
        (ipv4(ip(SAFARICOM4), ip(HOST4), TCP, &segment, &header), expected)
    });
    Case::new("IPv4 total length below, within and beyond the frame").frames(frames)
}

fn payload_lengths() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[0; 20]);
    let lengths = (0..=50).chain([100, 1500, 0x7fff, 0xffff]);
    let frames = lengths.map(|length: u16| {
        let header = V6 { length: Some(length), ..V6::default() };
        let expected = if (20..=40).contains(&length) { Pass("callbacks") } else { drop_for(Malformed) };
        (ipv6(ip(SAFARICOM6), ip(HOST6), TCP, &segment, header), expected)
    });
    Case::new("IPv6 payload length below, within and beyond the frame").frames(frames)
}

/// RFC 2675: length 0 and an option that says the real one. Ours is far below 65,536.
fn jumbograms() -> Case {
    let segment = tcp_segment(4000, CALLBACKS, SYN, &[]);
    let frames = [0u32, 8, 28, 0xffff, 0x1_0000, 0x1_0001, u32::MAX].into_iter().flat_map(|jumbo| {
        let option = [&[TCP, 0, 0xc2, 4][..], &jumbo.to_be_bytes(), &segment].concat();
        [0, 28].map(|length| {
            let header = V6 { length: Some(length), ..V6::default() };
            let expected = if length == 0 { drop_for(Malformed) } else { Pass("callbacks") };
            (ipv6(ip(SAFARICOM6), ip(HOST6), 0, &option, header), expected)
        })
    });
    Case::new("jumbo payload options").frames(frames)
}

/// Ethernet pads: what lies behind the packet is no part of it, whatever it says.
fn trailing_bytes() -> Case {
    let mut case = Case::new("bytes behind the packet");
    for (source, host) in ALLOWED {
        for padding in [1, 6, 40, 1000] {
            for (port, expected) in [(CALLBACKS, Pass("callbacks")), (STRAY, drop_for(NoService))] {
                let mut frame = tcp(&at(source, 4000), &at(host, port), SYN);
                frame.extend(tcp_segment(4000, CALLBACKS, SYN, &[0; 1000]).iter().take(padding));
                case = case.frame(frame, expected);
            }
        }
        // A header that would be whole with the padding is cut by its own length.
        let mut frame = packet(ip(source), ip(host), TCP, &tcp_segment(4000, CALLBACKS, SYN, &[])[..12]);
        frame.extend([0x50, SYN, 0, 0, 0, 0, 0, 0]);
        case = case.frame(frame, drop_for(Malformed));
    }
    case
}

fn udp_lengths(source: &str, host: &str) -> Case {
    let mut case = Case::new(format!("UDP length 0 to 30 over 20 bytes, from {source}"));
    for length in (0..=30).chain([0xffff]) {
        let mut datagram = udp_datagram(4000, ECHO, &[0; 12]);
        datagram[4..6].copy_from_slice(&u16::to_be_bytes(length));
        let expected = if (8..=20).contains(&length) { Pass("echo") } else { drop_for(Malformed) };
        case = case.frame(packet(ip(source), ip(host), UDP, &datagram), expected);
    }
    case
}

/// Not the firewall's to judge: the stack drops them, and a NIC may have looked already.
fn checksums() -> Case {
    let frames = ALLOWED.map(|(source, host)| {
        let mut datagram = udp_datagram(4000, ECHO, b"data");
        datagram[6..8].copy_from_slice(&[0x12, 0x34]);
        packet(ip(source), ip(host), UDP, &datagram)
    });
    Case::new("wrong checksums: judged by the headers, dropped by the stack")
        .all(Pass("echo"), frames)
        .heard(0)
}
