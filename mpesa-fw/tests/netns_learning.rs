//! Addresses are learnt from the answers of name servers on their way in: allowed before the program that asked has them.

mod support;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use support::{Field, SOON, kinds, policy, web};
use testbed::{
    Answer, Curl, Firewall, Host, Process, holds, left_out, ok, place,
    serve::{Dnsmasq, Nginx, Resolved, Unbound},
};

/// With an owner: all that the programs can be asked, so that their stack has to suffice for it.
const CLOUD: &str = "{ name: cloud, to: ['*.cloud.example.net'], ports: [443], by: { user: root } }";
const DNS: &str = "{ name: dns, to: [10.20.0.5], protocol: [udp, tcp], ports: [53] }";
/// `ip-10-77-1-2.cloud.example.net` is 10.77.1.2.
const MADE_UP: &str = "--synth-domain=cloud.example.net,10.77.0.0/16,ip-";

/// A web server on every address of 10.77.0.0/16, and a resolver that knows a name for each.
struct Cloud {
    _web: Nginx,
    dns: Dnsmasq,
    _api: Host,
}

impl Cloud {
    fn new(field: &Field) -> Result<Self> {
        let api = field.network.add(place::API)?;
        let intranet = field.network.add(place::INTRANET)?;
        api.namespace.sh("ip route add local 10.77.0.0/16 dev lo")?;
        field.network.router.sh(&format!("ip route add 10.77.0.0/16 via {}", api.place.v4))?;
        let web = web(&field.network, &api, &[443])?;
        let scratch = field.network.scratch.path();
        let dns = Dnsmasq::start_with(&intranet.namespace, intranet.place.v4, scratch, 60, &[], &[MADE_UP])?;
        Ok(Self { _web: web, dns, _api: api })
    }

    fn firewall<'f>(&self, field: &'f Field) -> Result<Firewall<'f>> {
        let mut firewall = field.firewall()?;
        firewall.resolv_conf = Some(self.dns.resolv_conf.clone());
        Ok(firewall)
    }

    /// A program of the host asks for a name and connects to its address.
    fn visit(&self, field: &Field, name: &str) -> Answer {
        visit(field, &self.dns.resolv_conf, name)
    }
}

fn visit(field: &Field, resolv_conf: &Path, name: &str) -> Answer {
    Curl::get(format!("http://{name}:443/")).resolving(resolv_conf.to_owned()).from(&field.host.namespace)
}

fn learnt(firewall: &Firewall<'_>, name: &str) -> Result<f64> {
    Ok(firewall.metrics()?.sum("mpesa_fw_learnt_addresses", &[("name", name)]))
}

/// Resolves names and connects at once; prints how many segments were sent again, and how often it failed.
const CLIENT: &str = "
import socket, struct, sys
again = failed = 0
for n in range(int(sys.argv[1]), int(sys.argv[2])):
    name = 'ip-10-77-%d-%d.cloud.example.net' % (n // 250, n % 250 + 1)
    try:
        address = socket.getaddrinfo(name, 443, socket.AF_INET, socket.SOCK_STREAM)[0][4]
        with socket.socket() as s:
            s.settimeout(5)
            s.connect(address)
            # struct tcp_info, tcpi_total_retrans
            again += struct.unpack('I', s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100:])[0]
    except OSError as error:
        failed += 1
        print(name, error)
print('again', again, 'failed', failed)
";

