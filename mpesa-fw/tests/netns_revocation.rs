//! Revocation bites: what the policy no longer permits ends at once, idle or not, in both directions; nothing else does.

mod support;

use std::{
    cell::Cell,
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    Field, NEVER, SOON,
    groups::{Groups, program_with},
    policy,
};
use testbed::{Firewall, Host, Namespace, Process, holds, place, serve::UdpEcho};

const ALL: &str = "{ name: echo, ports: [7000], from: [196.201.214.200, 198.51.100.66] }";
const SAFARICOM_ONLY: &str = "{ name: echo, ports: [7000], from: [196.201.214.200] }";
const ONCE: &str = "{ name: once, ports: [7100], from: [196.201.214.200] }";
const GONE: &str =
    "{ name: gone, protocol: [tcp, udp], ports: [5000], to: [192.0.2.80, \"2001:db8:0:80::80\"] }";
const STAYS: &str = "{ name: stays, protocol: [tcp, udp], ports: [6000], to: [192.0.2.80] }";

/// What is promised.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Programs that hold connections.
struct Programs<'f> {
    field: &'f Field,
    count: Cell<usize>,
}

/// The calling end of a connection.
struct Call {
    process: Process,
    port: u16,
}

impl<'f> Programs<'f> {
    fn new(field: &'f Field) -> Self {
        Self { field, count: Cell::new(0) }
    }

    fn start(&self, namespace: &Namespace, arguments: &[&str], ready: &str) -> Result<Process> {
        self.start_as(namespace, None, 0, arguments, ready)
    }

    fn start_as(
        &self,
        namespace: &Namespace,
        group: Option<&Path>,
        uid: u32,
        arguments: &[&str],
        ready: &str,
    ) -> Result<Process> {
        let python = program_with(namespace, group, uid, include_str!("support/idle.py"), arguments);
        let number = self.count.replace(self.count.get() + 1);
        let mut process =
            Process::spawn(python, &format!("idle-{number}"), self.field.network.scratch.path())?;
        process.wait_for_log(ready, SOON)?;
        Ok(process)
    }

    fn serve(&self, namespace: &Namespace, how: &str, port: u16) -> Result<Process> {
        self.start(namespace, &[how, &port.to_string()], "listening")
    }

    fn call(&self, namespace: &Namespace, protocol: &str, to: impl Into<IpAddr>, port: u16) -> Result<Call> {
        self.call_as(namespace, None, 0, protocol, to, port)
    }

    fn call_as(
        &self,
        namespace: &Namespace,
        group: Option<&Path>,
        uid: u32,
        protocol: &str,
        to: impl Into<IpAddr>,
        port: u16,
    ) -> Result<Call> {
        let arguments = [protocol, &to.into().to_string(), &port.to_string()];
        let process = self.start_as(namespace, group, uid, &arguments, " .\n")?;
        let log = process.log();
        let port = log.split(' ').nth(2).and_then(|port| port.parse().ok()).context("a port")?;
        Ok(Call { process, port })
    }
}

impl Call {
    /// Its program wakes up from its wait, without having sent anything.
    fn is_aborted(&mut self) -> Result<()> {
        self.process.wait_for_log("it ECONNABORTED", AT_ONCE)
    }

    /// It says something and is answered.
    fn works(&self) -> Result<()> {
        let answers = || self.process.log().matches("it got").count();
        let before = answers();
        self.process.signal(Signal::SIGUSR1)?;
        holds("an answer", SOON, || answers() > before)
    }
}

fn listed(answer: &Value) -> Result<BTreeSet<String>> {
    let word = |one: &Value, key: &str| one[key].as_str().map(str::to_owned).context(key.to_owned());
    let line = |one: &Value| -> Result<String> {
        let keys = ["opened", "protocol", "local", "remote", "direction", "reason"];
        Ok(keys.into_iter().map(|key| word(one, key)).collect::<Result<Vec<_>>>()?.join(" "))
    };
    answer["ended"].as_array().context("a list")?.iter().map(line).collect()
}

/// A machine behind an interface of the host that is not protected.
struct Guest {
    namespace: Namespace,
}

impl Guest {
    const GATEWAY: &str = "172.17.0.1";
    const ADDRESS: &str = "172.17.0.2";

