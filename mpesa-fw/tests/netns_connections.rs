//! A callback is a finished handshake. SYNs from an allowed address are counted apart, and prove nothing.

mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use mpesa_fw::datapath::{Caller, Datapath, Options, TcChoice, XdpChoice};
use support::{FENCE, Field, SOON, WEB, groups::without_cgroups, policy};
use testbed::{Answer, Curl, Firewall, Host, Process, holds, place};

/// A port that one socket of both families serves.
const DUAL: &str = "{ name: dual, ports: [8080], from: [196.201.214.200, \"2001:db8:0:214::200\"] }";

fn connections(firewall: &Firewall<'_>, rule: &str) -> Result<f64> {
    Ok(firewall.metrics()?.sum("mpesa_fw_connections_total", &[("rule", rule)]))
}

fn syns(firewall: &Firewall<'_>, rule: &str) -> Result<f64> {
    Ok(firewall.metrics()?.sum("mpesa_fw_passed_syns_total", &[("rule", rule)]))
}

/// Whether there is a cgroup v2 to count at. (The kernel's own tests have none in some guests.)
fn can_count() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let can = mounts.contains(" - cgroup2 ");
    if !can {
        testbed::left_out("completed connections", "no cgroup v2 is mounted");
    }
    can
}

fn calls(from: &Host, to: &Host, port: u16, count: usize) {
    for turn in 0..count {
        let call = if turn % 2 == 0 { Curl::http(to.place.v4, port) } else { Curl::http(to.place.v6, port) };
        assert!(call.from(&from.namespace).is_ok(), "call {turn}");
    }
}

/// An HTTP server with one socket for both families, which sees IPv4 in mapped form.
fn dual(field: &Field, logs: &Path) -> Result<Process> {
    let script = "import http.server, socket\n\
        class Server(http.server.HTTPServer):\n    \
            address_family = socket.AF_INET6\n    \
            def server_bind(self):\n        \
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)\n        \
                super().server_bind()\n\
        class Answer(http.server.BaseHTTPRequestHandler):\n    \
            def do_GET(self):\n        \
                self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode())\n\
        server = Server(('::', 8080), Answer); print('serving', flush=True); server.serve_forever()";
    let mut python = field.host.namespace.command("python3");
    python.args(["-c", script]);
    let mut server = Process::spawn(python, "dual", logs)?;
    server.wait_for_log("serving", SOON)?;
    Ok(server)
}

