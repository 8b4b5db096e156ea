//! Tables that are full: what becomes of callbacks, and of those who need the table.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testbed::{
    Curl, Firewall, Host, Network, place,
    serve::{Certificate, Nginx, Site, TcpEcho, UdpEcho},
};

use crate::{
    callbacks::{self, Outcome},
    contender::{self, BINARY},
    flood::{Flood, Orders},
    frame::Frame,
    load::flooding,
    rules,
};

/// What the host may be told to fill: more than the default of 65,536.
const FLOWS: usize = 262_144;
/// Packets a second of the floods here.
const RATE: u64 = 200_000;
/// Tries of those who need a table.
const TRIES: usize = 20;

const RULES: &str = r#"
version: 1
mode: enforce
interfaces: [eth0]
include: [safaricom.yaml]
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: site, ports: [80], from: [any], limit: { new_connections: 20/s, burst: 40, per: source } }
    - { name: bulk, protocol: udp, ports: [5000], from: [safaricom] }
egress:
  default: drop
  allow:
    - { name: api, to: [192.0.2.80], ports: [7000] }
    - { name: lake, protocol: udp, to: [198.51.100.0/24], ports: [53] }
"#;

/// Prints what happens with each of the three.
pub(crate) fn table(
    network: &Network,
    safaricom: &Host,
    certificate: &Certificate,
    object: &Path,
    long: Duration,
    cpu: usize,
) -> Result<()> {
    let host = network.add(contender::place(11)?)?;
    let sites = [
        Site { port: 443, certificate: Some(certificate), body: "accepted" },
        Site { port: 80, certificate: None, body: "here" },
    ];
    let _web = Nginx::start(&host.namespace, network.scratch.path(), "nginx-full", &sites)?;
    let firewall = Firewall::new(network, &host.namespace, BINARY)?;
    firewall.policy(RULES)?;
    firewall.write("safaricom.yaml", &rules::mpesa_fw()?[1].1)?;
    let _agent = firewall.start(&["--flows-capacity", &FLOWS.to_string()])?;
    let server = SocketAddr::from((host.place.v4, 443));
    let calls = || safaricom.namespace.inside(|| callbacks::send(server, &certificate.certificate, long));

    println!("| full | callbacks: sent | lost | p99, ms | who needs the table | before | meanwhile |");
    println!("|---|---|---|---|---|---|---|");

    let visits = || answered(|| Curl::http(host.place.v4, 80).from(&safaricom.namespace).is_ok());
    let before = visits();
    let orders = Orders { rate: Some(RATE), share: 0, allowed: Vec::new() };
    let mut flood = Flood::new(object, &network.router, &host, &Frame::syn(&host, 80)?, &orders)?;
    let (outcome, meanwhile) = flooding(network, &mut flood, cpu, || (calls(), visits()))?;
    row(
        "limiter (forged sources beyond its 65,536)",
        &outcome?,
        "visits of the limited site",
        before,
        meanwhile,
    );

    let _echo = UdpEcho::start(&host.namespace, 5000)?;
    let large = || {
        let patience = Duration::from_millis(200);
        let ask = || UdpEcho::ask(&safaricom.namespace, host.place.v4, 5000, &[7; 3000], patience);
        answered(|| matches!(ask(), Ok(Some(_))))
    };
    let before = large();
    let orders = Orders { rate: Some(RATE), share: 1, allowed: rules::safaricom()? };
    let mut flood =
        Flood::new(object, &network.router, &host, &Frame::first_fragment(&host, 5000)?, &orders)?;
    let (outcome, meanwhile) = flooding(network, &mut flood, cpu, || (calls(), large()))?;
    row(
        "fragments (first ones only, forged allowed sources)",
        &outcome?,
        "datagrams of 3,000 bytes",
        before,
        meanwhile,
    );

    flows(network, &firewall, &host, calls)
}

/// Filled by a program on the host itself, for nobody else can.
fn flows(
    network: &Network,
    firewall: &Firewall<'_>,
    host: &Host,
    calls: impl FnOnce() -> Result<Outcome>,
) -> Result<()> {
    let api = network.add(place::API)?;
    let _echo = TcpEcho::start(&api.namespace, 7000)?;
    let address = SocketAddr::from((api.place.v4, 7000));
    let mut kept = host.namespace.inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)))?;
    exchange(&mut kept, Duration::from_secs(5)).context("before the table is full")?;
    let opens = || {
        answered(|| {
            host.namespace
                .inside(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)))
                .is_ok_and(|mut stream| exchange(&mut stream, Duration::from_secs(1)).is_ok())
        })
    };
    let before = opens();
    let end = AtomicBool::new(false);
    let (outcome, meanwhile, flows, waited) = thread::scope(|scope| -> Result<_> {
        let filler = scope.spawn(|| host.namespace.inside(|| fill(&end)));
        let measured = (|| -> Result<_> {
            // Seconds that the filling may take: it is a table of `FLOWS`, and the sockets are opened one by one.
            thread::sleep(Duration::from_secs(4));
            let outcome = calls()?;
            let meanwhile = opens();
            let flows = firewall.metrics()?.sum("mpesa_fw_flows", &[]);
            let begin = Instant::now();
            let waited = exchange(&mut kept, Duration::from_secs(45)).map(|()| begin.elapsed());
            Ok((outcome, meanwhile, flows, waited))
        })();
        end.store(true, Ordering::Relaxed);
        filler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })?;
    row(
        &format!("flows ({flows:.0} of {FLOWS}, by a program on the host)"),
        &outcome,
        "new connections of the host",
        before,
        meanwhile,
    );
    match waited {
        Ok(waited) => println!(
            "\nA connection of the host that had been idle while the flows were filled went on after {:.1} s.",
            waited.as_secs_f64()
        ),
        Err(error) => println!(
            "\nA connection of the host that had been idle while the flows were filled did not go on within 45 s: {error:#}."
        ),
    }
    Ok(())
}

/// Opens flow after flow until told to end.
fn fill(end: &AtomicBool) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
        for last in 1..255 {
            // What is refused here is seen in the number of flows.
            let _ = socket.send_to(b"?", (Ipv4Addr::new(198, 51, 100, last), 53));
        }
    }
    Ok(())
}

/// One byte there and back.
fn exchange(stream: &mut TcpStream, patience: Duration) -> Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?")?;
    let mut answer = [0];
    if stream.read(&mut answer)? == 0 {
        bail!("closed");
    }
    Ok(())
}

/// How many of the tries succeed.
fn answered(mut one: impl FnMut() -> bool) -> usize {
    (0..TRIES)
        .filter(|_| {
            thread::sleep(Duration::from_millis(60));
            one()
        })
        .count()
}

fn row(what: &str, outcome: &Outcome, who: &str, before: usize, meanwhile: usize) {
    let mut all = outcome.fresh.clone();
    all.extend(outcome.kept.clone());
    println!(
        "| {what} | {} | {} | {:.1} | {who} | {before} of {TRIES} | {meanwhile} of {TRIES} |",
        outcome.sent(),
        outcome.lost,
        all.percentile(99.0)
    );
}
