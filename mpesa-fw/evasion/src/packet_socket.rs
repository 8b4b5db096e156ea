//! Packet sockets: one side puts frames on the wire, the other tells what came.

use std::{
    io::Error,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
        socket, sockopt::RcvBufForce,
    },
};
use testbed::Namespace;

/// Room for all frames of a case and what else may come.
const BUFFER: usize = 32 << 20;

/// A packet socket on one interface.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// One that only sends.
    pub(crate) fn sender(namespace: &Namespace, interface: &str) -> Result<Self> {
        Self::bound(namespace, interface, None)
    }

    /// One that sees all that the interface receives and sends.
    pub(crate) fn tap(namespace: &Namespace, interface: &str) -> Result<Self> {
        let tap = Self::bound(namespace, interface, Some(SockProtocol::EthAll))?;
        setsockopt(&tap.0, RcvBufForce, &BUFFER).context("no room for a tap")?;
        Ok(tap)
    }

    fn bound(namespace: &Namespace, interface: &str, protocol: Option<SockProtocol>) -> Result<Self> {
        namespace.inside(|| {
            let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
            // `None` is protocol 0: it receives nothing.
            let socket = socket(AddressFamily::Packet, kind, flags, protocol).context("no packet socket")?;
            bind(socket.as_raw_fd(), &link_address(interface)?)
                .with_context(|| format!("could not bind to {interface}"))?;
            Ok(Self(socket))
        })
    }

    /// Puts one frame on the wire.
    pub(crate) fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.0.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("could not send {} bytes: {frame:02x?}", frame.len()))?;
        Ok(())
    }

    /// Calls `see` with each frame that comes until it answers true, or until the time is over. True: it did.
    pub(crate) fn watch(&self, patience: Duration, mut see: impl FnMut(&[u8]) -> bool) -> Result<bool> {
        let deadline = Instant::now() + patience;
        let mut buffer = vec![0; 1 << 18];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) if see(&buffer[..length]) => return Ok(true),
                Ok(_) => {}
                Err(Errno::EAGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                    poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left).context("poll")?;
                }
                Err(error) => return Err(Error::from(error)).context("the tap does not answer"),
            }
        }
    }
}

/// Of an interface of this thread's namespace.
fn link_address(interface: &str) -> Result<LinkAddr> {
    let mut addresses = getifaddrs().context("could not list interfaces")?;
    let found = addresses.find_map(|address| {
        let is_it = address.interface_name == interface;
        address.address.filter(|_| is_it).and_then(|address| address.as_link_addr().copied())
    });
    found.with_context(|| format!("there is no interface {interface}"))
}
