//! 7 and E7: flows.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, DENY_ALL, NETS, at};
use crate::{
    case::{Case, Expected, Step, drop, from, near_miss, pass, to},
    frames::{ACK, FIN, PSH, RST, SYN, icmp, icmp_message, icmp_number, ip, packet, tcp, udp},
    host::SECOND,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        tcp_flow(),
        rule_six_does_not_take_it(),
        udp_flow(),
        icmp_flow(),
        timestamps(),
        idle(),
        established_for_days(),
        goodbye(),
        reload(),
        reload_back(),
    ]
}

fn opened(rule: &str) -> Expected {
    pass(PassReason::Destination, rule)
}

fn of_flow(rule: &str) -> Expected {
    pass(PassReason::Flow, rule)
}

fn closed() -> Expected {
    drop(NoService, "")
}

fn tcp_flow() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 4000), at(net.daraja, 443));
        let out = |flags| tcp(&us, &peer, flags);
        let back = |flags| tcp(&peer, &us, flags);
        let mut towards = |label: &str, frame, expected| steps.push(to(net.label(label), frame, expected));
        towards("an answer to nothing", back(SYN | ACK), closed());
        steps.push(from(net.label("SYN"), out(SYN), opened("daraja")));
        steps.push(from(net.label("SYN again"), out(SYN), opened("daraja")));
        let mut towards = |label: &str, frame, expected| steps.push(to(net.label(label), frame, expected));
        towards("SYN is never a reply", back(SYN), closed());
        towards("nor SYN FIN", back(SYN | FIN), closed());
        towards("SYN ACK", back(SYN | ACK), of_flow(""));
        towards("ACK", back(ACK), of_flow(""));
        towards("data", back(ACK | PSH), of_flow(""));
        towards("RST", back(RST), of_flow(""));
        towards("no flags at all", back(0), of_flow(""));
        towards("from another port", tcp(&at(net.daraja, 444), &us, ACK), closed());
        towards("to another port", tcp(&peer, &at(net.us, 4001), ACK), closed());
        towards("to another address", tcp(&peer, &at(net.us2, 4000), ACK), closed());
        towards("from another address", tcp(&at(net.outsider, 443), &us, ACK), closed());
        towards("by UDP", udp(&peer, &us), closed());
        for flags in [ACK, ACK | PSH, SYN | ACK, FIN | ACK] {
            steps.push(from(net.label(&format!("flags {flags:#x}")), out(flags), of_flow("daraja")));
        }
        let stray = tcp(&us, &at(net.outsider, 443), ACK);
        steps.push(from(net.label("to another address"), stray, drop(DestinationNotAllowed, "daraja")));
        let stray = tcp(&us, &at(net.daraja, 444), ACK);
        steps.push(from(net.label("to another port"), stray, drop(NoDestination, "")));
    }
    Case::new("a TCP flow", BASE, steps)
}

/// A service claims the port that a flow goes out from.
fn rule_six_does_not_take_it() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 8443), at(net.daraja, 443));
        let denied = || drop(SourceNotAllowed, "callbacks");
        steps.push(to(net.label("before"), tcp(&peer, &us, ACK), denied()));
        steps.push(from(net.label("SYN"), tcp(&us, &peer, SYN), opened("daraja")));
        steps.push(to(net.label("an answer"), tcp(&peer, &us, SYN | ACK), of_flow("")));
        steps.push(to(net.label("a SYN"), tcp(&peer, &us, SYN), denied()));
        steps.push(to(net.label("a stranger"), tcp(&at(net.outsider, 443), &us, ACK), denied()));
        let moved = near_miss(SourceNotAllowed, "callbacks", &["safaricom"]);
        steps.push(to(net.label("a near miss"), tcp(&at(net.moved, 443), &us, ACK), moved));
    }
    Case::new("a flow from a port that also serves", BASE, steps)
}

fn udp_flow() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 5000), at(net.dns, 53));
        steps.push(to(net.label("an answer to nothing"), udp(&peer, &us), closed()));
        steps.push(from(net.label("a query"), udp(&us, &peer), opened("dns")));
        steps.push(to(net.label("the answer"), udp(&peer, &us), of_flow("")));
        steps.push(from(net.label("a query"), udp(&us, &peer), of_flow("dns")));
        steps.push(to(net.label("another's answer"), udp(&at(net.outsider, 53), &us), closed()));
        steps.push(to(net.label("by TCP"), tcp(&peer, &us, ACK), closed()));
        let stray = udp(&us, &at(net.outsider, 53));
        steps.push(from(net.label("to a stranger"), stray, drop(DestinationNotAllowed, "dns")));
        steps.push(to(net.label("whose answer"), udp(&at(net.outsider, 53), &us), closed()));
    }
    Case::new("a UDP flow", BASE, steps)
}

