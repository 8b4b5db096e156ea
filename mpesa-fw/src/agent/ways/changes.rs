//! Hears of changes of routes, and does not ask which: one that could not be read would be one that was missed.

use std::{io, time::Duration};

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use tokio::{io::unix::AsyncFd, time::timeout};

/// `RTNLGRP_…`: links (an interface that goes down takes its IPv4 routes along without a word: `fib_disable_ip`), addresses,
/// routes and rules of both families, next hops.
const GROUPS: [u32; 8] = [1, 5, 9, 7, 11, 8, 19, 32];

/// A subscription.
pub(super) struct Changes {
    socket: AsyncFd<Socket>,
}

impl Changes {
    /// Subscribes in the network namespace of this process.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub(super) fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        for group in GROUPS {
            socket.add_membership(group)?;
        }
        Ok(Self { socket: pollable(socket)? })
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let has_come = self.have_come()?;
            ready.clear_ready();
            if has_come {
                return Ok(());
            }
        }
    }

    /// Waits until none has come for a while: they come in crowds.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) async fn rest(&self, quiet: Duration) -> io::Result<()> {
        while let Ok(change) = timeout(quiet, self.next()).await {
            change?;
        }
        Ok(())
    }

    /// Whether some have come since the last look. More than the socket could hold (ENOBUFS) are some too.
    ///
    /// # Errors
    /// The socket is of no use any more.
    pub(super) fn have_come(&self) -> io::Result<bool> {
        let mut have_come = false;
        let mut buffer = [0; 64];
        loop {
            match self.socket.get_ref().recv(&mut &mut buffer[..], 0) {
                Ok(_) => have_come = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(have_come),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => have_come = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, to promise what is true of a descriptor that is owned"
)]
fn pollable(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::new(socket)
}
