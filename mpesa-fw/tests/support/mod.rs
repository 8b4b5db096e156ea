//! What the namespace tests share: a callback host, Safaricom and an attacker around a router, and policies.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]

pub mod groups;
pub mod memory;
pub mod orders;
pub mod traffic;
pub mod trial;

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::Result;
use mpesa_fw::sys::{self, KernelMap, Plain};
use mpesa_fw_common::ABI_VERSION;
use testbed::{
    Answer, Curl, Drops, Firewall, Host, Metrics, Network, Place, Started, Wire, ok, place,
    serve::{Nginx, Site},
};

/// Long enough for anything that should happen at once.
pub const SOON: Duration = Duration::from_secs(10);
/// Long enough to believe that an answer will not come.
pub const NEVER: Duration = Duration::from_millis(400);

/// The network of most tests. Dropped from the top.
pub struct Field {
    pub host: Host,
    pub safaricom: Host,
    pub attacker: Host,
    pub network: Network,
}

impl Field {
    pub fn new() -> Result<Self> {
        let network = Network::new()?;
        let host = network.add(place::CALLBACK_HOST)?;
        let safaricom = network.add(place::SAFARICOM)?;
        let attacker = network.add(place::ATTACKER)?;
        Ok(Self { host, safaricom, attacker, network })
    }

    /// The firewall of the callback host, not started.
    pub fn firewall(&self) -> Result<Firewall<'_>> {
        Firewall::new(&self.network, &self.host.namespace, env!("CARGO_BIN_EXE_mpesa-fw"))
    }

    /// The firewall of the callback host, running, whatever connections that cuts.
    pub fn protected(&self, policy: &str) -> Result<(Firewall<'_>, Started)> {
        let firewall = self.firewall()?;
        firewall.policy(policy)?;
        let agent = firewall.start(&["--force"])?;
        Ok((firewall, agent))
    }

    /// nginx on the callback host.
    pub fn web(&self, ports: &[u16]) -> Result<Nginx> {
        web(&self.network, &self.host, ports)
    }

    /// Whether [`WEB`] is served to Safaricom, and to nobody else.
    pub fn is_enforced(&self) -> bool {
        Curl::http(self.host.place.v4, 80).from(&self.safaricom.namespace).is_ok()
            && Curl::http(self.host.place.v4, 80).from(&self.attacker.namespace) == Answer::Silence
    }

    /// Whether it is served to the attacker.
    pub fn is_open(&self) -> bool {
        Curl::http(self.host.place.v4, 80).from(&self.attacker.namespace).is_ok()
    }

    /// Both addresses of the callback host.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.host.place.v4.into(), self.host.place.v6.into()]
    }

    /// Frames from the router to the host. The fence goes to UDP port 9, which [`FENCE`] opens.
    pub fn wire(&self) -> Result<Wire> {
        self.wire_from(place::SAFARICOM)
    }

    /// Likewise with the addresses of another place as `S4` and `S6`.
    pub fn wire_from(&self, source: Place) -> Result<Wire> {
        Wire::towards(
            &self.host,
            &self.network.router,
            source,
            "to_host()/IP(src='192.0.2.9',dst=H4)/UDP(sport=9,dport=9)",
        )
    }

    /// Frames from the host to the router. The fence goes to UDP port 9 of 192.0.2.9, which [`OUT_FENCE`] allows.
    pub fn wire_out(&self) -> Result<Wire> {
        Wire::out_of(
            &self.host,
            &self.network.router,
            place::SAFARICOM,
            "to_router()/IP(src=H4,dst='192.0.2.9')/UDP(sport=9,dport=9)",
        )
    }
}

/// nginx on any place.
pub fn web(network: &Network, host: &Host, ports: &[u16]) -> Result<Nginx> {
    let sites: Vec<Site<'_>> =
        ports.iter().map(|port| Site { port: *port, certificate: None, body: "here" }).collect();
    Nginx::start(&host.namespace, network.scratch.path(), &format!("nginx-{}", host.place.name), &sites)
}

/// A service for the fence of [`Field::wire`].
pub const FENCE: &str = "{ name: fence, protocol: udp, ports: [9], from: [192.0.2.9] }";
/// A destination for the fence of [`Field::wire_out`].
pub const OUT_FENCE: &str = "{ name: fence, protocol: udp, ports: [9], to: [192.0.2.9] }";
/// The port 80 for Safaricom only.
pub const WEB: &str = "{ name: web, ports: [80], from: [196.201.214.200, \"2001:db8:0:214::200\"] }";

