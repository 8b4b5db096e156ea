//! The doctor finds what is wrong, and says what to do.

mod support;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::{Field, SOON, WEB, policy};
use testbed::{Curl, Firewall, holds, place, serve::Dnsmasq};

/// What was found of one kind.
fn found(firewall: &Firewall<'_>, more: &[&str]) -> Result<(Option<i32>, Vec<Value>)> {
    let rules = firewall.directory.join("rules.yaml");
    let mut command = firewall.ask_command(["doctor", "--format", "json", "--rules"]);
    command.arg(rules).arg("--bpffs").arg(&firewall.bpffs).args(more);
    let ran = testbed::run(&mut command)?;
    ensure!(matches!(ran.code, Some(0 | 1)), "{}", ran.text());
    let findings: Vec<Value> = serde_json::from_str(&ran.stdout).with_context(|| ran.text())?;
    let wrong = findings.iter().any(|finding| finding["level"] == "wrong");
    ensure!(wrong == (ran.code == Some(1)), "exit {:?} of {findings:?}", ran.code);
    for finding in findings.iter().filter(|finding| finding["level"] != "fine") {
        ensure!(finding["why"] != "" && finding["advice"] != "", "{finding}");
    }
    Ok((ran.code, findings))
}

/// What is found on a host with that `/etc/resolv.conf`.
fn found_resolving(firewall: &Firewall<'_>, resolv_conf: &Path) -> Result<Vec<Value>> {
    let mut command = firewall.namespace.command_resolving(resolv_conf, &firewall.binary);
    command.arg("--runtime-dir").arg(firewall.runtime()).args(["doctor", "--format", "json", "--rules"]);
    command.arg(firewall.directory.join("rules.yaml"));
    let ran = testbed::run(&mut command)?;
    serde_json::from_str(&ran.stdout).with_context(|| ran.text())
}

