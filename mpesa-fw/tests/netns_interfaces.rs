//! Which interfaces are protected, and how, while they come and go.

mod support;

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use support::{FENCE, Field, SOON, WEB, policy};
use testbed::{Answer, Curl, Firewall, Host, Started, attach_foreign_xdp, holds, ok, place};

fn get(field: &Field, from: &Host) -> Answer {
    Curl::http(field.host.place.v4, 80).from(&from.namespace)
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_native_mode_is_named() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    agent.process.wait_for_log("enforcing", SOON)?;
    let status = firewall.ask(["status"])?.stdout;
    assert!(status.contains("enforcing") && status.contains("eth0") && status.contains("native"), "{status}");
    assert_eq!(
        firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth0")]),
        2.0,
        "both directions"
    );
    let json = firewall.status()?.to_string();
    assert!(json.contains("eth0") && json.contains("native"), "{json}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_generic_mode_is_named_and_works() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let _agent = firewall.start(&["--xdp", "generic"])?;
    let status = firewall.ask(["status"])?.stdout;
    assert!(status.contains("generic"), "{status}");
    assert!(get(&field, &field.safaricom).is_ok());
    assert_eq!(get(&field, &field.attacker), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_foreign_program_is_kept_and_tc_stands_in() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    attach_foreign_xdp(&field.host, firewall.bpffs.parent().expect("it has one"))?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let _agent = firewall.start(&[])?;
    assert!(ok(field.host.namespace.command("bpftool").args(["prog", "show"]))?.contains("foreign"));
    assert!(
        ok(field.host.namespace.command("ip").args(["-details", "link", "show", "eth0"]))?.contains("xdp")
    );
    for address in field.addresses() {
        assert!(Curl::http(address, 80).from(&field.safaricom.namespace).is_ok());
        assert_eq!(Curl::http(address, 80).from(&field.attacker.namespace), Answer::Silence);
    }
    let status = firewall.ask(["status"])?.text().to_lowercase();
    assert!(status.contains("tc") && status.contains("foreign"), "{status}");
    let metrics = firewall.metrics()?;
    assert!(metrics.dropped("ingress", "web", "source_not_allowed") > 0.0);
    let judged = |kind| {
        metrics.has("mpesa_fw_hook_info", &[("interface", "eth0"), ("direction", "ingress"), ("kind", kind)])
    };
    assert!(judged("tc_ingress") && !judged("xdp_native"), "a metric tells that TC stands in");

    // Also after a reload.
    firewall.reload(&policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    assert_eq!(get(&field, &field.attacker), Answer::Silence);
    assert!(get(&field, &field.safaricom).is_ok());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn xdp_required_refuses_where_the_hook_is_taken() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let firewall = field.firewall()?;
    attach_foreign_xdp(&field.host, firewall.bpffs.parent().expect("it has one"))?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let ran = firewall.run(&["--xdp", "required"])?;
    assert_eq!(ran.code, Some(4), "{}", ran.text());
    assert!(ran.stderr.contains("eth0"), "{}", ran.stderr);
    assert!(get(&field, &field.attacker).is_ok(), "nothing is half-attached");
    let tc = ok(field.host.namespace.command("bpftool").args(["net", "show"]))?;
    assert!(!tc.contains("tcx"), "{tc}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn an_interface_that_comes_back_is_protected_again() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let before = firewall.metrics()?;
    for _ in 0..2 {
        field.network.router.sh(&format!("ip link delete {}", field.host.place.name))?;
        holds("the loss to be noticed", SOON, || {
            firewall
                .metrics()
                .is_ok_and(|metrics| metrics.sum("mpesa_fw_enforcing", &[("interface", "eth0")]) == 0.0)
        })?;
        holds("not to be ready", SOON, || {
            firewall.namespace.get(Firewall::METRICS, "/readyz").is_ok_and(|(status, _)| status == 503)
        })?;
        field.network.link(&field.host)?;
        holds("protection", SOON, || {
            firewall.namespace.get(Firewall::METRICS, "/readyz").is_ok_and(|(status, _)| status == 200)
        })?;
        assert_eq!(get(&field, &field.attacker), Answer::Silence);
        assert!(get(&field, &field.safaricom).is_ok());
    }
    assert_eq!(firewall.metrics()?.went_back(&before), [] as [String; 0]);
    firewall.reload(&policy(&[WEB, "{ name: more, ports: [81], from: [any] }"], &[]))?;
    assert_eq!(get(&field, &field.attacker), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_named_interface_that_is_missing_is_waited_for() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]).replace("[eth0]", "[eth0, eth1]"))?;
    let mut agent = firewall.spawn(&[])?;
    holds("the agent to answer", SOON, || {
        firewall.namespace.get(Firewall::METRICS, "/readyz").is_ok_and(|(status, _)| status == 503)
    })?;
    agent.process.wait_for_log("eth1", SOON)?;
    assert_eq!(
        firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth0")]),
        2.0,
        "what is there is protected"
    );
    field
        .host
        .namespace
        .sh("ip link add eth1 type veth peer name other; ip link set eth1 up; ip link set other up")?;
    holds("readiness", SOON, || {
        firewall.namespace.get(Firewall::METRICS, "/readyz").is_ok_and(|(status, _)| status == 200)
    })?;
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth1")]), 2.0);
    agent.process.wait_for_log("enforcing", SOON)?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn globs_match_what_appears_later_but_no_veth() -> Result<()> {
    let field = Field::new()?;
    field.host.namespace.sh(
        "ip tuntap add mode tap name ext0; ip link set ext0 up; ip link add extv type veth peer name extw",
    )?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]).replace("[eth0]", "[\"e*\"]"))?;
    let _agent = firewall.start(&[])?;
    let enforcing = |name: &str| {
        firewall.metrics().map(|metrics| metrics.sum("mpesa_fw_enforcing", &[("interface", name)]))
    };
    assert_eq!(enforcing("ext0")?, 2.0);
    assert_eq!(enforcing("eth0")? + enforcing("extv")? + enforcing("extw")?, 0.0, "veth");
    // eth0 carries addresses and is not protected: said, and counted.
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_unprotected_interfaces", &[]), 1.0);
    assert!(firewall.ask(["status"])?.stdout.contains("eth0"));
    field.host.namespace.sh("ip tuntap add mode tap name ext1; ip link set ext1 up")?;
    holds("the new interface to be protected", SOON, || enforcing("ext1").is_ok_and(|sum| sum == 2.0))?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn interfaces_that_stand_on_each_other_judge_twice_and_it_is_said() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    // As a VLAN would, which not every kernel that tests run on has. Each interface answers for its own address alone.
    field.host.namespace.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1
         ip link add link eth0 name eth0.10 type macvlan mode bridge
         ip address add 10.10.0.2/24 dev eth0.10; ip link set eth0.10 up")?;
    field.network.router.sh(&format!("ip address add 10.10.0.1/24 dev {}", field.host.place.name))?;
    let open = policy(&["{ name: web, ports: [80], from: [any] }"], &[]);
    let (firewall, mut agent) = field.protected(&open.replace("[eth0]", "[eth0, \"eth0.*\"]"))?;
    agent.process.wait_for_log("each packet of eth0.10 is judged", SOON)?;
    let warned = |status: &str| {
        status
            .lines()
            .any(|line| line.starts_with("  ! each packet of eth0.10") && line.contains("passes eth0 too"))
    };
    let status = firewall.ask(["status"])?.stdout;
    assert!(warned(&status), "{status}");
    let ask = || Curl::http(std::net::Ipv4Addr::new(10, 10, 0, 2), 80).from(&field.network.router);
    assert!(ask().is_ok());
    let passed = |name: &str| {
        firewall.metrics().map(|metrics| {
            metrics.sum("mpesa_fw_passed_packets_total", &[("interface", name), ("direction", "ingress")])
        })
    };
    assert!(passed("eth0")? > 0.0 && passed("eth0.10")? > 0.0, "twice, as it is said");
    // As it was told to: once.
    firewall.reload(&open)?;
    let status = firewall.ask(["status"])?.stdout;
    assert!(!warned(&status), "{status}");
    let before = passed("eth0.10")?;
    assert!(ask().is_ok() && passed("eth0.10")? == before);
    assert_eq!(agent.process.log().matches("each packet of eth0.10").count(), 1, "{}", agent.process.log());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn default_is_the_interface_of_the_default_route() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    field.host.namespace.sh(
        "ip link add lan0 type veth peer name lan1; ip address add 10.9.9.9/24 dev lan0; ip link set lan0 up",
    )?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]).replace("[eth0]", "[default]"))?;
    assert_eq!(get(&field, &field.attacker), Answer::Silence);
    let metrics = firewall.metrics()?;
    assert_eq!(metrics.sum("mpesa_fw_enforcing", &[("interface", "eth0")]), 2.0);
    assert_eq!(metrics.sum("mpesa_fw_enforcing", &[("interface", "lan0")]), 0.0);
    assert_eq!(metrics.sum("mpesa_fw_unprotected_interfaces", &[]), 1.0);
    Ok(())
}

