//! 4 and E3: what a host cannot live without, and what only looks like it.

use mpesa_fw_common::{DropReason::*, PassReason, decide::Sender};

use super::{BASE, DENY_ALL, NETS, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, sent_by, to},
    frames::{
        ACK, FIN, PSH, RST, SYN, V6, chain, fragment, icmp_message, icmpv6_hop, ip, ipv6, tcp, tcp_with, udp,
        udp_datagram,
    },
};

pub(super) fn cases() -> Vec<Case> {
    vec![dhcp(), discovery(), fragmented(), for_the_gone(), for_the_gone_with_a_socket()]
}

fn control() -> Expected {
    pass(PassReason::Control, "")
}

fn dhcp() -> Case {
    let closed = || drop(NoService, "");
    let unknown = || drop(NoDestination, "");
    Case::new(
        "DHCP",
        DENY_ALL,
        vec![
            to("an offer", udp("10.0.0.1:67", "255.255.255.255:68"), control()),
            to("an answer of a relay", udp("203.0.113.9:67", "10.0.0.5:68"), control()),
            to("a wrong source port", udp("10.0.0.1:68", "10.0.0.5:68"), closed()),
            to("a wrong target port", udp("10.0.0.1:67", "10.0.0.5:69"), closed()),
            to("to a server", udp("10.0.0.7:68", "10.0.0.5:67"), closed()),
            to("by TCP", tcp("10.0.0.1:67", "10.0.0.5:68", SYN), closed()),
            to("DHCPv6", udp("[fe80::1]:547", "[fe80::5]:546"), control()),
            to("DHCPv6 from elsewhere", udp("[2001:db8::1]:547", "[fe80::5]:546"), closed()),
            to("DHCPv6 from near link-local", udp("[fec0::1]:547", "[fe80::5]:546"), closed()),
            to("DHCPv6 of a client", udp("[fe80::1]:546", "[fe80::5]:547"), closed()),
            to("ports of DHCPv6 in IPv4", udp("10.0.0.1:547", "10.0.0.5:546"), closed()),
            to("ports of DHCP in IPv6", udp("[fe80::1]:67", "[fe80::5]:68"), closed()),
            from("a request", udp("0.0.0.0:68", "255.255.255.255:67"), control()),
            from("a renewal", udp("10.0.0.5:68", "10.0.0.1:67"), control()),
            from("a renewal in 100.64/10", udp("10.0.0.5:68", "100.127.255.254:67"), control()),
            from("a renewal behind it", udp("10.0.0.5:68", "100.128.0.0:67"), unknown()),
            from("a renewal in 172.16/12", udp("10.0.0.5:68", "172.31.1.1:67"), control()),
            from("a renewal behind that", udp("10.0.0.5:68", "172.32.0.1:67"), unknown()),
            from("to anywhere", udp("10.0.0.5:68", "198.51.100.66:67"), unknown()),
            from("as a server", udp("10.0.0.5:67", "10.0.0.7:68"), unknown()),
            from("from another port", udp("10.0.0.5:69", "10.0.0.1:67"), unknown()),
            from("DHCPv6 request", udp("[fe80::5]:546", "[ff02::1:2]:547"), control()),
            from("DHCPv6 renewal", udp("[fe80::5]:546", "[fe80::1]:547"), control()),
            from("DHCPv6 to anywhere", udp("[fd00::5]:546", "[2001:db8::1]:547"), unknown()),
            from("DHCPv6 as a server", udp("[fe80::5]:547", "[fe80::1]:546"), unknown()),
            from("DHCPv6 from another port", udp("[fe80::5]:547", "[ff02::1:2]:547"), unknown()),
        ],
    )
}

/// Hop limits that nobody can forge from afar (RFC 4861, RFC 3810).
fn discovery() -> Case {
    let mut steps = Vec::new();
    let near = "fe80::1";
    let far = "2001:db8::1";
    let us = "fe80::5";
    let closed = || drop(NoService, "");
    for (kind, hop, from_afar) in [
        (134, 255, false), // router advertisement
        (135, 255, true),  // neighbour solicitation: from any address of the link
        (136, 255, true),  // neighbour advertisement
        (130, 1, false),   // MLD query
        (131, 1, false),
        (132, 1, false),
        (143, 1, false),
    ] {
        let label = |what| format!("type {kind}, {what}");
        steps.push(to(label("right"), icmpv6_hop(near, us, kind, hop), control()));
        for wrong in [0, 1, 64, 254, 255].into_iter().filter(|wrong| *wrong != hop) {
            let label = format!("type {kind}, hop limit {wrong}");
            steps.push(to(label, icmpv6_hop(near, us, kind, wrong), closed()));
        }
        let expected = if from_afar { control() } else { closed() };
        steps.push(to(label("global source"), icmpv6_hop(far, us, kind, hop), expected));
    }
    for (kind, hop) in [(133, 255), (137, 255), (138, 255), (127, 255), (200, 255)] {
        steps.push(to(format!("type {kind}"), icmpv6_hop(near, us, kind, hop), closed()));
    }
    let unknown = || drop(NoDestination, "");
    for (kind, hop) in [(133, 255), (135, 255), (136, 255), (131, 1), (132, 1), (143, 1)] {
        let label = |what| format!("type {kind} from here, {what}");
        steps.push(from(label("right"), icmpv6_hop(us, "ff02::2", kind, hop), control()));
        steps.push(from(label("global source"), icmpv6_hop(far, near, kind, hop), control()));
        for wrong in [0, 1, 64, 254, 255].into_iter().filter(|wrong| *wrong != hop) {
            let label = format!("type {kind} from here, hop limit {wrong}");
            steps.push(from(label, icmpv6_hop(us, "ff02::2", kind, wrong), unknown()));
        }
    }
    for kind in [134, 130, 137] {
        let frame = icmpv6_hop(us, "ff02::1", kind, if kind == 130 { 1 } else { 255 });
        steps.push(from(format!("type {kind} from here, as a router"), frame, unknown()));
    }
    // MLD has a router alert in front of it (RFC 3810 5).
    let (next, bytes) = chain(&[0], 58, &icmp_message(143, 0, &[0; 8]));
    let hop = V6 { hop_limit: Some(1), ..V6::default() };
    steps.push(to("MLD with router alert", ipv6(ip(near), ip("ff02::16"), next, &bytes, hop), control()));
    steps.push(from("MLD with router alert", ipv6(ip(us), ip("ff02::16"), next, &bytes, hop), control()));
    Case::new("neighbour discovery and MLD", DENY_ALL, steps)
}

