//! 4 and E3: ICMP errors, which pass if what they quote is permitted.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, NETS, Net, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, to},
    frames::{
        ACK, NETWORK, SYN, V4, V6, chain, fragment, icmp, icmp_error, icmp_message, icmp_number, ip, ipv4,
        ipv6, packet, tcp, tcp_segment, udp, udp_datagram, unreachable,
    },
    host::SECOND,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        of_flows(),
        of_services(),
        unreadable(),
        from_here(),
        of_requests(),
        of_the_other_family(),
        expired(),
    ]
}

fn control() -> Expected {
    pass(PassReason::Control, "")
}

fn closed() -> Expected {
    drop(NoService, "")
}

/// Types of each family that are errors, and some that are not.
const fn errors(net: &Net) -> &'static [u8] {
    if net.is_v4 { &[3, 11, 12] } else { &[1, 2, 3, 4] }
}

const fn no_errors(net: &Net) -> &'static [u8] {
    if net.is_v4 { &[4, 5, 13, 30] } else { &[5, 100, 127, 137] }
}

fn of_flows() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let router = "192.0.2.77";
        let router = if net.is_v4 { router } else { "2001:db8:77::1" };
        let syn = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        let query = udp(&at(net.us, 5000), &at(net.dns, 53));
        let ping = icmp(net.us, net.outsider, net.echo_request(), 77);
        for (what, quoted, rule) in
            [("TCP", &syn, "daraja"), ("UDP", &query, "dns"), ("ping", &ping, "probe")]
        {
            let label = |text: &str| net.label(&format!("{what}, {text}"));
            let before = icmp_error(router, net.us, unreachable(net.is_v4), quoted);
            steps.push(to(label("before it was sent"), before, closed()));
            steps.push(from(label("sent"), quoted.clone(), pass(PassReason::Destination, rule)));
            for kind in errors(&net) {
                let error = icmp_error(router, net.us, *kind, quoted);
                steps.push(to(label(&format!("type {kind}")), error, control()));
            }
            for kind in no_errors(&net) {
                let error = icmp_error(router, net.us, *kind, quoted);
                steps.push(to(label(&format!("type {kind} is no error")), error, closed()));
            }
            let other = icmp_error(router, net.us2, unreachable(net.is_v4), quoted);
            steps.push(to(label("to another host than it quotes"), other, closed()));
        }
        // The eight octets that RFC 792 asks for are enough; fewer are not.
        let header = if net.is_v4 { 20 } else { 40 };
        for (length, expected) in [(8, control()), (7, closed()), (4, closed()), (0, closed())] {
            let error = icmp_error(router, net.us, unreachable(net.is_v4), &syn[..NETWORK + header + length]);
            steps.push(to(net.label(&format!("quotes {length} octets")), error, expected));
        }
        // Ports that are nearly those of the flow.
        for (local, remote) in [(4001, 443), (4000, 444), (443, 4000)] {
            let quoted = tcp(&at(net.us, local), &at(net.daraja, remote), SYN);
            let error = icmp_error(router, net.us, unreachable(net.is_v4), &quoted);
            steps.push(to(net.label(&format!("quotes {local} to {remote}")), error, closed()));
        }
        let other = icmp(net.us, net.outsider, net.echo_reply(), 78);
        let error = icmp_error(router, net.us, unreachable(net.is_v4), &other);
        steps.push(to(net.label("quotes the answer to a ping"), error, control()));
        let reversed = tcp(&at(net.daraja, 443), &at(net.us, 4000), ACK);
        let error = icmp_error(router, net.us, unreachable(net.is_v4), &reversed);
        steps.push(to(net.label("quotes what came in"), error, closed()));
    }
    Case::new("ICMP errors of flows", BASE, steps)
}