/// A tunnel takes the default route, and nothing can be judged there.
#[test]
#[ignore = "needs root and a kernel"]
fn a_default_route_that_can_not_be_judged_lets_nothing_go() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let here = &field.host.namespace;
    here.sh("ip tuntap add mode tun name tun7; ip address add 10.8.0.2/24 dev tun7; ip link set tun7 up
        ip route add 196.201.214.0/24 via 203.0.113.1; ip route add 198.51.100.0/24 via 203.0.113.1")?;
    let rules = policy(&[WEB], &[]).replace("[eth0]", "[default]");
    let (firewall, mut agent) = field.protected(&rules)?;
    let keeps = |agent: &mut Started, what: &str| -> Result<()> {
        agent.process.wait_for_log("tun7 can't be protected", SOON)?;
        sleep(Duration::from_secs(1));
        let enforcing = firewall.metrics()?.sum("mpesa_fw_enforcing", &[("interface", "eth0")]);
        ensure!(enforcing == 2.0, "{what}: {}", agent.process.log());
        ensure!(
            get(&field, &field.attacker) == Answer::Silence && get(&field, &field.safaricom).is_ok(),
            "{what}"
        );
        Ok(())
    };
    here.sh("ip route replace default dev tun7; ip -6 route delete default")?;
    keeps(&mut agent, "it moved there")?;
    firewall.reload(&policy(&[WEB, FENCE], &[]).replace("[eth0]", "[default]"))?;
    keeps(&mut agent, "a reload")?;
    // As at boot: no default route yet, then only that one.
    agent.process.kill()?;
    std::fs::remove_file(firewall.directory.join("state/defaults.json"))?;
    here.sh("ip route delete default")?;
    let mut agent = firewall.start(&[])?;
    here.sh("ip route add default dev tun7")?;
    keeps(&mut agent, "it came first")
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_restart_without_a_default_route_keeps_what_is_protected() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    field.host.namespace.sh(
        "ip link add lan0 type veth peer name lan1; ip address add 10.9.9.9/24 dev lan0; ip link set lan0 up
         ip route add 196.201.214.0/24 via 203.0.113.1; ip route add 198.51.100.0/24 via 203.0.113.1",
    )?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]).replace("[eth0]", "[default]"))?;
    let enforcing = |name: &str| {
        firewall.metrics().map(|metrics| metrics.sum("mpesa_fw_enforcing", &[("interface", name)]))
    };
    let saved = firewall.directory.join("state/defaults.json");
    for is_remembered in [true, false] {
        holds("the default route to be remembered", SOON, || saved.exists())?;
        agent.process.kill()?;
        // A lease has run out, a cable is out.
        field.host.namespace.sh("ip route delete default; ip -6 route delete default")?;
        if !is_remembered {
            std::fs::remove_file(&saved)?;
        }
        agent = firewall.start(&[])?;
        assert_eq!((enforcing("eth0")?, enforcing("lan0")?), (2.0, 0.0), "remembered: {is_remembered}");
        assert!(get(&field, &field.safaricom).is_ok(), "the host can answer");
        assert_eq!(get(&field, &field.attacker), Answer::Silence);
        firewall.reload(&policy(&[WEB, FENCE], &[]).replace("[eth0]", "[default]"))?;
        assert_eq!(get(&field, &field.attacker), Answer::Silence, "nor does a reload open it");
        field
            .host
            .namespace
            .sh("ip route add default via 203.0.113.1; ip -6 route add default via 2001:db8:0:113::1")?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!((enforcing("eth0")?, enforcing("lan0")?), (2.0, 0.0));
        assert_eq!(get(&field, &field.attacker), Answer::Silence);
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn interfaces_without_ethernet_are_refused_by_name() -> Result<()> {
    let field = Field::new()?;
    field.host.namespace.sh("ip tuntap add mode tun name tun7; ip link set tun7 up")?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]).replace("[eth0]", "[eth0, tun7]"))?;
    let ran = firewall.run(&[])?;
    assert_eq!(ran.code, Some(1), "{}", ran.text());
    assert!(ran.stderr.contains("tun7"), "{}", ran.stderr);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn several_interfaces_have_counts_of_their_own() -> Result<()> {
    let field = Field::new()?;
    let lan = field.network.add(place::INTRANET)?;
    // A second leg, straight to the intranet machine.
    field.host.namespace.sh(&format!(
        "ip link add eth1 type veth peer name direct netns {}
         ip address add 10.30.0.1/24 dev eth1; ip link set eth1 up",
        lan.namespace.name()
    ))?;
    lan.namespace.sh("ip address add 10.30.0.2/24 dev direct; ip link set direct up")?;
    let _web = field.web(&[80])?;
    let rules = policy(&["{ name: web, ports: [80], from: [10.30.0.2, 196.201.214.200] }"], &[])
        .replace("[eth0]", "[eth0, eth1]");
    let (firewall, _agent) = field.protected(&rules)?;
    assert!(Curl::http(std::net::Ipv4Addr::new(10, 30, 0, 1), 80).patience(3.0).from(&lan.namespace).is_ok());
    let passed = |name: &str| {
        firewall.metrics().map(|metrics| {
            metrics.sum(
                "mpesa_fw_passed_packets_total",
                &[("interface", name), ("rule", "web"), ("direction", "ingress")],
            )
        })
    };
    assert!(passed("eth1")? > 0.0);
    assert_eq!(passed("eth0")?, 0.0);
    assert!(get(&field, &field.safaricom).is_ok());
    assert!(passed("eth0")? > 0.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn more_addresses_than_fit_do_not_keep_an_interface_from_protection() -> Result<()> {
    let field = Field::new()?;
    let (firewall, mut agent) =
        field.protected(&policy(&[WEB], &[]).replace("[eth0]", "[eth0, \"ext*\"]"))?;
    // One more than the table of own addresses holds.
    field.host.namespace.sh(
        "for a in $(seq 0 16); do for b in $(seq 0 255); do echo address add 10.99.$a.$b/32 dev lo; done; done | ip -batch -",
    )?;
    agent.process.wait_for_log("the table holds 4096", SOON)?;
    field.host.namespace.sh("ip tuntap add mode tap name ext0; ip link set ext0 up")?;
    holds("the new interface to be protected", SOON, || {
        firewall
            .metrics()
            .is_ok_and(|metrics| metrics.sum("mpesa_fw_enforcing", &[("interface", "ext0")]) == 2.0)
    })?;
    // Nor a policy from coming into force, or an agent from starting; it is said.
    let said = firewall.reload(&policy(&[WEB, FENCE], &[]).replace("[eth0]", "[eth0, \"ext*\"]"))?;
    ensure!(said.contains("the table holds 4096"), "{said}");
    agent.process.kill()?;
    let _agent = firewall.start(&[])?;
    ensure!(firewall.ask(["status"])?.stdout.contains("the table holds 4096"));
    Ok(())
}
