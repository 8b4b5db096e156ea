//! 6: limits.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{NETS, V4, V6, at};
use crate::{
    case::{Case, Expected, Step, drop, from, pass, to},
    frames::{ACK, SYN, icmp, tcp, udp},
    host::SECOND,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        per_source(),
        per_service(),
        packets(),
        shared(),
        four_limits(),
        recovery(),
        flows_are_spared(),
        subnets(),
    ]
}

fn service(rule: &str) -> Expected {
    pass(PassReason::Service, rule)
}

/// Slow enough that nothing recovers while a test runs.
const POLICY: &str = r#"
sets:
  safaricom: [196.201.214.200, "2c0f:fe38::200"]
ingress:
  default: drop
  services:
    - { name: site, ports: [80], from: [any], limit: { new_connections: 1/h, burst: 3, per: source } }
    - { name: all, ports: [81], from: [any], limit: { new_connections: 1/h, burst: 3, per: service } }
    - { name: data, ports: [82], from: [any], limit: { packets: 1/h, burst: 3, per: source } }
    - { name: queries, protocol: udp, ports: [83], from: [any], limit: { new_connections: 1/h, burst: 3, per: source } }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any], limit: { packets: 1/h, burst: 2, per: source } }
egress:
  default: drop
  allow:
    - { name: out, to: [any], protocol: [tcp, udp], ports: [443] }
"#;

fn limited(rule: &str) -> Expected {
    drop(RateLimited, rule)
}

/// `burst` packets of a kind pass, two more don't.
fn spend(steps: &mut Vec<Step>, label: &str, frame: &[u8], burst: usize, rule: &str) {
    for n in 0..burst {
        steps.push(to(format!("{label}, {n}"), frame.to_vec(), service(rule)));
    }
    for n in burst..burst + 2 {
        steps.push(to(format!("{label}, {n}"), frame.to_vec(), limited(rule)));
    }
}

fn per_source() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let syn = |source: &str, port| tcp(&at(source, port), &at(net.us, 80), SYN);
        spend(&mut steps, &net.label("SYN"), &syn(net.outsider, 4000), 3, "site");
        steps.push(to(net.label("from another port"), syn(net.outsider, 4001), limited("site")));
        // Connections that are there go on.
        for n in 0..5 {
            let ack = tcp(&at(net.outsider, 4000), &at(net.us, 80), ACK);
            steps.push(to(net.label(&format!("ACK {n}")), ack, service("site")));
        }
        let syn_ack = tcp(&at(net.outsider, 4000), &at(net.us, 80), SYN | ACK);
        steps.push(to(net.label("SYN ACK"), syn_ack, service("site")));
        spend(&mut steps, &net.label("another source"), &syn(net.safaricom, 4000), 3, "site");
        let query = udp(&at(net.outsider, 4000), &at(net.us, 83));
        spend(&mut steps, &net.label("UDP"), &query, 3, "queries");
    }
    Case::new("a limit for each source", POLICY, steps)
}

fn per_service() -> Case {
    let mut steps = Vec::new();
    let syn = |net: &super::Net, source: &str| tcp(&at(source, 4000), &at(net.us, 81), SYN);
    steps.push(to("one", syn(&V4, V4.outsider), service("all")));
    steps.push(to("two", syn(&V4, V4.safaricom), service("all")));
    steps.push(to("three", syn(&V4, V4.intranet), service("all")));
    steps.push(to("four", syn(&V4, V4.moved), limited("all")));
    // Both families are one service, and one account.
    steps.push(to("of the other family", syn(&V6, V6.outsider), limited("all")));
    Case::new("a limit for all sources", POLICY, steps)
}

fn packets() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (source, target) = (at(net.outsider, 4000), at(net.us, 82));
        steps.push(to(net.label("SYN"), tcp(&source, &target, SYN), service("data")));
        steps.push(to(net.label("ACK"), tcp(&source, &target, ACK), service("data")));
        steps.push(to(net.label("ACK"), tcp(&source, &target, ACK), service("data")));
        steps.push(to(net.label("one more"), tcp(&source, &target, ACK), limited("data")));
        steps.push(to(net.label("SYN again"), tcp(&source, &target, SYN), limited("data")));
        spend(&mut steps, &net.label("ping"), &icmp(net.outsider, net.us, net.echo_request(), 1), 2, "ping");
    }
    Case::new("a limit of packets", POLICY, steps)
}

/// What one service allows without a limit is never lost to the limit of another.
fn shared() -> Case {
    const SHARED: &str = r#"
sets:
  safaricom: [196.201.214.200, "2c0f:fe38::200"]
ingress:
  default: drop
  services:
    - { name: site, ports: [443], from: [any], limit: { new_connections: 1/h, burst: 2, per: service } }
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: slow, ports: [444], from: [any], limit: { packets: 1/h, burst: 1, per: source } }
    - { name: quick, ports: [444], from: [any], limit: { packets: 1/h, burst: 2, per: source } }
