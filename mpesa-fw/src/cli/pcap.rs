//! Captures: read packet by packet, sent to the agent in batches. The agent opens no file that a client names.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, StdoutLock, Write as _},
    path::Path,
};

use pcap_file::{
    DataLink,
    pcap::PcapReader,
    pcapng::{Block, PcapNgReader},
};

use serde::Serialize;

use super::failure::Failure;
use crate::{
    agent::why::{BATCH, Batch, BatchAnswer, Captured, FrameAnswer, Verdicts, Way},
    control::{Answer, Client, Request},
};

/// Hexadecimal digits in a batch at most; a line of the control socket holds 1 MiB.
const DIGITS: usize = 600_000;
/// Packets of a pcapng file may be of several interfaces; the first block says that it is one.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// How the packets of a capture are judged.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) way: Option<Way>,
    pub(super) interface: Option<String>,
    pub(super) candidate: Option<u64>,
}

/// What is known when all of it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capture {
    pub(super) generation: u32,
    pub(super) packets: usize,
    /// The end of the file is missing, and why.
    pub(super) cut: Option<String>,
}

/// One JSON document about the packets of a capture, written as they come: memory is bounded.
pub(super) struct Document {
    out: BufWriter<StdoutLock<'static>>,
    separator: &'static str,
}

impl Document {
    /// Begins with these fields; the packets follow.
    pub(super) fn begin(head: &[(&str, String)]) -> Result<Self, Failure> {
        let mut out = BufWriter::new(io::stdout().lock());
        write!(out, "{{")?;
        for (name, json) in head {
            write!(out, "\"{name}\":{json},")?;
        }
        write!(out, "\"packets\":[")?;
        Ok(Self { out, separator: "\n" })
    }

    /// One of them.
    pub(super) fn packet(&mut self, number: usize, answer: &FrameAnswer) -> Result<(), Failure> {
        let packet = json(&serde_json::json!({ "number": number, "answer": answer }))?;
        write!(self.out, "{}{packet}", self.separator)?;
        self.separator = ",\n";
        Ok(())
    }

    /// Ends with these fields.
    pub(super) fn end(mut self, tail: &[(&str, String)]) -> Result<(), Failure> {
        write!(self.out, "\n]")?;
        for (name, json) in tail {
            write!(self.out, ",\"{name}\":{json}")?;
        }
        writeln!(self.out, "}}")?;
        Ok(self.out.flush()?)
    }
}

/// Without line breaks.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::internal(error.to_string()))
}

/// Judges every packet of a capture; `each` is told of each in order, with its number, from 1.
pub(super) fn judge(
    client: &Client,
    file: &Path,
    wish: &Wish,
    each: &mut dyn FnMut(usize, FrameAnswer) -> Result<(), Failure>,
) -> Result<Capture, Failure> {
    let mut batches =
        Batches { client, wish, each, frames: Vec::new(), digits: 0, packets: 0, generation: None };
    let cut = read(file, &mut |frame| batches.take(frame))?;
    batches.send()?;
    if batches.generation.is_none() {
        // Nothing but what can't be judged, or nothing at all: still by a generation.
        batches.ask(Vec::new())?;
    }
    Ok(Capture { generation: batches.generation.unwrap_or_default(), packets: batches.packets, cut })
}

/// A frame, or why there is none that could be judged.
type Frame = Result<Captured, String>;

struct Batches<'b> {
    client: &'b Client,
    wish: &'b Wish,
    each: &'b mut dyn FnMut(usize, FrameAnswer) -> Result<(), Failure>,
    frames: Vec<Frame>,
    digits: usize,
    packets: usize,
    generation: Option<u32>,
}

