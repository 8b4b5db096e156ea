//! E5, E6 and E8: what this host answers, and what it opens.

use mpesa_fw_common::{DropReason::*, PassReason, decide::Sender};

use super::{BASE, NETS, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, sent_by, to},
    frames::{ACK, FIN, PSH, RST, SYN, icmp, tcp, tcp_with, udp},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        tcp_replies(),
        udp_replies(),
        icmp_replies(),
        destinations(),
        shared_destinations(),
        no_room(),
        cookies(),
        in_the_middle(),
    ]
}

fn reply() -> Expected {
    pass(PassReason::ServiceReply, "")
}

fn unknown() -> Expected {
    drop(NoDestination, "")
}

/// Anything but a SYN without ACK, to a source that the service allows.
fn tcp_replies() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |label: &str, source: &str, target: &str, flags, expected| {
            let frame = tcp_with(source, target, flags, b"data");
            steps.push(from(net.label(label), frame, expected));
        };
        let (callbacks, peer) = (at(net.us, 443), at(net.safaricom, 4000));
        for flags in [SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, 0] {
            case(&format!("flags {flags:#x}"), &callbacks, &peer, flags, reply());
            case(
                &format!("flags {flags:#x}, a stranger"),
                &callbacks,
                &at(net.outsider, 4000),
                flags,
                unknown(),
            );
        }
        case("a SYN", &callbacks, &peer, SYN, unknown());
        case("a SYN FIN", &callbacks, &peer, SYN | FIN, unknown());
        case("from a port that does not serve", &at(net.us, 22), &peer, ACK, unknown());
        case("to anybody", &at(net.us, 80), &at(net.outsider, 4000), ACK, reply());
        case("of the address that serves", &at(net.us, 8080), &at(net.intranet, 4000), ACK, reply());
        case("of another", &at(net.us2, 8080), &at(net.intranet, 4000), ACK, unknown());
        // A reply to a port that a destination names is a reply all the same.
        case("to the port of a destination", &at(net.us, 80), &at(net.outsider, 443), ACK, reply());
        case(
            "from that port",
            &at(net.us, 22),
            &at(net.outsider, 443),
            ACK,
            drop(DestinationNotAllowed, "daraja"),
        );
        // It opens nothing: what comes in is judged by the service.
        steps.push(to(
            net.label("no flow was opened"),
            tcp(&at(net.outsider, 443), &at(net.us, 22), ACK),
            drop(NoService, ""),
        ));
    }
    Case::new("replies by TCP", BASE, steps)
}

/// A program that is not bound to the port of a service could send anything from there.
fn udp_replies() -> Case {
    let bound = |port| Sender { cookie: 9, bound_port: port, is_full: true, ..Sender::NONE };
    let mut steps = Vec::new();
    for net in NETS {
        let frame = udp(&at(net.us, 53), &at(net.intranet, 4000));
        let stranger = udp(&at(net.us, 53), &at(net.outsider, 4000));
        steps.push(sent_by(bound(53), net.label("bound"), frame.clone(), reply()));
        steps.push(sent_by(bound(54), net.label("bound elsewhere"), frame.clone(), unknown()));
        steps.push(sent_by(bound(0), net.label("bound nowhere"), frame.clone(), unknown()));
        steps.push(sent_by(Sender::default(), net.label("no socket"), frame, unknown()));
        steps.push(sent_by(bound(53), net.label("a stranger"), stranger, unknown()));
        let other = udp(&at(net.us, 54), &at(net.intranet, 4000));
        steps.push(sent_by(bound(54), net.label("a port that does not serve"), other, unknown()));
    }
    Case::new("replies by UDP", BASE, steps)
}

/// Only the answering type.
fn icmp_replies() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        for kind in 0..=255u8 {
            let is_control = !net.is_v4 && matches!(kind, 131..=133 | 135 | 136 | 143);
            if is_control {
                continue;
            }
            let expected = if kind == net.echo_reply() {
                reply()
            } else if kind == net.echo_request() {
                pass(PassReason::Destination, "probe")
            } else {
                unknown()
            };
            let frame = icmp(net.us, net.outsider, kind, 1);
            steps.push(from(net.label(&format!("type {kind}")), frame, expected));
        }
    }
    Case::new("replies by ICMP", BASE, steps)
}

fn destinations() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let us = at(net.us, 4000);
        let mut case = |label: &str, frame, expected| steps.push(from(net.label(label), frame, expected));
        let opened = |rule| pass(PassReason::Destination, rule);
        case("allowed", tcp(&us, &at(net.daraja, 443), SYN), opened("daraja"));
        case("with data", tcp_with(&us, &at(net.daraja, 443), SYN, b"data"), opened("daraja"));
        case("a stranger", tcp(&us, &at(net.outsider, 443), SYN), drop(DestinationNotAllowed, "daraja"));
        case("a stray port", tcp(&us, &at(net.daraja, 444), SYN), unknown());
        case("port 0", tcp(&us, &at(net.daraja, 0), SYN), unknown());
        case("by UDP", udp(&us, &at(net.daraja, 443)), unknown());
        case("DNS by UDP", udp(&us, &at(net.dns, 53)), opened("dns"));
        case("DNS by TCP", tcp(&us, &at(net.dns, 53), SYN), opened("dns"));
        case("DNS to a stranger", udp(&us, &at(net.outsider, 53)), drop(DestinationNotAllowed, "dns"));
        case("a SYN of a live flow is judged as new", tcp(&us, &at(net.daraja, 443), SYN), opened("daraja"));
        case("from a port that serves", tcp(&at(net.us, 443), &at(net.daraja, 443), SYN), opened("daraja"));
        case("without a flow", tcp(&at(net.us, 4009), &at(net.daraja, 443), ACK), opened("daraja"));
        let (net_label, broadcast) =
            if net.is_v4 { ("a broadcast", "255.255.255.255") } else { ("a multicast", "ff02::fb") };
        case(net_label, udp(&us, &at(broadcast, 5353)), unknown());
    }
    Case::new("destinations", BASE, steps)
}

