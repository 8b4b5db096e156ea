//! Defaults that pass, and observe mode.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{NETS, at};
use crate::{
    case::{Case, Step, drop, from, pass, to},
    frames::{ACK, PSH, SYN, UDP, ethernet, fragment, icmp, ip, tcp, udp, udp_datagram},
};

pub(super) fn cases() -> Vec<Case> {
    vec![default_pass(), one_way(), observe(), enforcement_begins(), enforcement_ends()]
}

const OPEN: &str = r#"
ingress:
  default: pass
  services:
    - { name: callbacks, ports: [443], from: [196.201.214.200, "2c0f:fe38::200"] }
egress:
  default: pass
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443] }
"#;

/// A default passes what nothing claims, and nothing else.
fn default_pass() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let us = at(net.us, 4000);
        let unclaimed = || pass(PassReason::Default, "");
        let mut towards = |label: &str, frame, expected| steps.push(to(net.label(label), frame, expected));
        towards("SSH", tcp(&at(net.outsider, 4000), &at(net.us, 22), SYN), unclaimed());
        towards("UDP", udp(&at(net.outsider, 4000), &at(net.us, 22)), unclaimed());
        towards("ping", icmp(net.outsider, net.us, net.echo_request(), 1), unclaimed());
        towards(
            "a callback",
            tcp(&at(net.safaricom, 4000), &at(net.us, 443), SYN),
            pass(PassReason::Service, "callbacks"),
        );
        towards(
            "a forged one",
            tcp(&at(net.outsider, 4000), &at(net.us, 443), SYN),
            drop(SourceNotAllowed, "callbacks"),
        );
        towards("of ourselves", tcp(&at(net.us2, 4000), &at(net.us, 22), SYN), drop(Spoofed, ""));
        let first = fragment((ip(net.outsider), ip(net.us)), UDP, 1, 0, true, &udp_datagram(1, 2, &[0; 8]));
        let rest = fragment((ip(net.outsider), ip(net.us)), UDP, 1, 2, false, &[0; 8]);
        towards("a later fragment alone", rest.clone(), drop(Fragment, ""));
        towards("a first fragment", first, unclaimed());
        towards("its rest", rest, pass(PassReason::Fragment, ""));
        let mut away = |label: &str, frame, expected| steps.push(from(net.label(label), frame, expected));
        away("anywhere", tcp(&us, &at(net.outsider, 80), SYN), unclaimed());
        away("and on", tcp(&us, &at(net.outsider, 80), ACK), pass(PassReason::Flow, ""));
        away("a query", udp(&us, &at(net.dns, 53)), unclaimed());
        away("the API", tcp(&us, &at(net.daraja, 443), SYN), pass(PassReason::Destination, "daraja"));
        away(
            "its port elsewhere",
            tcp(&us, &at(net.outsider, 443), SYN),
            drop(DestinationNotAllowed, "daraja"),
        );
        away(
            "a reply of the service",
            tcp(&at(net.us, 443), &at(net.safaricom, 9), ACK),
            pass(PassReason::ServiceReply, ""),
        );
        steps.push(to(
            net.label("an answer"),
            tcp(&at(net.outsider, 80), &us, ACK),
            pass(PassReason::Flow, ""),
        ));
    }
    steps.push(to("unknown", ethernet(0x8847, &[0; 46]), drop(UnknownEthertype, "")));
    Case::new("defaults that pass", OPEN, steps).own(&[super::V4.us2, super::V6.us2])
}

/// Each direction has its own default.
fn one_way() -> Case {
    const OUT: &str = "
ingress: { default: drop, services: [] }
egress: { default: pass, allow: [] }
";
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 4000), at(net.outsider, 80));
        steps.push(to(net.label("unasked"), tcp(&peer, &us, ACK), drop(NoService, "")));
        steps.push(from(net.label("out"), tcp(&us, &peer, SYN), pass(PassReason::Default, "")));
        steps.push(to(net.label("asked"), tcp(&peer, &us, ACK), pass(PassReason::Flow, "")));
        steps.push(from(
            net.label("a ping"),
            icmp(net.us, net.outsider, net.echo_request(), 3),
            pass(PassReason::Default, ""),
        ));
        steps.push(to(
            net.label("its answer"),
            icmp(net.outsider, net.us, net.echo_reply(), 3),
            pass(PassReason::Flow, ""),
        ));
    }
    Case::new("out by default, in by none", OUT, steps)
}

const OBSERVE: &str = r#"
mode: observe
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [196.201.214.200, "2c0f:fe38::200"] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443] }
"#;

const ENFORCE: &str = r#"
mode: enforce
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [196.201.214.200, "2c0f:fe38::200"] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443] }
"#;

