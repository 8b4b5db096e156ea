//! Frames of dropped packets: events carry them while somebody captures, and only then.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mpesa_fw_common::packet::{FragmentKind, PacketBytes, PacketMeta, Parsed, parse, protocol};
use serde::{Deserialize, Serialize};

use crate::datapath::{DatapathError, EventSwitch};

/// How much of a frame somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depth {
    /// What lies behind the headers too. It may hold what customers sent.
    pub payload: bool,
    /// Bytes at most.
    pub snaplen: u16,
}

/// The beginning of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    headers: usize,
}

impl Frame {
    /// Of a frame of `length` bytes.
    #[must_use]
    pub fn new(bytes: &[u8], length: u32) -> Self {
        Self { bytes: bytes.into(), headers: headers(bytes, length).min(bytes.len()) }
    }

    /// As much of it as is wanted.
    #[must_use]
    pub fn cut(&self, depth: Depth) -> &[u8] {
        let most = if depth.payload { self.bytes.len() } else { self.headers };
        &self.bytes[..most.min(usize::from(depth.snaplen))]
    }
}

/// Where the transport header ends; the IP header, where nothing is known of what follows; the link header, where it
/// carries something else. What the datapath could not parse ends with the fixed part of its IP header.
fn headers(bytes: &[u8], length: u32) -> usize {
    const ETHERNET: usize = 14;
    const TAG: usize = 4;
    let mut meta = PacketMeta::EMPTY;
    parse(&Beginning { bytes, length }, &mut meta);
    let ethertype = |at: usize| bytes.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let tags = (0..2).take_while(|tag| matches!(ethertype(12 + tag * TAG), Some(0x8100 | 0x88a8))).count();
    let link = ETHERNET + tags * TAG;
    match meta.parsed {
        Parsed::LinkLayer | Parsed::UnknownEthertype => link,
        Parsed::Malformed => {
            link + match ethertype(link - 2) {
                Some(0x0800) => 20,
                Some(0x86dd) => 40,
                Some(_) | None => 0,
            }
        }
        Parsed::Ip => {
            let at = meta.transport_offset as usize;
            at + match (meta.fragment, meta.protocol) {
                (FragmentKind::Later, _) => 0,
                (_, protocol::TCP) => bytes.get(at + 12).map_or(0, |offset| usize::from(offset >> 4) * 4),
                (_, protocol::UDP | protocol::ICMP | protocol::ICMPV6) => 8,
                (_, SCTP) => 12,
                (_, _) => 0,
            }
        }
    }
}

const SCTP: u8 = 132;

struct Beginning<'a> {
    bytes: &'a [u8],
    length: u32,
}

impl PacketBytes for Beginning<'_> {
    fn length(&self) -> u32 {
        self.length
    }

    fn holds(&self, length: u32) -> bool {
        length <= self.length
    }

    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let from = offset as usize;
        self.bytes.get(from..from.checked_add(N)?)?.try_into().ok()
    }

    fn stripped_tags(&self) -> u32 {
        0
    }

    fn is_segmented(&self) -> bool {
        false
    }
}

/// Switches frames on for the first who captures, and off after the last.
pub struct Tap {
    switch: EventSwitch,
    holders: Mutex<usize>,
}

impl Tap {
    /// Off: an agent that was killed may have left it on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new(switch: EventSwitch) -> Result<Self, DatapathError> {
        switch.carry_frames(false)?;
        Ok(Self { switch, holders: Mutex::new(0) })
    }

    /// Events that the kernel did not send, since its maps were made.
    pub(super) fn suppressed(&self) -> u64 {
        self.switch.suppressed().unwrap_or_else(|error| {
            tracing::warn!("events that are not sent can't be counted: {error}");
            0
        })
    }

    /// Events carry frames from now on, as long as what is returned lives.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open(self: &Arc<Self>) -> Result<Open, DatapathError> {
        let mut holders = self.holders();
        if *holders == 0 {
            self.switch.carry_frames(true)?;
        }
        *holders += 1;
        Ok(Open(Arc::clone(self)))
    }

    fn holders(&self) -> MutexGuard<'_, usize> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events carry frames as long as it lives.
