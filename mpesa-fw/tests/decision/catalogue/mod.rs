//! What becomes of packets, by topic. Both families go through the same, wherever there is a same.

mod control;
mod dns;
mod egress;
mod errors;
mod flows;
mod fragments;
mod headers;
mod limits;
mod link;
mod modes;
mod names;
mod owners;
mod services;
mod sources;

use crate::case::Case;

pub(crate) fn all() -> Vec<Case> {
    [
        link::cases(),
        headers::cases(),
        sources::cases(),
        control::cases(),
        errors::cases(),
        fragments::cases(),
        services::cases(),
        limits::cases(),
        flows::cases(),
        egress::cases(),
        names::cases(),
        owners::cases(),
        dns::cases(),
        modes::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Services for some, for all and for one local address; destinations; everything else is dropped.
pub(crate) const BASE: &str = r#"
mode: enforce
sets:
  safaricom: { addresses: [196.201.214.200, "2c0f:fe38::200"], watch: [196.201.208.0/20, "2c0f:fe38::/32"] }
  intranet: [10.0.0.0/8, "fd00::/16"]
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443, 8443, "9000-9010"], from: [safaricom] }
    - { name: site, ports: [80], from: [any] }
    - { name: api, ports: [8080], to: [10.0.0.5, "fd00::5"], from: [intranet] }
    - { name: resolver, protocol: udp, ports: [53], from: [intranet] }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any] }
    - { name: everything, ports: [7000], from: [any] }
egress:
  default: drop
  allow:
    - { name: daraja, to: [198.51.100.10, "2001:db8:a::10"], ports: [443] }
    - { name: dns, to: [10.0.0.2, "fd00::2"], protocol: [udp, tcp], ports: [53] }
    - { name: probe, to: [any], protocol: [icmp, icmpv6], types: [echo-request] }
    - { name: tunnel, to: [198.51.100.10, "2001:db8:a::10"], protocol: 47 }
"#;

/// Claims nothing, lets nothing in or out.
pub(crate) const DENY_ALL: &str = "
ingress: { default: drop, services: [] }
egress: { default: drop, allow: [] }
";

/// Hosts of one family, as `BASE` knows them.
pub(crate) struct Net {
    pub(crate) is_v4: bool,
    /// This host; the address that `api` names.
    pub(crate) us: &'static str,
    /// This host, another address.
    pub(crate) us2: &'static str,
    pub(crate) safaricom: &'static str,
    /// Within what safaricom's set watches, not in it.
    pub(crate) moved: &'static str,
    pub(crate) outsider: &'static str,
    pub(crate) intranet: &'static str,
    pub(crate) daraja: &'static str,
    pub(crate) dns: &'static str,
}

pub(crate) const V4: Net = Net {
    is_v4: true,
    us: "10.0.0.5",
    us2: "10.0.0.6",
    safaricom: "196.201.214.200",
    moved: "196.201.214.201",
    outsider: "203.0.113.9",
    intranet: "10.1.2.3",
    daraja: "198.51.100.10",
    dns: "10.0.0.2",
};

pub(crate) const V6: Net = Net {
    is_v4: false,
    us: "fd00::5",
    us2: "fd00::6",
    safaricom: "2c0f:fe38::200",
    moved: "2c0f:fe38::201",
    outsider: "2001:db8:9::9",
    intranet: "fd00::1:3",
    daraja: "2001:db8:a::10",
    dns: "fd00::2",
};

pub(crate) const NETS: [Net; 2] = [V4, V6];

impl Net {
    pub(crate) fn label(&self, text: &str) -> String {
        format!("{text} ({})", if self.is_v4 { "IPv4" } else { "IPv6" })
    }

    pub(crate) const fn echo_request(&self) -> u8 {
        if self.is_v4 { 8 } else { 128 }
    }

    pub(crate) const fn echo_reply(&self) -> u8 {
        if self.is_v4 { 0 } else { 129 }
    }
}

/// `address:port`.
pub(crate) fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