/// The same policy, by which programs are told at once.
#[allow(dead_code, reason = "few tests look at that")]
pub fn telling(services: &[&str], allow: &[&str]) -> String {
    policy(services, allow).replace("  at_connect: pass\n", "")
}

/// A policy that drops by default and enforces on eth0. Programs are not told when they connect: packets are to be seen.
pub fn policy(services: &[&str], allow: &[&str]) -> String {
    let list = |key: &str, rules: &[&str]| match rules {
        [] => format!("  {key}: []\n"),
        rules => {
            format!("  {key}:\n{}", rules.iter().map(|rule| format!("    - {rule}\n")).collect::<String>())
        }
    };
    format!(
        "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress:\n  default: drop\n{}egress:\n  default: drop\n  at_connect: pass\n{}",
        list("services", services),
        list("allow", allow)
    )
}

/// Drops as [`Metrics::drops_since`] gives them.
pub fn drops<const N: usize>(expected: [(&str, u64); N]) -> Drops {
    expected.into_iter().map(|(what, count)| (what.to_owned(), count)).collect()
}

/// Only what was dropped and why, for senders that repeat themselves.
pub fn kinds(drops: &Drops) -> Vec<&str> {
    drops.keys().map(String::as_str).collect()
}

/// Passed packets of a rule since an earlier scrape.
pub fn passed_since(now: &Metrics, before: &Metrics, direction: &str, rule: &str) -> u64 {
    (now.passed(direction, rule) - before.passed(direction, rule)) as u64
}

/// Everything below the firewall's bpffs, in order.
pub fn pins(firewall: &Firewall<'_>) -> Result<Vec<String>> {
    let found = ok(Command::new("find").arg(&firewall.bpffs))?;
    let mut lines: Vec<_> = found.lines().map(String::from).collect();
    lines.sort();
    Ok(lines)
}

/// What `--tc` can name here, of both ways.
pub fn tc_ways() -> &'static [&'static str] {
    const LOOPBACK: u32 = 1;
    if mpesa_fw::sys::tcx_programs(LOOPBACK, mpesa_fw::sys::BPF_TCX_EGRESS).is_ok() {
        return &["tcx", "clsact"];
    }
    testbed::left_out("--tc tcx", "this kernel has no TCX (Linux 6.6)");
    &["clsact"]
}

/// A map of the state, as it is pinned.
pub fn pinned<K: Plain, V: Plain>(firewall: &Firewall<'_>, map: &str) -> Result<KernelMap<K, V>> {
    let pin = firewall.bpffs.join(format!("abi-{ABI_VERSION}/state/{map}"));
    Ok(KernelMap::new(sys::open_pin(&pin)?)?)
}

/// How many programs there are at eth0: TCX, which no tool of every system shows, and clsact filters.
pub fn at_tc(namespace: &testbed::Namespace) -> Result<(usize, usize)> {
    use mpesa_fw::sys;
    let tcx = namespace.inside(|| {
        let index = nix::net::if_::if_nametoindex("eth0")?;
        // Before Linux 6.6 there is none to ask for.
        let at = |hook| sys::tcx_programs(index, hook).map_or(0, |programs| programs.len());
        Ok::<_, anyhow::Error>(at(sys::BPF_TCX_INGRESS) + at(sys::BPF_TCX_EGRESS))
    })?;
    let filters = namespace.sh("tc filter show dev eth0 egress; tc filter show dev eth0 ingress")?;
    Ok((tcx, filters.matches("handle").count()))
}

/// A scrape when nothing moves any more: the last packets of a closed connection come after curl has ended.
pub fn settled(firewall: &Firewall<'_>) -> Result<Metrics> {
    let mut last = firewall.metrics()?;
    let mut at_rest = 0;
    testbed::eventually("the counts to rest", SOON, || {
        std::thread::sleep(Duration::from_millis(100));
        let now = firewall.metrics().ok()?;
        let rests = now.went_back(&last).is_empty() && last.went_back(&now).is_empty();
        at_rest = if rests { at_rest + 1 } else { 0 };
        last = now;
        (at_rest == 2).then(|| last.clone())
    })
}
