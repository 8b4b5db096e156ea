//! Ends sockets of other programs (sock_diag, `SOCK_DESTROY`): whoever waits at one hears of it at once.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "netlink's enums are not ours; nothing else belongs to an answer"
)]

use std::{io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::errno::Errno;

use super::sockets::Connected;

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is gone: its program reads `ECONNABORTED`, and a TCP peer is sent a RST, if egress lets that out. A UDP socket lives on
    /// without its peer.
    Ended,
    /// It was gone before, or its ends are another socket's by now.
    Gone,
}

/// Ends sockets.
pub(super) struct Destroyer {
    socket: Socket,
    asked: u32,
}

impl Destroyer {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, asked: 0 })
    }

    /// Ends one, and no other: by its cookie. (Without, the kernel would take the listener where the connection is gone.)
    ///
    /// # Errors
    /// The kernel can't (`EOPNOTSUPP`: it was built without `CONFIG_INET_DIAG_DESTROY`) or does not let us.
    pub(super) fn end(&mut self, connected: &Connected) -> io::Result<Fate> {
        let request = SockDiagDestroy::new(SockDiagMessage::InetRequest(request(connected)));
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK;
        self.asked += 1;
        header.sequence_number = self.asked;
        let mut message = NetlinkMessage::new(header, request.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut buffer = vec![0; 4096];
        loop {
            let length = self.socket.recv(&mut &mut buffer[..], 0)?;
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&buffer[..length]);
            let answer = answer.map_err(io::Error::other)?;
            if answer.header.sequence_number != self.asked {
                continue; // one to an earlier question that was given up
            }
            return match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_none() => Ok(Fate::Ended),
                NetlinkPayload::Error(error) => gone(error.to_io()),
                _ => Err(io::Error::other("sock_diag answers what is no answer")),
            };
        }
    }
}

/// The list of sockets was there, so what is not found is this socket (`inet_diag_find_one_icsk` and `udp_diag_destroy` say
/// `ENOENT` for another cookie too, `sock_diag_check_cookie` says `ESTALE`).
fn gone(error: io::Error) -> io::Result<Fate> {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ESTALE) => Ok(Fate::Gone),
        _ => Err(error),
    }
}

/// Addresses of IPv4 in the form of IPv4, also those of a socket of both families: the kernel looks it up among them.
fn request(connected: &Connected) -> InetRequest {
    let key = &connected.key;
    let (local, remote) = (IpAddr::from(key.local), IpAddr::from(key.remote));
    InetRequest {
        family: if remote.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: key.protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: key.local_port,
            destination_port: key.remote_port,
            source_address: local,
            destination_address: remote,
            interface_id: connected.interface,
            cookie: connected.cookie,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _},
        net::{SocketAddr, TcpListener, TcpStream},
    };

    use mpesa_fw_common::{
        Family,
        packet::protocol::TCP,
        state::{FlowKey, FlowPhase},
    };

    use super::*;
    use crate::agent::holder::Holder;

    #[test]
    #[ignore = "needs root and a kernel"]
    fn a_socket_is_ended_by_its_cookie_alone() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        let canonical = |address: SocketAddr| address.ip().to_canonical().into();
        let (here, there) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        let key = FlowKey::new(Family::V4, TCP, canonical(here), here.port(), canonical(there), there.port());
        let mut connected = Connected {
            key,
            phase: FlowPhase::Answered,
            heard: None,
            interface: 0,
            cookie: u64::MAX.wrapping_sub(1).to_ne_bytes(),
            holder: Holder { user: None, group: None },
        };
        let mut destroyer = Destroyer::open().unwrap();
        assert_eq!(destroyer.end(&connected).unwrap(), Fate::Gone, "another socket's cookie");
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);

        // INET_DIAG_NOCOOKIE: whichever it is.
        connected.cookie = [0xff; 8];
        assert_eq!(destroyer.end(&connected).unwrap(), Fate::Ended, "a mapped socket, asked for as IPv4");
        assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