egress: { default: drop, allow: [] }
"#;
    let mut steps = Vec::new();
    let net = V4;
    let syn = |source: &str, port| tcp(&at(source, 4000), &at(net.us, port), SYN);
    spend(&mut steps, "a flood", &syn(net.outsider, 443), 2, "site");
    for n in 0..10 {
        steps.push(to(format!("callback {n}"), syn(net.safaricom, 443), service("callbacks")));
    }
    steps.push(to("and the flood", syn(net.outsider, 443), limited("site")));
    let callback = tcp(&at(V6.safaricom, 4000), &at(V6.us, 443), SYN);
    steps.push(to("callback by IPv6", callback, service("callbacks")));
    for (n, rule) in ["slow", "quick", "quick"].into_iter().enumerate() {
        steps.push(to(format!("both limited, {n}"), syn(net.outsider, 444), service(rule)));
    }
    steps.push(to("both spent", syn(net.outsider, 444), limited("slow")));
    Case::new("limits of services that share a port", SHARED, steps)
}

/// As many limits as may claim one port, and one service without behind them.
fn four_limits() -> Case {
    const FOUR: &str = r#"
ingress:
  default: drop
  services:
    - { name: a, ports: [443], from: [any], limit: { packets: 1/h, burst: 1, per: source } }
    - { name: b, ports: [443], from: [any], limit: { packets: 1/h, burst: 1, per: service } }
    - { name: c, ports: [443], from: [any], limit: { new_connections: 1/h, burst: 1, per: source } }
    - { name: d, ports: [443], from: [any], limit: { new_connections: 1/h, burst: 1, per: service } }
    - { name: callbacks, ports: [443], from: [196.201.214.200, "2c0f:fe38::200"] }
egress: { default: drop, allow: [] }
"#;
    let syn = |source: &str| tcp(&at(source, 4000), &at(V4.us, 443), SYN);
    let mut steps = Vec::new();
    for rule in ["a", "b", "c", "d"] {
        steps.push(to(format!("charged to {rule}"), syn(V4.outsider), service(rule)));
    }
    steps.push(to("all spent", syn(V4.outsider), limited("a")));
    for rule in ["a", "c", "callbacks", "callbacks"] {
        steps.push(to(format!("callback charged to {rule}"), syn(V4.safaricom), service(rule)));
    }
    let ack = tcp(&at(V4.outsider, 4000), &at(V4.us, 443), ACK);
    steps.push(to("what is there goes on", ack, service("c")));
    Case::new("four limits and one service without", FOUR, steps)
}

fn recovery() -> Case {
    const MINUTES: &str = "
ingress:
  default: drop
  services:
    - { name: site, ports: [80], from: [any], limit: { new_connections: 6/m, burst: 3, per: source } }
egress: { default: drop, allow: [] }
";
    let mut steps = Vec::new();
    for net in NETS {
        let syn = tcp(&at(net.outsider, 4000), &at(net.us, 80), SYN);
        spend(&mut steps, &net.label("at once"), &syn, 3, "site");
        steps.push(Step::Wait(9 * SECOND));
        steps.push(to(net.label("not yet"), syn.clone(), limited("site")));
        steps.push(Step::Wait(SECOND + SECOND / 2));
        steps.push(to(net.label("one"), syn.clone(), service("site")));
        steps.push(to(net.label("and no more"), syn.clone(), limited("site")));
        steps.push(Step::Wait(20 * SECOND));
        spend(&mut steps, &net.label("two"), &syn, 2, "site");
        steps.push(Step::Wait(300 * SECOND));
        spend(&mut steps, &net.label("never more than the burst"), &syn, 3, "site");
    }
    Case::new("limits recover", MINUTES, steps)
}

/// A packet of a live flow of this host is not lost to a limit on the port that it comes to.
fn flows_are_spared() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let syn = tcp(&at(net.us, 82), &at(net.outsider, 443), SYN);
        steps.push(from(net.label("from a port with a limit"), syn, pass(PassReason::Destination, "out")));
        let answer = tcp(&at(net.outsider, 443), &at(net.us, 82), ACK);
        for n in 0..3 {
            steps.push(to(net.label(&format!("answer {n}")), answer.clone(), service("data")));
        }
        for n in 3..8 {
            steps.push(to(net.label(&format!("answer {n}")), answer.clone(), pass(PassReason::Flow, "")));
        }
        let query = udp(&at(net.us, 83), &at(net.outsider, 443));
        steps.push(from(net.label("a query"), query, pass(PassReason::Destination, "out")));
        for n in 0..5 {
            let expected = if n < 3 { service("queries") } else { pass(PassReason::Flow, "") };
            let answer = udp(&at(net.outsider, 443), &at(net.us, 83));
            steps.push(to(net.label(&format!("answer by UDP {n}")), answer, expected));
        }
        let syn = tcp(&at(net.outsider, 443), &at(net.us, 82), SYN);
        steps.push(to(net.label("a SYN is no answer"), syn, limited("data")));
    }
    Case::new("limits and flows", POLICY, steps)
}

/// An IPv6 subscriber holds a /64.
fn subnets() -> Case {
    let mut steps = Vec::new();
    let syn = |source: &str| tcp(&at(source, 4000), &at(V6.us, 80), SYN);
    for n in 0..3 {
        let source = format!("2001:db8:1:2:{n}::{n}");
        steps.push(to(source.clone(), syn(&source), service("site")));
    }
    steps.push(to("the same /64", syn("2001:db8:1:2:ffff::1"), limited("site")));
    steps.push(to("the next /64", syn("2001:db8:1:3::1"), service("site")));
    let four = |source: &str| tcp(&at(source, 4000), &at(V4.us, 80), SYN);
    for n in 0..6 {
        let source = format!("203.0.113.{n}");
        steps.push(to(source.clone(), four(&source), service("site")));
    }
    Case::new("limits of a /64", POLICY, steps)
}