fn of_services() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |label: &str, local: u16, remote: &str, expected| {
            let answer = tcp(&at(net.us, local), &at(remote, 4000), ACK);
            let error = icmp_error(net.outsider, net.us, unreachable(net.is_v4), &answer);
            steps.push(to(net.label(label), error, expected));
        };
        case("an answer to a source of the service", 443, net.safaricom, control());
        case("an answer to nobody's source", 443, net.outsider, closed());
        case("an answer of a port that serves nobody", 22, net.safaricom, closed());
        case("an answer to anybody", 80, net.outsider, control());
        let answer = udp(&at(net.us, 53), &at(net.intranet, 4000));
        let error = icmp_error(net.outsider, net.us, unreachable(net.is_v4), &answer);
        steps.push(to(net.label("an answer by UDP"), error, control()));
        let answer = tcp(&at(net.us2, 8080), &at(net.intranet, 4000), ACK);
        let error = icmp_error(net.outsider, net.us2, unreachable(net.is_v4), &answer);
        steps.push(to(net.label("an answer of the address that does not serve"), error, closed()));
    }
    Case::new("ICMP errors of services", BASE, steps)
}

/// What is quoted can't be made out.
fn unreadable() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let number = icmp_number(ip(net.us));
        let error = |quoted: &[u8]| {
            packet(ip(net.outsider), ip(net.us), number, &icmp_message(unreachable(net.is_v4), 0, quoted))
        };
        let answer = tcp(&at(net.us, 80), &at(net.outsider, 4000), ACK);
        steps.push(to(net.label("quotes a packet"), error(&answer[NETWORK..]), control()));
        steps.push(to(net.label("quotes nothing"), error(&[]), closed()));
        steps.push(to(net.label("quotes zeros"), error(&[0; 64]), closed()));
        for length in [1, 8, 19, 20, 27] {
            let header = if net.is_v4 { 0 } else { 20 };
            let cut = &answer[NETWORK..NETWORK + header + length];
            steps.push(to(net.label(&format!("quotes {length}")), error(cut), closed()));
            // What an Ethernet frame is filled up with is none of the packet.
            let filled_up = [error(cut), vec![0; 64]].concat();
            steps.push(to(net.label(&format!("quotes {length}, filled up")), filled_up, closed()));
        }
        let mut other_version = answer[NETWORK..].to_vec();
        other_version[0] = if net.is_v4 { 0x65 } else { 0x45 };
        steps.push(to(net.label("quotes another version"), error(&other_version), closed()));
        let pair = (ip(net.us), ip(net.outsider));
        let later = fragment(pair, 17, 5, 3, false, &udp_datagram(80, 4000, &[]));
        steps.push(to(net.label("quotes a later fragment"), error(&later[NETWORK..]), closed()));
        let first = fragment((ip(net.us), ip(net.intranet)), 17, 5, 0, true, &udp_datagram(53, 4000, &[]));
        steps.push(to(net.label("quotes a first fragment"), error(&first[NETWORK..]), control()));
        // An error within a fragment is not looked at.
        let message = icmp_message(unreachable(net.is_v4), 0, &answer[NETWORK..]);
        let frame = fragment((ip(net.outsider), ip(net.us)), number, 6, 0, true, &message);
        steps.push(to(net.label("in a first fragment"), frame, closed()));
    }
    let pair = (ip(super::V4.us), ip(super::V4.outsider));
    let segment = tcp_segment(80, 4000, ACK, &[]);
    let options = ipv4(pair.0, pair.1, 6, &segment, &V4 { options: vec![1; 40], ..V4::default() });
    let four = |quoted: &[u8]| icmp_error(super::V4.outsider, super::V4.us, 3, quoted);
    steps.push(to("quotes options", four(&options), control()));
    let mut short = options.clone();
    short[NETWORK] = 0x44;
    steps.push(to("quotes a header that is too short", four(&short), closed()));
    steps.push(to("quotes options and no ports", four(&options[..NETWORK + 60 + 7]), closed()));
    let pair = (ip(super::V6.us), ip(super::V6.outsider));
    let six = |kinds: &[u8]| {
        let (next, bytes) = chain(kinds, 6, &segment);
        icmp_error(super::V6.outsider, super::V6.us, 1, &ipv6(pair.0, pair.1, next, &bytes, V6::default()))
    };
    for kinds in [[0], [60], [43], [44], [51]] {
        steps.push(to(format!("quotes header {kinds:?}"), six(&kinds), control()));
    }
    steps.push(to("quotes two headers", six(&[60, 60]), closed()));
    Case::new("ICMP errors that quote badly", BASE, steps)
}

