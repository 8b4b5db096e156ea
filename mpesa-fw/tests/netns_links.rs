//! Interfaces that do not hold still, and what others attach to them later.

mod support;

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};
use mpesa_fw_common::ABI_VERSION;
use support::{
    FENCE, Field, SOON, WEB, policy,
    traffic::{ASKED, CLOSED, KEPT, Traffic},
};
use testbed::{
    Answer, Curl, Firewall, Host, Namespace, attach_foreign_tc, attach_foreign_xdp, holds, ok, run,
};

fn ready(firewall: &Firewall<'_>, status: u16) -> bool {
    firewall.namespace.get(Firewall::METRICS, "/readyz").is_ok_and(|(answer, _)| answer == status)
}

fn protection(firewall: &Firewall<'_>) -> Result<String> {
    Ok(firewall.status()?["protection"].as_str().context("a word")?.to_owned())
}

/// Of interfaces: those at the cgroups' root stay with the agent.
fn links(firewall: &Firewall<'_>) -> Result<Vec<String>> {
    let directory = firewall.bpffs.join(format!("abi-{ABI_VERSION}/links"));
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>>>()?;
    names.retain(|name| {
        !["connections", "bypass", "makers", "connect4", "connect6", "sendmsg4", "sendmsg6"]
            .contains(&name.as_str())
    });
    names.sort();
    Ok(names)
}

