//! 2 and E2: headers, lengths, chains. Also what a service makes of a protocol that nothing claims.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, NETS, Net, V4 as NET4, V6 as NET6, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, to},
    frames::{
        ACK, ICMP, ICMPV6, NETWORK, PSH, SYN, TCP, UDP, V4, V6, chain, icmp_message, icmp_number, ip, ipv4,
        ipv6, packet, tcp, tcp_segment, tcp_with, udp_datagram,
    },
    host::Frame,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        ipv4_headers(),
        ipv4_options(),
        ipv6_headers(),
        ipv6_chains(),
        other_protocols(),
        transport(),
        ports(),
        segmented(),
        aggregates(),
        long_frames(),
    ]
}

fn site() -> Expected {
    pass(PassReason::Service, "site")
}

fn malformed() -> Expected {
    drop(Malformed, "")
}

/// A SYN to the site with this header.
fn four(header: &V4) -> Vec<u8> {
    ipv4(ip(NET4.outsider), ip(NET4.us), TCP, &tcp_segment(4000, 80, SYN, &[]), header)
}

fn six(header: V6) -> Vec<u8> {
    ipv6(ip(NET6.outsider), ip(NET6.us), TCP, &tcp_segment(4000, 80, SYN, &[]), header)
}

fn padded(mut frame: Vec<u8>) -> Vec<u8> {
    frame.resize(frame.len() + 6, 0);
    frame
}

fn ipv4_headers() -> Case {
    let h = V4::default();
    let mut steps = vec![
        to("right", four(&h), site()),
        to("padded by the link layer", padded(four(&h)), site()),
        to("longer than the frame", four(&V4 { total: Some(41), ..h.clone() }), malformed()),
        to("as long as the frame with padding", padded(four(&V4 { total: Some(46), ..h.clone() })), site()),
        to("one longer than that", padded(four(&V4 { total: Some(47), ..h.clone() })), malformed()),
        to("much longer", four(&V4 { total: Some(0xffff), ..h.clone() }), malformed()),
        to("total length 0", four(&V4 { total: Some(0), ..h.clone() }), malformed()),
        to("total length of 19", four(&V4 { total: Some(19), ..h.clone() }), malformed()),
        to("only its header", four(&V4 { total: Some(20), ..h.clone() }), malformed()),
        to("cut within TCP by its length", four(&V4 { total: Some(39), ..h.clone() }), malformed()),
        to("reserved flag", four(&V4 { fragment: 0x8000, ..h.clone() }), site()),
        to("don't fragment", four(&V4 { fragment: 0x4000, ..h.clone() }), site()),
        to("TTL 0", four(&V4 { ttl: Some(0), ..h.clone() }), site()),
    ];
    for version in (0..16).filter(|version| *version != 4) {
        let header = V4 { version: Some(version), ..h.clone() };
        steps.push(to(format!("version {version}"), four(&header), malformed()));
    }
    for header in 0..5 {
        let wrong = V4 { header: Some(header), ..h.clone() };
        steps.push(to(format!("header of {header} words"), four(&wrong), malformed()));
    }
    for header in 11..16 {
        let wrong = V4 { header: Some(header), ..h.clone() };
        steps.push(to(format!("header of {header} words in 10"), four(&wrong), malformed()));
    }
    for header in 6..10 {
        // What is left is no TCP header.
        let wrong = V4 { header: Some(header), ..h.clone() };
        steps.push(to(format!("header of {header} words over TCP"), four(&wrong), malformed()));
    }
    let mut wrong_type = four(&h);
    wrong_type[12..14].copy_from_slice(&[0x86, 0xdd]);
    steps.push(to("IPv4 with the type of IPv6", wrong_type, malformed()));
    let mut wrong_type = six(V6::default());
    wrong_type[12..14].copy_from_slice(&[8, 0]);
    steps.push(to("IPv6 with the type of IPv4", wrong_type, malformed()));
    steps.push(from("from here", four(&V4 { header: Some(4), ..h }), malformed()));
    Case::new("IPv4 headers", BASE, steps)
}

