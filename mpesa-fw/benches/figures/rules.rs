//! One job, said to each contender: the shipped policy for a dedicated host, with as many callers as wanted.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const SHIPPED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules");

/// Hosts that send callbacks: the first twelve are Safaricom's, the others anywhere and even, so that an odd source is
/// never one of them.
pub(crate) fn callers(count: usize) -> Result<Vec<String>> {
    let mut callers: Vec<[u8; 4]> = safaricom()?;
    ensure!(callers.len() == 12, "safaricom.yaml lists {} hosts", callers.len());
    let mut random = StdRng::seed_from_u64(count as u64);
    let mut seen: std::collections::BTreeSet<_> = callers.iter().copied().collect();
    while callers.len() < count {
        let address = (random.random::<u32>() & !1).to_be_bytes();
        if !matches!(address[0], 0 | 10 | 127 | 224..) && seen.insert(address) {
            callers.push(address);
        }
    }
    Ok(callers.iter().map(|[a, b, c, d]| format!("{a}.{b}.{c}.{d}/32")).collect())
}

/// The published senders, read from the shipped file.
pub(crate) fn safaricom() -> Result<Vec<[u8; 4]>> {
    let text = shipped("safaricom.yaml")?;
    let uncommented = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = uncommented.flat_map(|line| line.split([' ', ',', '[', ']', '-']));
    Ok(words.filter_map(|word| word.parse::<std::net::Ipv4Addr>().ok()).map(|host| host.octets()).collect())
}

/// Files of the policy; `callers.netset` is written beside them.
pub(crate) fn mpesa_fw() -> Result<[(&'static str, String); 2]> {
    let mut rules = shipped("dedicated.yaml")?;
    for (from, to) in [
        ("mode: observe", "mode: enforce"),
        ("interfaces: [default]", "interfaces: [eth0]"),
        ("sets:\n", "sets:\n  callers: { file: callers.netset }\n"),
        ("from: [safaricom]", "from: [safaricom, callers]"),
    ] {
        ensure!(rules.matches(from).count() == 1, "dedicated.yaml has not once {from:?}");
        rules = rules.replace(from, to);
    }
    Ok([("rules.yaml", rules), ("safaricom.yaml", shipped("safaricom.yaml")?)])
}

/// The rules of `dedicated.yaml` that can be said without state, at both netdev hooks; quick for callbacks and for what is
/// denied on their ports.
pub(crate) fn nft_netdev(callers: &[String]) -> String {
    let set = set(callers);
    format!(
        "table netdev guard {{
{set}  chain ingress {{
    type filter hook ingress device eth0 priority 0; policy drop;
    tcp dport {{ 443, 8443 }} ip saddr @callers counter accept
    tcp dport {{ 443, 8443 }} counter drop
    tcp dport 8080 ip saddr 10.0.0.0/8 counter accept
    tcp dport 22 ip saddr {{ 203.0.113.7, 198.51.100.0/28 }} counter accept
    icmp type echo-request limit rate 10/second counter accept
    ether type arp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    ip saddr 10.0.0.2 udp sport 53 counter accept
    counter drop
  }}
  chain egress {{
    type filter hook egress device eth0 priority 0; policy drop;
    tcp sport {{ 443, 8443 }} ip daddr @callers tcp flags & (syn | ack) != syn counter accept
    tcp sport 8080 ip daddr 10.0.0.0/8 tcp flags & (syn | ack) != syn counter accept
    tcp sport 22 ip daddr {{ 203.0.113.7, 198.51.100.0/28 }} tcp flags & (syn | ack) != syn counter accept
    icmp type echo-reply counter accept
    ether type arp accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
    ip daddr 10.0.0.2 udp dport 53 counter accept
    counter drop
  }}
}}
"
    )
}

/// As most hosts have it: the input hook, replies by connection tracking.
pub(crate) fn nft_input(callers: &[String]) -> String {
    let set = set(callers);
    format!(
        "table inet guard {{
{set}  chain input {{
    type filter hook input priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    tcp dport {{ 443, 8443 }} ip saddr @callers counter accept
    tcp dport {{ 443, 8443 }} counter drop
    tcp dport 8080 ip saddr 10.0.0.0/8 counter accept
    tcp dport 22 ip saddr {{ 203.0.113.7, 198.51.100.0/28 }} counter accept
    icmp type echo-request limit rate 10/second counter accept
    icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept
    counter drop
  }}
}}
"
    )
}

fn set(callers: &[String]) -> String {
    let elements = callers.join(", ");
    format!("  set callers {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {elements} }}; }}\n")
}

fn shipped(name: &str) -> Result<String> {
    let path = Path::new(SHIPPED_IN).join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}