impl Batches<'_> {
    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        self.digits += frame.as_ref().map_or(0, |frame| frame.bytes.len() + 64);
        self.frames.push(frame);
        if self.digits > DIGITS || self.frames.len() == BATCH { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Failure> {
        let frames = std::mem::take(&mut self.frames);
        self.digits = 0;
        let asked: Vec<Captured> = frames.iter().filter_map(|frame| frame.clone().ok()).collect();
        let mut answers = if asked.is_empty() { Vec::new() } else { self.ask(asked)? }.into_iter();
        for frame in frames {
            self.packets += 1;
            let answer = match frame {
                Ok(_) => answers.next().ok_or_else(Failure::another_answer)?,
                Err(why) => FrameAnswer { packet: None, verdicts: Verdicts::NotJudged(why) },
            };
            (self.each)(self.packets, answer)?;
        }
        Ok(())
    }

    fn ask(&mut self, frames: Vec<Captured>) -> Result<Vec<FrameAnswer>, Failure> {
        let Wish { way, interface, candidate } = self.wish.clone();
        let request = Request::Judge(Box::new(Batch { frames, way, interface, candidate }));
        let Answer::Judged(answer) = self.client.ask(request)? else {
            return Err(Failure::another_answer());
        };
        let BatchAnswer { generation, frames, .. } = *answer;
        match self.generation.replace(generation) {
            Some(before) if before != generation => Err(Failure::no(
                format!("the policy was reloaded meanwhile: generation {before} is now {generation}"),
                "ask again",
            )),
            Some(_) | None => Ok(frames),
        }
    }
}

/// Reads a capture; why its end is missing.
fn read(file: &Path, take: &mut dyn FnMut(Frame) -> Result<(), Failure>) -> Result<Option<String>, Failure> {
    let broken = |doing: &str, error: &dyn std::fmt::Display| {
        Failure::no(
            format!("cannot {doing} {}: {error}", file.display()),
            "give a capture in the format pcap or pcapng",
        )
    };
    let mut input = File::open(file).map_err(|error| broken("open", &error))?;
    let mut magic = [0; 4];
    input.read_exact(&mut magic).map_err(|error| broken("read", &error))?;
    input.rewind().map_err(|error| broken("read", &error))?;
    let input = BufReader::new(input);
    let mut any = false;
    if magic == PCAPNG {
        let mut reader = PcapNgReader::new(input).map_err(|error| broken("understand", &error))?;
        loop {
            let frame = match reader.next_block() {
                None => return Ok(None),
                Some(Err(error)) if any => return Ok(Some(error.to_string())),
                Some(Err(error)) => return Err(broken("understand", &error)),
                Some(Ok(Block::EnhancedPacket(packet))) => {
                    Some((packet.interface_id as usize, Captured::new(&packet.data, packet.original_len)))
                }
                Some(Ok(Block::SimplePacket(packet))) => {
                    Some((0, Captured::new(&packet.data, packet.original_len)))
                }
                Some(Ok(Block::Packet(packet))) => {
                    Some((usize::from(packet.interface_id), Captured::new(&packet.data, packet.original_len)))
                }
                Some(Ok(
                    Block::SectionHeader(_)
                    | Block::InterfaceDescription(_)
                    | Block::NameResolution(_)
                    | Block::InterfaceStatistics(_)
                    | Block::SystemdJournalExport(_)
                    | Block::Unknown(_),
                )) => None,
            };
            if let Some((interface, frame)) = frame {
                any = true;
                let link = reader.interfaces().get(interface).map(|interface| interface.linktype);
                take(ethernet(link, frame))?;
            }
        }
    }
    let mut reader = PcapReader::new(input).map_err(|error| broken("understand", &error))?;
    let link = reader.header().datalink;
    loop {
        match reader.next_packet() {
            None => return Ok(None),
            Some(Err(error)) if any => return Ok(Some(error.to_string())),
            Some(Err(error)) => return Err(broken("understand", &error)),
            Some(Ok(packet)) => {
                any = true;
                take(ethernet(Some(link), Captured::new(&packet.data, packet.orig_len)))?;
            }
        }
    }
}

/// Only Ethernet frames are what a hook sees.
fn ethernet(link: Option<DataLink>, frame: Captured) -> Frame {
    match link {
        Some(DataLink::ETHERNET) => Ok(frame),
        Some(link) => Err(format!(
            "no Ethernet frame (link type {link:?}): capture at an interface that is protected, not at `any`"
        )),
        None => Err("the capture does not say what interface it is from".to_owned()),
    }
}

/// Which way a capture goes, by the two options.
pub(super) const fn way(ingress: bool, egress: bool) -> Option<Way> {
    match (ingress, egress) {
        (true, _) => Some(Way::Ingress),
        (false, true) => Some(Way::Egress),
        (false, false) => None,
    }
}