/// The ports are behind the options, not at a fixed place: the options here look like ports that are served.
fn ipv4_options() -> Case {
    let mut steps = Vec::new();
    for words in 0..=10u8 {
        let options = [0, 80].repeat(usize::from(words) * 2);
        let header = V4 { options, ..V4::default() };
        let label = |what| format!("{words} words, {what}");
        steps.push(to(label("served"), four(&header), site()));
        let closed = tcp_segment(4000, 22, SYN, &[]);
        let closed = ipv4(ip(NET4.outsider), ip(NET4.us), TCP, &closed, &header);
        steps.push(to(label("not served"), closed, drop(NoService, "")));
        let request = tcp_segment(4000, 443, SYN, &[]);
        let refused = ipv4(ip(NET4.us), ip(NET4.outsider), TCP, &request, &header);
        steps.push(from(label("from here"), refused, drop(DestinationNotAllowed, "daraja")));
        let request = ipv4(ip(NET4.us), ip(NET4.daraja), TCP, &request, &header);
        steps.push(from(label("from here, allowed"), request, pass(PassReason::Destination, "daraja")));
    }
    Case::new("IPv4 options", BASE, steps)
}

fn ipv6_headers() -> Case {
    let h = V6::default();
    let none = |payload: &[u8]| ipv6(ip(NET6.outsider), ip(NET6.us), 59, payload, V6::default());
    let mut steps = vec![
        to("right", six(h), site()),
        to("padded by the link layer", padded(six(h)), site()),
        to("longer than the frame", six(V6 { length: Some(21), ..h }), malformed()),
        to("one longer than its padding", padded(six(V6 { length: Some(27), ..h })), malformed()),
        to("length 0", six(V6 { length: Some(0), ..h }), malformed()),
        to("cut within TCP by its length", six(V6 { length: Some(19), ..h }), malformed()),
        to("hop limit 0", six(V6 { hop_limit: Some(0), ..h }), site()),
        to("no next header", none(&[]), drop(NoService, "")),
        to("no next header, and data", none(&[0, 80, 0, 80]), drop(NoService, "")),
        from("from here", six(V6 { length: Some(21), ..h }), malformed()),
        from("no next header, from here", none(&[]), drop(NoDestination, "")),
        to("to a mapped address", tcp("[2001:db8:9::9]:4000", "[::ffff:10.0.0.5]:80", SYN), malformed()),
        to("beside them", tcp("[2001:db8:9::9]:4000", "[::fffe:10.0.0.5]:80", SYN), site()),
        from("to a mapped address", tcp("[fd00::5]:4000", "[::ffff:198.51.100.10]:443", SYN), malformed()),
    ];
    for version in (0..16).filter(|version| *version != 6) {
        steps.push(to(format!("version {version}"), six(V6 { version: Some(version), ..h }), malformed()));
    }
    Case::new("IPv6 headers", BASE, steps)
}

fn chained(kinds: &[u8], upper: u8, payload: &[u8]) -> Vec<u8> {
    let (next, bytes) = chain(kinds, upper, payload);
    ipv6(ip(NET6.outsider), ip(NET6.us), next, &bytes, V6::default())
}

