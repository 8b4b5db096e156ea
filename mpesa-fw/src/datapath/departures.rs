//! Interfaces that went away: what was attached to them is gone with them, and nobody's fault.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

const RTMGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;

/// Hears of interfaces that are removed, or moved to another network namespace. An interface that is made again may have the
/// index and the name that another had a moment ago, so that asking what is there now does not tell.
pub(super) struct Departures {
    socket: OwnedFd,
    gone: HashSet<u32>,
}

impl Departures {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        Ok(Self { socket, gone: HashSet::new() })
    }

    /// Forgets what it has heard: who looks from now on sees what is there now.
    pub(super) fn forget(&mut self) {
        self.hear();
        self.gone.clear();
    }

    /// Whether the interface with this index went away since then.
    pub(super) fn includes(&mut self, index: u32) -> bool {
        self.hear();
        self.gone.contains(&index)
    }

    fn hear(&mut self) {
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => self.take(&buffer[..length]),
                // More than the socket holds: rather a word too many of an interface that is gone than silence.
                Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// `nlmsghdr` (16 bytes), then `ifinfomsg`, whose index is its second word.
    fn take(&mut self, messages: &[u8]) {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
        };
        let mut rest = messages;
        while rest.len() >= 16 {
            let size = word(rest, 0) as usize;
            let kind = word(rest, 4) as u16;
            // Of a port that leaves its bridge the message is the same, but for the family AF_BRIDGE.
            if kind == RTM_DELLINK && rest.get(16) == Some(&0) {
                self.gone.insert(word(rest, 20));
            }
            rest = rest.get(size.max(16).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut bytes = 32u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes
    }

    #[test]
    fn only_interfaces_that_go_away_are_noted() {
        let mut departures = Departures::open().unwrap();
        let news = [message(16, 0, 70_001), message(17, 0, 70_002), message(17, 7, 70_003)].concat();
        departures.take(&news);
        departures.take(&news[..40]);
        departures.take(&[0; 20]);
        assert_eq!(departures.gone, HashSet::from([70_002]));
        assert!(departures.includes(70_002));
        departures.forget();
        assert!(!departures.includes(70_002));
    }
}