/// Addresses and routes, which a link that was down or away has lost.
fn address(field: &Field) -> Result<()> {
    let (v4, gateway) = (field.host.place.v4, "203.0.113.1");
    field.host.namespace.sh(&format!(
        "ip address replace {v4}/24 dev eth0; ip link set eth0 up; ip route replace default via {gateway}"
    ))?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_link_that_flaps_is_judged_all_the_time() -> Result<()> {
    let field = Field::new()?;
    Traffic::during(&field, |traffic| {
        let (firewall, _agent) = field.protected(&policy(&[ASKED, CLOSED], &[KEPT]))?;
        let through = traffic.through();
        let programs = field.host.namespace.sh("ip link show eth0 | grep -o 'prog/xdp id [0-9]*'")?;
        for _ in 0..50 {
            field.host.namespace.sh("ip link set eth0 down")?;
            address(&field)?;
        }
        holds("carrier", SOON, || protection(&firewall).is_ok_and(|word| word == "enforcing"))?;
        traffic.connection()?;
        assert_eq!(traffic.through(), through, "nothing denied got through");
        let now = field.host.namespace.sh("ip link show eth0 | grep -o 'prog/xdp id [0-9]*'")?;
        assert_eq!(now, programs, "nothing was attached again");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_renamed_interface_stays_protected_until_a_reload_says_otherwise() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    let rename = |from: &str, to: &str| {
        field
            .host
            .namespace
            .sh(&format!("ip link set {from} down; ip link set {from} name {to}; ip link set {to} up"))
    };
    let back = || field.host.namespace.sh("ip route replace default via 203.0.113.1");
    rename("eth0", "wan0")?;
    back()?;
    holds("the loss of the name", SOON, || protection(&firewall).is_ok_and(|word| word == "incomplete"))?;
    assert!(field.is_enforced(), "the same card, judged as before");
    let status = firewall.status()?;
    assert_eq!(status["missing"][0], "eth0", "{status}");
    assert!(status["interfaces"].to_string().contains("wan0"), "{status}");
    // Another one takes the name: both are protected.
    field
        .host
        .namespace
        .sh("ip link add eth0 type veth peer name other; ip link set eth0 up; ip link set other up")?;
    holds("the new eth0", SOON, || ready(&firewall, 200))?;
    assert_eq!(links(&firewall)?, ["eth0-egress", "eth0-ingress", "wan0-egress", "wan0-ingress"]);
    assert!(field.is_enforced());
    field.host.namespace.sh("ip link delete eth0")?;
    holds("its pins to go", SOON, || links(&firewall).is_ok_and(|links| links.len() == 2))?;
    // The policy counts, and whoever reloads is told.
    firewall.policy(&policy(&[WEB, FENCE], &[]))?;
    let ran = firewall.ask(["reload"])?;
    assert!(ran.stdout.contains("wan0 is no longer protected"), "{}", ran.text());
    assert!(firewall.ask(["status"])?.stdout.contains("wan0"), "unprotected, and listed");
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_unprotected_interfaces", &[]), 1.0);
    rename("wan0", "eth0")?;
    back()?;
    holds("protection under the old name", SOON, || ready(&firewall, 200))?;
    assert!(field.is_enforced() && agent.process.running());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_interface_that_is_made_again_is_protected_at_once() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let mut times = Vec::new();
    for _ in 0..5 {
        field.network.router.sh(&format!("ip link delete {}", field.host.place.name))?;
        holds("its pins to go", SOON, || links(&firewall).is_ok_and(|links| links.is_empty()))?;
        let begun = Instant::now();
        field.network.link(&field.host)?;
        holds("its pins to come", SOON, || links(&firewall).is_ok_and(|links| links.len() == 2))?;
        times.push(begun.elapsed().as_millis());
        holds("readiness", SOON, || ready(&firewall, 200))?;
        assert!(field.is_enforced());
    }
    println!("protected after {times:?} ms, of which making the link takes some");
    assert!(times.iter().all(|time| *time < 3000), "{times:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_interface_that_moves_to_another_namespace_and_back_is_protected_again() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let elsewhere = Namespace::new("elsewhere")?;
    let before = field.host.namespace.sh("ip -o link show eth0 | cut -d: -f1")?;
    field.host.namespace.sh(&format!("ip link set eth0 netns {}", elsewhere.name()))?;
    holds("the loss to be noticed", SOON, || ready(&firewall, 503))?;
    // The name and the index are taken by another meanwhile.
    field.host.namespace.sh(&format!(
        "ip link add eth0 index {} type veth peer name other; ip link set eth0 up; ip link set other up",
        before.trim()
    ))?;
    holds("the other eth0 to be protected", SOON, || ready(&firewall, 200))?;
    let expected = if support::tc_ways().contains(&"tcx") { (1, 0) } else { (0, 1) };
    assert_eq!(support::at_tc(&field.host.namespace)?, expected, "the hook is on this one");
    let status = firewall.status()?;
    assert_eq!(status["interfaces"].as_array().map(Vec::len), Some(1), "{status}");
    field.host.namespace.sh("ip link delete eth0")?;
    holds("the loss to be noticed", SOON, || ready(&firewall, 503))?;
    elsewhere.sh(&format!("ip link set eth0 netns {}", field.host.namespace.name()))?;
    address(&field)?;
    holds("it to be protected again", SOON, || ready(&firewall, 200))?;
    assert!(field.is_enforced());
    let counted = firewall.metrics()?.sum("mpesa_fw_dropped_packets_total", &[("interface", "eth0")]);
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    let now = firewall.metrics()?.sum("mpesa_fw_dropped_packets_total", &[("interface", "eth0")]);
    assert!(now > counted, "it is counted too: {counted} then {now}");
    // Away for good: the next reload lets go of it there.
    field.host.namespace.sh(&format!("ip link set eth0 netns {}", elsewhere.name()))?;
    holds("the loss to be noticed", SOON, || ready(&firewall, 503))?;
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert_eq!(support::at_tc(&elsewhere)?, (0, 0));
    let left = elsewhere.sh("ip link show eth0")?;
    assert!(!left.contains("xdp"), "{left}");
    assert_eq!(links(&firewall)?, [] as [String; 0]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_others_attach_later_takes_nothing_from_us() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let bpffs = firewall.bpffs.parent().context("a mount point")?;
    assert!(attach_foreign_xdp(&field.host, bpffs).is_err(), "the link keeps its place");
    let pin = bpffs.join("foreign-xdp");
    for mode in ["xdpgeneric", "xdpdrv"] {
        let mut attach = field.host.namespace.command("bpftool");
        attach.args(["net", "attach", mode, "pinned"]).arg(&pin).args(["dev", Host::INTERFACE]);
        let ran = run(&mut attach)?;
        assert_ne!(ran.code, Some(0), "{mode}: {}", ran.text());
        let mut off = field.host.namespace.command("ip");
        off.args(["link", "set", "dev", "eth0", mode, "off"]);
        run(&mut off)?;
        assert!(field.is_enforced(), "{mode}");
    }
    attach_foreign_tc(&field.host, bpffs)?;
    assert!(field.is_enforced());
    assert_eq!(
        firewall.metrics()?.sum("mpesa_fw_enforcing", &[]),
        2.0,
        "a filter after ours decides nothing"
    );
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    assert!(field.is_enforced());
    assert_eq!(protection(&firewall)?, "enforcing");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn more_changes_than_the_socket_holds_are_read_again() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    // While the agent can't listen, a thousand interfaces come and go, and last an address that matters.
    let batch: String =
        (0..1500).map(|n| format!("address add 10.77.{}.{}/32 dev lo\n", n / 250, 1 + n % 250)).collect();
    let batch = firewall.write("batch", &format!("{batch}address add 10.78.0.1/32 dev eth0\n"))?;
    agent.process.signal(nix::sys::signal::Signal::SIGSTOP)?;
    let filled = (0..4).try_for_each(|_| {
        ok(field.host.namespace.command("ip").arg("-batch").arg(&batch))?;
        field
            .host
            .namespace
            .sh("ip address flush dev lo scope global; ip address delete 10.78.0.1/32 dev eth0")?;
        Ok::<_, anyhow::Error>(())
    });
    let last = field.host.namespace.sh("ip address add 10.78.0.9/32 dev eth0");
    agent.process.signal(nix::sys::signal::Signal::SIGCONT)?;
    filled?;
    last?;
    agent.process.wait_for_log("too many changes", SOON)?;
    // What comes from an own address is spoofed: the agent knows of it.
    let before = firewall.metrics()?;
    let mut wire = field.wire()?;
    holds("the new address to be known", SOON, || {
        wire.send(&[("own", "to_host()/IP(src='10.78.0.9',dst=H4)/UDP(sport=9,dport=53)")]).is_ok_and(|_| {
            firewall.metrics().is_ok_and(|now| {
                now.dropped("ingress", "", "spoofed") > before.dropped("ingress", "", "spoofed")
            })
        })
    })?;
    assert!(field.is_enforced() && protection(&firewall)? == "enforcing");
    Ok(())
}