fn ipv6_chains() -> Case {
    let syn = |port| tcp_segment(4000, port, SYN, &[]);
    let mut steps = Vec::new();
    let good: [&[u8]; 12] = [
        &[0],
        &[60],
        &[43],
        &[44],
        &[51],
        &[135],
        &[139],
        &[140],
        &[0, 60, 43, 44],
        &[0, 60, 43, 44, 51, 60],
        &[60; 6],
        &[0, 60, 60, 60, 60, 60],
    ];
    for kinds in good {
        steps.push(to(format!("{kinds:?} to the site"), chained(kinds, TCP, &syn(80)), site()));
        let closed = chained(kinds, TCP, &syn(22));
        steps.push(to(format!("{kinds:?} to nothing"), closed, drop(NoService, "")));
        let callback = chained(kinds, TCP, &syn(443));
        steps.push(to(format!("{kinds:?} forged"), callback, drop(SourceNotAllowed, "callbacks")));
    }
    let bad: [&[u8]; 8] = [
        &[60; 7],
        &[0, 60, 43, 44, 51, 60, 60],
        &[60, 0],
        &[0, 0],
        &[43, 60, 0],
        &[44, 44],
        &[44, 60, 44],
        &[60, 60, 60, 60, 60, 60, 51],
    ];
    for kinds in bad {
        steps.push(to(format!("{kinds:?}"), chained(kinds, TCP, &syn(80)), malformed()));
    }
    for upper in [147, 200, 252, 255] {
        steps.push(to(format!("unknown header {upper}"), chained(&[], upper, &syn(80)), malformed()));
        steps.push(to(
            format!("unknown header {upper} behind"),
            chained(&[60], upper, &syn(80)),
            malformed(),
        ));
    }
    // A length that goes beyond the packet.
    for kind in [0, 43, 51, 60, 135] {
        let (next, mut bytes) = chain(&[kind], TCP, &syn(80));
        bytes[1] = 0xff;
        let frame = ipv6(ip(NET6.outsider), ip(NET6.us), next, &bytes, V6::default());
        steps.push(to(format!("header {kind} longer than the packet"), frame, malformed()));
    }
    let frame = ipv6(ip(NET6.outsider), ip(NET6.us), 60, &[6, 0, 0, 0], V6::default());
    steps.push(to("half a header", frame, malformed()));
    steps.push(to("a chain to nothing", chained(&[60], 59, &[]), drop(NoService, "")));
    steps.push(to("a chain to TCP that is not there", chained(&[60], TCP, &[]), malformed()));
    // Long headers: 40 octets of routing, 24 of options.
    let mut long = [&[60, 4][..], &[0; 38], &[TCP, 2], &[0; 22]].concat();
    long.extend(syn(80));
    let frame = ipv6(ip(NET6.outsider), ip(NET6.us), 43, &long, V6::default());
    steps.push(to("headers of several units", frame, site()));
    let ping = icmp_message(128, 1, b"echo");
    steps.push(to(
        "ping behind options",
        chained(&[0, 60], ICMPV6, &ping),
        pass(PassReason::Service, "ping"),
    ));
    Case::new("IPv6 extension headers", BASE, steps)
}

/// Known protocols that no rule claims, with ports that would be served where TCP has them.
fn other_protocols() -> Case {
    const NUMBERS: [u8; 12] = [2, 4, 33, 41, 46, 50, 89, 94, 115, 132, 136, 253];
    let body = udp_datagram(4000, 80, &[0; 16]);
    let mut steps = Vec::new();
    for net in NETS {
        for number in NUMBERS {
            let frame = packet(ip(net.outsider), ip(net.us), number, &body);
            steps.push(to(net.label(&format!("protocol {number}")), frame, drop(NoService, "")));
            let frame = packet(ip(net.us), ip(net.daraja), number, &body);
            steps.push(from(net.label(&format!("protocol {number}")), frame, drop(NoDestination, "")));
        }
        let empty = packet(ip(net.outsider), ip(net.us), 132, &[0]);
        steps.push(to(net.label("SCTP of one octet"), empty, drop(NoService, "")));
        let gre = packet(ip(net.us), ip(net.daraja), 47, &body);
        steps.push(from(net.label("GRE"), gre, pass(PassReason::Destination, "tunnel")));
        let answer = packet(ip(net.daraja), ip(net.us), 47, &body);
        steps.push(to(net.label("GRE, answered"), answer, pass(PassReason::Flow, "")));
        let stray = packet(ip(net.outsider), ip(net.us), 47, &body);
        steps.push(to(net.label("GRE of a stranger"), stray, drop(NoService, "")));
    }
    for number in [44, 43, 51, 60, 0, 255] {
        let frame = packet(ip(NET4.outsider), ip(NET4.us), number, &body);
        steps.push(to(format!("header {number} of IPv6 in IPv4"), frame, drop(NoService, "")));
    }
    let frame = packet(ip(NET4.outsider), ip(NET4.us), ICMPV6, &icmp_message(128, 1, &[]));
    steps.push(to("ICMPv6 in IPv4", frame, drop(NoService, "")));
    let frame = packet(ip(NET6.outsider), ip(NET6.us), ICMP, &icmp_message(8, 1, &[]));
    steps.push(to("ICMP in IPv6", frame, drop(NoService, "")));
    Case::new("other protocols", BASE, steps)
}

