//! Answers of name servers, and what may be done after them.

mod long;
mod servers;

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{NETS, Net, V4, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, to},
    frames::{SYN, ip, octets, packet, tcp, udp, udp_datagram},
    host::SECOND,
};

const POLICY: &str = r#"
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [api.safaricom.co.ke], ports: [443] }
    - { name: cloud, to: ["*.cloud.example.net"], ports: [443] }
    - { name: deep, to: ["*.deep.cloud.example.net", exact.cloud.example.net], ports: [8443] }
    - { name: dns, to: [10.0.0.2, "fd00::2"], protocol: [udp, tcp], ports: [53] }
    - { name: any-dns, to: [any], protocol: udp, ports: [53] }
"#;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        names(),
        records(),
        servers::senders(),
        servers::by_name(),
        beside_addresses(),
        hostile(),
        over(),
        over_at_most(),
        reload(),
    ];
    cases.extend(long::cases());
    cases
}

/// A name as it goes over the wire.
fn wire(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A record of class IN; `name` as it goes over the wire.
fn record(name: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

const A: u16 = 1;
const CNAME: u16 = 5;
/// To the name that is asked for.
const POINTER: [u8; 2] = [0xc0, 12];

fn address_record(name: &[u8], address: &str, ttl: u32) -> Vec<u8> {
    let address = ip(address);
    record(name, if address.is_ipv4() { A } else { 28 }, ttl, &octets(address))
}

/// A message: flags, the question's name, type and class, how many answers and other records it says it has, and what is behind.
#[derive(Clone)]
struct Answer {
    flags: [u8; 2],
    questions: u16,
    name: Vec<u8>,
    class: u16,
    count: u16,
    additional: u16,
    body: Vec<u8>,
}

impl Answer {
    fn new(name: &str, records: &[Vec<u8>]) -> Self {
        Self {
            flags: [0x81, 0x80],
            questions: 1,
            name: wire(name),
            class: 1,
            count: records.len() as u16,
            additional: 0,
            body: records.concat(),
        }
    }

    fn of(name: &str, address: &str) -> Self {
        Self::new(name, &[address_record(&POINTER, address, 300)])
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(self.flags);
        bytes.extend([self.questions, self.count, 0, self.additional].into_iter().flat_map(u16::to_be_bytes));
        bytes.extend(&self.name);
        bytes.extend(A.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        bytes.extend(&self.body);
        bytes
    }

    fn frame(&self, net: &Net) -> Vec<u8> {
        answer_frame(net.dns, net.us, &self.bytes())
    }
}

fn answer_frame(server: &str, us: &str, message: &[u8]) -> Vec<u8> {
    packet(ip(server), ip(us), 17, &udp_datagram(53, 4000, message))
}

fn opened(rule: &str) -> Expected {
    pass(PassReason::Destination, rule)
}

fn flow() -> Expected {
    pass(PassReason::Flow, "")
}

fn ask(net: &Net) -> Step {
    from(net.label("a question"), udp(&at(net.us, 4000), &at(net.dns, 53)), opened("dns"))
}

fn connect(label: &str, address: &str, port: u16, expected: Expected) -> Step {
    let us = if address.contains(':') { "[fd00::5]:4000" } else { "10.0.0.5:4000" };
    from(format!("{label}: SYN to {address} {port}"), tcp(us, &at(address, port), SYN), expected)
}

/// An address that nothing else stands for.
fn address(net: &Net, number: u8) -> String {
    if net.is_v4 { format!("192.0.2.{number}") } else { format!("2001:db8:53::{number:x}") }
}

fn names() -> Case {
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let denied = || drop(NameNotAllowed, "daraja");
        let mut number = 0;
        let mut case = |name: &str, port, expected: Expected| {
            number += 1;
            let address = address(net, number);
            steps.push(connect(
                "before",
                &address,
                port,
                drop(NameNotAllowed, if port == 443 { "daraja" } else { "deep" }),
            ));
            steps.push(to(net.label(name), Answer::of(name, &address).frame(net), flow()));
            steps.push(connect(name, &address, port, expected));
        };
        case("api.safaricom.co.ke", 443, opened("daraja"));
        case("API.Safaricom.co.KE", 443, opened("daraja"));
        case("xapi.safaricom.co.ke", 443, denied());
        case("api.safaricom.co.ke.evil.example", 443, denied());
        case("safaricom.co.ke", 443, denied());
        case("a.cloud.example.net", 443, opened("cloud"));
        case("a.b-c.d_e.cloud.example.net", 443, opened("cloud"));
        case("cloud.example.net", 443, denied());
        case("badcloud.example.net", 443, denied());
        // The narrower of two wildcards, and what both cover.
        case("a.deep.cloud.example.net", 8443, opened("deep"));
        case("b.deep.cloud.example.net", 443, opened("cloud"));
        case("deep.cloud.example.net", 8443, drop(NameNotAllowed, "deep"));
        case("deep.cloud.example.net", 443, opened("cloud"));
        // Under a wildcard and by itself.
        case("exact.cloud.example.net", 8443, opened("deep"));
        case("exact.cloud.example.net", 443, opened("cloud"));
        // The longest that there is: 253 octets.
        let long = format!("{0}.{0}.{0}.{1}.cloud.example.net", "a".repeat(63), "b".repeat(43));
        assert_eq!(long.len(), 253);
        case(&long, 443, opened("cloud"));
    }
    Case::new("names that were asked for", POLICY, steps)
}

fn records() -> Case {
    let name = "api.safaricom.co.ke";
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let one = |number| address(net, number);
        let alias = wire("edge.example.org");
        let chain = [
            record(&POINTER, CNAME, 60, &alias),
            record(&alias, CNAME, 60, &wire("last.example.org")),
            address_record(&wire("last.example.org"), &one(1), 60),
            address_record(&[4, b'l', b'a', b's', b't', 0xc0, 12], &one(2), 60),
            record(&POINTER, 16, 60, b"\x05hello"),
            address_record(&[0], &one(3), 60),
        ];
        steps.push(to(net.label("a chain of aliases"), Answer::new(name, &chain).frame(net), flow()));
        for number in 1..=3 {
            steps.push(connect("of a chain", &one(number), 443, opened("daraja")));
        }
        let many: Vec<_> = (10..60).map(|number| address_record(&POINTER, &one(number), 60)).collect();
        steps.push(to(net.label("fifty"), Answer::new(name, &many).frame(net), flow()));
        steps.push(connect("the first of fifty", &one(10), 443, opened("daraja")));
        steps.push(connect("the last of fifty", &one(59), 443, opened("daraja")));
        // Fewer than it says, and more.
        let mut fewer = Answer::of(name, &one(70));
        fewer.count = 7;
        steps.push(to(net.label("fewer than it says"), fewer.frame(net), flow()));
        steps.push(connect("fewer", &one(70), 443, opened("daraja")));
        let mut more = Answer::new(
            name,
            &[address_record(&POINTER, &one(71), 60), address_record(&POINTER, &one(72), 60)],
        );
        more.count = 1;
        steps.push(to(net.label("more than it says"), more.frame(net), flow()));
        steps.push(connect("counted", &one(71), 443, opened("daraja")));
        steps.push(connect("not counted", &one(72), 443, drop(NameNotAllowed, "daraja")));
        // Cut off, and said to be.
        let mut cut = Answer::of(name, &one(73));
        cut.flags = [0x83, 0x80];
        steps.push(to(net.label("truncated"), cut.frame(net), flow()));
        steps.push(connect("truncated", &one(73), 443, opened("daraja")));
        // What is no host.
        for nowhere in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"] {
            steps.push(to(net.label(nowhere), Answer::of(name, nowhere).frame(net), flow()));
        }
    }
    steps.push(connect("nowhere", "224.0.0.1", 443, drop(NameNotAllowed, "daraja")));
    Case::new("records of an answer", POLICY, steps)
}