/// Judged as it would be; what becomes of it is another matter.
fn observe() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let us = at(net.us, 4000);
        let denied = || drop(DestinationNotAllowed, "daraja");
        steps.push(to(
            net.label("forged"),
            tcp(&at(net.outsider, 1), &at(net.us, 443), SYN),
            drop(SourceNotAllowed, "callbacks"),
        ));
        steps.push(to(
            net.label("to nothing"),
            tcp(&at(net.outsider, 1), &at(net.us, 22), SYN),
            drop(NoService, ""),
        ));
        steps.push(from(net.label("denied"), tcp(&us, &at(net.outsider, 443), SYN), denied()));
        steps.push(from(net.label("and on"), tcp(&us, &at(net.outsider, 443), ACK), denied()));
        steps.push(from(net.label("to nowhere"), udp(&us, &at(net.outsider, 53)), drop(NoDestination, "")));
        steps.push(from(net.label("and on"), udp(&us, &at(net.outsider, 53)), drop(NoDestination, "")));
        let first = fragment((ip(net.outsider), ip(net.us)), UDP, 1, 0, true, &udp_datagram(1, 2, &[0; 8]));
        let rest = fragment((ip(net.outsider), ip(net.us)), UDP, 1, 2, false, &[0; 8]);
        // The rest of what would be dropped would be dropped too.
        steps.push(to(net.label("a first fragment"), first, drop(NoService, "")));
        steps.push(to(net.label("its rest"), rest, drop(Fragment, "")));
    }
    steps.push(to("malformed", ethernet(0x0800, &[0x45]), drop(Malformed, "")));
    Case::new("observe mode", OBSERVE, steps)
}

/// A flow that only observe mode let live ends when enforcement begins; the others go on.
fn enforcement_begins() -> Case {
    let mut steps = Vec::new();
    let (allowed, denied) = (4000, 4001);
    for net in NETS {
        let out = |port, peer: &str| tcp(&at(net.us, port), &at(peer, 443), SYN);
        steps.push(from(
            net.label("allowed"),
            out(allowed, net.daraja),
            pass(PassReason::Destination, "daraja"),
        ));
        steps.push(from(
            net.label("denied"),
            out(denied, net.outsider),
            drop(DestinationNotAllowed, "daraja"),
        ));
        let answer = tcp(&at(net.outsider, 443), &at(net.us, denied), ACK);
        steps.push(to(net.label("its answer belongs to a flow"), answer, pass(PassReason::Flow, "")));
    }
    steps.push(Step::Reload(ENFORCE.into()));
    for net in NETS {
        let answer = |peer: &str, port| tcp(&at(peer, 443), &at(net.us, port), ACK);
        steps.push(to(
            net.label("allowed, its answer"),
            answer(net.daraja, allowed),
            pass(PassReason::Flow, ""),
        ));
        steps.push(to(net.label("denied, its answer"), answer(net.outsider, denied), drop(NoService, "")));
        let data = tcp(&at(net.us, denied), &at(net.outsider, 443), ACK | PSH);
        steps.push(from(net.label("denied, data"), data, drop(DestinationNotAllowed, "daraja")));
        let error = crate::frames::icmp_error(
            net.intranet,
            net.us,
            crate::frames::unreachable(net.is_v4),
            &tcp(&at(net.us, denied), &at(net.outsider, 443), SYN),
        );
        steps.push(to(net.label("denied, an error"), error, drop(NoService, "")));
    }
    Case::new("enforcement begins", OBSERVE, steps)
}

/// And the other way: what was allowed and is not any more is marked, and lives.
fn enforcement_ends() -> Case {
    const OTHER: &str = "
mode: observe
ingress: { default: drop, services: [] }
egress: { default: drop, allow: [] }
";
    let mut steps = Vec::new();
    for net in NETS {
        let syn = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        steps.push(from(net.label("SYN"), syn, pass(PassReason::Destination, "daraja")));
    }
    steps.push(Step::Reload(OTHER.into()));
    for net in NETS {
        let data = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("data"), data.clone(), drop(NoDestination, "")));
        steps.push(to(
            net.label("answer"),
            tcp(&at(net.daraja, 443), &at(net.us, 4000), ACK),
            pass(PassReason::Flow, ""),
        ));
    }
    steps.push(Step::Reload(ENFORCE.into()));
    for net in NETS {
        let data = tcp(&at(net.us, 4000), &at(net.daraja, 443), ACK | PSH);
        steps.push(from(net.label("data again"), data, pass(PassReason::Flow, "daraja")));
    }
    Case::new("enforcement ends", ENFORCE, steps)
}
