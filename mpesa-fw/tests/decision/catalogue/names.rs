//! E6: destinations by DNS name.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{NETS, V4, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, to},
    frames::{ACK, PSH, SYN, tcp, udp},
};

pub(super) fn cases() -> Vec<Case> {
    vec![names(), several(), with_services(), reload()]
}

const POLICY: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [api.safaricom.co.ke, sandbox.safaricom.co.ke], ports: [443] }
    - { name: mixed, to: [mail.example.net, 192.0.2.0/24, "2001:db8:25::/48"], ports: [25] }
    - { name: ntp, to: [ntp.example.net], protocol: udp, ports: [123] }
    - { name: proxy, to: [192.0.2.1, "2001:db8:25::1"], ports: [3128] }
    - { name: pass-through, to: [proxy.example.net], ports: [3128] }
    - { name: early, to: [early.example.net], ports: [993] }
    - { name: late, to: [203.0.113.0/24, "2001:db8:9::/48"], ports: [993] }
"#;

fn opened(rule: &str) -> Expected {
    pass(PassReason::Destination, rule)
}

fn names() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let us = at(net.us, 4000);
        let mut case = |target: &str, port, expected| {
            steps.push(from(
                net.label(&format!("{target} {port}")),
                tcp(&us, &at(target, port), SYN),
                expected,
            ));
        };
        case(net.daraja, 443, opened("daraja"));
        // Only names claim the port, none is this address; or addresses claim it too.
        case(net.outsider, 443, drop(NameNotAllowed, "daraja"));
        case(net.daraja, 25, drop(DestinationNotAllowed, "mixed"));
        case(net.daraja, 3128, drop(DestinationNotAllowed, "proxy"));
        case(net.dns, 25, opened("mixed"));
        case(if net.is_v4 { "192.0.2.9" } else { "2001:db8:25::9" }, 25, opened("mixed"));
        case(net.daraja, 444, drop(NoDestination, ""));
        if !net.is_v4 {
            // What a name resolves to, in the form that sockets have for it: no packet of IPv6 goes there.
            case("::ffff:198.51.100.10", 443, drop(Malformed, ""));
        }
        case(net.intranet, 3128, opened("pass-through"));
        // Both allow it: the first in the file is charged, by name or not.
        case(net.outsider, 993, opened("early"));
        case(net.intranet, 993, drop(DestinationNotAllowed, "early"));
        steps.push(from(net.label("ntp"), udp(&us, &at(net.dns, 123)), opened("ntp")));
        steps.push(from(
            net.label("ntp elsewhere"),
            udp(&us, &at(net.daraja, 123)),
            drop(NameNotAllowed, "ntp"),
        ));
        steps.push(to(
            net.label("an answer"),
            tcp(&at(net.daraja, 443), &us, SYN | ACK),
            pass(PassReason::Flow, ""),
        ));
    }
    let mut case = Case::new("names", POLICY, steps);
    for net in NETS {
        case = case
            .resolved(net.daraja, &["api.safaricom.co.ke"])
            .resolved(net.dns, &["ntp.example.net", "mail.example.net"])
            .resolved(net.intranet, &["proxy.example.net"])
            .resolved(net.outsider, &["early.example.net"]);
    }
    case
}

/// One address is the answer to as many names as fit.
fn several() -> Case {
    const MANY: &str = "
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: a, to: [a.example], ports: [1] }
    - { name: b, to: [b.example], ports: [2] }
    - { name: h, to: [h.example], ports: [8] }
    - { name: both, to: [b.example, h.example], ports: ['1-9'] }
";
    let open = |port, expected| {
        from(format!("port {port}"), tcp("10.0.0.5:4000", &at(V4.daraja, port), SYN), expected)
    };
    let none = "10.9.9.9";
    Case::new(
        "an address of several names",
        MANY,
        vec![
            open(1, opened("a")),
            open(2, opened("b")),
            open(8, opened("h")),
            open(9, opened("both")),
            from(
                "an entry without names",
                tcp("10.0.0.5:4000", &at(none, 1), SYN),
                drop(NameNotAllowed, "a"),
            ),
        ],
    )
    .resolved(V4.daraja, &["none", "none", "none", "none", "none", "a.example", "b.example", "h.example"])
    .resolved(none, &[])
}

/// An ICMP error, a service reply and a bare ACK know of names too.
fn with_services() -> Case {
    use crate::{case::sent_by, frames::icmp_error};
    use mpesa_fw_common::decide::Sender;
    let us = "10.0.0.5:4000";
    let peer = "198.51.100.10:443";
    let steps = vec![
        sent_by(Sender::default(), "a last ACK", tcp(us, peer, ACK), pass(PassReason::Control, "")),
        sent_by(
            Sender::default(),
            "a last ACK to a stranger",
            tcp(us, "203.0.113.77:443", ACK),
            drop(NameNotAllowed, "daraja"),
        ),
        from("SYN", tcp(us, peer, SYN), opened("daraja")),
        to(
            "an error",
            icmp_error("192.0.2.7", "10.0.0.5", 3, &tcp(us, peer, SYN)),
            pass(PassReason::Control, ""),
        ),
    ];
    Case::new("names and control traffic", POLICY, steps).resolved(V4.daraja, &["api.safaricom.co.ke"])
}

/// A flow is judged again by what names resolve to now.
fn reload() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let syn = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        steps.push(from(net.label("SYN"), syn, opened("daraja")));
    }
    steps.push(Step::Reload(POLICY.into()));
    for net in NETS {
        let data = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("data"), data, pass(PassReason::Flow, "daraja")));
    }
    let mut case = Case::new("flows to names", POLICY, steps);
    for net in NETS {
        case = case.resolved(net.daraja, &["sandbox.safaricom.co.ke"]);
    }
    case
}
