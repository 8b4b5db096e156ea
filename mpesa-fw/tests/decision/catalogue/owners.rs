//! Rules for the sockets of users and units, and sockets that make up answers.

use mpesa_fw_common::{
    DropReason::*,
    PassReason,
    decide::Sender,
    owner::{LEVELS, Owner},
};

use super::{NETS, V4, at};
use crate::{
    case::{Case, Expected, Step, drop, pass, sent_by, to},
    frames::{ACK, PSH, SYN, icmp, tcp, udp},
};

const POLICY: &str = r#"
ingress:
  default: drop
  services:
    - { name: web, ports: [80], from: [any], by: { unit: api.service } }
    - { name: dns, protocol: udp, ports: [53], from: [any], by: [{ unit: api.service }, { user: deploy }] }
    - { name: free, ports: [81], from: [any] }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443], by: { unit: payments.service } }
    - { name: shared, to: [198.51.100.10, "2001:db8:a::10"], ports: [443], by: [{ user: deploy }, { unit: api.service }] }
    - { name: log, to: [10.0.0.2, "fd00::2"], protocol: udp, ports: [514] }
"#;

/// In the order of the policy's owners.
const API: u64 = 1000;
const PAYMENTS: u64 = 1001;
const DEPLOY: u32 = 1002;

pub(super) fn cases() -> Vec<Case> {
    vec![destinations(), services(), flows(), reload(), made_up()]
}

fn owned(cookie: u64, cgroups: &[u64], uid: u32) -> Sender {
    let mut all = [0; LEVELS];
    all[..cgroups.len()].copy_from_slice(cgroups);
    let owner = Owner { cgroups: all, uid, is_known: 1 };
    Sender { cookie, owner, bound_port: 4000, is_full: true, is_raw: false }
}

fn opened(rule: &str) -> Expected {
    pass(PassReason::Destination, rule)
}

fn destinations() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut port = 4000;
        let mut case = |what: &str, sender: Sender, expected| {
            port += 1;
            let frame = tcp(&at(net.us, port), &at(net.daraja, 443), SYN);
            steps.push(sent_by(sender, net.label(what), frame, expected));
        };
        case("the unit", owned(1, &[PAYMENTS], 33), opened("daraja"));
        case("a group of the unit", owned(1, &[5, 6, PAYMENTS, 7], 33), opened("daraja"));
        case("at the greatest depth", owned(1, &[5, 6, 7, 8, 9, 10, 11, PAYMENTS], 33), opened("daraja"));
        case("another unit", owned(1, &[API], 33), opened("shared"));
        case("a user", owned(1, &[5], DEPLOY), opened("shared"));
        case("both", owned(1, &[PAYMENTS, API], DEPLOY), opened("daraja"));
        case("no group at all", owned(1, &[], DEPLOY), opened("shared"));
        case("somebody", owned(1, &[5, 6], 33), drop(OwnerNotAllowed, "daraja"));
        case(
            "a user whose number is that of the group",
            owned(1, &[5], 1001),
            drop(OwnerNotAllowed, "daraja"),
        );
        case(
            "a group whose number is that of the user",
            owned(1, &[1002], 33),
            drop(OwnerNotAllowed, "daraja"),
        );
        case("behind the end of the list", owned(1, &[5, 0, PAYMENTS], 33), drop(OwnerNotAllowed, "daraja"));
        let unknown = Sender {
            owner: Owner { is_known: 0, ..owned(1, &[PAYMENTS], DEPLOY).owner },
            ..owned(1, &[], 0)
        };
        case("nobody knows", unknown, drop(OwnerNotAllowed, "daraja"));
        case("forwarded", Sender::NONE, drop(OwnerNotAllowed, "daraja"));
        // Only where nothing else is wrong.
        let elsewhere = tcp(&at(net.us, 4000), &at(net.outsider, 443), SYN);
        steps.push(sent_by(
            owned(1, &[5], 33),
            net.label("elsewhere"),
            elsewhere,
            drop(DestinationNotAllowed, "daraja"),
        ));
        steps.push(sent_by(
            Sender::NONE,
            net.label("for all"),
            udp(&at(net.us, 9), &at(net.dns, 514)),
            opened("log"),
        ));
    }
    Case::new("owners of destinations", POLICY, steps)
}

