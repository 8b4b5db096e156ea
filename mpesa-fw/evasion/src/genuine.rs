//! Honest traffic that looks odd on the way: it must arrive, whatever hook judges it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::{Firewall, Host, Metrics, place};

use crate::{
    case::Tally,
    field::{CALLBACKS, ECHO, Field, Listeners, POLICY},
    mode::Mode,
    report::{Report, Row, Status},
};

const CLASS: &str = "genuine traffic";
const PATIENCE: Duration = Duration::from_secs(10);
const SIZE: usize = 2_000_000;

/// Tries each in one mode.
pub(crate) fn run(mode: Mode, binary: &Path, report: &mut Report) -> Result<()> {
    let field = Field::talkative()?;
    let safaricom = field.network.add(place::SAFARICOM)?;
    let listeners = Listeners::new(&field.host)?;
    let _api = testbed::serve::TcpEcho::start(&field.api.namespace, 443)?;
    // A foreign program that knows no frames of several buffers is not attached to an interface with more than a page.
    let large = if mode == Mode::Tc { 3000 } else { 9000 };
    mtu(&field, &safaricom, large)?;
    let firewall = Firewall::new(&field.network, &field.host.namespace, binary)?;
    let options = field.prepare(mode, firewall.bpffs.parent().context("the pins lie in a bpffs")?)?;
    firewall.policy(POLICY)?;
    let _agent = firewall.start(options)?;
    let road = Road { mode, field: &field, safaricom: &safaricom, firewall: &firewall };

    for (name, host) in [("IPv4", IpAddr::from(field.host.place.v4)), ("IPv6", field.host.place.v6.into())] {
        road.row(report, &format!("2 MB in frames of {large} bytes, {name}"), || {
            there_and_back(&safaricom, host, CALLBACKS)
        })?;
        road.row(report, &format!("a datagram of 60,000 bytes to the service, {name}"), || {
            datagram(&safaricom, host, &listeners)
        })?;
    }
    big_tcp(&road, report)?;
    mtu(&field, &safaricom, 1500)?;
    path_mtu(&road, report)
}

/// Both ends and the router between them.
struct Road<'a> {
    mode: Mode,
    field: &'a Field,
    safaricom: &'a Host,
    firewall: &'a Firewall<'a>,
}

impl Road<'_> {
    /// One case: what `work` says must be well, and nothing may be dropped.
    fn row(&self, report: &mut Report, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.firewall.metrics()?;
        let ended = work();
        let dropped = dropped(&before, &self.firewall.metrics()?);
        let expected = String::from("all of it arrives, nothing dropped");
        let is_good = ended.is_ok() && dropped.0.is_empty();
        let arrived = ended.map_or_else(|error| format!("{error:#}"), |()| String::from("all of it arrives"));
        report.add(
            CLASS,
            Row {
                mode: self.mode.label(),
                case: name.to_owned(),
                frames: 0,
                seen: if is_good { expected.clone() } else { format!("{arrived}; dropped: {dropped}") },
                expected,
                differences: Vec::new(),
                status: if is_good { Status::Ok } else { Status::Different },
            },
        );
        Ok(())
    }
}

/// Segments of more than 64 KiB, whose length field is 0: generic XDP and TC see them as they are where the far side's
/// interface hands them over whole (as GRO does with `gro_max_size` raised).
fn big_tcp(road: &Road<'_>, report: &mut Report) -> Result<()> {
    let router = &road.field.network.router;
    let script = |devices: &[&str], size: u32| {
        devices
            .iter()
            .map(|device| format!("ip link set {device} gso_max_size {size} gro_max_size {size}\n"))
            .collect::<String>()
    };
    let set = |size| -> Result<()> {
        road.safaricom.namespace.sh(&script(&[Host::INTERFACE], size))?;
        road.field.host.namespace.sh(&script(&[Host::INTERFACE], size))?;
        router.sh(&script(&[road.field.host.place.name, road.safaricom.place.name], size))?;
        Ok(())
    };
    set(185_000)?;
    // Of IPv4 the sizes are apart (`gso_ipv4_max_size`, Linux 6.3), and the tool to set them is newer than most.
    let host = road.field.host.place.v6.into();
    road.row(report, "IPv6 BIG TCP towards the service, 2 MB", || {
        there_and_back(road.safaricom, host, CALLBACKS)
    })?;
    set(65_536)
}