    fn new(host: &Host) -> Result<Self> {
        let namespace = Namespace::new("guest")?;
        host.namespace.sh(&format!(
            "ip link add guests type veth peer name eth0 netns {}
             ip address add {}/24 dev guests
             ip link set guests up",
            namespace.name(),
            Self::GATEWAY
        ))?;
        namespace.sh(&format!(
            "ip address add {}/24 dev eth0
             ip link set eth0 up
             ip route add default via {}",
            Self::ADDRESS,
            Self::GATEWAY
        ))?;
        Ok(Self { namespace })
    }
}

fn force(firewall: &Firewall<'_>, arguments: &[&str]) -> Result<String> {
    let ran = firewall.ask(arguments)?;
    ensure!(ran.code == Some(0), "{}", ran.text());
    Ok(ran.stdout)
}

#[test]
#[ignore = "needs root and a kernel"]
fn what_is_no_longer_permitted_ends_and_nothing_else() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let guest = Guest::new(&field.host)?;
    let programs = Programs::new(&field);
    let (host, there) = (field.host.place.v4, api.place.v4);
    let mut server = programs.serve(&field.host.namespace, "serve", 7000)?;
    let mut once = programs.serve(&field.host.namespace, "serve-once", 7100)?;
    let _gone = programs.serve(&api.namespace, "serve", 5000)?;
    let _stays = (programs.serve(&api.namespace, "serve", 6000)?, UdpEcho::start(&api.namespace, 6000)?);
    let _inside = programs.serve(&guest.namespace, "serve", 5000)?;
    let (firewall, agent) = field.protected(&policy(&[ALL, ONCE], &[GONE, STAYS]))?;

    let from_host = |protocol, to: IpAddr, port| programs.call(&field.host.namespace, protocol, to, port);
    let mut revoked = [
        from_host("tcp", there.into(), 5000)?,
        from_host("tcp", api.place.v6.into(), 5000)?,
        from_host("udp", there.into(), 5000)?,
    ];
    let visitor = programs.call(&field.attacker.namespace, "tcp", host, 7000)?;
    let gateway: IpAddr = Guest::GATEWAY.parse()?;
    let kept = [
        ("still permitted", from_host("tcp", there.into(), 6000)?),
        ("datagrams that are still permitted", from_host("udp", there.into(), 6000)?),
        ("a source that stays", programs.call(&field.safaricom.namespace, "tcp", host, 7000)?),
        ("one whose listener is gone", programs.call(&field.safaricom.namespace, "tcp", host, 7100)?),
        ("loopback", from_host("tcp", "127.0.0.1".parse()?, 7000)?),
        ("loopback, IPv6", from_host("tcp", "::1".parse()?, 7000)?),
        ("this host's own address", from_host("tcp", host.into(), 7000)?),
        ("a guest's way in", programs.call(&guest.namespace, "tcp", gateway, 7000)?),
        ("a guest's way to the protected address", programs.call(&guest.namespace, "tcp", host, 7000)?),
        ("the way to a guest", from_host("tcp", Guest::ADDRESS.parse()?, 5000)?),
    ];
    once.wait_for_log("called", SOON)?;
    server.wait_for_log(&format!("{}:{} called", field.attacker.place.v4, visitor.port), SOON)?;

    let next = policy(&[SAFARICOM_ONLY, ONCE], &[STAYS]);
    firewall.policy(&next)?;
    let ran = firewall.ask(["reload"])?;
    ensure!(ran.code == Some(1) && ran.stderr.contains("--force"), "{}", ran.text());
    for call in revoked[..2].iter().chain([&visitor]) {
        call.works().context("a reload that is refused ends nothing")?;
    }

    let answer = force(&firewall, &["reload", "--force", "--format", "json"])?;
    for call in &mut revoked {
        call.is_aborted()?;
    }
    let caller = SocketAddr::new(field.attacker.place.v4.into(), visitor.port);
    server.wait_for_log(&format!("{caller} ECONNABORTED"), AT_ONCE)?;
    for (what, call) in &kept {
        call.works().with_context(|| (*what).to_owned())?;
    }

    let answer: Value = serde_json::from_str(&answer).context("JSON")?;
    let out = |protocol: &str, local: IpAddr, call: &Call, remote: IpAddr| {
        let (local, remote) = (SocketAddr::new(local, call.port), SocketAddr::new(remote, 5000));
        let reason = "egress no_destination";
        format!("egress {protocol} {local} {remote} {reason}")
    };
    let expected = BTreeSet::from([
        out("tcp", host.into(), &revoked[0], there.into()),
        out("tcp", field.host.place.v6.into(), &revoked[1], api.place.v6.into()),
        out("udp", host.into(), &revoked[2], there.into()),
        format!("ingress tcp {host}:7000 {caller} ingress source_not_allowed"),
    ]);
    assert_eq!(listed(&answer)?, expected);
    assert_eq!(answer["ended_total"], 4);
    assert_eq!(answer["warnings"], Value::Array(Vec::new()), "nothing could not be done");
    let log = agent.process.log();
    assert_eq!(log.matches("its socket was ended").count(), 4, "{log}");

    // What is there no more is not ended again.
    let again = force(&firewall, &["reload", "--format", "json"])?;
    assert_eq!(serde_json::from_str::<Value>(&again)?["ended_total"], 0);
    Ok(())
}