fn shared_destinations() -> Case {
    const POLICY: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: one, to: [198.51.100.0/25, "2001:db8:a::/49"], ports: [443] }
    - { name: two, to: [198.51.100.0/24, "2001:db8:a::/48"], ports: ["400-500"] }
    - { name: all, to: [any], protocol: [tcp, udp], ports: ["500-600"] }
"#;
    let mut steps = Vec::new();
    for net in NETS {
        let (first, second) = if net.is_v4 {
            ("198.51.100.127", "198.51.100.128")
        } else {
            ("2001:db8:a:7fff::1", "2001:db8:a:8000::1")
        };
        let mut case = |target: &str, port, expected| {
            let frame = tcp(&at(net.us, 4000), &at(target, port), SYN);
            steps.push(from(net.label(&format!("{target} {port}")), frame, expected));
        };
        let opened = |rule| pass(PassReason::Destination, rule);
        case(first, 443, opened("one"));
        case(second, 443, opened("two"));
        case(first, 444, opened("two"));
        case(net.outsider, 443, drop(DestinationNotAllowed, "one"));
        case(net.outsider, 444, drop(DestinationNotAllowed, "two"));
        case(first, 500, opened("two"));
        case(net.outsider, 500, opened("all"));
        case(net.outsider, 601, unknown());
        case(net.outsider, 399, unknown());
    }
    Case::new("destinations that share a port", POLICY, steps)
}

/// What is allowed and can't be recorded is dropped: its answers would be.
fn no_room() -> Case {
    let steps = NETS.iter().flat_map(|net| {
        let full = |rule| drop(FlowTableFull, rule);
        [
            from(net.label("SYN"), tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN), full("daraja")),
            from(net.label("query"), udp(&at(net.us, 4000), &at(net.dns, 53)), full("dns")),
            from(
                net.label("a RST needs no answer"),
                tcp_with(&at(net.us, 4000), &at(net.daraja, 443), RST, b"x"),
                pass(PassReason::Destination, "daraja"),
            ),
            from(net.label("nor does a reply"), tcp(&at(net.us, 80), &at(net.outsider, 1), ACK), reply()),
        ]
    });
    Case::new("no room for flows", BASE, steps.collect::<Vec<Step>>()).full()
}

/// Without `by:` the socket is no matter.
fn cookies() -> Case {
    let sender = |cookie| Sender { cookie, bound_port: 4000, is_full: true, ..Sender::NONE };
    let mut steps = Vec::new();
    for net in NETS {
        let frame = |flags| tcp_with(&at(net.us, 4000), &at(net.daraja, 443), flags, b"x");
        let flow = || pass(PassReason::Flow, "daraja");
        steps.push(sent_by(sender(1), net.label("SYN"), frame(SYN), pass(PassReason::Destination, "daraja")));
        steps.push(sent_by(sender(1), net.label("its own"), frame(ACK), flow()));
        steps.push(sent_by(sender(2), net.label("another's"), frame(ACK), flow()));
        steps.push(sent_by(Sender::default(), net.label("nobody's"), frame(ACK), flow()));
    }
    Case::new("senders", BASE, steps)
}

/// Who opened a connection can't be told from a packet in the middle of it: a program's opens no flow, one that is
/// forwarded does, the answer to a SYN never.
fn in_the_middle() -> Case {
    let program = Sender { cookie: 1, bound_port: 9999, is_full: true, ..Sender::NONE };
    let allowed = || pass(PassReason::Destination, "daraja");
    let mut steps = Vec::new();
    for net in NETS {
        let out = |port, flags| tcp_with(&at(net.us, port), &at(net.daraja, 443), flags, b"x");
        let back = |port| tcp(&at(net.daraja, 443), &at(net.us, port), ACK);
        steps.push(sent_by(program, net.label("data of a program"), out(9999, ACK), allowed()));
        steps.push(to(net.label("opened nothing"), back(9999), drop(NoService, "")));
        steps.push(sent_by(Sender::default(), net.label("SYN ACK"), out(9998, SYN | ACK), allowed()));
        steps.push(to(net.label("nor did that"), back(9998), drop(NoService, "")));
        steps.push(sent_by(Sender::default(), net.label("forwarded"), out(9997, ACK), allowed()));
        steps.push(to(net.label("opened a flow"), back(9997), pass(PassReason::Flow, "")));
    }
    Case::new("in the middle of a connection", BASE, steps)
}