/// A router that carries less than the links beside it: the host has to hear its errors.
fn path_mtu(road: &Road<'_>, report: &mut Report) -> Result<()> {
    let Road { field, safaricom, .. } = road;
    field.network.router.sh("ip route replace 196.201.214.0/24 dev safaricom scope link mtu 1300
         ip route replace 192.0.2.0/24 dev api scope link mtu 1300
         ip -6 route add 2001:db8:0:214::/64 dev safaricom metric 1 mtu 1300
         ip -6 route add 2001:db8:0:80::/64 dev api metric 1 mtu 1300")?;
    let host = field.host.place;
    let learnt = |peer: IpAddr| -> Result<()> {
        let route = field.host.namespace.sh(&format!("ip route get {peer}"))?;
        ensure!(route.contains("mtu 1300"), "the host has not learnt the path's MTU: {route}");
        Ok(())
    };
    for (name, from, to) in [
        ("IPv4", IpAddr::from(safaricom.place.v4), IpAddr::from(host.v4)),
        ("IPv6", safaricom.place.v6.into(), host.v6.into()),
    ] {
        road.row(report, &format!("a narrow path back to a visitor, {name}"), || {
            there_and_back(safaricom, to, CALLBACKS)?;
            learnt(from)
        })?;
    }
    for (name, to) in [("IPv4", IpAddr::from(field.api.place.v4)), ("IPv6", field.api.place.v6.into())] {
        road.row(report, &format!("a narrow path to a destination, {name}"), || {
            there_and_back(&field.host, to, 443)?;
            learnt(to)
        })?;
    }
    Ok(())
}

fn mtu(field: &Field, safaricom: &Host, bytes: u32) -> Result<()> {
    let (wire, far) = (field.host.place.name, safaricom.place.name);
    field.network.router.sh(&format!("ip link set {wire} mtu {bytes}; ip link set {far} mtu {bytes}"))?;
    for host in [&field.host, safaricom] {
        host.namespace.sh(&format!("ip link set {} mtu {bytes}", Host::INTERFACE))?;
    }
    Ok(())
}

/// Sends data to a server that returns it, and compares.
fn there_and_back(from: &Host, to: IpAddr, port: u16) -> Result<()> {
    let to = SocketAddr::new(to, port);
    let mut stream = from.namespace.inside(move || TcpStream::connect_timeout(&to, PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let data: Vec<u8> = (0..SIZE).map(|n| (n / 7 % 251) as u8).collect();
    let mut heard = vec![0; SIZE];
    let mut sending = stream.try_clone()?;
    let whole = thread::scope(|scope| {
        let sender = scope.spawn(|| sending.write_all(&data));
        let read = stream.read_exact(&mut heard);
        sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(read)
    });
    whole.context("not all of it came back in time")?;
    ensure!(heard == data, "what came back is not what was sent");
    Ok(())
}

fn datagram(from: &Host, to: IpAddr, listeners: &Listeners) -> Result<()> {
    let _earlier = listeners.heard();
    let any =
        if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let socket = from.namespace.inside(|| UdpSocket::bind((any, 0)))?;
    socket.send_to(&[0x61; 60_000], (to, ECHO))?;
    for _ in 0..50 {
        if listeners.heard() == 1 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("the service has not heard it")
}

fn dropped(before: &Metrics, after: &Metrics) -> Tally {
    let mut tally = Tally::default();
    for (what, count) in after.drops_since(before) {
        tally.count(what, count);
    }
    tally
}
