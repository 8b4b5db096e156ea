//! 6 and 8: services that share a port, local addresses, near misses, what nothing claims.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, NETS, at};
use crate::{
    case::{Case, Expected, Step, drop, near_miss, pass, to},
    frames::{ACK, FIN, RST, SYN, icmp, tcp, udp},
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        sources(),
        flags(),
        shared_port(),
        local_addresses(),
        families(),
        icmp_types(),
        all_ports(),
        near_misses(),
        many(),
    ]
}

fn service(rule: &str) -> Expected {
    pass(PassReason::Service, rule)
}

fn sources() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |source: &str, port, expected| {
            let frame = tcp(&at(source, 4000), &at(net.us, port), SYN);
            steps.push(to(net.label(&format!("{source} to {port}")), frame, expected));
        };
        case(net.safaricom, 443, service("callbacks"));
        case(net.moved, 443, near_miss(SourceNotAllowed, "callbacks", &["safaricom"]));
        case(net.outsider, 443, drop(SourceNotAllowed, "callbacks"));
        case(net.intranet, 443, drop(SourceNotAllowed, "callbacks"));
        case(net.safaricom, 80, service("site"));
        case(net.outsider, 80, service("site"));
        case(net.outsider, 22, drop(NoService, ""));
        // A near miss is one of a service, not any scan.
        case(net.moved, 22, drop(NoService, ""));
        let frame = udp(&at(net.safaricom, 4000), &at(net.us, 443));
        steps.push(to(net.label("the port in UDP"), frame, drop(NoService, "")));
        let frame = udp(&at(net.intranet, 4000), &at(net.us, 53));
        steps.push(to(net.label("a query"), frame, service("resolver")));
        let frame = tcp(&at(net.intranet, 4000), &at(net.us, 53), SYN);
        steps.push(to(net.label("a query by TCP"), frame, drop(NoService, "")));
    }
    Case::new("sources of services", BASE, steps)
}

/// A service is told by its port, whatever the flags.
fn flags() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        for flags in [0, SYN, SYN | ACK, ACK, FIN | ACK, RST, FIN | SYN, 0x3f, 0xff] {
            let frame = |source: &str, port| tcp(&at(source, 4000), &at(net.us, port), flags);
            let label = |what: &str| net.label(&format!("flags {flags:#x}, {what}"));
            steps.push(to(label("served"), frame(net.safaricom, 443), service("callbacks")));
            steps.push(to(label("forged"), frame(net.outsider, 443), drop(SourceNotAllowed, "callbacks")));
            steps.push(to(label("to nothing"), frame(net.outsider, 22), drop(NoService, "")));
        }
    }
    Case::new("TCP flags", BASE, steps)
}

fn shared_port() -> Case {
    const POLICY: &str = r#"
sets:
  safaricom: [196.201.214.200, "2c0f:fe38::200"]
ingress:
  default: drop
  services:
    - { name: admin, ports: [443], from: [10.9.0.0/16, "fd00:9::/32"] }
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: partners, ports: ["400-500"], from: [10.0.0.0/8, "fd00::/16", safaricom] }
egress: { default: drop, allow: [] }
"#;
    let mut steps = Vec::new();
    for net in NETS {
        let admin = if net.is_v4 { "10.9.1.1" } else { "fd00:9::1" };
        let mut case = |source: &str, port, expected| {
            let frame = tcp(&at(source, 4000), &at(net.us, port), SYN);
            steps.push(to(net.label(&format!("{source} to {port}")), frame, expected));
        };
        // The first that allows it is charged, and where none does the first that claims it.
        case(admin, 443, service("admin"));
        case(net.safaricom, 443, service("callbacks"));
        case(net.outsider, 443, drop(SourceNotAllowed, "admin"));
        case(net.safaricom, 444, service("partners"));
        case(net.outsider, 444, drop(SourceNotAllowed, "partners"));
        if net.is_v4 {
            case(net.intranet, 443, service("partners"));
            case(admin, 444, service("partners"));
        }
    }
    Case::new("services that share a port", POLICY, steps)
}

