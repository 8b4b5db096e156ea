//! Programs are refused to connect where the agent knows by which way packets would leave, and only there.

mod support;

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::{Field, SOON};
use testbed::{Firewall, Host, Namespace, holds, ok};

/// Longer than a lease, with some patience.
const LEASE_ENDS: Duration = Duration::from_secs(20);
/// Longer than what changes without a sign is left alone.
const LOOKED_AGAIN: Duration = Duration::from_secs(12);
/// Behind eth0, which is protected, and nobody may go there.
const DENIED: &str = "198.51.100.66";
const DENIED6: &str = "2001:db8:0:666::66";

/// A policy that refuses at connect what it denies: the default.
fn policy(allow: &[&str]) -> String {
    support::telling(&[], allow)
}

/// What a program hears that connects, or sends a datagram: `EPERM` at once, or whatever else, in time or not.
fn hears(namespace: &Namespace, what: &str, to: &str) -> Result<String> {
    let act = if what == "tcp" { "s.connect((to, 443))" } else { "s.sendto(b'x', (to, 5514))" };
    let kind = if what == "tcp" { "SOCK_STREAM" } else { "SOCK_DGRAM" };
    let script = format!(
        "import errno, socket, time\nto = '{to}'\n\
         s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.{kind})\ns.settimeout(0.3)\n\
         begin = time.monotonic()\n\
         try:\n    {act}\n    print('went on')\n\
         except TimeoutError:\n    print('silence')\n\
         except OSError as e:\n    print(errno.errorcode[e.errno] + (' late' if time.monotonic() - begin > 0.2 else ''))"
    );
    let mut command: Command = namespace.command("/usr/bin/python3");
    Ok(ok(command.args(["-c", &script]))?.trim().to_owned())
}

/// TC drops the SYN without a word: only what is refused at connect hears EPERM from `connect`.
fn is_refused(namespace: &Namespace, to: &str) -> bool {
    hears(namespace, "tcp", to).is_ok_and(|heard| heard == "EPERM")
}