fn services() -> Case {
    let mut steps = Vec::new();
    let reply = || pass(PassReason::ServiceReply, "");
    for net in NETS {
        let peer = |port| at(net.outsider, port);
        let mut case = |what: &str, sender: Sender, frame, expected| {
            steps.push(sent_by(sender, net.label(what), frame, expected));
        };
        let accept = |port| tcp(&at(net.us, port), &peer(5000), SYN | ACK);
        case("the unit accepts", owned(1, &[API], 33), accept(80), reply());
        case("another unit", owned(1, &[PAYMENTS], 33), accept(80), drop(OwnerNotAllowed, ""));
        case("nobody knows", Sender::NONE, accept(80), drop(OwnerNotAllowed, ""));
        case("anybody", owned(1, &[PAYMENTS], 33), accept(81), reply());
        // Who was accepted is served, whoever holds the connection now.
        let data = tcp(&at(net.us, 80), &peer(5000), ACK | PSH);
        case("along the connection", owned(2, &[PAYMENTS], 33), data, reply());
        let datagram = |port| udp(&at(net.us, port), &peer(5000));
        let bound = |sender: Sender| Sender { bound_port: 53, ..sender };
        case("the unit answers", bound(owned(1, &[API], 33)), datagram(53), reply());
        case("the user answers", bound(owned(1, &[5], DEPLOY)), datagram(53), reply());
        case("somebody answers", bound(owned(1, &[5], 33)), datagram(53), drop(OwnerNotAllowed, ""));
        case("from another port", owned(1, &[API], 33), datagram(53), drop(NoDestination, ""));
        // The kernel answers pings, for everybody.
        let kind = net.echo_reply();
        case("a ping", Sender::NONE, icmp(net.us, net.outsider, kind, 7), reply());
    }
    Case::new("owners of services", POLICY, steps)
}

/// A flow belongs to its socket: another program with the same ports is judged anew.
fn flows() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (us, peer) = (at(net.us, 4000), at(net.daraja, 443));
        let data = || tcp(&us, &peer, ACK | PSH);
        let mut case = |what: &str, sender: Sender, frame, expected| {
            steps.push(sent_by(sender, net.label(what), frame, expected));
        };
        case("SYN", owned(7, &[PAYMENTS], 33), tcp(&us, &peer, SYN), opened("daraja"));
        case("data", owned(7, &[PAYMENTS], 33), data(), pass(PassReason::Flow, "daraja"));
        // Whoever it is now, it is the socket that was allowed.
        case("handed on", owned(7, &[5], 44), data(), pass(PassReason::Flow, "daraja"));
        case("another socket", owned(8, &[5], 44), data(), drop(OwnerNotAllowed, "daraja"));
        case("another socket that may", owned(9, &[API], 44), data(), opened("shared"));
        case("the first again", owned(7, &[PAYMENTS], 33), data(), pass(PassReason::Flow, "daraja"));
        steps.push(to(net.label("an answer"), tcp(&peer, &us, ACK), pass(PassReason::Flow, "")));
    }
    Case::new("sockets of flows", POLICY, steps)
}

/// What was open before `by` came.
fn reload() -> Case {
    let without = POLICY.replace(", by: { unit: payments.service }", "");
    let mut steps = Vec::new();
    for net in NETS {
        for port in [4000, 4001] {
            let syn = tcp(&at(net.us, port), &at(net.daraja, 443), SYN);
            steps.push(sent_by(owned(port.into(), &[5], 44), net.label("SYN"), syn, opened("daraja")));
        }
    }
    steps.push(Step::Reload(POLICY.into()));
    for net in NETS {
        let (us, peer) = (at(net.us, 4000), at(net.daraja, 443));
        // Nobody knows whose an answer is; it decides nothing.
        for what in ["an answer", "another"] {
            steps.push(to(net.label(what), tcp(&peer, &us, ACK), pass(PassReason::Flow, "")));
        }
        let data = tcp(&us, &peer, ACK | PSH);
        steps.push(sent_by(owned(4000, &[5], 44), net.label("data"), data, drop(OwnerNotAllowed, "daraja")));
        let data = tcp(&at(net.us, 4001), &peer, ACK | PSH);
        steps.push(sent_by(
            owned(4001, &[PAYMENTS], 44),
            net.label("data that may"),
            data,
            pass(PassReason::Flow, "daraja"),
        ));
    }
    Case::new("owners come with a reload", without, steps)
}

/// What comes from a raw or a packet socket is no answer of a service.
fn made_up() -> Case {
    let raw = Sender { is_raw: true, ..owned(1, &[API], 33) };
    let none = || drop(NoDestination, "");
    let net = V4;
    let peer = at(net.outsider, 5000);
    let steps = vec![
        sent_by(raw, "SYN, ACK", tcp(&at(net.us, 81), &peer, SYN | ACK), none()),
        sent_by(raw, "data", tcp(&at(net.us, 81), &peer, ACK | PSH), none()),
        sent_by(Sender { bound_port: 53, ..raw }, "a datagram", udp(&at(net.us, 53), &peer), none()),
        sent_by(raw, "an echo reply", icmp(net.us, net.outsider, 0, 7), none()),
        // What a destination allows it may send.
        sent_by(raw, "to a destination", tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN), opened("shared")),
    ];
    Case::new("answers that are made up", POLICY, steps)
}
