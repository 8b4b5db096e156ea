//! 3: impossible sources.

use mpesa_fw_common::{
    DropReason::{self, *},
    PassReason,
};

use super::{BASE, NETS, at};
use crate::{
    case::{Case, Expected, drop, near_miss, pass, to},
    frames::{ACK, SYN, fragment, icmpv6_hop, ip, tcp, udp, udp_datagram},
};

pub(super) fn cases() -> Vec<Case> {
    vec![everywhere(), dhcp(), unspecified(), own(), of_fragments()]
}

fn spoofed() -> Expected {
    drop(Spoofed, "")
}

/// Sources that are impossible and their neighbours that are not.
fn everywhere() -> Case {
    const SOURCES: [(&str, bool); 28] = [
        ("0.0.0.0", true),
        ("0.0.0.1", true),
        ("0.255.255.255", true),
        ("1.0.0.0", false),
        ("126.255.255.255", false),
        ("127.0.0.1", true),
        ("127.255.255.255", true),
        ("128.0.0.0", false),
        ("223.255.255.255", false),
        ("224.0.0.1", true),
        ("239.255.255.255", true),
        ("240.0.0.1", false),
        ("255.255.255.254", false),
        ("255.255.255.255", true),
        ("169.254.1.1", false),
        ("::", true),
        ("::1", true),
        ("::2", false),
        ("::ffff:203.0.113.9", true),
        ("::ffff:10.1.2.3", true),
        ("::fffe:10.1.2.3", false),
        ("ff02::1", true),
        ("ff00::", true),
        ("ffff::1", true),
        ("feff::1", false),
        ("fe80::1", false),
        ("64:ff9b::1", false),
        ("2001:db8::1", false),
    ];
    let mut steps = Vec::new();
    for (source, impossible) in SOURCES {
        let us = if ip(source).is_ipv4() { super::V4.us } else { super::V6.us };
        for (flags, what) in [(SYN, "SYN"), (ACK, "ACK")] {
            let expected = if impossible { spoofed() } else { pass(PassReason::Service, "site") };
            let frame = tcp(&at(source, 4000), &at(us, 80), flags);
            steps.push(to(format!("{source}, {what}"), frame, expected));
        }
        let expected = if impossible { spoofed() } else { drop(NoService, "") };
        steps.push(to(format!("{source}, UDP"), udp(&at(source, 4000), &at(us, 123)), expected));
    }
    Case::new("sources", BASE, steps)
}

/// Who has no address yet asks a DHCP server; nobody else is 0.0.0.0.
fn dhcp() -> Case {
    let asks = |source: &str, target: &str| udp(source, target);
    Case::new(
        "0.0.0.0 asks for an address",
        BASE,
        vec![
            to("as DHCP does", asks("0.0.0.0:68", "255.255.255.255:67"), drop(NoService, "")),
            to("from another port", asks("0.0.0.0:67", "255.255.255.255:67"), spoofed()),
            to("to another port", asks("0.0.0.0:68", "255.255.255.255:68"), spoofed()),
            to("from its neighbour", asks("0.0.0.1:68", "255.255.255.255:67"), spoofed()),
            to("by TCP", tcp("0.0.0.0:68", "10.0.0.5:67", SYN), spoofed()),
        ],
    )
}

/// `::` is the source of who is about to get an address (RFC 4862) or a router, and of MLD.
fn unspecified() -> Case {
    let from = |kind, hop| icmpv6_hop("::", "ff02::1", kind, hop);
    let control = || pass(PassReason::Control, "");
    let none = || drop(NoService, "");
    Case::new(
        ":: asks",
        BASE,
        vec![
            to("duplicate address detection", from(135, 255), control()),
            to("duplicate address detection from afar", from(135, 64), none()),
            to("router solicitation", from(133, 255), none()),
            to("MLD report", from(131, 1), control()),
            to("MLD done", from(132, 1), control()),
            to("MLDv2 report", from(143, 1), control()),
            to("MLDv2 report from afar", from(143, 2), none()),
            to("MLD query", from(130, 1), spoofed()),
            to("neighbour advertisement", from(136, 255), spoofed()),
            to("router advertisement", from(134, 255), spoofed()),
            to("ping", from(128, 255), spoofed()),
        ],
    )
}

/// The host's own addresses come from no wire.
fn own() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        for own in [net.us, net.us2] {
            let frame = tcp(&at(own, 4000), &at(net.us, 80), SYN);
            steps.push(to(net.label("an address of ours"), frame, spoofed()));
            let frame = udp(&at(own, 53), &at(net.us, 4000));
            steps.push(to(net.label("an address of ours, UDP"), frame, spoofed()));
        }
        let frame = tcp(&at(net.intranet, 4000), &at(net.us, 80), SYN);
        steps.push(to(net.label("a neighbour"), frame, pass(PassReason::Service, "site")));
        let moved = tcp(&at(net.moved, 4000), &at(net.us, 443), SYN);
        let expected = near_miss(DropReason::SourceNotAllowed, "callbacks", &["safaricom"]);
        steps.push(to(net.label("who moved"), moved, expected));
    }
    // Addresses with the hint of ours that are not ours: the exact table decides.
    steps.push(to(
        "the hint of ours",
        tcp("11.0.1.5:1", "10.0.0.5:80", SYN),
        pass(PassReason::Service, "site"),
    ));
    Case::new("own addresses", BASE, steps).own(&[super::V4.us, super::V4.us2, super::V6.us, super::V6.us2])
}

fn of_fragments() -> Case {
    let steps = [("127.0.0.1", "10.0.0.5"), ("10.0.0.5", "10.0.0.5"), ("::", "fd00::5"), ("::1", "fd00::5")]
        .into_iter()
        .flat_map(|(source, target)| {
            [0, 1, 100].map(|offset| {
                let frame =
                    fragment((ip(source), ip(target)), 17, 9, offset, true, &udp_datagram(1, 53, &[0; 8]));
                to(format!("{source}, offset {offset}"), frame, spoofed())
            })
        });
    Case::new("fragments of impossible sources", BASE, steps.collect()).own(&["10.0.0.5"])
}
