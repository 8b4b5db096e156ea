//! Policies.

use super::Chance;

pub(super) const NAMES: [&str; 4] = ["one.example", "two.example", "three.example", "*.wild.example"];
/// The destination that lists name servers.
pub(super) const SERVERS: &str = "dns";
/// The destination of every policy for all of them.
pub(super) const BY_NAME: &str = "names";
/// Its port.
pub(super) const NAMES_PORT: u16 = 9;

/// Addresses of both families, prefixes around them.
pub(super) const PREFIXES: [[&str; 12]; 2] = [
    [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.2/31",
        "10.1.2.3",
        "196.201.208.0/20",
        "196.201.214.200",
        "196.201.214.201",
        "128.0.0.0/1",
        "203.0.113.0/24",
        "203.0.113.9",
        "0.0.0.0/0",
    ],
    [
        "fd00::/8",
        "fd00:1::/32",
        "fd00:1:2::/48",
        "fd00:1:2::2/127",
        "fd00:1:2::3",
        "2c0f::/16",
        "2c0f:fe38::200",
        "2c0f:fe38::201",
        "8000::/1",
        "2001:db8::/32",
        "2001:db8:9::9",
        "::/0",
    ],
];
pub(super) const LOCAL: [[&str; 3]; 2] =
    [["10.0.0.5", "10.0.0.6", "192.0.2.1"], ["fd00::5", "fe80::5", "2001:db8:1::1"]];

impl Chance {
    /// A list of prefixes of both families and of sets; or `any`.
    fn addresses(&mut self, sets: usize) -> Vec<String> {
        if self.one_in(5) {
            return vec![String::from("any")];
        }
        let mut list = self.prefixes();
        if sets > 0 && self.one_in(2) {
            list.push(format!("set-{}", self.up_to(sets - 1)));
        }
        list
    }

    fn prefixes(&mut self) -> Vec<String> {
        let mut list = Vec::new();
        let families = self.pick(&[1, 2, 3]);
        for (n, prefixes) in PREFIXES.iter().enumerate() {
            if families & (1 << n) != 0 {
                list.extend(self.some(prefixes, 3));
            }
        }
        list
    }

    /// `protocol:` with what goes with it.
    fn claim(&mut self) -> String {
        match self.up_to(10) {
            0..=4 => format!("protocol: tcp, ports: [{}]", self.ports()),
            5 => format!("protocol: [tcp, udp], ports: [{}]", self.ports()),
            6 | 7 => format!("protocol: udp, ports: [{}]", self.ports()),
            8 | 9 => self
                .pick(&[
                    "protocol: [icmp, icmpv6], types: [echo-request]",
                    "protocol: [icmp, icmpv6]",
                    "protocol: icmp, types: [timestamp-request, 5]",
                    "protocol: icmpv6, types: [128, 129]",
                ])
                .to_owned(),
            _ => self.pick(&["protocol: 47", "protocol: [sctp, 50]", "protocol: 253"]).to_owned(),
        }
    }

    fn ports(&mut self) -> String {
        self.pick(&["443", "80, 443", "\"1-65535\"", "\"442-443\"", "53", "4000, \"1-80\"", "444, 65535"])
            .to_owned()
    }

    /// The text of a policy, without its head. `owned`: some rules are for some sockets only, which a test run can't have.
    pub(crate) fn policy(&mut self, owned: bool) -> String {
        let sets = self.up_to(3);
        let mut text = format!("mode: {}\n", if self.one_in(4) { "observe" } else { "enforce" });
        if sets > 0 {
            text += "sets:\n";
        }
        for n in 0..sets {
            let watch = self.prefixes().join(", ");
            let watch = if self.one_in(2) { format!(", watch: [{watch}]") } else { String::new() };
            text += &format!("  set-{n}: {{ addresses: [{}]{watch} }}\n", self.prefixes().join(", "));
        }
        text += &format!("ingress:\n  default: {}\n  services:\n", self.default_verdict());
        let mut limits = 0;
        for n in 0..=self.up_to(6) {
            let mut rule =
                format!("name: in-{n}, {}, from: [{}]", self.claim(), self.addresses(sets).join(", "));
            if self.one_in(4) {
                let local = [self.some(&LOCAL[0], 2), self.some(&LOCAL[1], 2)].concat();
                rule += &format!(", to: [{}]", local.join(", "));
            }
            if self.one_in(2) && limits < 4 {
                limits += 1;
                let what = self.pick(&["packets", "new_connections"]);
                let per = self.pick(&["source", "service"]);
                rule += &format!(", limit: {{ {what}: 1/h, burst: {}, per: {per} }}", 1 + self.up_to(1));
            }
            let by = if owned { self.by() } else { "" };
            text += &format!("    - {{ {rule}{by} }}\n");
        }
        text += &format!("egress:\n  default: {}\n  allow:\n", self.default_verdict());
        for n in 0..=self.up_to(5) {
            let mut list = match self.up_to(7) {
                0 | 1 => Vec::new(),
                2 => vec![String::from("any")],
                _ => self.addresses(sets),
            };
            if list.is_empty() || self.one_in(4) {
                list.extend(self.some(&NAMES, 2));
            }
            let by = if owned { self.by() } else { "" };
            text += &format!("    - {{ name: out-{n}, {}, to: [{}]{by} }}\n", self.claim(), list.join(", "));
        }
        if !self.one_in(3) {
            let servers = self.prefixes().join(", ");
            text += &format!("    - {{ name: {SERVERS}, protocol: udp, ports: [53], to: [{servers}] }}\n");
        }
        // So that each name keeps its slot in all policies of a case: what becomes of a slot that another name gets is the
        // agent's to see to.
        let names = NAMES.join("\", \"");
        text += &format!(
            "    - {{ name: {BY_NAME}, protocol: tcp, ports: [{NAMES_PORT}], to: [\"{names}\"] }}\n"
        );
        text
    }

    /// Of few owners, so that packets find their rules. What they are known by is 1,000 and the place among those of the policy.
    fn by(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            "",
            ", by: { unit: a.service }",
            ", by: { user: web }",
            ", by: [{ unit: a.service }, { unit: b.service }]",
        ])
    }

    fn default_verdict(&mut self) -> &'static str {
        if self.one_in(4) { "pass" } else { "drop" }
    }
}