/// The same addresses and ports: only whose the sockets are is no longer right.
#[test]
#[ignore = "needs root and a kernel"]
fn whoever_may_not_any_more_is_ended_and_whoever_may_is_not() -> Result<()> {
    const PAYMENTS: u32 = 4711;
    const INSIDER: u32 = 4713;
    let Some(groups) = Groups::new("revoked")? else { return Ok(()) };
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let programs = Programs::new(&field);
    let (here, there) = (&field.host.namespace, api.place.v4);
    let _api = (
        programs.serve(&api.namespace, "serve", 5000)?,
        programs.serve(&api.namespace, "serve", 6000)?,
        UdpEcho::start(&api.namespace, 5000)?,
    );
    let unit = groups.unit("payments");
    let group = groups.start(&unit)?;
    let mut of_insider = programs.start_as(here, None, INSIDER, &["serve", "7000"], "listening")?;
    let _of_payments = programs.start_as(here, Some(&group), PAYMENTS, &["serve", "7100"], "listening")?;
    let _datagrams =
        programs.start_as(here, Some(&group), PAYMENTS, &["serve-datagrams", "7200"], "listening")?;
    let services = |by: &str| {
        [("tcp", 7000), ("tcp", 7100), ("udp", 7200)].map(|(protocol, port)| {
            let of = format!("protocol: {protocol}, ports: [{port}], from: [196.201.214.200]");
            format!("{{ name: echo-{port}, {of}{by} }}")
        })
    };
    let destinations = |by_user: &str, by_unit: &str| {
        [
            format!("{{ name: api, protocol: [tcp, udp], ports: [5000], to: [192.0.2.80]{by_user} }}"),
            format!("{{ name: other, ports: [6000], to: [192.0.2.80]{by_unit} }}"),
        ]
    };
    let whole = |services: [String; 3], destinations: [String; 2]| {
        policy(&services.each_ref().map(String::as_str), &destinations.each_ref().map(String::as_str))
    };
    let (firewall, _agent) = field.protected(&whole(services(""), destinations("", "")))?;
    let call =
        |group: Option<&Path>, uid, protocol, port| programs.call_as(here, group, uid, protocol, there, port);
    let mut revoked = [
        ("tcp", 5000, call(None, INSIDER, "tcp", 5000)?),
        ("udp", 5000, call(None, INSIDER, "udp", 5000)?),
        ("tcp", 6000, call(None, PAYMENTS, "tcp", 6000)?),
    ];
    for (_, _, call) in &revoked {
        call.works()?;
    }
    let called = |port| programs.call(&field.safaricom.namespace, "tcp", field.host.place.v4, port);
    let caller = called(7000)?;
    caller.works()?;
    let kept = [
        ("the user", call(None, PAYMENTS, "tcp", 5000)?),
        ("the user's datagrams", call(None, PAYMENTS, "udp", 5000)?),
        ("the unit", call(Some(&group), PAYMENTS, "tcp", 6000)?),
        ("the caller of the unit's listener", called(7100)?),
        (
            "the unit's datagrams",
            programs.call(&field.safaricom.namespace, "udp", field.host.place.v4, 7200)?,
        ),
    ];
    for (what, call) in &kept {
        call.works().with_context(|| format!("{what}, before"))?;
    }

    let by_user = format!(", by: {{ user: {PAYMENTS} }}");
    let by_unit = format!(", by: {{ unit: {unit} }}");
    firewall.policy(&whole(services(&by_unit), destinations(&by_user, &by_unit)))?;
    // The guard sees it before, and callers of a listener that may not answer any more.
    let ran = firewall.ask(["reload"])?;
    ensure!(ran.code == Some(1) && ran.stderr.matches("owner_not_allowed").count() >= 4, "{}", ran.text());
    revoked[0].2.works().context("a reload that is refused ends nothing")?;

    let answer = force(&firewall, &["reload", "--force", "--format", "json"])?;
    for (protocol, port, call) in &mut revoked {
        call.is_aborted().with_context(|| format!("{protocol} {port}"))?;
    }
    let peer = SocketAddr::new(field.safaricom.place.v4.into(), caller.port);
    of_insider.wait_for_log(&format!("{peer} ECONNABORTED"), AT_ONCE)?;
    for (what, call) in &kept {
        call.works().with_context(|| (*what).to_owned())?;
    }
    let host = field.host.place.v4;
    let mut expected: BTreeSet<String> = revoked
        .iter()
        .map(|(protocol, port, call)| {
            format!("egress {protocol} {host}:{} {there}:{port} egress owner_not_allowed", call.port)
        })
        .collect();
    expected.insert(format!("ingress tcp {host}:7000 {peer} egress owner_not_allowed"));
    assert_eq!(listed(&serde_json::from_str(&answer)?)?, expected);

    let again = force(&firewall, &["reload", "--format", "json"])?;
    assert_eq!(serde_json::from_str::<Value>(&again)?["ended_total"], 0);
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_rollback_and_a_start_revoke_too_and_observing_does_not() -> Result<()> {
    let field = Field::new()?;
    let programs = Programs::new(&field);
    let mut server = programs.serve(&field.host.namespace, "serve", 7000)?;
    let host = field.host.place.v4;
    let (narrow, wide) = (policy(&[SAFARICOM_ONLY], &[]), policy(&[ALL], &[]));
    let (firewall, mut agent) = field.protected(&narrow)?;
    firewall.reload(&wide)?;
    let visit = || programs.call(&field.attacker.namespace, "tcp", host, 7000);
    let ended = |call: &Call| format!("{}:{} ECONNABORTED", field.attacker.place.v4, call.port);

    let visitor = visit()?;
    visitor.works()?;
    let told = force(&firewall, &["rollback", "--force"])?;
    server.wait_for_log(&ended(&visitor), AT_ONCE)?;
    let line = format!(
        "connections ended: 1\n  tcp from {}:{} to {host}:7000 (ingress: source_not_allowed)\n",
        field.attacker.place.v4, visitor.port
    );
    assert!(told.contains(&line), "{told}");

    firewall.reload(&wide)?;
    let visitor = visit()?;
    firewall.reload(&narrow.replace("mode: enforce", "mode: observe"))?;
    visitor.works().context("observing ends nothing")?;

    agent.process.kill()?;
    drop(agent);
    firewall.policy(&narrow)?;
    let _agent = firewall.start(&["--force"])?;
    server.wait_for_log(&ended(&visitor), AT_ONCE)
}

#[test]
#[ignore = "needs root and a kernel"]
fn the_return_of_a_trial_revokes_what_only_the_trial_permitted() -> Result<()> {
    let field = Field::new()?;
    let programs = Programs::new(&field);
    let mut server = programs.serve(&field.host.namespace, "serve", 7000)?;
    let (firewall, mut agent) = field.protected(&policy(&[SAFARICOM_ONLY], &[]))?;
    firewall.policy(&policy(&[ALL], &[]))?;
    force(&firewall, &["reload", "--confirm-within", "10s"])?;
    let visitor = programs.call(&field.attacker.namespace, "tcp", field.host.place.v4, 7000)?;
    let kept = programs.call(&field.safaricom.namespace, "tcp", field.host.place.v4, 7000)?;
    visitor.works()?;
    agent.process.wait_for_log("its socket was ended", Duration::from_secs(20))?;
    server.wait_for_log(&format!("{}:{} ECONNABORTED", field.attacker.place.v4, visitor.port), AT_ONCE)?;
    std::thread::sleep(NEVER);
    kept.works()
}
