//! Programs that are told at once where they may not connect and send: Python's sockets, curl, and who they were.

mod support;

use std::{fs, net::IpAddr};

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::{
    Field, SOON,
    groups::{Groups, hears, program, without_cgroups},
    kinds, web,
};
use testbed::{Answer, Curl, Firewall, Host, holds, ok, place};

fn policy(mode: &str, at_connect: &str, destinations: &[&str]) -> String {
    let destinations: String = destinations.iter().map(|rule| format!("\n    - {rule}")).collect();
    format!(
        "version: 1\nmode: {mode}\ninterfaces: [eth0]\ningress:\n  default: drop\n  services:\n    \
         - {{ name: syslog, protocol: udp, ports: [514], from: [196.201.214.200] }}\n\
         egress:\n  default: drop\n  at_connect: {at_connect}\n  allow:{destinations}\n"
    )
}

const DARAJA: &str = "{ name: daraja, to: [192.0.2.80, \"2001:db8:0:80::80\"], ports: [443] }";
const DNS: &str = "{ name: dns, to: [192.0.2.80], protocol: udp, ports: [53] }";

/// What becomes of one call of Python's `socket`: `ok`, or the errno's name; of a connection that nobody answers, `timed out`.
fn tries(host: &Host, calls: &[&str]) -> Result<Vec<String>> {
    let mut script = String::from(
        "import socket, errno\nT, U = socket.SOCK_STREAM, socket.SOCK_DGRAM\nV4, V6 = socket.AF_INET, socket.AF_INET6\n\
         def s(*kind):\n    s = socket.socket(*kind); s.settimeout(0.7); return s\n\
         def b(port, s):\n    s.bind(('', port)); return s\n\
         def d(s):\n    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'eth0'); return s\n",
    );
    for call in calls {
        script.push_str(&format!(
            "try:\n    {call}; print('ok')\nexcept TimeoutError: print('timed out')\nexcept OSError as e: print(errno.errorcode[e.errno])\n"
        ));
    }
    let told = ok(host.namespace.command("/usr/bin/python3").args(["-c", &script]))?;
    Ok(told.lines().map(str::to_owned).collect())
}

/// The agent has looked where packets leave.
fn is_sure(host: &Host) -> Result<()> {
    holds("programs to be refused", SOON, || {
        tries(host, &["s(V4, T).connect(('198.51.100.66', 4444))"]).is_ok_and(|told| told == ["EPERM"])
    })
}

fn refused(firewall: &Firewall<'_>, family: &str, rule: &str, reason: &str) -> Result<f64> {
    Ok(firewall.metrics()?.sum(family, &[("rule", rule), ("reason", reason)]))
}

/// The last attempt among the events.
fn last_attempt(firewall: &Firewall<'_>) -> Result<Value> {
    let ran = firewall.ask(["events", "--direction", "egress", "--last", "20", "--format", "json"])?;
    let events: Vec<Value> = serde_json::from_str(&ran.stdout)?;
    events
        .into_iter()
        .rfind(|event| event["kind"] == "attempt")
        .with_context(|| format!("none: {}", ran.text()))
}

