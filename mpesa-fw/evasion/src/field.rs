//! The protected host, its peers, and the listeners behind the firewall.

use std::{
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use testbed::{Host, Network, attach_foreign_xdp, place, serve::TcpEcho};

use crate::mode::Mode;

/// Where the callback service listens, [`SAFARICOM4`] and [`SAFARICOM6`] being allowed.
pub(crate) const CALLBACKS: u16 = 443;
/// A UDP service with the same sources.
pub(crate) const ECHO: u16 = 5000;
/// TCP and UDP listeners that no rule names: what somebody left running.
pub(crate) const STRAY: u16 = 8080;
/// Local port of a TCP flow to [`API4`] and [`API6`], port 443.
pub(crate) const FLOW: u16 = 40_000;
/// Local port of a UDP flow to [`API4`], port 53.
pub(crate) const QUERY: u16 = 40_001;

pub(crate) const HOST4: &str = "203.0.113.10";
pub(crate) const HOST6: &str = "2001:db8:0:113::10";
pub(crate) const SAFARICOM4: &str = "196.201.214.200";
pub(crate) const SAFARICOM6: &str = "2001:db8:0:214::200";
pub(crate) const ATTACKER4: &str = "198.51.100.66";
pub(crate) const ATTACKER6: &str = "2001:db8:0:666::66";
pub(crate) const API4: &str = "192.0.2.80";
pub(crate) const API6: &str = "2001:db8:0:80::80";

/// Allowed source and host, of both families.
pub(crate) const ALLOWED: [(&str, &str); 2] = [(SAFARICOM4, HOST4), (SAFARICOM6, HOST6)];
/// Another source and host, of both families.
pub(crate) const DENIED: [(&str, &str); 2] = [(ATTACKER4, HOST4), (ATTACKER6, HOST6)];

/// As strict as a callback host can be.
pub(crate) const POLICY: &str = "version: 1
mode: enforce
interfaces: [eth0]
sets:
  safaricom: [196.201.214.200, \"2001:db8:0:214::200\"]
  api: [192.0.2.80, \"2001:db8:0:80::80\"]
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: echo, protocol: udp, ports: [5000], from: [safaricom] }
    - { name: ping, protocol: [icmp, icmpv6], types: [echo-request], from: [safaricom] }
    - { name: fence, protocol: udp, ports: [9], from: [192.0.2.9] }
egress:
  default: drop
  at_connect: pass
  allow:
    - { name: api, to: [api], ports: [443] }
    - { name: queries, to: [api], protocol: udp, ports: [53] }
    - { name: fence, to: [192.0.2.9], protocol: udp, ports: [9] }
";

/// `address:port`, as the frame builders take it.
pub(crate) fn at(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The namespaces of one run. Dropped from the top.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) host: Host,
    pub(crate) api: Host,
    pub(crate) network: Network,
}

/// Name of the interface on which the witness sees what the stack was given.
pub(crate) const WITNESS: &str = "witness";

impl Field {
    /// With a witness, and nobody who speaks unasked.
    pub(crate) fn new() -> Result<Self> {
        let field = Self::talkative()?;
        field.quiet()?;
        field.witness()?;
        Ok(field)
    }

    /// As networks are.
    pub(crate) fn talkative() -> Result<Self> {
        let network = Network::new()?;
        let host = network.add(place::CALLBACK_HOST)?;
        let api = network.add(place::API)?;
        Ok(Self { host, api, network })
    }

    /// Nothing is to come to the host but what is put on its wire, or the counts would not be exact: neighbours are known
    /// and not asked for, the router keeps its own reports to itself, and the host its errors, whose number depends on the kernel's
    /// limits.
    fn quiet(&self) -> Result<()> {
        let (host, router) = (self.host.mac(), self.host.router_mac());
        let wire = self.host.place.name;
        self.host.namespace.sh(&format!(
            "ip neighbour replace 203.0.113.1 lladdr {router} dev eth0 nud permanent
             for a in 2001:db8:0:113::1 fe80::1; do ip neighbour replace $a lladdr {router} dev eth0 nud permanent; done
             sysctl -qw net.ipv6.conf.eth0.accept_ra=0
             nft 'table inet quiet {{ chain out {{ type filter hook output priority 0
                  icmp type {{ destination-unreachable, parameter-problem, time-exceeded }} drop
                  icmpv6 type {{ destination-unreachable, parameter-problem, time-exceeded }} drop
             }}; }}'"
        ))?;
        self.network.router.sh(&format!(
            "ip neighbour replace {HOST4} lladdr {host} dev {wire} nud permanent
             for a in {HOST6} fe80::2; do ip neighbour replace $a lladdr {host} dev {wire} nud permanent; done
             nft 'table netdev quiet {{ chain out {{ type filter hook egress device \"{wire}\" priority 0
                  ether saddr & ff:ff:00:00:00:00 == 02:f0:00:00:00:00 accept
                  ether type arp drop
                  meta l4proto {{ icmp, icmpv6, igmp }} drop
             }}; }}'"
        ))?;
        Ok(())
    }

    /// Copies each marked frame that came through the hooks of mpesa-fw, in whatever mode: netfilter's ingress hook stands
    /// behind generic XDP and TC, a packet socket would see frames before TC.
    fn witness(&self) -> Result<()> {
        self.host.namespace.sh(&format!(
            "ip link add {WITNESS} type veth peer name {WITNESS}-end
             for i in {WITNESS} {WITNESS}-end; do
               sysctl -qw net.ipv6.conf.$i.disable_ipv6=1; ip link set $i up; done
             nft 'table netdev witness {{ chain in {{ type filter hook ingress device \"eth0\" priority 0
                  ether saddr & ff:ff:00:00:00:00 == 02:f0:00:00:00:00 dup to \"{WITNESS}\"
             }}; }}'"
        ))?;
        Ok(())
    }

    /// Makes the interface one that is judged in this mode.
    pub(crate) fn prepare(&self, mode: Mode, bpffs: &Path) -> Result<&'static [&'static str]> {
        Ok(match mode {
            Mode::Native => &["--xdp", "native"],
            Mode::Generic => &["--xdp", "generic"],
            Mode::Tc => {
                attach_foreign_xdp(&self.host, bpffs)?;
                &[]
            }
            Mode::Bare => &[],
        })
    }
}

