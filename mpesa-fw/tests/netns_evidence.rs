//! Who sent what egress did not let out, and what it had asked for: programs of an insider, by every kind of socket.

mod support;

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::{
    Field, SOON,
    groups::{Groups, program},
};
use testbed::{Curl, Firewall, Process, holds, ok, place, serve::Dnsmasq};

/// Nobody is told at once: every packet comes as far as egress.
const POLICY: &str = "version: 1
mode: enforce
interfaces: [eth0]
ingress: { default: drop, services: [] }
egress:
  default: drop
  at_connect: pass
  allow:
    - { name: daraja, to: [api.example.net], ports: [443] }
    - { name: dns, to: [10.20.0.5], protocol: [udp, tcp], ports: [53] }
";

const INSIDER: u32 = 4711;

/// Sends one thing after the other, each to a port (or protocol) of its own, and waits until it is told to end.
const SENDER: &str = "
import socket, struct, sys, time
def tries(call):
    try: call()
    except (TimeoutError, PermissionError): pass
V4, V6, T, U = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
t = socket.socket(V4, T); t.settimeout(0.3); tries(lambda: t.connect(('192.0.2.66', 1001)))
u = socket.socket(V4, U); u.sendto(b'x', ('192.0.2.66', 1002))
c = socket.socket(V6, U); c.connect(('2001:db8:0:66::66', 1003)); c.send(b'x')
print('sent', flush=True)
time.sleep(60)
";

/// By raw and packet sockets, of root.
const CRAFTER: &str = "
import socket, struct, time
r = socket.socket(socket.AF_INET, socket.SOCK_RAW, 99); r.sendto(b'secret', ('192.0.2.66', 0))
p = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
p.bind(('eth0', 0))
ip = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 7, 0, 64, 17, 0, socket.inet_aton('203.0.113.10'), socket.inet_aton('192.0.2.66'))
sum = sum(struct.unpack('!10H', ip)); sum = (sum >> 16) + (sum & 0xffff); sum = ~(sum + (sum >> 16)) & 0xffff
ip = ip[:10] + struct.pack('!H', sum) + ip[12:]
p.send(bytes(12) + b'\\x08\\0' + ip + struct.pack('!4H', 4000, 1004, 8, 0))
print('sent', flush=True)
time.sleep(60)
";

/// The last events of egress.
fn told(firewall: &Firewall<'_>) -> Result<Vec<Value>> {
    let ran = firewall.ask(["events", "--direction", "egress", "--last", "100", "--format", "json"])?;
    Ok(serde_json::from_str(&ran.stdout)?)
}

/// The event of a packet of that protocol to that port that was not let out.
fn event(firewall: &Firewall<'_>, protocol: &str, port: u64) -> Result<Value> {
    let events = told(firewall)?;
    let found = events.into_iter().rfind(|event| {
        event["protocol"] == protocol && event["target_port"] == port && event["kind"] == "packet"
    });
    found.with_context(|| format!("none of {protocol} {port}"))
}

/// That of a name that was asked for.
fn asked_for(event: &Value) -> Option<&str> {
    event["asked_for"].as_str()
}

fn insider(field: &Field, group: Option<&Path>, uid: u32, script: &str, logs: &Path) -> Result<Process> {
    let mut sender = Process::spawn(program(&field.host, group, uid, script), "insider", logs)?;
    sender.wait_for_log("sent", SOON)?;
    Ok(sender)
}