fn icmp_flow() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (request, reply) = (net.echo_request(), net.echo_reply());
        steps.push(to(net.label("an answer to nothing"), icmp(net.outsider, net.us, reply, 7), closed()));
        steps.push(from(net.label("a ping"), icmp(net.us, net.outsider, request, 7), opened("probe")));
        steps.push(to(net.label("its answer"), icmp(net.outsider, net.us, reply, 7), of_flow("")));
        steps.push(to(net.label("another id"), icmp(net.outsider, net.us, reply, 8), closed()));
        steps.push(to(net.label("another host"), icmp(net.daraja, net.us, reply, 7), closed()));
        steps.push(from(net.label("another ping"), icmp(net.us, net.outsider, request, 7), of_flow("probe")));
        // The flow is one of requests: other types, with the same identifier, are not of it.
        for kind in [net.echo_reply(), 13, 30, 100, 137] {
            if kind == net.echo_reply() {
                continue; // a reply of the service `ping`
            }
            let frame = icmp(net.us, net.outsider, kind, 7);
            steps.push(from(net.label(&format!("type {kind}")), frame, drop(NoDestination, "")));
        }
        let number = if net.is_v4 { 58 } else { 1 };
        let frame = packet(ip(net.outsider), ip(net.us), number, &icmp_message(reply, 7, &[]));
        steps.push(to(net.label("ICMP of the other family"), frame, closed()));
        assert_eq!(icmp_number(ip(net.us)), if net.is_v4 { 1 } else { 58 });
    }
    Case::new("a ping", BASE, steps)
}

/// A timestamp is a flow of its own, judged by its own type.
fn timestamps() -> Case {
    const POLICY: &str = "
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: clock, to: [any], protocol: icmp, types: [timestamp-request] }
";
    const ECHO: &str = "
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: ping, to: [any], protocol: icmp, types: [echo-request] }
";
    let ask = |kind| icmp("10.0.0.5", "203.0.113.9", kind, 7);
    let answer = |kind| icmp("203.0.113.9", "10.0.0.5", kind, 7);
    Case::new(
        "timestamps",
        POLICY,
        vec![
            from("ask", ask(13), opened("clock")),
            to("the answer", answer(14), of_flow("")),
            to("a ping's answer", answer(0), closed()),
            from("a ping", ask(8), drop(NoDestination, "")),
            Step::Reload(POLICY.into()),
            to("the answer after a reload", answer(14), of_flow("")),
            from("ask again", ask(13), of_flow("clock")),
            Step::Reload(ECHO.into()),
            to("the answer under other rules", answer(14), closed()),
            from("ask under other rules", ask(13), drop(NoDestination, "")),
            from("a ping", ask(8), opened("ping")),
            to("its answer", answer(0), of_flow("")),
            to("no answer to a ping", answer(14), closed()),
        ],
    )
}

fn idle() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 4000), at(net.daraja, 443));
        let (asks, dns) = (at(net.us, 5000), at(net.dns, 53));
        let wait = |steps: &mut Vec<Step>, seconds| steps.push(Step::Wait(seconds * SECOND));
        // A SYN that nobody answers, RFC 9293 3.10.7.3; Linux gives up after 127 s.
        steps.push(from(net.label("SYN"), tcp(&us, &peer, SYN), opened("daraja")));
        wait(&mut steps, 128);
        steps.push(to(net.label("a late answer"), tcp(&peer, &us, SYN | ACK), of_flow("")));
        wait(&mut steps, 300);
        steps.push(to(net.label("answered, it lives"), tcp(&peer, &us, ACK), of_flow("")));
        let second = at(net.us, 4001);
        steps.push(from(net.label("another SYN"), tcp(&second, &peer, SYN), opened("daraja")));
        wait(&mut steps, 132);
        steps.push(to(net.label("too late"), tcp(&peer, &second, SYN | ACK), closed()));
        // UDP: 60 s, and 180 s once it was answered.
        steps.push(from(net.label("a query"), udp(&asks, &dns), opened("dns")));
        wait(&mut steps, 58);
        steps.push(from(net.label("another"), udp(&asks, &dns), of_flow("dns")));
        wait(&mut steps, 58);
        steps.push(to(net.label("an answer"), udp(&dns, &asks), of_flow("")));
        wait(&mut steps, 178);
        steps.push(to(net.label("another answer"), udp(&dns, &asks), of_flow("")));
        wait(&mut steps, 183);
        steps.push(to(net.label("too late"), udp(&dns, &asks), closed()));
        steps.push(from(net.label("a query anew"), udp(&asks, &dns), opened("dns")));
        wait(&mut steps, 62);
        steps.push(to(net.label("never answered"), udp(&dns, &asks), closed()));
        let (request, reply) = (net.echo_request(), net.echo_reply());
        steps.push(from(net.label("a ping"), icmp(net.us, net.outsider, request, 7), opened("probe")));
        wait(&mut steps, 62);
        steps.push(to(net.label("too late"), icmp(net.outsider, net.us, reply, 7), closed()));
    }
    Case::new("idle flows", BASE, steps)
}

