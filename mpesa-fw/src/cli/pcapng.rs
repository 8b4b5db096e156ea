//! Dropped packets as a pcapng file (draft-ietf-opsawg-pcapng): an interface description an interface, what was decided in the
//! comment of each packet, and at the end what the file does not hold.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{ErrorKind, Write},
    time::Duration,
};

use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        PcapNgBlock as _, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};
use time::OffsetDateTime;

use super::failure::Failure;
use crate::agent::PacketRecord;

/// `if_tsresol`: times are in units of 10 to the minus this.
const NANOSECONDS: u8 = 9;
/// `epb_flags`, bits 0 and 1.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file, or a pipe, that is being written.
pub(super) struct Capture {
    writer: PcapNgWriter<Box<dyn Write>>,
    snaplen: u32,
    interfaces: BTreeMap<String, Interface>,
    left_out: u64,
}

struct Interface {
    /// Its place in the file.
    id: u32,
    packets: u64,
}

impl Capture {
    /// Writes the header.
    pub(super) fn begin(to: Box<dyn Write>, snaplen: u16) -> Result<Self, Failure> {
        let program = concat!("mpesa-fw ", env!("CARGO_PKG_VERSION"));
        let header = SectionHeaderBlock {
            endianness: Endianness::native(),
            major_version: 1,
            minor_version: 0,
            section_length: -1,
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(program))],
        };
        let writer = PcapNgWriter::with_section_header(to, header).map_err(failed)?;
        let mut capture =
            Self { writer, snaplen: u32::from(snaplen), interfaces: BTreeMap::new(), left_out: 0 };
        capture.flush()?;
        Ok(capture)
    }

    /// Packets written.
    pub(super) fn packets(&self) -> u64 {
        self.interfaces.values().map(|interface| interface.packets).sum()
    }

    /// So many packets were dropped and are not in the file.
    pub(super) fn left_out(&mut self, packets: u64) {
        self.left_out += packets;
    }

    /// Writes a packet; its interface first, if it is the first one from there.
    pub(super) fn packet(&mut self, event: &PacketRecord, frame: &[u8]) -> Result<(), Failure> {
        let id = self.interface(&event.interface)?;
        let flags = if event.direction == "egress" { OUTBOUND } else { INBOUND };
        let block = EnhancedPacketBlock {
            interface_id: id,
            timestamp: since_the_epoch(event.time),
            original_len: event.length.max(frame.len() as u32),
            data: Cow::Borrowed(frame),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Owned(comment(event))),
                EnhancedPacketOption::Flags(flags),
            ],
        };
        self.writer.write_block(&block.into_block()).map_err(failed)?;
        // Whoever looks on sees it now.
        self.flush()
    }

    fn interface(&mut self, name: &str) -> Result<u32, Failure> {
        let next = self.interfaces.len() as u32;
        if let Some(known) = self.interfaces.get_mut(name) {
            known.packets += 1;
            return Ok(known.id);
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.snaplen,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_block(&block.into_block()).map_err(failed)?;
        self.interfaces.insert(name.to_owned(), Interface { id: next, packets: 1 });
        Ok(next)
    }

    /// Writes what is missing, and says it in words.
    pub(super) fn end(mut self) -> Result<String, Failure> {
        let now = since_the_epoch(OffsetDateTime::now_utc()).as_nanos() as u64;
        let said = match self.left_out {
            0 => String::new(),
            left_out => format!(
                "{left_out} more were dropped on this host and not captured: only so many a second are told one by one"
            ),
        };
        for (number, interface) in self.interfaces.values().enumerate() {
            let mut options = vec![InterfaceStatisticsOption::IsbUsrDeliv(interface.packets)];
            // They are known of the host as a whole.
            if number == 0 && self.left_out > 0 {
                options.push(InterfaceStatisticsOption::Comment(Cow::Borrowed(&said)));
                options.push(InterfaceStatisticsOption::IsbOsDrop(self.left_out));
            }
            let block = InterfaceStatisticsBlock { interface_id: interface.id, timestamp: now, options };
            self.writer.write_block(&block.into_block()).map_err(failed)?;
        }
        self.flush()?;
        let packets = self.packets();
        Ok(if said.is_empty() {
            format!("{packets} packets captured, none left out")
        } else {
            format!("{packets} packets captured; {said}")
        })
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.writer.get_mut().flush().map_err(|error| failed(PcapError::IoError(error)))
    }
}

fn comment(event: &PacketRecord) -> String {
    let PacketRecord { direction, interface, reason, rule, dropped, .. } = event;
    let verdict = if *dropped { "drop" } else { "pass (observe mode; enforce would drop)" };
    let rule = if rule.is_empty() { "none" } else { rule };
    format!("mpesa-fw: verdict {verdict}, reason {reason}, rule {rule}, {direction} on {interface}")
}

/// A clock before 1970 is none.
fn since_the_epoch(time: OffsetDateTime) -> Duration {
    Duration::try_from(time - OffsetDateTime::UNIX_EPOCH).unwrap_or_default()
}

fn failed(error: PcapError) -> Failure {
    match error {
        // A reader that has gone has seen enough.
        PcapError::IoError(error) if error.kind() == ErrorKind::BrokenPipe => error.into(),
        PcapError::IoError(error) => {
            Failure::system(format!("cannot write the capture: {error}"), "is the disk full?")
        }
        other @ (PcapError::IncompleteBuffer
        | PcapError::InvalidField(_)
        | PcapError::Utf8Error(_)
        | PcapError::FromUtf8Error(_)
        | PcapError::InvalidInterfaceId(_)) => {
            Failure::internal(format!("a capture could not be written: {other}"))
        }
    }
}