pub struct Open(Arc<Tap>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut holders = self.0.holders();
        *holders -= 1;
        if *holders == 0
            && let Err(error) = self.0.switch.carry_frames(false)
        {
            tracing::error!(
                "events go on carrying frames, which nobody reads, until the next start: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const HEADERS: Depth = Depth { payload: false, snaplen: 256 };
    const ALL: Depth = Depth { payload: true, snaplen: 256 };

    fn secret(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> Vec<u8> {
        let mut bytes = Vec::new();
        builder.write(&mut bytes, b"254700000000").unwrap();
        bytes
    }

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::Ethernet2Header> {
        PacketBuilder::ethernet2([1; 6], [2; 6])
    }

    #[test]
    fn payload_is_left_out_unless_asked_for() {
        let v4 = ethernet().ipv4([198, 51, 100, 66], [203, 0, 113, 10], 64);
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1400)];
        let tcp = secret(v4.tcp(1, 2, 3, 4).options(&options).unwrap());
        let frame = Frame::new(&tcp, tcp.len() as u32);
        assert_eq!(frame.cut(HEADERS), &tcp[..14 + 20 + 24]);
        assert_eq!(frame.cut(ALL), tcp);
        assert_eq!(frame.cut(Depth { payload: true, snaplen: 60 }), &tcp[..60]);
        assert_eq!(frame.cut(Depth { payload: false, snaplen: 20 }), &tcp[..20]);

        let mut udp = Vec::new();
        let v6 = ethernet().ipv6([7; 16], [8; 16], 64);
        v6.udp(1, 2).write(&mut udp, b"254700000000").unwrap();
        assert_eq!(Frame::new(&udp, udp.len() as u32).cut(HEADERS), &udp[..14 + 40 + 8]);
    }

    #[test]
    fn what_is_not_understood_ends_early() {
        let tcp = secret(ethernet().ipv4([198, 51, 100, 66], [203, 0, 113, 10], 64).tcp(1, 2, 3, 4));
        let cut = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = tcp.clone();
            change(&mut bytes);
            Frame::new(&bytes, bytes.len() as u32).cut(HEADERS).len()
        };
        assert_eq!(cut(&|_| {}), 54);
        assert_eq!(cut(&|bytes| bytes[14 + 20 + 12] = 0xf0), 34, "a data offset behind the end");
        assert_eq!(cut(&|bytes| bytes[14] = 0x4f), 34, "so many options are not there");
        assert_eq!(cut(&|bytes| bytes[13] = 0x01), 14, "no IP");
        assert_eq!(cut(&|bytes| bytes[14 + 7] = 100), 34, "a later fragment");
        assert_eq!(cut(&|bytes| bytes[14 + 9] = 50), 34, "ESP");
        assert_eq!(cut(&|bytes| bytes.truncate(10)), 10);
        let tagged = [&tcp[..12], &[0x81, 0, 0, 7], &tcp[12..]].concat();
        assert_eq!(Frame::new(&tagged, tagged.len() as u32).cut(HEADERS).len(), 58);
    }

    /// Nothing of the frame beyond 256 bytes is here, and the datapath parsed all of it.
    #[test]
    fn a_long_frame_is_understood_by_its_beginning() {
        let mut bytes = Vec::new();
        let v4 = ethernet().ipv4([198, 51, 100, 66], [203, 0, 113, 10], 64);
        v4.tcp(1, 2, 3, 4).write(&mut bytes, &[7; 1400]).unwrap();
        assert_eq!(Frame::new(&bytes[..256], bytes.len() as u32).cut(HEADERS), &bytes[..54]);
    }
}
