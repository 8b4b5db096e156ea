//! Frames that nobody sent, for the decision to look at. Checksums are left 0: no hook looks at them.

use std::net::{IpAddr, SocketAddr};

use mpesa_fw_common::packet::protocol::{TCP, UDP};

/// A TCP flag.
pub(super) const SYN: u8 = 0x02;
/// A TCP flag.
pub(super) const ACK: u8 = 0x10;

/// What hosts begin with.
pub(super) const HOP_LIMIT: u8 = 64;

/// Where a frame comes from and where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub source: SocketAddr,
    pub target: SocketAddr,
}

impl Ends {
    /// A TCP segment without payload. None where the two ends are of different families.
    pub(super) fn tcp(self, flags: u8) -> Option<Vec<u8>> {
        let mut header = self.ports();
        header.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        self.frame(TCP, HOP_LIMIT, &header)
    }

    /// A UDP datagram without payload. None where the two ends are of different families.
    pub(super) fn udp(self) -> Option<Vec<u8>> {
        let mut header = self.ports();
        header.extend([0, 8, 0, 0]);
        self.frame(UDP, HOP_LIMIT, &header)
    }

    fn ports(self) -> Vec<u8> {
        [self.source.port().to_be_bytes(), self.target.port().to_be_bytes()].concat()
    }

    /// A packet of any protocol, with what is behind its network header.
    pub(super) fn frame(self, protocol: u8, hop_limit: u8, packet: &[u8]) -> Option<Vec<u8>> {
        let length = u16::try_from(packet.len()).ok()?;
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (self.source.ip(), self.target.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([0x08, 0x00, 0x45, 0]);
                frame.extend((length + 20).to_be_bytes());
                frame.extend([0, 0, 0x40, 0, hop_limit, protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([protocol, hop_limit]);
                frame.extend(from.octets());
                frame.extend(to.octets());
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        }
        frame.extend(packet);
        Some(frame)
    }
}