fn local_addresses() -> Case {
    const POLICY: &str = r#"
ingress:
  default: drop
  services:
    - { name: one, ports: [443], to: [10.0.0.5, "fd00::5"], from: [any] }
    - { name: two, ports: [443], to: [10.0.0.6, "fd00::6"], from: [10.0.0.0/8, "fd00::/16"] }
    - { name: net, ports: [444], to: [10.0.0.4/31, "fd00::4/127"], from: [any] }
    - { name: four, ports: [445], to: [10.0.0.5], from: [any] }
egress: { default: drop, allow: [] }
"#;
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |source: &str, target: &str, port, expected| {
            let frame = tcp(&at(source, 4000), &at(target, port), SYN);
            steps.push(to(net.label(&format!("{source} to {target}, {port}")), frame, expected));
        };
        case(net.outsider, net.us, 443, service("one"));
        case(net.outsider, net.us2, 443, drop(SourceNotAllowed, "one"));
        case(net.intranet, net.us2, 443, service("two"));
        case(net.outsider, net.us, 444, service("net"));
        case(net.outsider, net.us2, 444, drop(SourceNotAllowed, "net"));
        let expected = if net.is_v4 { service("four") } else { drop(SourceNotAllowed, "four") };
        case(net.outsider, net.us, 445, expected);
    }
    Case::new("services of one local address", POLICY, steps)
}

/// Both families have their tables: a prefix of one says nothing of the other.
fn families() -> Case {
    const POLICY: &str = r#"
ingress:
  default: drop
  services:
    - { name: four, ports: [443], from: [0.0.0.0/0] }
    - { name: six, ports: [444], from: ["::/0"] }
    - { name: half, ports: [445], from: [128.0.0.0/1, "8000::/1"] }
egress:
  default: drop
  allow:
    - { name: out-four, to: [0.0.0.0/0], ports: [443] }
    - { name: out-six, to: ["::/0"], ports: [444] }
"#;
    let mut steps = Vec::new();
    for net in NETS {
        let allowed = |rule, yes| if yes { service(rule) } else { drop(SourceNotAllowed, rule) };
        let mut case = |source: &str, port, expected| {
            let frame = tcp(&at(source, 4000), &at(net.us, port), SYN);
            steps.push(to(net.label(&format!("{source} to {port}")), frame, expected));
        };
        case(net.outsider, 443, allowed("four", net.is_v4));
        case(net.outsider, 444, allowed("six", !net.is_v4));
        let (low, high) =
            if net.is_v4 { ("127.255.255.255", "128.0.0.0") } else { ("7fff:ffff::1", "8000::") };
        if !net.is_v4 {
            case(low, 445, drop(SourceNotAllowed, "half"));
        }
        case(high, 445, service("half"));
        for (port, rule, yes) in [(443, "out-four", net.is_v4), (444, "out-six", !net.is_v4)] {
            let frame = tcp(&at(net.us, 4000), &at(net.outsider, port), SYN);
            let expected =
                if yes { pass(PassReason::Destination, rule) } else { drop(DestinationNotAllowed, rule) };
            steps.push(crate::case::from(net.label(&format!("out to {port}")), frame, expected));
        }
    }
    Case::new("families", POLICY, steps)
}

fn icmp_types() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        for kind in 0..=255u8 {
            let is_control = !net.is_v4 && matches!(kind, 130..=136 | 143);
            if is_control {
                continue;
            }
            let expected = if kind == net.echo_request() { service("ping") } else { drop(NoService, "") };
            let frame = icmp(net.outsider, net.us, kind, 1);
            steps.push(to(net.label(&format!("type {kind}")), frame, expected));
        }
    }
    Case::new("ICMP types", BASE, steps)
}

fn all_ports() -> Case {
    const POLICY: &str = "
ingress:
  default: drop
  services:
    - { name: everything, protocol: [tcp, udp], ports: any, from: [any] }
    - { name: pings, protocol: [icmp, icmpv6], from: [any] }
    - { name: sctp, protocol: sctp, from: [10.0.0.0/8] }
egress: { default: drop, allow: [] }
";
    let mut steps = Vec::new();
    for net in NETS {
        for port in [1, 2, 80, 65534, 65535] {
            let (source, target) = (at(net.outsider, 4000), at(net.us, port));
            steps.push(to(
                net.label(&format!("TCP {port}")),
                tcp(&source, &target, SYN),
                service("everything"),
            ));
            steps.push(to(net.label(&format!("UDP {port}")), udp(&source, &target), service("everything")));
        }
        let (source, target) = (at(net.outsider, 4000), at(net.us, 0));
        steps.push(to(net.label("TCP 0"), tcp(&source, &target, SYN), drop(NoService, "")));
        steps.push(to(net.label("UDP 0"), udp(&source, &target), drop(NoService, "")));
        for kind in [net.echo_request(), net.echo_reply(), 100, 255] {
            let frame = icmp(net.outsider, net.us, kind, 1);
            steps.push(to(net.label(&format!("ICMP {kind}")), frame, service("pings")));
        }
    }
    let sctp = |source: &str| {
        crate::frames::packet(crate::frames::ip(source), crate::frames::ip("10.0.0.5"), 132, &[0; 12])
    };
    steps.push(to("SCTP", sctp("10.1.2.3"), service("sctp")));
    steps.push(to("SCTP of a stranger", sctp("203.0.113.9"), drop(SourceNotAllowed, "sctp")));
    Case::new("all ports", POLICY, steps)
}