/// What a refusal is called where a destination has names, and what else.
fn beside_addresses() -> Case {
    const POLICY: &str = r#"
sets:
  partners: { addresses: ["198.51.100.0/24", "2001:db8:100::/48"] }
ingress: { default: drop, services: [] }
egress:
  default: drop
  allow:
    - { name: names, to: [api.example.net], ports: [1] }
    - { name: and-set, to: [api.example.net, partners], ports: [2] }
    - { name: and-prefix, to: [api.example.net, 198.51.100.7, "2001:db8:100::7"], ports: [3] }
"#;
    let mut steps = Vec::new();
    for net in &NETS {
        let target = address(net, 9);
        for (rule, port, reason) in [
            ("names", 1, NameNotAllowed),
            ("and-set", 2, DestinationNotAllowed),
            ("and-prefix", 3, DestinationNotAllowed),
        ] {
            steps.push(connect(rule, &target, port, drop(reason, rule)));
        }
    }
    Case::new("names beside addresses", POLICY, steps)
}

/// What must teach nothing, each in a message of its own.
fn hostile() -> Case {
    let name = "api.safaricom.co.ke";
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let mut number = 0;
        let mut case = |what: &str, spoil: &dyn Fn(&mut Answer, &[u8])| {
            number += 1;
            let target = address(net, number);
            let mut answer = Answer::of(name, &target);
            spoil(&mut answer, &octets(ip(&target)));
            steps.push(to(net.label(what), answer.frame(net), flow()));
            steps.push(connect(what, &target, 443, drop(NameNotAllowed, "daraja")));
        };
        case("a question", &|answer, _| answer.flags = [0x01, 0x00]);
        case("a status", &|answer, _| answer.flags = [0x91, 0x80]);
        case("an error", &|answer, _| answer.flags = [0x81, 0x83]);
        case("no question", &|answer, _| answer.questions = 0);
        case("two questions", &|answer, _| answer.questions = 2);
        case("no answers", &|answer, _| answer.count = 0);
        case("another class", &|answer, _| answer.class = 3);
        case("a question that points at itself", &|answer, _| answer.name = vec![0xc0, 12]);
        case("a name that goes on elsewhere", &|answer, _| {
            answer.name = [&[3][..], b"api", &[0xc0, 12]].concat();
        });
        case("labels of another kind", &|answer, _| answer.name[0] |= 0x40);
        case("a dot in a label", &|answer, _| {
            answer.name = [&[13][..], b"api.safaricom", &[2], b"co", &[2], b"ke", &[0]].concat();
        });
        case("a zero in a label", &|answer, _| answer.name[2] = 0);
        case("the root", &|answer, _| answer.name = vec![0]);
        case("a name without an end", &|answer, _| {
            answer.name = vec![1; 1200];
            answer.body.clear();
        });
        case("a name of 254 octets", &|answer, _| {
            answer.name = wire(&format!("{0}.{0}.{0}.{1}.cloud.example.net", "a".repeat(63), "b".repeat(44)));
        });
        case("a record of another class", &|answer, _| answer.body[5] = 3);
        case("a record that is longer than the message", &|answer, _| answer.body[11] += 1);
        case("an address that is too long", &|answer, data| {
            answer.body = record(&POINTER, if data.len() == 4 { A } else { 28 }, 60, &[data, &[0]].concat());
        });
        case("an address that is too short", &|answer, data| {
            answer.body = record(&POINTER, if data.len() == 4 { A } else { 28 }, 60, &data[1..]);
        });
        case("an address of another type", &|answer, data| answer.body = record(&POINTER, 99, 60, data));
        case("a record whose name is of another kind", &|answer, _| answer.body[0] = 0x80);
        case("more labels than there are steps", &|answer, data| {
            let name = [1, b'a'].repeat(600);
            answer.body = [name, record(&[0], if data.len() == 4 { A } else { 28 }, 60, data)].concat();
        });
    }
    // Too short for what they should be.
    for length in [0, 1, 11, 12, 13, 16] {
        let message = &Answer::of(name, "192.0.2.200").bytes()[..length];
        steps.push(to(format!("{length} octets"), answer_frame(V4.dns, V4.us, message), flow()));
    }
    let whole = Answer::of(name, "192.0.2.200").bytes();
    for length in whole.len() - 16..whole.len() {
        steps.push(to(format!("{length} octets"), answer_frame(V4.dns, V4.us, &whole[..length]), flow()));
    }
    steps.push(connect("cut", "192.0.2.200", 443, drop(NameNotAllowed, "daraja")));
    Case::new("hostile answers", POLICY, steps)
}