#[test]
#[ignore = "needs root and a kernel"]
fn whoever_sends_is_named_whatever_the_socket() -> Result<()> {
    let Some(groups) = Groups::new("evidence")? else { return Ok(()) };
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(POLICY)?;
    let unit = groups.unit("reports");
    let group = groups.start(&unit)?;

    let sender = insider(&field, Some(&group), INSIDER, SENDER, firewall.logs())?;
    holds("the last to be told", SOON, || event(&firewall, "udp", 1003).is_ok())?;
    for (protocol, port) in [("tcp", 1001), ("udp", 1002), ("udp", 1003)] {
        let event = event(&firewall, protocol, port)?;
        let who = &event["program"];
        let pid = u64::from(sender.pid());
        ensure!(
            who["process"] == pid
                && who["name"] == "python3"
                && who["user"] == INSIDER
                && who["unit"] == unit,
            "{protocol} {port}: {event}"
        );
        ensure!(who["socket"].as_u64() > Some(0), "{event}");
        ensure!(who["executable"].as_str().is_some_and(|path| path.contains("python3")), "{event}");
        ensure!(event["dropped"] == true && event["reason"] == "no_destination", "{event}");
    }
    let shown = firewall.ask(["events", "--direction", "egress"])?.stdout;
    for part in [format!("python3 ({}), user {INSIDER}", sender.pid()), format!("unit {unit}")] {
        ensure!(shown.contains(&part), "{part}: {shown}");
    }
    drop(sender);

    let crafter = insider(&field, Some(&group), 0, CRAFTER, firewall.logs())?;
    holds("the last to be told", SOON, || event(&firewall, "udp", 1004).is_ok())?;
    let raw = event(&firewall, "99", 0)?;
    let who = &raw["program"];
    ensure!(who["process"] == u64::from(crafter.pid()) && who["unit"] == unit, "{raw}");
    // The kernel tells of no packet socket that is made; whose cgroup it is it does.
    let packet = event(&firewall, "udp", 1004)?;
    let who = &packet["program"];
    ensure!(who["process"].is_null() && who["user"] == 0 && who["unit"] == unit, "{packet}");

    // Nobody here sent what comes from outside, nor what the kernel answers by itself.
    ok(field.attacker.namespace.command("/usr/bin/python3").args([
        "-c",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('203.0.113.10', 7))",
    ]))?;
    let from_outside = || -> Result<Vec<Value>> {
        let ran = firewall.ask(["events", "--direction", "ingress", "--format", "json"])?;
        Ok(serde_json::from_str(&ran.stdout)?)
    };
    holds("the datagram from outside", SOON, || {
        from_outside().is_ok_and(|events| events.iter().any(|event| event["target_port"] == 7))
    })?;
    ensure!(from_outside()?.iter().all(|event| event["program"].is_null()), "{:?}", from_outside()?);
    firewall.reload(&POLICY.replace("mode: enforce", "mode: observe"))?;
    let refused = Curl::http(field.host.place.v4, 8099).from(&field.attacker.namespace);
    ensure!(!refused.is_ok());
    holds("the kernel's RST to be told", SOON, || {
        told(&firewall).is_ok_and(|events| events.iter().any(|event| event["source_port"] == 8099))
    })?;
    let events = told(&firewall)?;
    let rst = events.iter().rfind(|event| event["source_port"] == 8099).context("it was there")?;
    ensure!(rst["program"].is_null() && rst["direction"] == "egress", "{rst}");
    Ok(())
}

/// Whoever logged in stays known, as whomever he sends.
#[test]
#[ignore = "needs root and a kernel"]
fn who_logged_in_is_told_whoever_he_has_become() -> Result<()> {
    const LOGGED_IN: u32 = 1017;
    /// As `pam_loginuid` does it, then as `su`.
    const LOGIN: &str = "
import os, socket, time
with open('/proc/self/loginuid', 'w') as login:
    login.write('LOGIN')
os.setuid(INSIDER)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.66', 1006))
print('sent', flush=True)
time.sleep(60)
";
    // The kernel without audit has no such file, and some let nobody change what was said once.
    let may_log_in = "echo 1 > /proc/self/loginuid";
    if ok(std::process::Command::new("sh").args(["-euc", may_log_in])).is_err() {
        testbed::left_out("who logged in", "nobody can log in here");
        return Ok(());
    }
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(POLICY)?;
    let script = LOGIN.replace("LOGIN", &LOGGED_IN.to_string()).replace("INSIDER", &INSIDER.to_string());
    let _sender = insider(&field, None, 0, &script, firewall.logs())?;
    holds("it to be told", SOON, || event(&firewall, "udp", 1006).is_ok())?;
    let event = event(&firewall, "udp", 1006)?;
    let who = &event["program"];
    ensure!(who["user"] == INSIDER && who["login_user"] == LOGGED_IN, "{event}");
    let shown = firewall.ask(["events", "--direction", "egress"])?.stdout;
    ensure!(shown.contains(&format!("user {INSIDER}, logged in as {LOGGED_IN}")), "{shown}");
    Ok(())
}

/// A flood from outside does not use up what the kernel may tell of programs here: both on one CPU, where the quotas are.
#[test]
#[ignore = "needs root and a kernel"]
fn no_flood_from_outside_hides_who_sends() -> Result<()> {
    const ONE_CPU: &str = "
import os, socket, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
";
    const FLOOD: &str = "
print('sent', flush=True)
n = 0
while True:
    s.sendto(b'x', ('203.0.113.10', 20000 + n % 10000)); n += 1
    if n % 50 == 0: time.sleep(0.005)
";
    const SENDER: &str = "
for n in range(10):
    s.sendto(b'x', ('192.0.2.66', 3000 + n)); time.sleep(0.3)
print('sent', flush=True)
time.sleep(60)
";
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(POLICY)?;
    let mut flood = field.attacker.namespace.command("/usr/bin/python3");
    flood.args(["-c", &format!("{ONE_CPU}{FLOOD}")]);
    let mut flood = Process::spawn(flood, "flood", firewall.logs())?;
    flood.wait_for_log("sent", SOON)?;
    let suppressed =
        || Ok::<_, anyhow::Error>(firewall.metrics()?.sum("mpesa_fw_events_suppressed_total", &[]));
    holds("events of the flood to be left out", SOON, || suppressed().is_ok_and(|events| events > 500.0))?;
    let before = suppressed()?;
    let _sender = insider(&field, None, INSIDER, &format!("{ONE_CPU}{SENDER}"), firewall.logs())?;
    for port in 3000..3010 {
        holds(&format!("the datagram to port {port}"), SOON, || event(&firewall, "udp", port).is_ok())?;
    }
    ensure!(suppressed()? > before, "the flood went on meanwhile");
    flood.kill()
}

