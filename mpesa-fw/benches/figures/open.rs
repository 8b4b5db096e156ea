//! How long the lock-out guard looks at open connections: a reload that it refuses, beside one that has nothing to look at.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Firewall, Host, Network, ok, place};

use crate::sample::{Sample, within};

/// Connections that are open.
const CONNECTIONS: usize = 10_000;
const TIMES: usize = 7;
const PORT: u16 = 7000;
const ALLOWED: &str = "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress:\n  default: drop\n  services:\n    \
                       - { name: visited, ports: [7000], from: [196.201.214.200] }\negress:\n  default: drop\n  allow: []\n";

/// Times both.
pub(crate) fn table(network: &Network, host: &Host, binary: &str) -> Result<()> {
    let sender = network.add(place::SAFARICOM)?;
    let me = std::process::id().to_string();
    ok(Command::new("prlimit").args(["--pid", &me, "--nofile=65536:65536"]))?;
    let firewall = Firewall::new(network, &host.namespace, binary)?;
    firewall.policy(ALLOWED)?;
    let _agent = firewall.start(&[])?;
    let closed = ALLOWED.replace("196.201.214.200", "192.0.2.1");

    eprintln!("{TIMES} reloads without connections");
    let mut without = Sample::new();
    for turn in 0..TIMES {
        let policy = if turn % 2 == 0 { &closed } else { ALLOWED };
        let (took, code) = reload(&firewall, policy)?;
        ensure!(code == Some(0), "a reload that cuts nothing");
        without.push(took);
    }
    firewall.reload(ALLOWED)?;

    eprintln!("{TIMES} refused reloads with {CONNECTIONS} connections");
    let listener = host.namespace.inside(|| TcpListener::bind(("0.0.0.0", PORT)))?;
    let to = SocketAddr::from((host.place.v4, PORT));
    let mut open = Vec::with_capacity(2 * CONNECTIONS);
    sender.namespace.inside(|| -> Result<()> {
        for _ in 0..CONNECTIONS {
            open.push(TcpStream::connect_timeout(&to, Duration::from_secs(5)).context("a connection")?);
            open.push(listener.accept().context("its other end")?.0);
        }
        Ok(())
    })?;
    let mut with = Sample::new();
    for _ in 0..TIMES {
        let (took, code) = reload(&firewall, &closed)?;
        ensure!(code == Some(1), "a reload that cuts {CONNECTIONS} connections");
        with.push(took);
    }
    println!("| lock-out guard | times | min, ms | median, ms | at most |");
    println!("|---|---|---|---|---|");
    let (min, median) = (without.min(), without.median());
    println!("| a reload, no connection open | {TIMES} | {min:.0} | {median:.0} | |");
    let (min, median) = (with.min(), with.median());
    let at_most = within(median, 1000.0);
    println!("| refused, {CONNECTIONS} connections open | {TIMES} | {min:.0} | {median:.0} | {at_most} |");
    Ok(())
}

/// Milliseconds and exit code of `mpesa-fw reload`.
fn reload(firewall: &Firewall<'_>, policy: &str) -> Result<(f64, Option<i32>)> {
    firewall.policy(policy)?;
    let begin = Instant::now();
    let ran = firewall.ask(["reload"])?;
    Ok((begin.elapsed().as_secs_f64() * 1e3, ran.code))
}