#[test]
#[ignore = "needs root and a kernel"]
fn programs_are_told_at_once_and_it_is_known_who_they_are() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let drop_box = field.network.add(place::DROP_BOX)?;
    let _servers = (web(&field.network, &api, &[443, 8443])?, web(&field.network, &drop_box, &[443])?);
    let (firewall, _agent) = field.protected(&policy("enforce", "refuse", &[DARAJA, DNS]))?;
    let get = |address: IpAddr, port| Curl::http(address, port).from(&field.host.namespace);
    is_sure(&field.host)?;

    let before = firewall.metrics()?;
    let told = |rule, reason| refused(&firewall, "mpesa_fw_refused_connects_total", rule, reason);
    let (nowhere, elsewhere) = (told("", "no_destination")?, told("daraja", "destination_not_allowed")?);
    for (good, bad) in [
        (IpAddr::from(api.place.v4), IpAddr::from(drop_box.place.v4)),
        (api.place.v6.into(), drop_box.place.v6.into()),
    ] {
        assert!(get(good, 443).is_ok(), "{good}");
        assert_eq!(get(good, 8443), Answer::NotPermitted);
        assert_eq!(get(bad, 443), Answer::NotPermitted);
    }
    // No packet came of it.
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), [] as [&str; 0]);
    assert_eq!(told("", "no_destination")?, nowhere + 2.0);
    assert_eq!(told("daraja", "destination_not_allowed")?, elsewhere + 2.0);

    // Who it was.
    let script = "import socket\ntry: socket.create_connection(('192.0.2.66', 443))\nexcept OSError: pass";
    let mut insider = field.host.namespace.command("setpriv");
    insider.args(["--reuid", "4711", "--clear-groups", "/usr/bin/python3", "-c"]).arg(script);
    ok(&mut insider)?;
    let event = last_attempt(&firewall)?;
    assert_eq!(
        (event["kind"].as_str(), event["reason"].as_str()),
        (Some("attempt"), Some("destination_not_allowed"))
    );
    assert_eq!((event["target"].as_str(), event["target_port"].as_u64()), (Some("192.0.2.66"), Some(443)));
    assert_eq!((event["rule"].as_str(), event["refused"].as_bool()), (Some("daraja"), Some(true)));
    let program = &event["program"];
    assert_eq!((program["name"].as_str(), program["user"].as_u64()), (Some("python3"), Some(4711)));
    assert!(program["process"].as_u64() > Some(1) && program["socket"].as_u64() > Some(0), "{program}");
    let shown = firewall.ask(["events", "--direction", "egress", "--last", "1"])?.stdout;
    assert!(
        shown.contains("connect") && shown.contains("python3 (") && shown.contains("user 4711"),
        "{shown}"
    );
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn datagrams_too_and_what_is_not_sure_goes_on() -> Result<()> {
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(&policy("enforce", "refuse", &[DARAJA, DNS]))?;
    is_sure(&field.host)?;
    let before = firewall.metrics()?;
    let cases = [
        ("s(V4, U).sendto(b'x', ('192.0.2.80', 53))", "ok"),
        ("s(V4, U).sendto(b'x', ('198.51.100.66', 53))", "EPERM"),
        ("s(V6, U).sendto(b'x', ('::ffff:198.51.100.66', 53))", "EPERM"),
        ("s(V6, U).sendto(b'x', ('2001:db8:0:66::66', 53))", "EPERM"),
        ("s(V6, T).connect(('::ffff:198.51.100.66', 443))", "EPERM"),
        ("d(s(V4, T)).connect(('198.51.100.66', 443))", "EPERM"),
        // It asks by which address it would send, and sends nothing.
        ("s(V4, U).connect(('198.51.100.66', 53))", "ok"),
        // Nothing of these leaves by a protected interface.
        ("s(V4, T).connect(('127.0.0.1', 4444))", "ECONNREFUSED"),
        ("s(V4, T).connect(('203.0.113.10', 4444))", "ECONNREFUSED"),
        ("s(V6, T).connect(('::1', 4444))", "ECONNREFUSED"),
        ("s(V4, U).sendto(b'x', ('127.0.0.1', 4444))", "ok"),
    ];
    let told = tries(&field.host, &cases.map(|(call, _)| call))?;
    for ((call, expected), told) in cases.iter().zip(&told) {
        assert_eq!(told, expected, "{call}");
    }
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), [] as [&str; 0]);
    // Not sure: it could be an answer of the service, so a packet goes and is judged.
    assert_eq!(tries(&field.host, &["b(514, s(V4, U)).sendto(b'x', ('198.51.100.66', 53))"])?, ["ok"]);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress dns destination_not_allowed"]);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn observe_mode_lets_go_and_the_policy_can_leave_it() -> Result<()> {
    let field = Field::new()?;
    let drop_box = field.network.add(place::DROP_BOX)?;
    let _web = web(&field.network, &drop_box, &[443])?;
    let (firewall, _agent) = field.protected(&policy("enforce", "refuse", &[DARAJA]))?;
    let get = || Curl::http(drop_box.place.v4, 443).from(&field.host.namespace);
    is_sure(&field.host)?;
    assert_eq!(get(), Answer::NotPermitted);

    firewall.reload(&policy("observe", "refuse", &[DARAJA]))?;
    let would = || refused(&firewall, "mpesa_fw_let_go_connects_total", "daraja", "destination_not_allowed");
    let before = would()?;
    holds("an attempt to be told and let go", SOON, || {
        get().is_ok() && would().is_ok_and(|now| now > before)
    })?;
    assert_eq!(last_attempt(&firewall)?["refused"], false);

    firewall.reload(&policy("enforce", "pass", &[DARAJA]))?;
    assert_eq!(get(), Answer::Silence, "the packet is dropped, and the program waits");
    let metrics = ok(field.host.namespace.command("curl").args(["-s", "http://127.0.0.1:9477/metrics"]))?;
    assert!(!metrics.contains("mpesa_fw_refused_connects_total{"), "nobody is asked, so nothing is counted");
    // What went with the policy is missed by nobody: two looks of the tamper watch, and what scrapes do to pins, between them.
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(firewall.metrics()?.sum("mpesa_fw_tampering_total", &[]), 0.0);
    }

    firewall.reload(&policy("enforce", "refuse", &[DARAJA]))?;
    is_sure(&field.host)?;
    assert_eq!(get(), Answer::NotPermitted);

    // Gone with the firewall.
    assert_eq!(firewall.ask(["detach"])?.code, Some(0));
    assert!(get().is_ok());
    Ok(())
}

