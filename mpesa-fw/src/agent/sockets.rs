//! The kernel's list of sockets (sock_diag): which connections exist, and which ports serve.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are not ours; nothing else belongs to a dump"
)]

use std::{collections::HashMap, io, net::IpAddr, time::Duration};

use mpesa_fw_common::{
    Address, Family,
    state::{FlowKey, FlowPhase},
};
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla as _,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};

use super::holder::Holder;

/// The sockets of this network namespace at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sockets {
    /// Sockets with a peer.
    pub connected: Vec<Connected>,
    /// Sockets that wait for peers, by protocol and local port: TCP listeners, UDP sockets without a peer. Of each what it is bound to.
    pub serving: HashMap<(u8, u16), Vec<(IpAddr, Holder)>>,
    /// Whose each of both kinds is, by its cookie as flows have it.
    pub holders: HashMap<u64, Holder>,
}

/// A socket that waits for peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    /// TCP or UDP, by number.
    pub protocol: u8,
    /// What it is bound to; unspecified: every address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Who made it.
    pub user: u32,
    /// As in `/proc/PID/fd`.
    pub inode: u32,
}

/// Asks the kernel for sockets that wait for peers and for no others, in the network namespace of this thread.
///
/// # Errors
/// The kernel refuses, or answers what can't be understood.
pub(super) fn listening() -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for (protocol, state) in [(IPPROTO_TCP, TCP_LISTEN), (IPPROTO_UDP, TCP_CLOSE)] {
        for family in [AF_INET, AF_INET6] {
            let states = StateFlags::from_bits_retain(1 << state);
            ask(family, protocol, ExtensionFlags::empty(), states, |response| {
                let header = &response.header;
                found.push(Listening {
                    protocol,
                    address: header.socket_id.source_address.to_canonical(),
                    port: header.socket_id.source_port,
                    user: header.uid,
                    inode: header.inode,
                });
            })?;
        }
    }
    // A UDP socket that is bound to nothing has no port.
    found.retain(|socket| socket.port != 0);
    Ok(found)
}

/// A socket with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// Both ends.
    pub key: FlowKey,
    /// How far the connection has come.
    pub phase: FlowPhase,
    /// How long ago the other end was heard of; none where that was not asked for, and for all but TCP.
    pub heard: Option<Duration>,
    /// The interface that it is bound to, by index; 0: none.
    pub interface: u32,
    /// The kernel's name of this socket: another one with the same ends has another.
    pub cookie: [u8; 8],
    /// Whose it is.
    pub holder: Holder,
}

impl Sockets {
    /// Asks the kernel, in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel refuses, or answers what can't be understood.
    pub(super) fn dump() -> io::Result<Self> {
        Self::ask_for(ExtensionFlags::empty())
    }

    /// As [`dump`](Self::dump), and how long ago each peer was heard of.
    ///
    /// # Errors
    /// The kernel refuses, or answers what can't be understood.
    pub(super) fn dump_with_activity() -> io::Result<Self> {
        Self::ask_for(ExtensionFlags::INFO)
    }