/// Only asks, as fast as it can.
const ASKER: &str = "
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.connect((sys.argv[1], 53))
answers = 0
for n in range(int(sys.argv[2]), int(sys.argv[3])):
    name = 'ip-10-77-%d-%d.cloud.example.net' % (n // 250, n % 250 + 1)
    question = b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0'
    s.send(struct.pack('!6H', n, 0x100, 1, 0, 0, 0) + question + struct.pack('!2H', 1, 1))
    answers += s.recv(512)[7] == 1
print('answers', answers)
";

#[test]
#[ignore = "needs root and a kernel"]
fn no_first_packet_to_a_fresh_name_is_dropped() -> Result<()> {
    let field = Field::new()?;
    let cloud = Cloud::new(&field)?;
    let firewall = cloud.firewall(&field)?;
    firewall.policy(&policy(&[], &[CLOUD, DNS]))?;
    let mut agent = firewall.start(&[])?;
    // The address by itself is denied: nobody asked for its name yet.
    assert_eq!(
        Curl::http("10.77.0.1".parse::<std::net::IpAddr>()?, 443).from(&field.host.namespace),
        Answer::Silence
    );

    let before = firewall.metrics()?;
    let client = |from: usize, to: usize| {
        let mut python = field.host.namespace.command_resolving(&cloud.dns.resolv_conf, "python3");
        ok(python.args(["-c", CLIENT]).args([from.to_string(), to.to_string()]))
    };
    assert_eq!(client(0, 1000)?, "again 0 failed 0\n");
    let after = firewall.metrics()?;
    assert_eq!(kinds(&after.drops_since(&before)), [] as [&str; 0]);
    assert!(learnt(&firewall, "*.cloud.example.net")? >= 1000.0);
    assert!(after.sum("mpesa_fw_dns_answers_total", &[("outcome", "address")]) >= 1000.0);

    // Ten thousand at the same time; the first is among them.
    let mut python = field.host.namespace.command("python3");
    python.args(["-c", ASKER, "10.20.0.5", "1000", "10000"]);
    assert_eq!(ok(&mut python)?, "answers 9000\n");
    assert!(learnt(&firewall, "*.cloud.example.net")? >= 10_000.0);
    assert_eq!(firewall.metrics()?.sum("mpesa_fw_dns_answers_total", &[("outcome", "refused")]), 0.0);
    assert!(Curl::http("10.77.0.1".parse::<std::net::IpAddr>()?, 443).from(&field.host.namespace).is_ok());

    // Nobody has to be there for it: enforcement stays in the kernel, and so does this.
    agent.process.kill()?;
    assert_eq!(client(10_000, 10_050)?, "again 0 failed 0\n");
    // The next agent finds it all.
    let _agent = firewall.start(&[])?;
    assert!(learnt(&firewall, "*.cloud.example.net")? >= 10_050.0);
    assert!(Curl::http("10.77.40.50".parse::<std::net::IpAddr>()?, 443).from(&field.host.namespace).is_ok());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn only_what_the_policy_names_is_learnt() -> Result<()> {
    let field = Field::new()?;
    let cloud = Cloud::new(&field)?;
    let firewall = cloud.firewall(&field)?;
    let exact = "{ name: exact, to: [ip-10-77-0-1.cloud.example.net], ports: [443] }";
    firewall.policy(&policy(&[], &[exact, DNS]))?;
    let _agent = firewall.start(&[])?;
    assert!(
        cloud.visit(&field, "IP-10-77-0-1.Cloud.Example.NET").is_ok(),
        "in whatever case it is asked for"
    );
    let before = firewall.metrics()?;
    assert_eq!(cloud.visit(&field, "ip-10-77-0-2.cloud.example.net"), Answer::Silence);
    assert_eq!(kinds(&firewall.metrics()?.drops_since(&before)), ["egress exact name_not_allowed"]);

    // A reload to a wildcard: what is asked from now on is learnt, what was learnt stays.
    firewall.reload(&policy(&[], &[CLOUD, exact, DNS]))?;
    assert!(cloud.visit(&field, "ip-10-77-0-2.cloud.example.net").is_ok());
    let text = firewall.ask(["status"])?.stdout;
    let line = text.lines().find(|line| line.contains("*.cloud.example.net")).context("a line of status")?;
    assert!(line.contains(" 1 "), "the other was asked for before there was a wildcard: {text}");

    // A connection by a name that is taken away ends; one whose name stays lives on.
    let script = "
import os, socket, sys, time
a, b = (socket.create_connection((address, 443), 5) for address in sys.argv[2:])
print('open', flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.05)
for s in (a, b):
    s.settimeout(2)
    try:
        s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')
        print('answer' if s.recv(10) else 'end')
    except OSError as error:
        print('silence')
";
    let mut python = field.host.namespace.command("python3");
    let go = firewall.logs().join("go");
    python.args(["-uc", script]).arg(&go).args(["10.77.0.1", "10.77.0.2"]);
    let mut held = Process::spawn(python, "held", firewall.logs())?;
    held.wait_for_log("open", SOON)?;
    firewall.reload(&policy(&[], &[exact, DNS]))?;
    fs::write(&go, "")?;
    held.wait_for_log("silence", SOON)?;
    assert!(held.log().contains("answer\nsilence"), "{}", held.log());
    Ok(())
}

/// Stub resolvers on loopback, which the host's programs ask, and which ask the one outside.
#[test]
#[ignore = "needs root and a kernel"]
fn a_stub_on_loopback_is_as_good() -> Result<()> {
    let field = Field::new()?;
    let cloud = Cloud::new(&field)?;
    let firewall = cloud.firewall(&field)?;
    firewall.policy(&policy(&[], &[CLOUD, DNS]))?;
    let _agent = firewall.start(&[])?;
    let (inside, scratch) = (&field.host.namespace, field.network.scratch.path());
    let outside = place::INTRANET.v4;

    let options = [&format!("--server={outside}"), "--cache-size=1000"];
    let dnsmasq = Dnsmasq::start_with(inside, [127, 0, 0, 1].into(), scratch, 60, &[], &options)?;
    stands_between(&field, &cloud, &firewall, &dnsmasq.resolv_conf, "ip-10-77-0-1.cloud.example.net")?;
    let unbound = Unbound::forwarding(inside, [127, 0, 0, 2].into(), scratch, outside)?;
    stands_between(&field, &cloud, &firewall, &unbound.resolv_conf, "ip-10-77-0-2.cloud.example.net")?;
    assert!(!cloud.dns.log().contains("query[A] ip-10-77-0-2.cloud"), "in mixed case: {}", cloud.dns.log());
    let target = firewall.binary.ancestors().nth(2).context("cargo's directory")?;
    let Some(program) = Resolved::program(target) else {
        left_out("systemd-resolved as a stub", "it is not on this machine; `cargo xtask setup` unpacks it");
        return Ok(());
    };
    let resolved = Resolved::start(&program, inside, scratch, outside)?;
    stands_between(&field, &cloud, &firewall, &resolved.resolv_conf, "ip-10-77-0-3.cloud.example.net")
}

/// A program asks the stub for a name and connects at once. From the stub's memory, then: nothing goes over the wire, and
/// the address counts for as long, over a reload too.
fn stands_between(
    field: &Field,
    cloud: &Cloud,
    firewall: &Firewall<'_>,
    stub: &Path,
    name: &str,
) -> Result<()> {
    let asked = || cloud.dns.log().to_lowercase().matches(&format!("query[a] {name} ")).count();
    ensure!(visit(field, stub, name).is_ok(), "{name}: {}", cloud.dns.log());
    let before = asked();
    ensure!(before > 0, "it was asked outside: {}", cloud.dns.log());
    ensure!(visit(field, stub, name).is_ok(), "{name}, again");
    firewall.reload(&policy(&[support::WEB], &[CLOUD, DNS]))?;
    ensure!(visit(field, stub, name).is_ok(), "{name}, after a reload");
    ensure!(asked() == before, "from the stub's memory: {}", cloud.dns.log());
    firewall.reload(&policy(&[], &[CLOUD, DNS])).map(drop)
}

/// Another resolver, with chains of aliases, IPv6, an answer that only TCP can carry, and no answer at all.
#[test]
#[ignore = "needs root and a kernel"]
fn aliases_big_answers_and_none() -> Result<()> {
    let field = Field::new()?;
    let api = field.network.add(place::API)?;
    let intranet = field.network.add(place::INTRANET)?;
    let _web = web(&field.network, &api, &[443])?;
    let mut records = vec![
        "www.example.net. 60 IN CNAME edge.example.net.".to_owned(),
        "edge.example.net. 60 IN CNAME host.example.net.".to_owned(),
        format!("host.example.net. 60 IN A {}", api.place.v4),
        format!("host.example.net. 60 IN AAAA {}", api.place.v6),
        format!("six.example.net. 60 IN AAAA {}", api.place.v6),
    ];
    // More than any datagram holds.
    records.extend((1..=250).map(|n| format!("big.example.net. 60 IN A 192.0.2.{n}")));
    records.extend((0..=1).map(|n| format!("big.example.net. 60 IN TXT \"{}\"", "x".repeat(200 + n))));
    let dns = Unbound::start(
        &intranet.namespace,
        intranet.place.v4,
        field.network.scratch.path(),
        "example.net.",
        &records,
    )?;
    let names = "{ name: www, to: [www.example.net, six.example.net, '*.sub.example.net'], ports: [443] }";
    let mut firewall = field.firewall()?;
    firewall.resolv_conf = Some(dns.resolv_conf.clone());
    firewall.policy(&policy(&[], &[names, DNS]))?;
    let _agent = firewall.start(&[])?;
    let get = |name: &str| visit(&field, &dns.resolv_conf, name);
    assert!(get("www.example.net").is_ok());
    assert!(get("six.example.net").is_ok());
    assert!(get("host.example.net").is_ok(), "the same address, whatever it is called");
    assert!(learnt(&firewall, "www.example.net")? >= 2.0);

    // Only the agent's own question brings an answer over TCP: it needs the name.
    let big = "{ name: big, to: [big.example.net], ports: [443] }";
    firewall.reload(&policy(&[], &[big, DNS]))?;
    holds("an answer over TCP", SOON, || {
        firewall
            .metrics()
            .is_ok_and(|now| now.sum("mpesa_fw_resolved_addresses", &[("name", "big.example.net")]) >= 64.0)
    })?;
    assert!(!get("missing.example.net").is_ok());
    Ok(())
}

/// A policy with a wildcard and no name server in it is valid, and `check` says what it lacks.
#[test]
fn a_wildcard_without_a_name_server_is_doubtful() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let rules = directory.path().join("rules.yaml");
    let text = |dns: &str| {
        format!(
            "version: 1\ninterfaces: [eth0]\ningress: {{ default: drop, services: [] }}\negress: {{ default: drop, allow: [{CLOUD}{dns}] }}\n"
        )
    };
    let check = |dns: &str| -> Result<String> {
        fs::write(&rules, text(dns))?;
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mpesa-fw"));
        let ran = testbed::run(command.args(["check", "--ignore-permissions"]).arg(&rules))?;
        assert_eq!(ran.code, Some(0), "{}", ran.text());
        Ok(ran.text())
    };
    assert!(check("")?.contains("no destination lists a name server"));
    assert!(
        check(", { name: dns, to: [any], protocol: udp, ports: [53] }")?
            .contains("no destination lists a name server")
    );
    assert!(!check(&format!(", {DNS}"))?.contains("name server"));
    Ok(())
}
