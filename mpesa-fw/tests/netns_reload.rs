//! Reloads: all or nothing, and no packet judged by half of each.

mod support;

use std::{fs, thread};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use support::{FENCE, Field, SOON, WEB, passed_since, policy, settled};
use testbed::{Answer, Curl, Process, holds, serve::UdpEcho};

const ATTACKER_TOO: &str = "{ name: web, ports: [80], from: [196.201.214.200, 198.51.100.66] }";

#[test]
#[ignore = "needs root and a kernel"]
fn a_reload_takes_effect() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let attack = || Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace);
    assert_eq!(attack(), Answer::Silence);
    let before = firewall.metrics()?;
    let said = firewall.reload(&policy(&[ATTACKER_TOO], &[]))?;
    assert!(said.contains("service web") && said.contains("generation"), "the change is told: {said}");
    assert!(attack().is_ok());
    let now = firewall.metrics()?;
    assert_eq!(now.went_back(&before), [] as [String; 0]);
    assert_eq!(
        now.sum("mpesa_fw_reloads_total", &[("result", "ok")]),
        before.sum("mpesa_fw_reloads_total", &[("result", "ok")]) + 1.0
    );
    firewall.reload(&policy(&[WEB], &[]))?;
    assert_eq!(attack(), Answer::Silence);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_bad_file_changes_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let good = policy(&[WEB], &[]);
    let (firewall, mut agent) = field.protected(&good)?;
    let digest = |metrics: &testbed::Metrics| {
        let info = metrics.samples.iter().find(|sample| sample.name == "mpesa_fw_generation_info");
        info.and_then(|sample| sample.labels.get("digest").cloned()).context("generation_info has a digest")
    };
    let before = digest(&firewall.metrics()?)?;
    let bad = ["from: [anyone]", "ports: [0]", "from: []", "colour: blue, from: [any]"];
    for (count, wrong) in bad.iter().enumerate() {
        firewall.policy(&good.replace("from: [196.201.214.200, \"2001:db8:0:214::200\"]", wrong))?;
        let ran = firewall.ask(["reload"])?;
        assert_eq!(ran.code, Some(1), "{wrong}: {}", ran.text());
        assert!(ran.stderr.contains("rules.yaml:"), "says where: {}", ran.stderr);
        let metrics = firewall.metrics()?;
        assert_eq!(digest(&metrics)?, before);
        assert_eq!(metrics.sum("mpesa_fw_reloads_total", &[("result", "invalid")]), (count + 1) as f64);
    }
    let path = firewall.directory.join("rules.yaml");
    fs::write(&path, &good)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let ran = firewall.ask(["reload"])?;
    assert_eq!(ran.code, Some(1), "writable by others: {}", ran.text());
    fs::remove_file(&path)?;
    assert_eq!(firewall.ask(["reload"])?.code, Some(1), "no file");

    assert!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok());
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    assert!(agent.process.running());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn sighup_reloads() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, agent) = field.protected(&policy(&[WEB], &[]))?;
    firewall.policy(&policy(&[ATTACKER_TOO], &[]))?;
    agent.process.signal(Signal::SIGHUP)?;
    holds("the reload", SOON, || {
        Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok()
    })?;
    firewall.policy("version: 1\nnonsense")?;
    agent.process.signal(Signal::SIGHUP)?;
    holds("the refusal", SOON, || {
        firewall
            .metrics()
            .is_ok_and(|metrics| metrics.sum("mpesa_fw_reloads_total", &[("result", "invalid")]) == 1.0)
    })?;
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn counts_follow_the_name_of_a_rule() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let others = ["{ name: a, ports: [1000], from: [any] }", "{ name: z, ports: [2000], from: [any] }"];
    let (firewall, _agent) = field.protected(&policy(&[WEB, others[0]], &[]))?;
    assert!(Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace).is_ok());
    let before = settled(&firewall)?;
    assert!(before.passed("ingress", "web") > 0.0);
    firewall.reload(&policy(&[others[1], others[0], WEB], &[]))?;
    let now = firewall.metrics()?;
    assert_eq!(now.passed("ingress", "web"), before.passed("ingress", "web"));
    assert_eq!(now.passed("ingress", "z") + now.passed("ingress", "a"), 0.0);
    firewall.reload(&policy(&[others[0]], &[]))?;
    firewall.reload(&policy(&[others[0], WEB], &[]))?;
    assert_eq!(
        firewall.metrics()?.passed("ingress", "web"),
        before.passed("ingress", "web"),
        "also when it was away"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn reloads_at_the_same_time_wait_for_each_other() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let before = firewall.status()?["generation"]["number"].as_u64().context("a number")?;
    let answers = thread::scope(|scope| {
        let reloads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| firewall.ask(["reload", "--format", "json"]))).collect();
        reloads.into_iter().map(|one| one.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut generations = Vec::new();
    for ran in &answers {
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        let done: serde_json::Value = serde_json::from_str(&ran.stdout).context("JSON")?;
        generations.push(done["generation"].as_u64().context("a generation")?);
    }
    generations.sort_unstable();
    assert_eq!(generations, (before + 1..=before + 4).collect::<Vec<_>>(), "each is a generation of its own");
    assert_eq!(firewall.status()?["generation"]["number"].as_u64(), Some(before + 4));
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_reloads_total", &[("result", "ok")]), 4.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn another_file_can_be_loaded() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let other = firewall.write("other.yaml", &policy(&[ATTACKER_TOO], &[]))?;
    let ran = firewall.ask([std::ffi::OsStr::new("reload"), other.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(ran.text().contains("--rules"), "says that a restart takes the other file: {}", ran.text());
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn fifty_reloads_under_traffic_misjudge_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    // The denied flood goes to a port with a listener: whatever passes would be answered and counted.
    let _listener = UdpEcho::start(&field.host.namespace, 54)?;
    let dns = "{ name: dns, protocol: udp, ports: [53], from: [196.201.214.200] }";
    let denied = "{ name: closed, protocol: udp, ports: [54], from: [203.0.113.1] }";
    let rules = |extra: u32| {
        let changing = format!("{{ name: extra-{}, ports: [{}], from: [any] }}", extra % 7, 1000 + extra);
        policy(&[WEB, &changing, dns, denied, FENCE], &[])
    };
    let (firewall, _agent) = field.protected(&rules(0))?;
    // Both floods in turn, with pauses: a veth queue that overflows would look like a drop.
    let mut wire = field.wire()?;
    let flood = "[send(p) and time.sleep(0.0002) for _ in range(20000) for p in FLOOD if not DONE()]";
    wire.evaluate("globals().update(time=__import__('time'), SENT=[0], FLOOD=[bytes(to_host()/IP(src=S4,dst=H4)/UDP(sport=5,dport=53)), bytes(to_host()/IP(src='198.51.100.66',dst=H4)/UDP(sport=5,dport=54))])")?;
    let stop = firewall.directory.join("stop");
    wire.evaluate(&format!("globals().update(DONE=lambda: os.path.exists('{}'))", stop.display()))?;
    // A lost SYN would come again after a second: the connection must be there before.
    let script = "while ! [ -e \"$0\" ]; do curl -sS --connect-timeout 0.9 -o /dev/null http://203.0.113.10/ && echo good || echo LOST; done";
    let mut command = field.safaricom.namespace.command("sh");
    command.args(["-c", script]).arg(&stop);
    let mut curls = Process::spawn(command, "curls", &firewall.directory)?;
    curls.wait_for_log("good", SOON)?;

    let before = firewall.metrics()?;
    let marks = thread::scope(|scope| -> Result<u64> {
        let flooding = scope.spawn(|| {
            wire.evaluate(&format!("(mark, {flood}, mark)[0]")).and_then(|_| wire.evaluate("mark"))
        });
        let reloads = (1..=50).try_for_each(|extra| firewall.reload(&rules(extra)).map(drop));
        fs::write(&stop, "")?;
        let marks = flooding.join().expect("the flood does not panic")?;
        reloads?;
        marks.as_u64().context("marks are counted")
    })?;
    curls.wait(SOON)?;
    let log = curls.log();
    assert!(!log.contains("LOST"), "{log}");
    let now = firewall.metrics()?;
    let (allowed, denied) = (marks.div_ceil(2), marks / 2);
    assert_eq!(passed_since(&now, &before, "ingress", "dns"), allowed, "every allowed packet passed");
    let moved = now.drops_since(&before);
    assert_eq!(moved, support::drops([("ingress closed source_not_allowed", denied)]), "of {marks} frames");
    assert_eq!(now.passed("ingress", "closed"), 0.0);
    assert_eq!(now.went_back(&before), [] as [String; 0]);
    assert!(log.matches("good").count() > 20, "{log}");
    Ok(())
}