    fn ask_for(extensions: ExtensionFlags) -> io::Result<Self> {
        let mut sockets = Self::default();
        for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
            for family in [AF_INET, AF_INET6] {
                let extensions = extensions.clone();
                ask(family, protocol, extensions, StateFlags::all(), |response| {
                    sockets.add(protocol, response)
                })?;
            }
        }
        Ok(sockets)
    }

    /// Connections that this host opened, as far as can be told: those whose local port does not serve.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = &Connected> {
        self.connected.iter().filter(|c| !self.serve(&c.key))
    }

    /// Whether a socket waits for peers at the local port of a connection.
    pub(super) fn serve(&self, key: &FlowKey) -> bool {
        self.serving.contains_key(&(key.protocol, key.local_port))
    }

    /// Whose the sockets are that wait for TCP connections to an address: bound to it, or to any.
    pub(super) fn servers(&self, address: IpAddr, port: u16) -> Vec<Holder> {
        let is_for = |bound: &IpAddr| match bound {
            IpAddr::V4(bound) => bound.is_unspecified() && address.is_ipv4() || *bound == address,
            // Of both families, but for those that ask for IPv6 alone: with them nothing is ended that should not be.
            IpAddr::V6(bound) => bound.is_unspecified() || *bound == address,
        };
        let all = self.serving.get(&(IPPROTO_TCP, port)).into_iter().flatten();
        all.filter(|(bound, _)| is_for(bound)).map(|(_, holder)| *holder).collect()
    }

    fn add(&mut self, protocol: u8, response: &InetResponse) {
        let id = &response.header.socket_id;
        let holder = holder(response);
        self.holders.insert(u64::from_ne_bytes(id.cookie), holder);
        let state = response.header.state;
        // UDP sockets without a peer are "closed" in this list.
        if state == TCP_LISTEN || state == TCP_CLOSE && protocol == IPPROTO_UDP {
            let servers = self.serving.entry((protocol, id.source_port)).or_default();
            servers.push((id.source_address.to_canonical(), holder));
            return;
        }
        let (Some(phase), Some(key)) = (phase(state), key(protocol, id)) else { return };
        let (heard, interface, cookie) = (heard(response), id.interface_id, id.cookie);
        self.connected.push(Connected { key, phase, heard, interface, cookie, holder });
    }
}

/// Data, or an acknowledgement of what this host sent.
fn heard(response: &InetResponse) -> Option<Duration> {
    response.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(info) => {
            let field = |at: usize| info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
            Some(Duration::from_millis(field(LAST_DATA_RECV)?.min(field(LAST_ACK_RECV)?).into()))
        }
        _ => None,
    })
}

/// The kernel says the group unasked (since Linux 5.8).
fn holder(response: &InetResponse) -> Holder {
    const INET_DIAG_CGROUP_ID: u16 = 21;
    let group = response.nlas.iter().find_map(|nla| match nla {
        Nla::Other(other) if other.kind() == INET_DIAG_CGROUP_ID => {
            let mut value = [0; 8];
            (other.value_len() == value.len()).then(|| other.emit_value(&mut value))?;
            Some(u64::from_ne_bytes(value))
        }
        _ => None,
    });
    // Without an inode it belongs to no descriptor any more.
    let user = (response.header.inode != 0).then_some(response.header.uid);
    Holder { user, group }
}

// Offsets in `struct tcp_info`, include/uapi/linux/tcp.h: milliseconds.
const LAST_DATA_RECV: usize = 52;
const LAST_ACK_RECV: usize = 56;

// include/net/tcp_states.h
const TCP_ESTABLISHED: u8 = 1;
const TCP_SYN_SENT: u8 = 2;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE: u8 = 7;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LAST_ACK: u8 = 9;
const TCP_LISTEN: u8 = 10;
const TCP_CLOSING: u8 = 11;

fn phase(state: u8) -> Option<FlowPhase> {
    match state {
        TCP_ESTABLISHED | TCP_CLOSE_WAIT => Some(FlowPhase::Answered),
        TCP_SYN_SENT => Some(FlowPhase::Opened),
        TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_LAST_ACK | TCP_CLOSING => Some(FlowPhase::Closing),
        _ => None,
    }
}