fn near_misses() -> Case {
    const POLICY: &str = r#"
sets:
  one: { addresses: [196.201.214.200], watch: [196.201.208.0/20] }
  two: { addresses: [196.201.214.210], watch: [196.201.214.0/24] }
  six: { addresses: ["2c0f:fe38::1"], watch: ["2c0f:fe38::/32"] }
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [one, two, six] }
    - { name: site, ports: [80], from: [any] }
egress: { default: drop, allow: [] }
"#;
    let case =
        |source: &str, target: &str, expected| to(source, tcp(&at(source, 4000), target, SYN), expected);
    let missed = |sets: &[&str]| near_miss(SourceNotAllowed, "callbacks", sets);
    Case::new(
        "near misses",
        POLICY,
        vec![
            case("196.201.207.255", "10.0.0.5:443", drop(SourceNotAllowed, "callbacks")),
            case("196.201.208.0", "10.0.0.5:443", missed(&["one"])),
            case("196.201.213.255", "10.0.0.5:443", missed(&["one"])),
            case("196.201.214.0", "10.0.0.5:443", missed(&["one", "two"])),
            case("196.201.214.200", "10.0.0.5:443", service("callbacks")),
            case("196.201.214.210", "10.0.0.5:443", service("callbacks")),
            case("196.201.214.255", "10.0.0.5:443", missed(&["one", "two"])),
            case("196.201.223.255", "10.0.0.5:443", missed(&["one"])),
            case("196.201.224.0", "10.0.0.5:443", drop(SourceNotAllowed, "callbacks")),
            case("196.201.214.0", "10.0.0.5:80", service("site")),
            case("196.201.214.0", "10.0.0.5:22", drop(NoService, "")),
            case("2c0f:fe38::2", "[fd00::5]:443", missed(&["six"])),
            case("2c0f:fe39::", "[fd00::5]:443", drop(SourceNotAllowed, "callbacks")),
        ],
    )
}

/// As many rules as there are bits.
fn many() -> Case {
    static POLICY: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let rules = |target: &str| -> String {
            (0..64)
                .map(|n| format!("    - {{ name: rule-{n}, {target}: [10.{n}.0.0/16, \"fd00:{n}::/32\"], ports: [443, {}] }}\n", 1000 + n))
                .collect()
        };
        format!(
            "ingress:\n  default: drop\n  services:\n{}egress:\n  default: drop\n  allow:\n{}",
            rules("from"),
            rules("to")
        )
    });
    let mut steps = Vec::<Step>::new();
    for n in [0u32, 1, 7, 8, 31, 32, 33, 62, 63] {
        let name = format!("rule-{n}");
        for (peer, us) in [(format!("10.{n}.0.1"), "10.200.0.5"), (format!("fd00:{n}::1"), "fd00:200::5")] {
            let other = 1000 + (n as u16 + 1) % 64;
            for (port, expected) in [
                (443, service(&name)),
                (1000 + n as u16, service(&name)),
                (other, drop(SourceNotAllowed, &format!("rule-{}", (n + 1) % 64))),
            ] {
                let frame = tcp(&at(&peer, 4000), &at(us, port), SYN);
                steps.push(to(format!("{peer} to {port}"), frame, expected));
            }
            let frame = tcp(&at(us, 4000), &at(&peer, 443), SYN);
            steps.push(crate::case::from(format!("to {peer}"), frame, pass(PassReason::Destination, &name)));
        }
    }
    let frame = tcp("10.64.0.1:1", "10.200.0.5:443", SYN);
    steps.push(to("in none", frame, drop(SourceNotAllowed, "rule-0")));
    Case::new("64 rules", POLICY.as_str(), steps)
}
