//! A frame of a capture: its first bytes, and how long it was.

use std::cell::Cell;

use mpesa_fw_common::packet::{self, PacketBytes, PacketMeta, Parsed};
use serde::{Deserialize, Serialize};

use crate::datapath::Program;

/// Bytes of a frame that are enough for all of its headers; a client sends no more.
pub const HEADERS: usize = 2048;
/// Longest frame that any test run takes at TC.
const LONGEST: u32 = 3000;
/// Longest frame that there is, a packet of 64 KiB; at XDP a test run takes it (Linux 5.18).
const LONGEST_AT_XDP: u32 = 65_536 + 22;
/// Shortest frame of an Ethernet, without its checksum.
const SHORTEST: usize = 60;

/// A frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Captured {
    /// The first bytes, in hexadecimal.
    pub bytes: String,
    /// How many there were.
    pub length: u32,
}

impl Captured {
    /// From what a capture has of a frame.
    #[must_use]
    pub fn new(bytes: &[u8], length: u32) -> Self {
        Self { bytes: crate::agent::hex(&bytes[..bytes.len().min(HEADERS)]), length }
    }
}

/// A frame that can be asked about.
pub(super) struct Askable {
    pub(super) bytes: Vec<u8>,
    pub(super) meta: PacketMeta,
    /// It was longer than a test run takes: asked as the first part of one of many segments.
    pub(super) segmented: bool,
}

/// Why one can't be.
pub(super) const CUT: &str = "the capture has too little of the packet: not all of its headers (snaplen)";
const NONSENSE: &str = "the capture contradicts itself: more bytes than the packet had";

impl Captured {
    /// Fills up what the capture left out, where no header is in it.
    pub(super) fn askable(&self, program: Program) -> Result<Askable, &'static str> {
        let mut bytes = unhex(&self.bytes).ok_or(NONSENSE)?;
        if bytes.len() > self.length as usize {
            return Err(NONSENSE);
        }
        let (longest, segmented) = match program {
            Program::IngressXdp => (LONGEST_AT_XDP, false),
            Program::IngressTc | Program::EgressTc => (LONGEST, self.length > LONGEST),
        };
        let (meta, overran) = facts(&bytes, self.length, segmented);
        if overran {
            return Err(CUT);
        }
        let mut wanted = self.length.min(longest) as usize;
        if !matches!(meta.parsed, Parsed::Malformed) {
            wanted = wanted.max(SHORTEST); // padding, as the wire has it: hosts capture what they send without
        }
        bytes.resize(wanted, 0);
        Ok(Askable { bytes, meta, segmented })
    }
}

/// What the programs find in a frame of which these are the first bytes, and whether they read beyond them.
pub(super) fn facts(bytes: &[u8], length: u32, segmented: bool) -> (PacketMeta, bool) {
    let frame = Cut { bytes, length, segmented, overran: Cell::new(false) };
    let mut meta = PacketMeta::EMPTY;
    packet::parse(&frame, &mut meta);
    (meta, frame.overran.get())
}

struct Cut<'b> {
    bytes: &'b [u8],
    length: u32,
    segmented: bool,
    overran: Cell<bool>,
}

impl PacketBytes for Cut<'_> {
    fn length(&self) -> u32 {
        self.length
    }
    fn holds(&self, length: u32) -> bool {
        length <= self.length
    }
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let read = self.bytes.get(offset as usize..).and_then(|rest| rest.first_chunk().copied());
        if read.is_none() && offset as usize + N <= self.length as usize {
            self.overran.set(true);
        }
        read
    }
    fn stripped_tags(&self) -> u32 {
        0
    }
    fn is_segmented(&self) -> bool {
        self.segmented
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: &u8| char::from(*c).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    pairs.iter().map(|[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::frame::{Ends, SYN};

    fn frame() -> Vec<u8> {
        let end = |text: &str| text.parse().unwrap();
        let ends = Ends { source: end("203.0.113.9:4000"), target: end("10.0.0.5:443") };
        let mut frame = ends.tcp(SYN).unwrap();
        frame[17] = 140; // 100 bytes of payload
        frame.resize(frame.len() + 100, 7);
        frame
    }

    #[test]
    fn a_capture_without_payload_will_do_and_one_without_headers_will_not() {
        let frame = frame();
        let length = frame.len() as u32;
        let whole =
            Captured::new(&frame, length).askable(Program::EgressTc).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(whole.bytes, frame);
        for kept in 0..frame.len() {
            match Captured::new(&frame[..kept], length).askable(Program::EgressTc) {
                Ok(askable) => {
                    assert!(kept >= 48, "{kept} bytes, which end in the TCP header");
                    assert_eq!(askable.meta, whole.meta);
                    assert_eq!(askable.bytes.len(), frame.len());
                }
                Err(why) => assert!(kept < 48 && why == CUT, "{kept}: {why}"),
            }
        }
    }

    #[test]
    fn what_was_never_there_is_malformed_and_not_cut() {
        let frame = frame();
        let askable =
            Captured::new(&frame[..40], 40).askable(Program::EgressTc).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((askable.meta.parsed, askable.bytes.len()), (Parsed::Malformed, 40));
        assert!(Captured::new(&frame, 20).askable(Program::EgressTc).is_err());
    }

    #[test]
    fn hexadecimal_is_read_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&crate::agent::hex(&bytes)), Some(bytes));
        assert_eq!((unhex("0"), unhex("0x"), unhex("é0")), (None, None, None));
    }
}