fn transport() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (source, target) = (ip(net.outsider), ip(net.us));
        let segment = |offset: u8, options: &[u8]| {
            let mut segment = tcp_segment(4000, 80, SYN, options);
            segment[12] = offset << 4;
            packet(source, target, TCP, &segment)
        };
        for offset in 0..5 {
            steps.push(to(
                net.label(&format!("data offset {offset}")),
                segment(offset, &[0; 40]),
                malformed(),
            ));
        }
        for offset in 5..16 {
            let options = vec![1; (usize::from(offset) - 5) * 4];
            steps.push(to(net.label(&format!("data offset {offset}")), segment(offset, &options), site()));
        }
        steps.push(to(net.label("data offset beyond the end"), segment(6, &[]), malformed()));
        steps.push(to(net.label("data offset far beyond"), segment(15, &[0; 39]), malformed()));
        for length in 0..20 {
            let short = packet(source, target, TCP, &tcp_segment(4000, 80, SYN, &[])[..length]);
            // IPv6 with nothing behind its header is malformed too.
            steps.push(to(net.label(&format!("TCP of {length}")), short, malformed()));
        }
        let (here, resolver) = (ip(net.intranet), pass(PassReason::Service, "resolver"));
        let datagram = |length: u16| {
            let mut datagram = udp_datagram(4000, 53, b"data");
            datagram[4..6].copy_from_slice(&length.to_be_bytes());
            packet(here, target, UDP, &datagram)
        };
        for (length, expected) in [
            (8, resolver.clone()),
            (11, resolver.clone()),
            (12, resolver),
            (13, malformed()),
            (0xffff, malformed()),
        ] {
            steps.push(to(net.label(&format!("UDP that says {length}")), datagram(length), expected));
        }
        for length in 0..8 {
            steps.push(to(net.label(&format!("UDP that says {length}")), datagram(length), malformed()));
            let short = packet(here, target, UDP, &udp_datagram(4000, 53, &[])[..usize::from(length)]);
            steps.push(to(net.label(&format!("UDP of {length}")), short, malformed()));
            let short = icmp_message(net.echo_request(), 1, &[]);
            let short = packet(source, target, icmp_number(target), &short[..usize::from(length)]);
            steps.push(to(net.label(&format!("ICMP of {length}")), short, malformed()));
        }
    }
    Case::new("transport headers", BASE, steps)
}

/// Bounds of ranges, both inclusive, and port 0.
fn ports() -> Case {
    let steps = NETS.iter().flat_map(|net| {
        let callback = |port| tcp(&at(net.safaricom, 4000), &at(net.us, port), SYN);
        let served = [443, 8443, 9000, 9001, 9009, 9010].map(|port| {
            to(net.label(&format!("port {port}")), callback(port), pass(PassReason::Service, "callbacks"))
        });
        let others = [0, 1, 442, 444, 8442, 8444, 8999, 9011, 65535]
            .map(|port| to(net.label(&format!("port {port}")), callback(port), drop(NoService, "")));
        served.into_iter().chain(others).collect::<Vec<Step>>()
    });
    Case::new("ports", BASE, steps.collect())
}