#[test]
#[ignore = "needs root and a kernel"]
fn again_and_again_is_one_event() -> Result<()> {
    const LOOP: &str = "
import socket, time
for n in range(20):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('192.0.2.66', 1005))
print('sent', flush=True)
time.sleep(60)
";
    let field = Field::new()?;
    let (firewall, _agent) = field.protected(POLICY)?;
    // What it shows of before says that it follows.
    let _ = Curl::http(field.host.place.v4, 8099).from(&field.attacker.namespace);
    let follower = firewall.ask_command(["events", "--follow", "--last", "100"]);
    let mut follower = Process::spawn(follower, "follower", firewall.logs())?;
    follower.wait_for_log(":8099", SOON)?;
    let _first = insider(&field, None, INSIDER, LOOP, firewall.logs())?;
    let of_first =
        || -> Result<u64> { event(&firewall, "udp", 1005)?["repeated"].as_u64().context("how many more") };
    holds("all to be counted with the first", SOON, || of_first().is_ok_and(|more| more == 19))?;
    // Another process is another event, whatever it is called.
    let second = insider(&field, None, INSIDER, LOOP, firewall.logs())?;
    holds("all of the other", SOON, || {
        event(&firewall, "udp", 1005).is_ok_and(|event| {
            event["program"]["process"] == u64::from(second.pid()) && event["repeated"] == 19
        })
    })?;
    holds("both to be followed", SOON, || follower.log().matches(":1005").count() >= 2)?;
    ensure!(follower.log().matches(":1005").count() == 2, "{}", follower.log());
    follower.kill()?;
    let shown = firewall.ask(["events", "--direction", "egress"])?.stdout;
    ensure!(shown.matches("; 19 more").count() == 2, "{shown}");
    Ok(())
}

/// Of a name that no rule has too: the program asked the policy's name server and then sent to what it answered.
#[test]
#[ignore = "needs root and a kernel"]
fn the_name_that_was_asked_for_is_told() -> Result<()> {
    let field = Field::new()?;
    let (drop_box, intranet) = (field.network.add(place::DROP_BOX)?, field.network.add(place::INTRANET)?);
    let names = [
        ("drop.evil.example", drop_box.place.v4.into()),
        ("drop.evil.example", drop_box.place.v6.into()),
        ("front.example.org", drop_box.place.v4.into()),
        // What the agent asks by itself.
        ("api.example.net", IpAddr::from([192, 0, 2, 80])),
    ];
    let scratch = field.network.scratch.path();
    let dns = Dnsmasq::start_with(&intranet.namespace, intranet.place.v4, scratch, 60, &names, &[])?;
    let mut firewall = field.firewall()?;
    firewall.resolv_conf = Some(dns.resolv_conf.clone());
    firewall.policy(POLICY)?;
    let _agent = firewall.start(&[])?;

    let send = |address: IpAddr| {
        ensure!(!Curl::http(address, 8443).from(&field.host.namespace).is_ok(), "{address} is open");
        Ok(())
    };
    send(drop_box.place.v4.into())?;
    let before = event(&firewall, "tcp", 8443)?;
    ensure!(asked_for(&before).is_none(), "nobody asked yet: {before}");

    let visit = |name: &str| {
        Curl::get(format!("http://{name}:8443/"))
            .resolving(dns.resolv_conf.clone())
            .from(&field.host.namespace)
    };
    ensure!(!visit("Drop.Evil.example").is_ok());
    let event_now = event(&firewall, "tcp", 8443)?;
    ensure!(asked_for(&event_now) == Some("drop.evil.example"), "{event_now}");
    ensure!(event_now["program"]["name"] == "curl", "{event_now}");
    ensure!(event_now["rule"] == "" && event_now["nearest"] == "daraja (tcp 443)", "{event_now}");
    let shown = firewall.ask(["events", "--direction", "egress"])?.stdout;
    ensure!(shown.contains("; asked for drop.evil.example; nearest: daraja (tcp 443)"), "{shown}");

    // Of several, the last that was asked for.
    ensure!(!visit("front.example.org").is_ok());
    holds("the other name to be told", SOON, || {
        send(drop_box.place.v4.into()).is_ok()
            && event(&firewall, "tcp", 8443).is_ok_and(|event| asked_for(&event) == Some("front.example.org"))
    })?;
    // What the program was refused at once is told with its name too.
    firewall.reload(&POLICY.replace("at_connect: pass", "at_connect: refuse"))?;
    let elsewhere = format!("http://{}:9443/", drop_box.place.v4);
    holds("an attempt with its name", SOON, || {
        let _refused = ok(field.host.namespace.command("curl").args(["-m", "1", "-s"]).arg(&elsewhere));
        let ran = firewall.ask(["events", "--direction", "egress", "--last", "1", "--format", "json"]);
        ran.is_ok_and(|ran| {
            ran.stdout.contains("\"attempt\"") && ran.stdout.contains("\"front.example.org\"")
        })
    })?;
    Ok(())
}
