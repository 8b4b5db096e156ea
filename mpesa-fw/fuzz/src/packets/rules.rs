//! Policies that use everything a policy can say, and what the host knows under them.

use std::net::IpAddr;

use mpesa_fw_common::Address;

use crate::{
    case::{Names, Rules},
    frames::ip,
    host::HostState,
};

/// Claims nothing, lets nothing in or out.
pub(super) const STRICT: &str = "
ingress: { default: drop, services: [] }
egress: { default: drop, allow: [] }
";

const SETS: &str = r#"
sets:
  safaricom: { addresses: [196.201.214.200, "2c0f:fe38::200"], watch: [196.201.208.0/20, "2c0f:fe38::/32"] }
  intranet: { addresses: [10.0.0.0/8, "fd00::/16", "fe80::/10"], watch: [0.0.0.0/0, "::/0"] }
"#;

const RICH: &str = r#"
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443, 8443, "9000-9010"], from: [safaricom] }
    - { name: site, ports: [80], from: [any], limit: { new_connections: 1/h, burst: 2, per: source } }
    - { name: late, ports: [80], from: [intranet] }
    - { name: api, ports: [8080], to: [10.0.0.5, "fd00::5"], from: [intranet] }
    - { name: resolver, protocol: udp, ports: [53], from: [intranet] }
    - { name: busy, protocol: udp, ports: [514], from: [any], limit: { packets: 1/h, burst: 3, per: service } }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any], limit: { packets: 1/h, burst: 2, per: source } }
    - { name: tunnel, protocol: [47, sctp], from: [intranet] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443] }
    - { name: named, to: [one.example, two.example], ports: [443, 8443] }
    - { name: dns, to: [10.0.0.2, "fd00::2"], protocol: [udp, tcp], ports: [53] }
    - { name: probe, to: [any], protocol: [icmp, icmpv6], types: [echo-request] }
    - { name: tunnel, to: [198.51.100.10, "2001:db8:a::10"], protocol: 47 }
"#;

/// Allows whatever [`RICH`] allows, and more.
const WIDE: &str = r#"
ingress:
  default: drop
  services:
    - { name: tcp, protocol: [tcp, udp], ports: any, from: [any] }
    - { name: icmp, protocol: [icmp, icmpv6], from: [any] }
    - { name: tunnel, protocol: [47, sctp], from: [any] }
egress:
  default: drop
  allow:
    - { name: tcp, protocol: [tcp, udp], ports: any, to: [any] }
    - { name: icmp, protocol: [icmp, icmpv6], to: [any] }
    - { name: tunnel, to: [any], protocol: 47 }
"#;

/// Drops only what it names.
const LOOSE: &str = r#"
ingress:
  default: pass
  services:
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: local, ports: ["1-1023"], to: [10.0.0.5, "fd00::/64"], from: [intranet] }
egress:
  default: pass
  allow:
    - { name: daraja, to: [198.51.100.10, one.example], ports: [443] }
    - { name: named, to: [two.example], ports: [80] }
"#;

/// Policies of [`all`], by number.
pub(super) const COUNT: usize = 5;
/// Names that two destinations give.
const NAMES: [&str; 2] = ["one.example", "two.example"];
/// Addresses of this host.
pub(super) const OWN: [&str; 4] = ["10.0.0.5", "10.0.0.6", "fd00::5", "fe80::5"];
/// What the names resolve to.
pub(super) const RESOLVED: [&str; 4] = ["198.51.100.20", "198.51.100.10", "2001:db8:a::20", "2001:db8:a::10"];

/// Rich, strict, wide, loose; and rich in observe mode.
fn texts() -> [String; COUNT] {
    [
        format!("mode: enforce{SETS}{RICH}"),
        format!("mode: enforce{STRICT}"),
        format!("mode: enforce\n{WIDE}"),
        format!("mode: enforce{SETS}{LOOSE}"),
        format!("mode: observe{SETS}{RICH}"),
    ]
}

/// All of them, each as the generation after the one before: what has the same name keeps its slot.
pub(super) fn all() -> [Rules; COUNT] {
    let mut before: Option<Rules> = None;
    let of = |text: &String| {
        let next = || before.as_ref().map_or_else(|| Rules::new(text), |rules| rules.reload(text));
        let rules = next();
        before = Some(next());
        rules
    };
    texts().each_ref().map(of)
}

/// What the host knows before the first packet. Names have other slots under other policies.
pub(super) fn state(rules: &Rules) -> HostState {
    let mut state = HostState::new();
    state.own = OWN.iter().map(|address| Address::from(ip(address))).collect();
    state.resolve(rules, &names());
    state
}

/// What DNS says.
fn names() -> Names {
    let answer = |(n, address): (usize, &&str)| (ip(address), vec![NAMES[n % 2].to_owned()]);
    RESOLVED.iter().enumerate().map(answer).collect()
}

/// Names that an address is an answer to.
pub(super) fn names_of(address: IpAddr) -> impl Iterator<Item = &'static str> {
    let known = RESOLVED.iter().enumerate().filter(move |(_, known)| ip(known) == address);
    known.map(|(n, _)| NAMES[n % 2])
}