/// GSO and GRO: the length fields say 0, or what one segment has; the frame's own length counts.
fn segmented() -> Case {
    let big = |net: &Net, source: &str, target: &str, flags| {
        let mut frame = tcp_with(source, target, flags, &[0; 900]);
        let field = if net.is_v4 { NETWORK + 2 } else { NETWORK + 4 };
        frame[field..field + 2].copy_from_slice(&[0, 0]);
        Frame { segmented: true, ..frame.into() }
    };
    let mut steps = Vec::new();
    for net in NETS {
        let request = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        steps.push(from(net.label("SYN"), request, pass(PassReason::Destination, "daraja")));
        let data = big(&net, &at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("data of length 0"), data, pass(PassReason::Flow, "daraja")));
        let whole = big(&net, &at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        let whole = Frame { segmented: false, ..whole };
        steps.push(from(net.label("length 0, not segmented"), whole, malformed()));
        let stray = big(&net, &at(net.us, 4000), &at(net.outsider, 443), ACK | PSH);
        steps.push(from(net.label("to a stranger"), stray, drop(DestinationNotAllowed, "daraja")));
        let answer = big(&net, &at(net.us, 80), &at(net.outsider, 4000), ACK);
        steps.push(from(net.label("answer of a service"), answer, pass(PassReason::ServiceReply, "")));
    }
    // BIG TCP on IPv6 before Linux 7: a hop-by-hop header with the jumbo option (RFC 2675).
    let jumbo = [&[TCP, 0, 0xc2, 4, 0, 1, 0, 0][..], &tcp_segment(80, 4000, ACK, &[0; 900])].concat();
    let header = V6 { length: Some(0), ..V6::default() };
    let jumbo = ipv6(ip(NET6.us), ip(NET6.outsider), 0, &jumbo, header);
    let segmented = Frame { segmented: true, ..jumbo.clone().into() };
    steps.push(from("jumbo option, segmented", segmented, pass(PassReason::ServiceReply, "")));
    steps.push(from("jumbo option, not segmented", jumbo, malformed()));
    Case::new("segmented frames", BASE, steps)
}

/// What generic XDP is given of BIG TCP: length 0, more than the field could say, and nothing that tells of segments.
fn aggregates() -> Case {
    const TCP_HEADER: usize = 20;
    let steps = NETS.iter().flat_map(|net| {
        let header = if net.is_v4 { 20 } else { 40 };
        let field = if net.is_v4 { NETWORK + 2 } else { NETWORK + 4 };
        // IPv4 counts its own header, IPv6 does not.
        let counted = if net.is_v4 { header + TCP_HEADER } else { TCP_HEADER };
        let of = |length: usize, port| {
            let data = vec![0; length - counted];
            let mut frame = tcp_with(&at(net.outsider, 4000), &at(net.us, port), ACK, &data);
            frame[field..field + 2].copy_from_slice(&[0, 0]);
            frame
        };
        [
            to(net.label("64 KiB, served"), of(0x1_0000, 80), site()),
            to(net.label("64 KiB, not served"), of(0x1_0000, 22), drop(NoService, "")),
            to(net.label("one octet less, which the field could say"), of(0xffff, 80), malformed()),
        ]
    });
    Case::new("aggregates at generic XDP", BASE, steps.collect())
}

/// Longer than a page: at XDP in several buffers.
fn long_frames() -> Case {
    let steps = NETS.iter().flat_map(|net| {
        let long = |port| tcp_with(&at(net.outsider, 4000), &at(net.us, port), ACK, &[0; 8000]);
        let cut = |port| long(port)[..7000].to_vec();
        [
            to(net.label("served"), long(80), site()),
            to(net.label("not served"), long(22), drop(NoService, "")),
            to(net.label("cut short"), cut(80), malformed()),
        ]
    });
    Case::new("long frames", BASE, steps.collect())
}