/// What runs behind the firewall.
#[derive(Debug)]
pub(crate) struct Listeners {
    echo: UdpSocket,
    stray_udp: UdpSocket,
    stray_tcp: TcpListener,
    _callbacks: TcpEcho,
}

impl Listeners {
    pub(crate) fn new(host: &Host) -> Result<Self> {
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let inside = host.namespace.inside(|| -> std::io::Result<_> {
            let bound = (
                UdpSocket::bind(everywhere(ECHO))?,
                UdpSocket::bind(everywhere(STRAY))?,
                TcpListener::bind(everywhere(STRAY))?,
            );
            bound.0.set_nonblocking(true)?;
            bound.1.set_nonblocking(true)?;
            bound.2.set_nonblocking(true)?;
            Ok(bound)
        });
        let (echo, stray_udp, stray_tcp) = inside.context("could not listen on the host")?;
        let callbacks = TcpEcho::start(&host.namespace, CALLBACKS)?;
        Ok(Self { echo, stray_udp, stray_tcp, _callbacks: callbacks })
    }

    /// Datagrams that the service has heard since it was last asked.
    pub(crate) fn heard(&self) -> usize {
        received(&self.echo)
    }

    /// Datagrams and connections that came to what no rule names.
    pub(crate) fn strays(&self) -> usize {
        let connections = std::iter::from_fn(|| self.stray_tcp.accept().ok()).count();
        received(&self.stray_udp) + connections
    }
}

fn received(socket: &UdpSocket) -> usize {
    let mut buffer = vec![0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()
}

/// Flows that the host has opened, so that there is something to ride on.
#[derive(Debug)]
pub(crate) struct Flows {
    _streams: [TcpStream; 2],
    _query: UdpSocket,
    _servers: (TcpEcho, UdpSocket),
}

impl Flows {
    pub(crate) fn open(field: &Field) -> Result<Self> {
        let servers = (
            TcpEcho::start(&field.api.namespace, 443)?,
            field
                .api
                .namespace
                .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 53)))
                .context("no server")?,
        );
        let open = || -> std::io::Result<_> {
            let query = UdpSocket::bind((HOST4, QUERY))?;
            query.send_to(b"?", (API4, 53))?;
            Ok((from_port(HOST4, API4)?, from_port(HOST6, API6)?, query))
        };
        let (v4, v6, query) =
            field.host.namespace.inside(open).context("the host could not open its flows")?;
        Ok(Self { _streams: [v4, v6], _query: query, _servers: servers })
    }
}

/// Connects from [`FLOW`].
fn from_port(local: &str, remote: &str) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
    use std::os::fd::AsRawFd as _;

    let address = |host: &str, port| SockaddrStorage::from(SocketAddr::new(crate::frames::ip(host), port));
    let family = if local.contains(':') { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &address(local, FLOW))?;
    connect(socket.as_raw_fd(), &address(remote, 443))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(stream)
}
