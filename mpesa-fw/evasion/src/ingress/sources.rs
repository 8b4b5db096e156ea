//! Sources that no honest packet has, and those that only look so.

use mpesa_fw_common::DropReason::{NoService, SourceNotAllowed, Spoofed};

use crate::{
    case::{Case, Drop, Pass, drop_for},
    field::{CALLBACKS, HOST4, HOST6, SAFARICOM4, SAFARICOM6, STRAY, at},
    frames::{SYN, icmp, tcp, udp},
};

const IMPOSSIBLE4: [&str; 15] = [
    HOST4,
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "224.0.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "232.1.1.1",
    "255.255.255.255",
    "203.0.113.255",
    "127.0.0.53",
    "225.0.0.1",
    "238.1.2.3",
];
const IMPOSSIBLE6: [&str; 14] = [
    HOST6,
    "fe80::2",
    "::1",
    "::",
    "ff01::1",
    "ff02::1",
    "ff02::fb",
    "ff05::2",
    "ff0e::1",
    "ffff::1",
    "::ffff:196.201.214.200",
    "::ffff:127.0.0.1",
    "::ffff:0:0",
    "::ffff:203.0.113.10",
];
/// Possible, if odd: class E (240/4), the subnet's own address, shared, link-local, benchmarking; IPv4-compatible, site-local,
/// NAT64, 6to4, Teredo around the allowed address, documentation.
const STRANGE4: [&str; 7] = [
    "240.0.0.1",
    "255.255.255.254",
    "203.0.113.0",
    "100.64.0.1",
    "169.254.1.1",
    "198.18.0.1",
    "126.255.255.255",
];
const STRANGE6: [&str; 8] = [
    "::c4c9:d6c8",
    "fec0::1",
    "64:ff9b::c4c9:d6c8",
    "2002:c4c9:d6c8::1",
    "2001:0:c4c9:d6c8::1",
    "fd00::1",
    "fe80::666",
    "::fffe:c4c9:d6c8",
];

pub(super) fn cases() -> Vec<Case> {
    vec![
        impossible("impossible IPv4 sources", HOST4, &IMPOSSIBLE4),
        impossible("impossible IPv6 sources", HOST6, &IMPOSSIBLE6),
        strange("strange IPv4 sources", HOST4, &STRANGE4),
        strange("strange IPv6 sources", HOST6, &STRANGE6),
        neighbours(),
        targets(),
    ]
}

fn impossible(name: &str, host: &str, sources: &[&str]) -> Case {
    let frames = sources.iter().flat_map(|source| {
        [
            tcp(&at(source, 4000), &at(host, CALLBACKS), SYN),
            tcp(&at(source, 4000), &at(host, STRAY), SYN),
            udp(&at(source, 4000), &at(host, 9)),
            udp(&at(source, 67), &at(host, 68)),
            icmp(source, host, if host.contains(':') { 128 } else { 8 }, 1),
        ]
    });
    Case::new(name).all(drop_for(Spoofed), frames)
}

fn strange(name: &str, host: &str, sources: &[&str]) -> Case {
    let frames = sources.iter().flat_map(|source| {
        [
            (tcp(&at(source, 4000), &at(host, CALLBACKS), SYN), Drop(SourceNotAllowed, "callbacks")),
            (tcp(&at(source, 4000), &at(host, STRAY), SYN), drop_for(NoService)),
        ]
    });
    Case::new(name).frames(frames)
}

/// One bit away from an allowed address, each of them.
fn neighbours() -> Case {
    let v4 = SAFARICOM4.parse::<std::net::Ipv4Addr>().map(u32::from).unwrap_or_default();
    let v6 = SAFARICOM6.parse::<std::net::Ipv6Addr>().map(u128::from).unwrap_or_default();
    let near4 = (0..32).map(|bit| (std::net::Ipv4Addr::from(v4 ^ 1 << bit).to_string(), HOST4));
    let near6 = (0..128).map(|bit| (std::net::Ipv6Addr::from(v6 ^ 1 << bit).to_string(), HOST6));
    let frames = near4.chain(near6).map(|(source, host)| {
        // 196 and one bit more is 228, a group.
        let is_group = source.starts_with("228.");
        let expected = if is_group { drop_for(Spoofed) } else { Drop(SourceNotAllowed, "callbacks") };
        (tcp(&at(&source, 4000), &at(host, CALLBACKS), SYN), expected)
    });
    Case::new("one bit away from an allowed source").frames(frames)
}

/// The rules say nothing of local addresses (`to`), so what is not the host's passes if its source may: the stack drops it.
fn targets() -> Case {
    let mut case = Case::new("to other targets: neighbours, broadcast, multicast, loopback");
    for (source, targets) in [
        (SAFARICOM4, ["203.0.113.11", "255.255.255.255", "224.0.0.1", "127.0.0.1", "0.0.0.0"]),
        (SAFARICOM6, ["2001:db8:0:113::11", "ff02::1", "ff0e::1", "::1", "::"]),
    ] {
        for target in targets {
            case = case
                .frame(tcp(&at(source, 4000), &at(target, CALLBACKS), SYN), Pass("callbacks"))
                .frame(tcp(&at(source, 4000), &at(target, STRAY), SYN), drop_for(NoService));
        }
    }
    case
}