/// Control traffic is never fragmented (RFC 6980).
fn fragmented() -> Case {
    let near = (ip("fe80::1"), ip("fe80::5"));
    let four = (ip("10.0.0.1"), ip("10.0.0.5"));
    let offer = udp_datagram(67, 68, b"data");
    let solicitation = icmp_message(135, 0, &[0; 16]);
    Case::new(
        "fragments of control traffic",
        DENY_ALL,
        vec![
            to("first of DHCP", fragment(four, 17, 1, 0, true, &offer), drop(NoService, "")),
            to("later of DHCP", fragment(four, 17, 1, 2, false, &offer), drop(Fragment, "")),
            to(
                "first of DHCPv6",
                fragment(near, 17, 2, 0, true, &udp_datagram(547, 546, &[])),
                drop(NoService, ""),
            ),
            to("first of a solicitation", fragment(near, 58, 3, 0, true, &solicitation), drop(NoService, "")),
            from(
                "first of DHCP",
                fragment((four.1, four.0), 17, 1, 0, true, &udp_datagram(68, 67, &[])),
                drop(NoDestination, ""),
            ),
        ],
    )
}

/// E3: the kernel speaks for sockets that are gone.
fn for_the_gone() -> Case {
    let mut steps = Vec::new();
    let nobody = Sender::default();
    for net in NETS {
        let mut say = |label: &str, frame: Vec<u8>, expected| {
            steps.push(sent_by(nobody, net.label(label), frame, expected));
        };
        for (flags, name) in [(RST, "RST"), (RST | ACK, "RST ACK"), (ACK, "ACK"), (FIN | ACK, "FIN ACK")] {
            let served = tcp(&at(net.us, 443), &at(net.safaricom, 4000), flags);
            say(&format!("{name} to a source of a service"), served, control());
            let opened = tcp(&at(net.us, 4000), &at(net.daraja, 443), flags);
            say(&format!("{name} to a destination"), opened, control());
            let stranger = tcp(&at(net.us, 443), &at(net.outsider, 4000), flags);
            say(&format!("{name} to a stranger"), stranger, drop(NoDestination, ""));
            let other = tcp(&at(net.us, 4000), &at(net.outsider, 443), flags);
            say(&format!("{name} to where none may"), other, drop(DestinationNotAllowed, "daraja"));
            let elsewhere = tcp(&at(net.us2, 8080), &at(net.intranet, 4000), flags);
            say(&format!("{name} of an address that does not serve"), elsewhere, drop(NoDestination, ""));
        }
        // With payload, or without any flag that says so, it is no such packet; to a destination it is as good as new.
        let data = tcp_with(&at(net.us, 4001), &at(net.outsider, 443), RST, b"data");
        say("RST with data", data, drop(DestinationNotAllowed, "daraja"));
        let data = tcp_with(&at(net.us, 4002), &at(net.daraja, 443), ACK | PSH, b"data");
        say("ACK with data", data, pass(PassReason::Destination, "daraja"));
        let syn = tcp(&at(net.us, 4003), &at(net.outsider, 443), SYN | RST);
        say("SYN RST", syn, drop(DestinationNotAllowed, "daraja"));
    }
    Case::new("packets of sockets that are gone", BASE, steps)
}

/// A program has it: judged as any packet of a program.
fn for_the_gone_with_a_socket() -> Case {
    let steps = NETS.iter().flat_map(|net| {
        let frame = |flags| tcp(&at(net.us, 4000), &at(net.daraja, 443), flags);
        let closed = tcp(&at(net.us, 4000), &at(net.outsider, 443), RST);
        [
            from(net.label("RST opens no flow"), frame(RST), pass(PassReason::Destination, "daraja")),
            to(
                net.label("so nothing comes back"),
                tcp(&at(net.daraja, 443), &at(net.us, 4000), ACK),
                drop(NoService, ""),
            ),
            from(net.label("RST to a stranger"), closed, drop(DestinationNotAllowed, "daraja")),
            from(net.label("FIN ACK"), frame(FIN | ACK), pass(PassReason::Destination, "daraja")),
            from(
                net.label("and again, it opened no flow"),
                frame(FIN | ACK),
                pass(PassReason::Destination, "daraja"),
            ),
        ]
    });
    Case::new("the same with a socket", BASE, steps.collect::<Vec<Step>>())
}