#[test]
#[ignore = "needs root and a kernel"]
fn finished_handshakes_are_counted_and_nothing_else() -> Result<()> {
    if !can_count() {
        return Ok(());
    }
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB, DUAL], &[]))?;
    let _dual = dual(&field, firewall.logs())?;
    let text = firewall.namespace.get(Firewall::METRICS, "/metrics")?.1;
    assert!(
        text.contains("mpesa_fw_connections_total{rule=\"web\"} 0"),
        "a row before the first call: {text}"
    );
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_service_last_connection_timestamp_seconds", &[]), 0.0);

    calls(&field.safaricom, &field.host, 80, 6);
    assert_eq!(connections(&firewall, "web")?, 6.0);
    assert_eq!(syns(&firewall, "web")?, 6.0);
    // IPv4 at a socket of IPv6 is IPv4.
    calls(&field.safaricom, &field.host, 8080, 4);
    assert_eq!((connections(&firewall, "dual")?, syns(&firewall, "dual")?), (4.0, 4.0));

    // Neither what is denied, nor what this host says to itself.
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    for own in [
        "http://127.0.0.1/".to_owned(),
        "http://[::1]/".to_owned(),
        format!("http://{}/", field.host.place.v4),
    ] {
        assert!(Curl::get(&own).from(&field.host.namespace).is_ok(), "{own}");
    }
    assert_eq!(connections(&firewall, "web")?, 6.0);

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let last =
        firewall.metrics()?.sum("mpesa_fw_service_last_connection_timestamp_seconds", &[("rule", "web")]);
    assert!((now - 30.0..=now + 1.0).contains(&last), "{last} at {now}");
    let status = firewall.status()?;
    let web = &status["handshakes"][0];
    assert_eq!((web["service"].as_str(), web["connections"].as_u64()), (Some("web"), Some(6)), "{status}");
    let text = firewall.ask(["status"])?.stdout;
    let line = text.lines().find(|line| line.contains("service web") && line.contains("1.0"));
    assert!(line.is_some_and(|line| line.contains(" 6 ")), "{text}");
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn spoofed_syns_are_no_callbacks() -> Result<()> {
    if !can_count() {
        return Ok(());
    }
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB, FENCE], &[]))?;
    calls(&field.safaricom, &field.host, 80, 2);
    let mut wire = field.wire()?;
    // From the address that is allowed, by somebody who never sees the answers.
    let forged =
        "[to_host()/IP(src=S4,dst=H4)/TCP(sport=2000+n,dport=80,flags='S',seq=n) for n in range(40)]";
    assert_eq!(wire.send(&[("forged", forged)])?, ["forged"]);
    assert_eq!((syns(&firewall, "web")?, connections(&firewall, "web")?), (42.0, 2.0));
    // A guess at the rest of a handshake finishes none.
    let guessed = "to_host()/IP(src=S4,dst=H4)/TCP(sport=2000,dport=80,flags='A',seq=1,ack=12345)";
    assert_eq!(wire.send(&[("guessed", guessed)])?, ["guessed"]);
    assert_eq!((syns(&firewall, "web")?, connections(&firewall, "web")?), (42.0, 2.0));
    let suspected = "handshakes were finished: the sources are spoofed";
    let text = firewall.ask(["status"])?.stdout;
    assert!(text.contains(suspected) && text.contains("service web: 4"), "{text}");
    agent.process.wait_for_log(suspected, SOON * 2)?;
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn counts_follow_the_name_across_reloads_and_restarts() -> Result<()> {
    if !can_count() {
        return Ok(());
    }
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    calls(&field.safaricom, &field.host, 80, 3);
    firewall.reload(&policy(&[FENCE, DUAL, WEB], &[]))?;
    assert_eq!(connections(&firewall, "web")?, 3.0);
    calls(&field.safaricom, &field.host, 80, 1);
    assert_eq!(connections(&firewall, "web")?, 4.0, "charged to the name, not to the place");

    let before = firewall.metrics()?;
    agent.process.kill()?;
    calls(&field.safaricom, &field.host, 80, 2);
    // Who it was is kept with the counts.
    let callers = field.host.namespace.inside(|| recent_callers(&firewall))?;
    let known: Vec<_> =
        callers.iter().map(|caller| (caller.service.as_str(), caller.source, caller.connections)).collect();
    let from = &field.safaricom.place;
    assert!(
        known.contains(&("web", from.v4.into(), 4)) && known.contains(&("web", from.v6.into(), 2)),
        "{known:?}"
    );
    assert!(callers.iter().all(|caller| caller.last_seen > 0));
    let agent = firewall.start(&[])?;
    let now = firewall.metrics()?;
    assert_eq!(now.went_back(&before), [] as [String; 0]);
    assert_eq!((connections(&firewall, "web")?, syns(&firewall, "web")?), (6.0, 6.0), "without an agent too");

    // Under another name it is another service. (The rows of those that are gone keep their counts.)
    firewall.reload(&policy(&[&WEB.replace("web", "other")], &[]))?;
    calls(&field.safaricom, &field.host, 80, 1);
    assert_eq!((connections(&firewall, "other")?, connections(&firewall, "web")?), (1.0, 6.0));
    drop(agent);

    // After a detach nothing counts any more, nor is anything of it left.
    let agent = firewall.start(&[])?;
    let counting = counting_program(&firewall)?;
    assert!(program(&counting)?.contains("name connections"));
    let ran = firewall.ask(["detach"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    holds("the end of the program", SOON, || program(&counting).is_err())?;
    drop(agent);
    Ok(())
}

fn recent_callers(firewall: &Firewall<'_>) -> Result<Vec<Caller>> {
    let options = Options {
        bpffs: firewall.bpffs.clone(),
        xdp: XdpChoice::Auto,
        tc: TcChoice::Auto,
        flows_capacity: mpesa_fw_common::state::FLOWS_CAPACITY,
        trace: false,
    };
    Ok(Datapath::open(options)?.recent_callers()?)
}

fn program(id: &str) -> Result<String> {
    testbed::ok(Command::new("bpftool").args(["prog", "show", "id", id]))
}

/// The id of the program that counts here. (Other tests have theirs in the same kernel.)
fn counting_program(firewall: &Firewall<'_>) -> Result<String> {
    let pin = firewall.bpffs.join(format!("abi-{}/links/connections", mpesa_fw_common::ABI_VERSION));
    let shown = testbed::ok(Command::new("bpftool").args(["--json", "link", "show", "pinned"]).arg(pin))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    Ok(shown["prog_id"].as_u64().with_context(|| format!("no program in {shown}"))?.to_string())
}

#[test]
#[ignore = "needs root and a kernel"]
fn two_agents_of_one_machine_do_not_count_for_each_other() -> Result<()> {
    if !can_count() {
        return Ok(());
    }
    let field = Field::new()?;
    let other = field.network.add(place::INTRANET)?;
    let _web = field.web(&[80])?;
    let _other_web = support::web(&field.network, &other, &[80])?;
    let (firewall, _agent) = field.protected(&policy(&[WEB], &[]))?;
    let beside = Firewall::new(&field.network, &other.namespace, env!("CARGO_BIN_EXE_mpesa-fw"))?;
    beside.policy(&policy(&[WEB], &[]))?;
    let mut second = beside.start(&[])?;
    calls(&field.safaricom, &field.host, 80, 3);
    calls(&field.safaricom, &other, 80, 5);
    assert_eq!((connections(&firewall, "web")?, connections(&beside, "web")?), (3.0, 5.0));
    firewall.reload(&policy(&[WEB, FENCE], &[]))?;
    calls(&field.safaricom, &other, 80, 1);
    assert_eq!((connections(&firewall, "web")?, connections(&beside, "web")?), (3.0, 6.0));
    // The end of one is nothing to the other.
    let ran = beside.ask(["detach"])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    second.process.kill()?;
    calls(&field.safaricom, &field.host, 80, 1);
    assert_eq!(connections(&firewall, "web")?, 4.0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn without_cgroups_all_is_judged_and_said() -> Result<()> {
    if !can_count() {
        return Ok(());
    }
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let mut firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let wrapper = without_cgroups(&firewall)?;
    let real = std::mem::replace(&mut firewall.binary, wrapper);
    let agent = firewall.start(&[])?;
    firewall.binary = real;
    calls(&field.safaricom, &field.host, 80, 1);
    assert_eq!(Curl::http(field.host.place.v4, 80).from(&field.attacker.namespace), Answer::Silence);
    let text = firewall.namespace.get(Firewall::METRICS, "/metrics")?.1;
    assert!(text.contains("mpesa_fw_enforcing") && !text.contains("mpesa_fw_connections_total"), "{text}");
    assert!(!text.contains("last_connection_timestamp"), "{text}");
    let said = firewall.ask(["status"])?.stdout;
    assert!(said.contains("completed connections are not counted"), "{said}");
    assert!(said.contains("no cgroup v2 is mounted"), "{said}");
    assert!(firewall.status()?["handshakes"].is_null());
    // A start where there is one counts on.
    drop(agent);
    let _agent = firewall.start(&[])?;
    calls(&field.safaricom, &field.host, 80, 1);
    assert_eq!(connections(&firewall, "web")?, 1.0);
    Ok(())
}