/// An address is allowed as long as its TTL says, within bounds.
fn over() -> Case {
    let name = "api.safaricom.co.ke";
    let mut steps = vec![ask(&V4)];
    for (number, ttl) in [(1, 0), (2, 600), (3, u32::MAX), (4, 1_000_000)] {
        let target = address(&V4, number);
        let answer = Answer::new(name, &[address_record(&POINTER, &target, ttl)]);
        steps.push(to(format!("TTL {ttl}"), answer.frame(&V4), flow()));
        steps.push(connect("at once", &target, 443, opened("daraja")));
    }
    // A second counts as 1.07 s, and five minutes are added.
    let after = |seconds: u64| Step::Wait(seconds * SECOND);
    let check = |steps: &mut Vec<Step>, alive: [bool; 4]| {
        for (number, is_alive) in (1..).zip(alive) {
            let expected = if is_alive { opened("daraja") } else { drop(NameNotAllowed, "daraja") };
            steps.push(connect("later", &address(&V4, number), 443, expected));
        }
    };
    steps.push(after(380));
    check(&mut steps, [true; 4]);
    steps.push(after(10));
    check(&mut steps, [false, true, false, true]);
    steps.push(after(600));
    check(&mut steps, [false, false, false, true]);
    Case::new("the end of a TTL", POLICY, steps)
}

/// A day at most.
fn over_at_most() -> Case {
    let target = address(&V4, 1);
    let answer = Answer::new("api.safaricom.co.ke", &[address_record(&POINTER, &target, 1_000_000)]);
    Case::new(
        "the end of a long TTL",
        POLICY,
        vec![
            ask(&V4),
            to("TTL 1,000,000", answer.frame(&V4), flow()),
            Step::Wait(92_000 * SECOND),
            connect("a day", &target, 443, opened("daraja")),
            Step::Wait(1_500 * SECOND),
            connect("more", &target, 443, drop(NameNotAllowed, "daraja")),
        ],
    )
}

/// What was learnt outlives the generation that learnt it, as long as its name is in the policy.
fn reload() -> Case {
    let without = POLICY.replace("api.safaricom.co.ke", "sandbox.safaricom.co.ke");
    let target = address(&V4, 1);
    let mut steps = vec![ask(&V4)];
    steps.push(to("an answer", Answer::of("api.safaricom.co.ke", &target).frame(&V4), flow()));
    steps.push(Step::Reload(POLICY.into()));
    steps.push(connect("after a reload", &target, 443, opened("daraja")));
    steps.push(Step::Reload(without.into()));
    steps.push(connect("its name is gone", &target, 443, drop(NameNotAllowed, "daraja")));
    Case::new("reloads after an answer", POLICY, steps)
}
