//! How long the lock-out guard looks at open connections: a reload that it refuses, beside one that has nothing to look at.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{Firewall, Host, Network, Process, place};

use crate::sample::{Sample, within};

/// Connections that are open.
const CONNECTIONS: usize = 10_000;
const TIMES: usize = 7;
const PORT: u16 = 7000;
const ALLOWED: &str = "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress:\n  default: drop\n  services:\n    \
                       - { name: visited, ports: [7000], from: [196.201.214.200] }\negress:\n  default: drop\n  allow: []\n";

const ACCEPTS: &str = "
import socket, sys, time
listener = socket.create_server(('', int(sys.argv[1])), backlog=4096)
print('listening', flush=True)
held = [listener.accept() for _ in range(int(sys.argv[2]))]
print('all of them', flush=True)
time.sleep(3600)
";

/// Times both.
pub(crate) fn table(network: &Network, host: &Host, binary: &str) -> Result<()> {
    let sender = network.add(place::SAFARICOM)?;
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
    // The ends of the host are another process's: one may not open twice as many.
    let mut server = host.namespace.command("python3");
    server.args(["-c", ACCEPTS, &PORT.to_string(), &CONNECTIONS.to_string()]);
    let mut server = Process::spawn(server, "server", firewall.logs())?;
    server.wait_for_log("listening", Duration::from_secs(10))?;
    let to = SocketAddr::from((host.place.v4, PORT));
    let open = sender.namespace.inside(|| -> Result<Vec<TcpStream>> {
        let one = |_| TcpStream::connect_timeout(&to, Duration::from_secs(5)).context("a connection");
        (0..CONNECTIONS).map(one).collect()
    })?;
    server.wait_for_log("all of them", Duration::from_secs(30))?;
    let mut with = Sample::new();
    for _ in 0..TIMES {
        let (took, code) = reload(&firewall, &closed)?;
        ensure!(code == Some(1), "a reload that cuts {CONNECTIONS} connections");
        with.push(took);
    }
    drop(open);
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