fn established_for_days() -> Case {
    const DAY: u64 = 86_400 * SECOND;
    let (us, peer) = ("10.0.0.5:4000", "198.51.100.10:443");
    Case::new(
        "a connection that is idle for days",
        BASE,
        vec![
            from("SYN", tcp(us, peer, SYN), opened("daraja")),
            to("SYN ACK", tcp(peer, us, SYN | ACK), of_flow("")),
            Step::Wait(5 * DAY - SECOND),
            to("nearly five days", tcp(peer, us, ACK), of_flow("")),
            Step::Wait(5 * DAY + SECOND),
            to("more than five", tcp(peer, us, ACK), closed()),
            from("judged as new", tcp(us, peer, ACK), opened("daraja")),
            to("but who opened it is not known", tcp(peer, us, ACK), closed()),
        ],
    )
}

/// Only this host's own goodbye begins the end: anybody can forge the peer's.
fn goodbye() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let peer = at(net.daraja, 443);
        for (port, flags, is_ours) in
            [(4000, FIN | ACK, true), (4001, RST, true), (4002, FIN | ACK, false), (4003, RST, false)]
        {
            let us = at(net.us, port);
            let label = |what: &str| net.label(&format!("{port}: {what}"));
            steps.push(from(label("SYN"), tcp(&us, &peer, SYN), opened("daraja")));
            steps.push(to(label("SYN ACK"), tcp(&peer, &us, SYN | ACK), of_flow("")));
            if is_ours {
                steps.push(from(label("goodbye"), tcp(&us, &peer, flags), of_flow("daraja")));
            } else {
                steps.push(to(label("goodbye of the peer"), tcp(&peer, &us, flags), of_flow("")));
            }
            steps.push(Step::Wait(118 * SECOND));
            steps.push(to(label("within two minutes"), tcp(&peer, &us, ACK), of_flow("")));
            steps.push(Step::Wait(123 * SECOND));
            let expected = if is_ours { closed() } else { of_flow("") };
            steps.push(to(label("later"), tcp(&peer, &us, ACK), expected));
            steps.push(from(label("the port anew"), tcp(&us, &peer, SYN), opened("daraja")));
            steps.push(to(label("its SYN ACK"), tcp(&peer, &us, SYN | ACK), of_flow("")));
            steps.push(Step::Wait(200 * SECOND));
            steps.push(to(label("lives again"), tcp(&peer, &us, ACK), of_flow("")));
        }
    }
    Case::new("the end of a flow", BASE, steps)
}

/// A permission that is taken away is taken from open connections too.
fn reload() -> Case {
    let mut steps = Vec::new();
    let pairs = |net: &super::Net| {
        [
            (tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN), "daraja"),
            (udp(&at(net.us, 5000), &at(net.dns, 53)), "dns"),
            (icmp(net.us, net.outsider, net.echo_request(), 7), "probe"),
        ]
    };
    let answers = |net: &super::Net| {
        [
            tcp(&at(net.daraja, 443), &at(net.us, 4000), ACK),
            udp(&at(net.dns, 53), &at(net.us, 5000)),
            icmp(net.outsider, net.us, net.echo_reply(), 7),
        ]
    };
    for net in NETS {
        for (frame, rule) in pairs(&net) {
            steps.push(from(net.label(rule), frame, opened(rule)));
        }
    }
    steps.push(Step::Reload(BASE.into()));
    for net in NETS {
        for frame in answers(&net) {
            steps.push(to(net.label("still permitted"), frame, of_flow("")));
        }
    }
    steps.push(Step::Reload(DENY_ALL.into()));
    for net in NETS {
        for frame in answers(&net) {
            steps.push(to(net.label("no longer"), frame, closed()));
        }
        let frame = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("data, no longer"), frame, drop(NoDestination, "")));
    }
    Case::new("flows of an older generation", BASE, steps)
}

/// The rule that is charged is the new generation's.
fn reload_back() -> Case {
    const MOVED: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: other, to: [203.0.113.0/24], ports: [443] }
    - { name: wide, to: [198.51.100.0/24, "2001:db8:a::/48"], ports: ["1-1000"] }
"#;
    const CLOSER: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: other, to: [203.0.113.0/24], ports: [443] }
"#;
    let mut steps = Vec::new();
    for net in NETS {
        let syn = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        steps.push(from(net.label("SYN"), syn, opened("daraja")));
    }
    steps.push(Step::Reload(MOVED.into()));
    for net in NETS {
        let data = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("charged anew"), data.clone(), of_flow("wide")));
        steps.push(from(net.label("and once"), data, of_flow("wide")));
    }
    steps.push(Step::Reload(CLOSER.into()));
    for net in NETS {
        let data = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("denied"), data, drop(DestinationNotAllowed, "other")));
    }
    steps.push(Step::Reload(MOVED.into()));
    for net in NETS {
        let answer = tcp(&at(net.daraja, 443), &at(net.us, 4000), ACK);
        steps.push(to(net.label("permitted again"), answer, of_flow("")));
    }
    Case::new("flows find their rule", BASE, steps)
}