/// None for what never reaches a hook: loopback, and a peer that is no host.
fn key(protocol: u8, id: &SocketId) -> Option<FlowKey> {
    let (local, remote) = (id.source_address.to_canonical(), id.destination_address.to_canonical());
    if local.is_loopback() || remote.is_loopback() || remote.is_unspecified() || id.destination_port == 0 {
        return None;
    }
    let family = match remote {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    let (local, remote) = (Address::from(local), Address::from(remote));
    Some(FlowKey::new(family, protocol, local, id.source_port, remote, id.destination_port))
}

fn ask(
    family: u8,
    protocol: u8,
    extensions: ExtensionFlags,
    states: StateFlags,
    mut found: impl FnMut(&InetResponse),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let request = SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol,
        extensions,
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    });
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            match &message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => found(response),
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let step = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(step..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_listener_serves_and_loopback_is_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let sockets = Sockets::dump().unwrap();
        let of =
            |protocol, port| sockets.serving.get(&(protocol, port)).map(Vec::as_slice).unwrap_or_default();
        let uid = nix::unistd::geteuid().as_raw();
        for (protocol, port) in [(6, port), (17, udp.local_addr().unwrap().port())] {
            let servers = of(protocol, port);
            let [(bound, Holder { user, group: Some(1..) })] = servers else { panic!("{servers:?}") };
            assert!(bound.is_loopback() && *user == Some(uid), "{servers:?}");
        }
        assert_eq!(sockets.servers("127.0.0.1".parse().unwrap(), port).len(), 1);
        assert_eq!(sockets.servers("127.0.0.2".parse().unwrap(), port).len(), 0, "bound to another address");
        assert!(sockets.connected.iter().all(|c| c.key.local_port != port));
    }

    #[test]
    fn only_what_waits_is_listed_as_listening() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        let found = listening().unwrap();
        let of = |protocol, port| found.iter().filter(|l| (l.protocol, l.port) == (protocol, port)).count();
        assert_eq!((of(6, port), of(6, client.local_addr().unwrap().port())), (1, 0));
        assert_eq!(of(17, udp.local_addr().unwrap().port()), 1);
        assert!(found.iter().all(|listening| listening.inode > 0), "sockets of this host have one");
        udp.connect("[::1]:9").unwrap();
        let found = listening().unwrap();
        assert!(!found.iter().any(|l| l.protocol == 17 && l.port == udp.local_addr().unwrap().port()));
    }

    #[test]
    fn a_connection_of_a_serving_port_is_not_outgoing() {
        let key = |port| {
            let (a, b) = (Address::v4(0x0a00_0001), Address::v4(0xc400_0001));
            FlowKey::new(Family::V4, 6, a, port, b, 443)
        };
        let to = |port| {
            let (phase, heard) = (FlowPhase::Answered, None);
            let holder = Holder { user: None, group: None };
            Connected { key: key(port), phase, heard, interface: 0, cookie: [0; 8], holder }
        };
        let serving = HashMap::from([((6, 22), Vec::new())]);
        let sockets = Sockets { connected: vec![to(22), to(50000)], serving, ..Sockets::default() };
        assert_eq!(sockets.outgoing().map(|c| c.key.local_port).collect::<Vec<_>>(), [50000]);
    }

    #[test]
    fn the_kernel_says_how_long_ago_a_peer_was_heard_of() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut client, b"x").unwrap();
        std::io::Read::read_exact(&mut server, &mut [0]).unwrap();
        let mut heard_of = 0;
        let port = client.local_addr().unwrap().port();
        ask(AF_INET, IPPROTO_TCP, ExtensionFlags::INFO, StateFlags::all(), |response| {
            let is_ours = response.header.socket_id.destination_port == port;
            heard_of +=
                usize::from(is_ours && heard(response).is_some_and(|ago| ago < Duration::from_secs(60)));
        })
        .unwrap();
        assert_eq!(heard_of, 1);
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        let mut id = SocketId::new_v6();
        id.source_address = "::ffff:10.0.0.1".parse().unwrap();
        id.destination_address = "::ffff:196.201.214.200".parse().unwrap();
        id.source_port = 50000;
        id.destination_port = 443;
        let key = key(6, &id).unwrap();
        assert_eq!(key.family, Family::V4 as u8);
        assert_eq!(key.remote, Address::from_v4_octets([196, 201, 214, 200]));
    }
}
