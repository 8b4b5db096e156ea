//! After how long a program hears that it may not connect, or send, to where no packet may go.

use std::{
    io::{Error, ErrorKind},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use testbed::{Firewall, Host, Network, holds};

use crate::sample::{Sample, within};

const TIMES: usize = 1000;
/// Microseconds.
const AT_MOST: f64 = 1000.0;
const RULES: &str = "version: 1\nmode: enforce\ninterfaces: [eth0]\ningress: { default: drop }\negress:\n  default: drop\n  allow:\n    \
                     - { name: daraja, to: [192.0.2.80], ports: [443] }\n";
const DENIED: &str = "198.51.100.66:4444";

/// From the call to its answer, in the program. Beside it, what the kernel itself refuses without asking anybody.
pub(crate) fn table(network: &Network, host: &Host, binary: &str) -> Result<()> {
    let firewall = Firewall::new(network, &host.namespace, binary)?;
    firewall.policy(RULES)?;
    let _agent = firewall.start(&["--force"])?;
    let denied: SocketAddr = DENIED.parse()?;
    let tcp = |to: SocketAddr| TcpStream::connect_timeout(&to, Duration::from_millis(200)).map(drop);
    holds("programs to be refused", Duration::from_secs(20), || {
        host.namespace.inside(|| tcp(denied)).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })?;
    let closed: SocketAddr = "127.0.0.1:4444".parse()?;
    let (mut local, mut connect, mut send) = (Sample::new(), Sample::new(), Sample::new());
    host.namespace.inside(|| -> Result<()> {
        let datagrams = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..TIMES {
            local.push(time(ErrorKind::ConnectionRefused, || tcp(closed))?);
            connect.push(time(ErrorKind::PermissionDenied, || tcp(denied))?);
            send.push(time(ErrorKind::PermissionDenied, || datagrams.send_to(b"x", denied).map(drop))?);
        }
        Ok(())
    })?;
    println!("| a program hears | times | median, µs | p99, µs | max, µs | at most |");
    println!("|---|---|---|---|---|---|");
    let row = |what: &str, sample: &Sample, target: &str| {
        let (median, p99, max) = (sample.median(), sample.percentile(99.0), sample.max());
        println!("| {what} | {TIMES} | {median:.0} | {p99:.0} | {max:.0} | {target} |");
    };
    row("ECONNREFUSED of a closed local port: the rules are not asked", &local, "");
    let target = within(connect.percentile(99.0), AT_MOST);
    row("EPERM of `connect` (TCP)", &connect, &target);
    let target = within(send.percentile(99.0), AT_MOST);
    row("EPERM of `sendto` (UDP)", &send, &target);
    Ok(())
}

/// Microseconds until a call fails as it should.
fn time(expected: ErrorKind, call: impl FnOnce() -> Result<(), Error>) -> Result<f64> {
    let begin = Instant::now();
    let told = call();
    let microseconds = begin.elapsed().as_secs_f64() * 1e6;
    ensure!(told.as_ref().is_err_and(|error| error.kind() == expected), "{told:?} instead of {expected:?}");
    Ok(microseconds)
}