fn tells(findings: &[Value], level: &str, what: &str) -> bool {
    findings.iter().any(|f| f["level"] == level && f["what"].as_str().is_some_and(|text| text.contains(what)))
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_host_is_looked_at_before_the_firewall_is_attached() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let (_, findings) = found(&firewall, &[])?;
    assert!(
        tells(&findings, "fine", "is valid") && tells(&findings, "fine", "has what the programs need"),
        "{findings:?}"
    );
    assert!(
        tells(&findings, "fine", "eth0: veth") && tells(&findings, "note", "no agent answers"),
        "{findings:?}"
    );
    assert!(!tells(&findings, "wrong", "eth0"), "{findings:?}");

    // Each of these by itself.
    let broken = |what: &str, level: &str, told: &str| -> Result<()> {
        field.host.namespace.sh(what)?;
        let (_, findings) = found(&firewall, &[])?;
        ensure!(tells(&findings, level, told), "after {what:?}: {findings:?}");
        Ok(())
    };
    broken("ip link set eth0 mtu 9000", "note", "MTU of 9000")?;
    broken("ip link add br0 type bridge; ip link set eth0 master br0", "note", "is a port of br0")?;
    field.host.namespace.sh("ip link set eth0 nomaster; ip link set eth0 mtu 1500")?;
    let (_, findings) = found(&firewall, &[])?;
    assert!(!tells(&findings, "note", "MTU") && !tells(&findings, "note", "port of"), "{findings:?}");
    broken(
        "ip xfrm policy add src 196.201.214.0/24 dst 203.0.113.10 dir in",
        "wrong",
        "IPsec covers 196.201.214.0/24",
    )?;
    field.host.namespace.sh("ip xfrm policy flush")?;

    firewall.policy(&policy(&[WEB], &[]).replace("[eth0]", "[eth0, eth7]"))?;
    assert!(tells(&found(&firewall, &[])?.1, "wrong", "names eth7, which is not there"));
    firewall.policy("version: 1\n")?;
    assert!(tells(&found(&firewall, &[])?.1, "wrong", "rules.yaml"));
    firewall.policy(&policy(&[WEB], &[]))?;
    fs::set_permissions(firewall.directory.join("rules.yaml"), fs::Permissions::from_mode(0o666))?;
    assert!(tells(&found(&firewall, &[])?.1, "wrong", "may be written by"));
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn owners_that_are_not_there_are_found() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    let by = "by: [{ user: no-such-user }, { user: root }, { user: 4711 }, { unit: no-such-unit.service }]";
    firewall.policy(&policy(&[WEB], &[&format!("{{ name: api, to: [192.0.2.80], ports: [443], {by} }}")]))?;
    let (_, findings) = found(&firewall, &[])?;
    assert!(tells(&findings, "wrong", "there is no user no-such-user"), "{findings:?}");
    assert!(tells(&findings, "fine", "user root is there"), "{findings:?}");
    assert!(tells(&findings, "fine", "user 4711 is there"), "a number needs no name: {findings:?}");
    assert!(tells(&findings, "note", "unit no-such-unit.service does not run"), "{findings:?}");
    assert!(!tells(&findings, "wrong", "cgroup"), "{findings:?}");
    // A host of cgroup v1.
    let mut command = field.host.namespace.command("unshare");
    command.args(["--mount", "--propagation", "private", "--", "sh"]);
    let away = "umount -a -t cgroup2; exec \"$0\" doctor --format json --rules \"$1\"";
    command.args(["-c", away]).arg(&firewall.binary).arg(firewall.directory.join("rules.yaml"));
    let ran = testbed::run(&mut command)?;
    let findings: Vec<Value> = serde_json::from_str(&ran.stdout).with_context(|| ran.text())?;
    assert!(tells(&findings, "wrong", "no cgroup v2 is mounted"), "{findings:?}");
    assert!(!tells(&findings, "note", "does not run"), "{findings:?}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_the_agent_has_seen_is_part_of_it() -> Result<()> {
    let field = Field::new()?;
    let watched = policy(&["{ name: web, ports: [80], from: [provider] }"], &[]).replace(
        "ingress:",
        "sets: { provider: { addresses: [196.201.214.200], watch: [198.51.100.0/24] } }\ningress:",
    );
    let (firewall, _agent) = field.protected(&watched)?;
    let (_, findings) = found(&firewall, &[])?;
    assert!(
        tells(&findings, "fine", "enforcing") && !tells(&findings, "wrong", "neighbourhood"),
        "{findings:?}"
    );
    let why = |findings: &[Value]| -> String {
        let told = findings.iter().find(|f| f["what"].as_str().is_some_and(|what| what.contains("port 81")));
        told.and_then(|finding| finding["why"].as_str()).unwrap_or_default().to_owned()
    };
    let web = field.web(&[80, 81])?;
    let (_, findings) = found(&firewall, &[])?;
    assert!(tells(&findings, "note", "port 81 is listened on, and no service declares it"));
    assert!(why(&findings).starts_with("it is closed now"), "{findings:?}");
    firewall.reload(&watched.replace("ingress:\n  default: drop", "ingress:\n  default: pass"))?;
    assert!(why(&found(&firewall, &[])?.1).contains("default: pass"), "{findings:?}");
    firewall.reload(&watched.replace("mode: enforce", "mode: observe"))?;
    assert!(why(&found(&firewall, &[])?.1).contains("observe mode drops nothing"));
    firewall.reload(&watched)?;
    drop(web);
    assert!(tells(&found(&firewall, &[])?.1, "note", "nobody listens for the service `web`"));
    let _silence = Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace);
    holds("a near miss", SOON, || {
        found(&firewall, &[]).is_ok_and(|(_, f)| tells(&f, "wrong", "neighbourhood of the set `provider`"))
    })?;
    firewall.reload(&watched.replace("mode: enforce", "mode: observe"))?;
    assert!(tells(&found(&firewall, &[])?.1, "note", "observing"));
    // For people too.
    let ran = firewall.ask(["doctor"])?;
    assert!(ran.stdout.contains("what to do:") && ran.stdout.contains(" to look at, "), "{}", ran.text());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_resolver_that_does_not_answer_is_found() -> Result<()> {
    let field = Field::new()?;
    let dns = field.network.add(place::INTRANET)?;
    let mut firewall = field.firewall()?;
    let resolv_conf = firewall.write("resolv.conf", &format!("nameserver {}\n", dns.place.v4))?;
    firewall.resolv_conf = Some(resolv_conf.clone());
    firewall.policy(&policy(&[WEB], &["{ name: api, to: [api.example.net], ports: [443] }"]))?;
    let ask = || found_resolving(&firewall, &resolv_conf);
    let findings = ask()?;
    assert!(tells(&findings, "wrong", "does not answer for api.example.net"), "{findings:?}");
    let names = [("api.example.net", place::API.v4.into())];
    let _dnsmasq = Dnsmasq::start(&dns.namespace, dns.place.v4, field.network.scratch.path(), 30, &names)?;
    holds("an answer", SOON, || ask().is_ok_and(|f| tells(&f, "fine", "answers for api.example.net")))?;
    Ok(())
}

/// What rules by name can't do is said once, where there are any; what somebody has to decide is a note.
#[test]
#[ignore = "needs root and a kernel"]
fn what_names_can_not_do_is_said() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    let api = "{ name: api, to: [api.example.net], ports: [443] }";
    let resolved_by = |server: &str, rules: &[&str]| -> Result<Vec<Value>> {
        firewall.policy(&policy(&[WEB], rules))?;
        found_resolving(&firewall, &firewall.write("resolv.conf", &format!("nameserver {server}\n"))?)
    };
    let told = "DNS over TLS has no rule and is denied";

    let findings = resolved_by("127.0.0.53", &[api])?;
    let limits: Vec<_> =
        findings.iter().filter(|f| f["what"].as_str().is_some_and(|text| text.contains(told))).collect();
    assert!(limits.len() == 1 && limits[0]["level"] == "fine", "{findings:?}");
    for part in ["DNS over HTTPS", "behind a CDN", "reached by the same rule"] {
        assert!(tells(&findings, "fine", part), "{part}: {findings:?}");
    }
    assert!(tells(&findings, "note", "127.0.0.53 is a stub resolver of this host"), "{findings:?}");

    let over_tls = "{ name: private, to: [192.0.2.53], ports: [853] }";
    let findings = resolved_by("192.0.2.53", &[api, over_tls])?;
    assert!(
        tells(&findings, "note", "the destination `private` permits DNS over TLS")
            && !tells(&findings, "fine", told),
        "{findings:?}"
    );
    assert!(!tells(&findings, "note", "stub resolver"), "{findings:?}");
    // Without names there is nothing to say.
    let findings = resolved_by("127.0.0.53", &[over_tls])?;
    assert!(!findings.iter().any(|finding| finding["about"] == "names"), "{findings:?}");
    Ok(())
}