/// E3: this host reports on what it was sent.
fn from_here() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |label: &str, quoted: Vec<u8>, target: &str, expected| {
            let error = icmp_error(net.us, target, unreachable(net.is_v4), &quoted);
            steps.push(from(net.label(label), error, expected));
        };
        let unknown = || drop(NoDestination, "");
        let asked = udp(&at(net.intranet, 4000), &at(net.us, 53));
        case("of a service, nobody there", asked.clone(), net.intranet, control());
        case("of a service, to somebody else", asked, net.outsider, unknown());
        case("of a stranger's query", udp(&at(net.outsider, 4000), &at(net.us, 53)), net.outsider, unknown());
        case(
            "of a port that serves nobody",
            udp(&at(net.intranet, 4000), &at(net.us, 54)),
            net.intranet,
            unknown(),
        );
        case(
            "of a SYN to a service",
            tcp(&at(net.outsider, 1), &at(net.us, 80), SYN),
            net.outsider,
            control(),
        );
        case("of a ping", icmp(net.outsider, net.us, net.echo_request(), 5), net.outsider, control());
        let late = udp(&at(net.dns, 53), &at(net.us, 5000));
        case("of an answer, before it was asked", late.clone(), net.dns, unknown());
        let query = udp(&at(net.us, 5000), &at(net.dns, 53));
        steps.push(from(net.label("a query"), query, pass(PassReason::Destination, "dns")));
        let error = icmp_error(net.us, net.dns, unreachable(net.is_v4), &late);
        steps.push(from(net.label("of an answer that comes too late"), error, control()));
    }
    Case::new("ICMP errors from here", BASE, steps)
}

/// What answers a ping of this host is of its flow; a ping of the peer with the same identifier is not.
fn of_requests() -> Case {
    const POLICY: &str = "
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: probe, to: [any], protocol: [icmp, icmpv6], types: [echo-request] }
";
    let mut steps = Vec::new();
    for net in NETS {
        let error = |kind| {
            let quoted = icmp(net.outsider, net.us, kind, 77);
            icmp_error(net.us, net.outsider, unreachable(net.is_v4), &quoted)
        };
        let ping = icmp(net.us, net.outsider, net.echo_request(), 77);
        steps.push(from(net.label("a ping"), ping, pass(PassReason::Destination, "probe")));
        steps.push(from(net.label("of its answer"), error(net.echo_reply()), control()));
        steps.push(from(net.label("of a ping"), error(net.echo_request()), drop(NoDestination, "")));
    }
    Case::new("ICMP errors of pings", POLICY, steps)
}

/// ICMP of the other family is a protocol like others: a flow without ports.
fn of_the_other_family() -> Case {
    const POLICY: &str = "
ingress: { default: drop, services: [] }
egress: { default: pass, allow: [] }
";
    let mut steps = Vec::new();
    for net in NETS {
        let other = if net.is_v4 { 58 } else { 1 };
        let message = |source, target| packet(ip(source), ip(target), other, &icmp_message(0, 0, &[]));
        let (asked, answered) = (message(net.us, net.outsider), message(net.outsider, net.us));
        steps.push(from(net.label("sent"), asked.clone(), pass(PassReason::Default, "")));
        let error = icmp_error(net.us, net.outsider, unreachable(net.is_v4), &answered);
        steps.push(from(net.label("of its answer"), error, control()));
        let error = icmp_error(net.outsider, net.us, unreachable(net.is_v4), &asked);
        steps.push(to(net.label("of it"), error, control()));
    }
    Case::new("ICMP errors of the other family", POLICY, steps)
}

fn expired() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let query = udp(&at(net.us, 5000), &at(net.dns, 53));
        let error = icmp_error(net.outsider, net.us, unreachable(net.is_v4), &query);
        steps.push(from(net.label("a query"), query, pass(PassReason::Destination, "dns")));
        steps.push(Step::Wait(55 * SECOND));
        steps.push(to(net.label("while it lives"), error.clone(), control()));
        steps.push(Step::Wait(10 * SECOND));
        steps.push(to(net.label("an error keeps nothing alive"), error, closed()));
    }
    Case::new("ICMP errors of flows that are gone", BASE, steps)
}