/// As the package runs it: the kernel shows programs by their numbers to CAP_SYS_ADMIN only.
#[test]
#[ignore = "needs root and a kernel"]
fn the_capabilities_of_the_unit_are_enough() -> Result<()> {
    let field = Field::new()?;
    let firewall = field.firewall()?;
    firewall.policy(&policy("enforce", "refuse", &[DARAJA]))?;
    let _agent = firewall.start_with_capabilities_of_the_unit()?;
    is_sure(&field.host)?;
    let event = last_attempt(&firewall)?;
    assert_eq!((event["reason"].as_str(), event["refused"].as_bool()), (Some("no_destination"), Some(true)));
    assert!(firewall.ask(["status"])?.stdout.contains("at connect: what is denied is refused at once"));
    // Whose memory it may not read, whose executable it may not know: root's command line looks while the program runs.
    let script = "import socket, sys, time\nfor _ in range(200):\n    try: socket.create_connection(('198.51.100.67', 4444), 1)\n    \
                  except OSError: pass\n    time.sleep(0.1)";
    let mut insider = program(&field.host, None, 4713, script).spawn()?;
    let python = fs::canonicalize("/usr/bin/python3")?;
    holds("the executable of a program that runs", SOON, || {
        last_attempt(&firewall).is_ok_and(|event| {
            event["program"]["user"] == 4713 && event["program"]["executable"] == *python.to_string_lossy()
        })
    })?;
    insider.kill()?;
    insider.wait()?;
    let event = last_attempt(&firewall)?;
    assert_eq!(event["program"]["user"], 4713);
    assert_eq!(
        event["program"]["executable"],
        serde_json::Value::Null,
        "it has ended, and the agent may not know it"
    );
    Ok(())
}

/// With version 1 of cgroups alone nobody knows units, and nobody is told at once; packets are judged, by users too.
#[test]
#[ignore = "needs root and a kernel"]
fn without_cgroups_units_may_nothing_and_users_what_they_may() -> Result<()> {
    let Some(groups) = Groups::new("none")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let _web = web(&field.network, &api, &[443, 8443])?;
    let unit = groups.unit("payments");
    let group = groups.start(&unit)?;
    let mut firewall = field.firewall()?;
    firewall.policy(&support::telling(
        &[],
        &[
            &format!("{{ name: daraja, to: [192.0.2.80], ports: [443], by: {{ unit: {unit} }} }}"),
            "{ name: mirror, to: [192.0.2.80], ports: [8443], by: { user: 4711 } }",
        ],
    ))?;
    let wrapper = without_cgroups(&firewall)?;
    let real = std::mem::replace(&mut firewall.binary, wrapper);
    let _agent = firewall.start(&[])?;
    firewall.binary = real;
    let told = |uid, port| hears(&field.host, Some(&group), uid, api.place.v4.into(), port);

    let before = firewall.metrics()?;
    assert_eq!(told(4711, 8443)?, "open");
    for (uid, port) in [(0, 443), (4711, 443), (0, 8443), (0, 9443)] {
        assert_eq!(told(uid, port)?, "timed out", "user {uid}, port {port}: dropped, not refused");
    }
    let now = firewall.metrics()?;
    assert_eq!(
        kinds(&now.drops_since(&before)),
        ["egress - no_destination", "egress daraja owner_not_allowed", "egress mirror owner_not_allowed"]
    );
    assert_eq!(now.sum("mpesa_fw_refused_connects_total", &[]), 0.0);

    let status = firewall.status()?;
    let owners = status["owners"].as_array().context("owners")?;
    let present = |owner: &str| owners.iter().find(|entry| entry["owner"] == owner)?["present"].as_u64();
    assert_eq!((present(&format!("unit {unit}")), present("user 4711")), (Some(0), Some(1)), "{status}");
    assert_eq!(status["attempts"]["refused_at_connect"], false, "{status}");
    let said = firewall.ask(["status"])?.stdout;
    for part in [
        "units can't be looked for",
        "no cgroup v2 is mounted",
        "at connect: nothing is refused",
        "what only it may do is denied",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    Ok(())
}
