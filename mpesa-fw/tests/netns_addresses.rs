//! Which sources the host knows to be impossible, while its addresses come and go.

mod support;

use anyhow::{Context as _, Result};
use support::{FENCE, Field, SOON, drops, policy};
use testbed::{Firewall, Wire, eventually, holds};

/// Whoever has an address of these asks, so that only the source decides.
const NEAR: &str =
    "{ name: near, protocol: udp, ports: [53], from: [203.0.113.0/24, 10.0.0.0/8, \"2001:db8::/32\"] }";

/// Whether a packet from an address passes; else it is dropped as `spoofed` and for nothing else.
fn passes(firewall: &Firewall<'_>, wire: &mut Wire, source: &str) -> Result<bool> {
    let frame = if source.contains(':') {
        format!("to_host()/IPv6(src='{source}',dst=H6)/UDP(sport=4000,dport=53)")
    } else {
        format!("to_host()/IP(src='{source}',dst=H4)/UDP(sport=4000,dport=53)")
    };
    let before = firewall.metrics()?;
    let arrived = wire.send(&[("it", &frame)])?;
    let dropped = firewall.metrics()?.drops_since(&before);
    let expected = if arrived.is_empty() { drops([("ingress - spoofed", 1)]) } else { drops([]) };
    anyhow::ensure!(dropped == expected, "{source}: {dropped:?}");
    Ok(!arrived.is_empty())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_broadcast_address_of_a_subnet_of_ours_is_no_source() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[FENCE, NEAR], &[]))?;
    let mut wire = field.wire()?;
    assert!(!passes(&firewall, &mut wire, "203.0.113.255")?, "known from the start");
    assert!(passes(&firewall, &mut wire, "203.0.113.254")?, "a neighbour");
    // None of these has the last address of its prefix for a broadcast address.
    field.host.namespace.sh("ip address add 10.50.0.0/31 dev eth0
         ip address add 10.60.0.254/32 dev eth0
         ip address add 10.70.0.1 peer 10.70.0.2/24 dev eth0
         ip address add 10.80.0.5/24 dev eth0
         ip address add 10.90.0.5/25 broadcast 10.90.0.66 dev eth0")?;
    for (last, what) in [("10.80.0.255", "the last"), ("10.90.0.66", "given"), ("10.90.0.127", "the last")] {
        let known = || passes(&firewall, &mut wire, last).is_ok_and(|passes| !passes);
        holds(&format!("{last}, {what}, to be known"), SOON, known)?;
    }
    for other in ["10.50.0.1", "10.60.0.255", "10.70.0.255", "10.70.0.2", "10.90.0.255", "10.80.1.255"] {
        assert!(passes(&firewall, &mut wire, other)?, "{other}");
    }
    // It goes with the address.
    field.host.namespace.sh("ip address delete 10.80.0.5/24 dev eth0")?;
    holds("10.80.0.255 to be anybody's", SOON, || {
        passes(&firewall, &mut wire, "10.80.0.255").unwrap_or(false)
    })?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn addresses_of_ipv6_are_ours_as_long_as_the_kernel_says_so() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[FENCE, NEAR], &[]))?;
    let mut wire = field.wire()?;
    let host = &field.host.namespace;
    let mut becomes = |source: &str, ours: bool| {
        holds(&format!("{source} to be ours: {ours}"), SOON, || {
            passes(&firewall, &mut wire, source).is_ok_and(|passes| passes != ours)
        })
    };
    assert!(becomes("2001:db8:0:113::10", true).is_ok() && becomes("2001:db8:0:113::77", false).is_ok());

    // Privacy extensions (RFC 8981): the kernel makes another address of the same prefix.
    host.sh("sysctl -qw net.ipv6.conf.eth0.use_tempaddr=2
             ip address add 2001:db8:0:113::77/64 dev eth0 mngtmpaddr valid_lft 6000 preferred_lft 3000")?;
    let temporary = eventually("a temporary address", SOON, || {
        let shown = host.sh("ip -6 -o address show dev eth0 temporary").ok()?;
        Some(shown.split_whitespace().nth(3)?.split('/').next()?.to_owned())
    })?;
    becomes("2001:db8:0:113::77", true)?;
    becomes(&temporary, true)?;
    // Not to be used for new connections any more; those that are open go on.
    host.sh(&format!("ip address change {temporary}/64 dev eth0 valid_lft 3000 preferred_lft 0"))?;
    let shown = host.sh("ip -6 -o address show dev eth0 temporary")?;
    assert!(shown.contains("deprecated"), "{shown}");
    becomes(&temporary, true)?;
    host.sh(&format!("ip address delete {temporary}/64 dev eth0"))?;
    becomes(&temporary, false)?;

    // Its time runs out, and nobody deletes it.
    host.sh("ip address add 2001:db8:0:113::78/64 dev eth0 valid_lft 3 preferred_lft 2")?;
    becomes("2001:db8:0:113::78", true)?;
    becomes("2001:db8:0:113::78", false)?;

    // While duplicates are looked for it may be another's, who must be heard.
    host.sh("sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1
             sysctl -qw net.ipv6.conf.eth0.dad_transmits=3
             ip address add 2001:db8:0:113::79/64 dev eth0")?;
    std::thread::sleep(std::time::Duration::from_millis(500)); // the agent has heard of it
    becomes("2001:db8:0:113::79", false)?;
    let shown = host.sh("ip -6 -o address show dev eth0 tentative")?;
    shown.contains("::79").then_some(()).context("it was looked at while tentative")?;
    becomes("2001:db8:0:113::79", true)?;
    Ok(())
}