fn attempts(firewall: &Firewall<'_>) -> Result<(bool, String)> {
    let status = firewall.status()?;
    let attempts = &status["attempts"];
    let refused = attempts["refused_at_connect"].as_bool().context("no `refused_at_connect`")?;
    let doubts = attempts["doubts"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok((refused, doubts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")))
}

fn vouches(firewall: &Firewall<'_>) -> bool {
    attempts(firewall).is_ok_and(|(refused, _)| refused)
}

fn doubts(firewall: &Firewall<'_>, of: &str) -> bool {
    attempts(firewall).is_ok_and(|(refused, doubts)| !refused && doubts.contains(of))
}

/// A second interface, which the policy does not name, with somebody at its other end.
struct Aside {
    other: Namespace,
}

impl Aside {
    fn new(host: &Host) -> Result<Self> {
        let other = Namespace::new("aside")?;
        host.namespace.sh(&format!(
            "ip link add aside type veth peer name eth0 netns {}
             ip address add 10.99.0.1/24 dev aside
             ip -6 address add 2001:db8:99::1/64 dev aside nodad
             ip link set aside up",
            other.name()
        ))?;
        other.sh("ip address add 10.99.0.2/24 dev eth0
                  ip -6 address add 2001:db8:99::2/64 dev eth0 nodad
                  ip link set eth0 up")?;
        Ok(Self { other })
    }
}

#[test]
#[ignore = "needs root and a kernel"]
fn only_by_protected_interfaces() -> Result<()> {
    let field = Field::new()?;
    let aside = Aside::new(&field.host)?;
    let here = &field.host.namespace;
    let (firewall, mut agent) = field.protected(&policy(&[]))?;
    holds("to be vouched for", SOON, || vouches(&firewall))?;
    let table = firewall.ask(["status"])?.stdout;
    assert!(table.contains("at connect: what is denied is refused at once"), "{table}");

    for (what, to) in [("tcp", DENIED), ("tcp", DENIED6), ("udp", DENIED), ("udp", DENIED6)] {
        assert_eq!(hears(here, what, to)?, "EPERM", "{what} {to}");
    }
    // Somebody answers there (with RST), or nobody does; no rule is asked.
    for to in ["10.99.0.2", "2001:db8:99::2", "127.0.0.1", "::1", "203.0.113.10"] {
        assert_eq!(hears(here, "tcp", to)?, "ECONNREFUSED", "{to}");
    }
    assert_eq!(hears(&aside.other, "tcp", "10.99.0.1")?, "ECONNREFUSED", "another namespace is no matter");

    // Routes come and go.
    for (family, to, via, outer) in [
        ("-4", DENIED, "10.99.0.2", "198.51.100.0/24"),
        ("-6", DENIED6, "2001:db8:99::2", "2001:db8:0:666::/64"),
    ] {
        // Vouched for again, and not refused there.
        let only_elsewhere = || {
            holds("a refusal of another", SOON, || is_refused(here, "192.0.2.80"))?;
            assert!(!is_refused(here, to), "{to}");
            Ok::<_, anyhow::Error>(())
        };
        here.sh(&format!("ip {family} route add {outer} via {via}"))?;
        holds("no refusal by the new way", SOON, || !is_refused(here, to))?;
        only_elsewhere()?;
        here.sh(&format!("ip {family} route del {outer}"))?;
        holds("a refusal by the old way", SOON, || is_refused(here, to))?;
        // Several next hops that are not all protected.
        here.sh(&format!(
            "ip {family} route add {outer} nexthop via {via} nexthop via {}",
            if family == "-4" { "203.0.113.1" } else { "2001:db8:0:113::1" }
        ))?;
        holds("no refusal by two ways", SOON, || !is_refused(here, to))?;
        only_elsewhere()?;
        here.sh(&format!("ip {family} route del {outer}"))?;
        holds("a refusal again", SOON, || is_refused(here, to))?;
    }
    // The interface goes down and takes its route along without a word.
    here.sh("ip route add 198.51.100.0/24 via 10.99.0.2")?;
    holds("no refusal by the new way", SOON, || !is_refused(here, DENIED))?;
    here.sh("ip link set aside down")?;
    holds("a refusal by the old way", SOON, || is_refused(here, DENIED))?;

    // Nobody is there to vouch.
    agent.process.kill()?;
    holds("the lease to end", LEASE_ENDS, || !is_refused(here, DENIED))?;
    assert_eq!(hears(here, "tcp", DENIED)?, "silence", "TC drops all the same");
    // The next one vouches again, and does not when it is told to end.
    let agent = firewall.start(&["--force"])?;
    holds("a refusal again", SOON, || is_refused(here, DENIED))?;
    agent.process.signal(nix::sys::signal::Signal::SIGTERM)?;
    holds("no refusal after its end", Duration::from_secs(3), || !is_refused(here, DENIED))?;
    Ok(())
}

/// Docker has a rule in the chain for what this host sends, for its own addresses only. By nftables since its version 29, by iptables before.
#[test]
#[ignore = "needs root and a kernel"]
fn what_docker_translates_is_no_doubt() -> Result<()> {
    let field = Field::new()?;
    let here = &field.host.namespace;
    let (firewall, _agent) = field.protected(&policy(&[]))?;
    holds("a refusal", SOON, || is_refused(here, DENIED))?;
    let ways = [
        (
            "nft add table ip docker-bridges
             nft add chain ip docker-bridges nat-prerouting-and-output
             nft add rule ip docker-bridges nat-prerouting-and-output tcp dport 8080 counter dnat to 172.17.0.2:80
             nft add chain ip docker-bridges nat-OUTPUT '{ type nat hook output priority -100; }'
             nft add rule ip docker-bridges nat-OUTPUT ip daddr != 127.0.0.0/8 fib daddr type local counter jump nat-prerouting-and-output",
            "nft add rule ip docker-bridges nat-OUTPUT tcp dport 443 dnat to 172.17.0.2:80",
            "nft delete table ip docker-bridges",
        ),
        (
            "iptables-nft -t nat -N DOCKER
             iptables-nft -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
             iptables-nft -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
            "iptables-nft -t nat -A OUTPUT -p tcp --dport 443 -j DNAT --to-destination 172.17.0.2:80",
            "nft delete table ip nat",
        ),
    ];
    for (dockers, of_others, gone) in ways {
        here.sh(dockers)?;
        std::thread::sleep(Duration::from_secs(6));
        assert!(is_refused(here, DENIED) && vouches(&firewall), "{dockers}");
        here.sh(of_others)?;
        holds("no refusal with a translation", LOOKED_AGAIN, || !is_refused(here, DENIED))?;
        holds("the doubt in status", SOON, || doubts(&firewall, "nftables"))?;
        here.sh(gone)?;
        holds("a refusal without it", LOOKED_AGAIN, || is_refused(here, DENIED))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn not_in_doubt() -> Result<()> {
    let field = Field::new()?;
    let here = &field.host.namespace;
    let (firewall, _agent) = field.protected(&policy(&[]))?;
    holds("a refusal", SOON, || is_refused(here, DENIED))?;

    for family in ["-4", "-6"] {
        here.sh(&format!("ip {family} rule add fwmark 7 lookup 100"))?;
        holds("no refusal with a rule", SOON, || !is_refused(here, DENIED))?;
        holds("the doubt in status", SOON, || doubts(&firewall, "ip rule"))?;
        let table = firewall.ask(["status"])?.stdout;
        assert!(table.contains("at connect: nothing is refused"), "{table}");
        here.sh(&format!("ip {family} rule del fwmark 7 lookup 100"))?;
        holds("a refusal without it", SOON, || is_refused(here, DENIED))?;
    }

    // Of nftables nobody tells: it is looked at every few seconds.
    if here.sh("nft add table ip t").is_err() {
        testbed::left_out("a chain of type nat", "this kernel has no nftables");
    } else {
        here.sh("nft add chain ip t out '{ type nat hook output priority -100; }'")?;
        std::thread::sleep(Duration::from_secs(6));
        assert!(is_refused(here, DENIED), "an empty one translates nothing");
        here.sh("nft add rule ip t out ip daddr 192.0.2.1 dnat to 10.0.0.1")?;
        holds("no refusal with a translation", LOOKED_AGAIN, || !is_refused(here, DENIED))?;
        holds("the doubt in status", SOON, || doubts(&firewall, "nftables"))?;
        here.sh("nft delete table ip t")?;
        holds("a refusal without it", LOOKED_AGAIN, || is_refused(here, DENIED))?;
    }

    let selector = "src 203.0.113.0/24 dst 198.51.100.0/24 dir out";
    let policy_of_ipsec =
        format!("ip xfrm policy add {selector} tmpl src 203.0.113.10 dst 192.0.2.1 proto esp mode tunnel");
    if here.sh(&policy_of_ipsec).is_err() {
        testbed::left_out("a policy of IPsec", "this kernel has no XFRM");
    } else {
        holds("no refusal with IPsec", LOOKED_AGAIN, || doubts(&firewall, "IPsec"))?;
        assert!(!is_refused(here, DENIED));
        here.sh(&format!("ip xfrm policy delete {selector}"))?;
        holds("a refusal without it", LOOKED_AGAIN, || is_refused(here, DENIED))?;
    }

    // Another policy.
    let pass = support::policy(&[], &[]);
    firewall.reload(&pass)?;
    holds("the policy in status", SOON, || doubts(&firewall, "at_connect: pass"))?;
    assert!(!is_refused(here, DENIED));
    firewall.reload(&policy(&[]))?;
    holds("a refusal again", SOON, || is_refused(here, DENIED))?;
    // What is allowed is not refused, at once.
    let api = "{ name: all, to: [198.51.100.66], ports: [443] }";
    firewall.reload(&policy(&[api]))?;
    assert!(!is_refused(here, DENIED));

    let detached = firewall.ask(["detach"])?;
    assert_eq!(detached.code, Some(0), "{}", detached.text());
    assert!(!is_refused(here, "192.0.2.80"));
    Ok(())
}

/// Routes come and go while programs connect: none is refused that would have gone by the other interface.
#[test]
#[ignore = "needs root and a kernel"]
fn never_by_a_route_that_is_gone() -> Result<()> {
    let field = Field::new()?;
    let _aside = Aside::new(&field.host)?;
    let here = &field.host.namespace;
    let (firewall, _agent) = field.protected(&policy(&[]))?;
    holds("to be vouched for", SOON, || vouches(&firewall))?;
    for round in 0..8 {
        holds("a refusal", SOON, || is_refused(here, DENIED))?;
        // Long enough for the agent not to take it for one of many changes.
        std::thread::sleep(Duration::from_millis(600));
        here.sh("ip route add 198.51.100.0/24 via 10.99.0.2")?;
        // What the agent needs to hear of it, on a machine that has other things to do.
        std::thread::sleep(Duration::from_millis(100));
        assert!(!is_refused(here, DENIED), "round {round}: refused although it leaves elsewhere");
        here.sh("ip route del 198.51.100.0/24")?;
    }
    // Many changes: nothing is vouched for until they have come to rest.
    for _ in 0..10 {
        here.sh("ip route add 198.51.100.0/24 via 10.99.0.2")?;
        std::thread::sleep(Duration::from_millis(50));
        assert!(!is_refused(here, DENIED), "refused although it leaves elsewhere");
        here.sh("ip route del 198.51.100.0/24")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    holds("a refusal", SOON, || is_refused(here, DENIED))?;
    Ok(())
}

/// Many routes are told, and too many are not: nothing of them is.
#[test]
#[ignore = "needs root and a kernel"]
fn routes_of_a_router() -> Result<()> {
    let field = Field::new()?;
    let _aside = Aside::new(&field.host)?;
    let here = &field.host.namespace;
    let (firewall, _agent) = field.protected(&policy(&[]))?;
    holds("a refusal", SOON, || is_refused(here, DENIED))?;
    let change = |verb: &str, first: u32, count: u32| -> Result<()> {
        let one = |number: u32| {
            let [_, a, b, c] = (number << 4).to_be_bytes();
            format!("route {verb} 11.{a}.{b}.{c}/28 via 10.99.0.2\n")
        };
        let path = firewall.write("routes", &(first..first + count).map(one).collect::<String>())?;
        here.sh(&format!("ip -batch {}", path.display())).map(drop)
    };
    change("add", 0, 10_000)?;
    holds("a refusal with many routes", SOON, || is_refused(here, DENIED))?;
    assert!(!is_refused(here, "11.0.0.1"), "one of them");
    change("add", 10_000, 7_000)?;
    holds("no refusal with too many", SOON, || doubts(&firewall, "room for 16384"))?;
    assert!(!is_refused(here, DENIED));
    change("del", 10_000, 7_000)?;
    holds("a refusal again", SOON, || is_refused(here, DENIED))?;
    assert!(!is_refused(here, "11.0.0.1"), "one of them");
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_tampering_total", &[]), 0.0, "the agent's own work");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn agents_of_two_namespaces() -> Result<()> {
    let field = Field::new()?;
    let (one, two) = (&field.host.namespace, &field.safaricom.namespace);
    let (first, mut agent) = field.protected(&policy(&[]))?;
    holds("a refusal in the first", SOON, || is_refused(one, DENIED))?;
    assert_ne!(hears(two, "tcp", DENIED)?, "EPERM", "without an agent nobody is refused");
    let second = Firewall::new(&field.network, two, env!("CARGO_BIN_EXE_mpesa-fw"))?;
    second.policy(&policy(&["{ name: all, to: [198.51.100.66], ports: [443] }"]))?;
    let _other = second.start(&["--force"])?;
    holds("a refusal in the second", SOON, || is_refused(two, "192.0.2.80"))?;
    assert_eq!(hears(two, "tcp", DENIED)?, "ECONNREFUSED", "its own policy allows that");
    assert!(is_refused(one, DENIED) && vouches(&first) && vouches(&second));
    // Its doubts and its end are its own.
    two.sh("ip rule add fwmark 7 lookup 100")?;
    holds("a doubt in the second", SOON, || doubts(&second, "ip rule"))?;
    assert!(!is_refused(two, "192.0.2.80") && is_refused(one, DENIED) && vouches(&first));
    two.sh("ip rule del fwmark 7 lookup 100")?;
    holds("a refusal in the second", SOON, || is_refused(two, "192.0.2.80"))?;
    agent.process.kill()?;
    holds("the lease of the first to end", LEASE_ENDS, || !is_refused(one, DENIED))?;
    assert!(is_refused(two, "192.0.2.80") && vouches(&second));
    Ok(())
}
