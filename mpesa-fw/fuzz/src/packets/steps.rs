//! The steps of a sequence, read from an input: packets made of few addresses and ports so that they meet, changed and
//! answered and quoted, or any bytes; time that passes; other policies.

use std::net::IpAddr;

use mpesa_fw_common::{Direction, decide::Sender};

use super::rules;
use crate::{
    case::TEST_RUN,
    frames::{self, V4, V6},
    host::{Frame, SECOND},
};

/// Steps of one input at most.
const STEPS: usize = 24;

pub(super) enum Step {
    Packet {
        frame: Frame,
        direction: Direction,
        sender: Sender,
    },
    /// Nanoseconds.
    Wait(u64),
    /// Number of a policy.
    Reload(usize),
}

const HOSTS: [[&str; 8]; 2] = [
    [
        "10.0.0.5",
        "10.0.0.6",
        "196.201.214.200",
        "196.201.214.201",
        "10.0.0.2",
        "198.51.100.10",
        "198.51.100.20",
        "203.0.113.9",
    ],
    [
        "fd00::5",
        "fe80::5",
        "2c0f:fe38::200",
        "2c0f:fe38::201",
        "fd00::2",
        "2001:db8:a::10",
        "2001:db8:a::20",
        "2001:db8:9::9",
    ],
];
const PORTS: [u16; 8] = [443, 80, 8080, 53, 514, 4000, 4001, 8443];
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x00];
const TYPES: [[u8; 8]; 2] = [[8, 0, 3, 11, 12, 13, 14, 5], [128, 129, 1, 2, 3, 4, 135, 134]];
const OTHER: [u8; 4] = [47, 132, 50, 1];
const WAITS: [u64; 8] = [
    SECOND / 1000,
    SECOND,
    29 * SECOND,
    31 * SECOND,
    61 * SECOND,
    121 * SECOND,
    181 * SECOND,
    6 * 86_400 * SECOND,
];
/// Who may have sent a packet: a socket, one bound to port 53, none, one that is gone.
const SENDERS: [Sender; 4] = [
    TEST_RUN,
    Sender { cookie: 7, bound_port: 53, is_full: true, ..Sender::NONE },
    Sender::NONE,
    Sender { cookie: 9, ..Sender::NONE },
];

struct Input<'d> {
    rest: &'d [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn pick<T: Copy, const N: usize>(&mut self, of: &[T; N]) -> Option<T> {
        Some(of[usize::from(self.byte()?) % N])
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken.to_vec()
    }
}

/// All that an input says.
pub(super) fn read(data: &[u8]) -> Vec<Step> {
    let mut input = Input { rest: data };
    let (mut steps, mut sent) = (Vec::new(), Vec::new());
    while steps.len() < STEPS
        && let Some(step) = step(&mut input, &mut sent)
    {
        steps.push(step);
    }
    steps
}

fn step(input: &mut Input<'_>, sent: &mut Vec<(Vec<u8>, Direction)>) -> Option<Step> {
    let kind = input.byte()?;
    let direction = if kind & 0x80 == 0 { Direction::Ingress } else { Direction::Egress };
    let (bytes, direction) = match kind & 0x0f {
        0..=4 => (made(input)?, direction),
        5 => {
            let length = usize::from(input.byte()?);
            (input.take(length), direction)
        }
        6 => {
            let (earlier, way) = earlier(input, sent)?;
            (answer(&earlier), other(way))
        }
        7 => earlier(input, sent)?,
        8 => {
            let (earlier, way) = earlier(input, sent)?;
            (quote(input, &earlier)?, other(way))
        }
        9 => {
            let (earlier, way) = earlier(input, sent)?;
            (part(input, earlier)?, way)
        }
        10 => {
            let (mut earlier, way) = earlier(input, sent)?;
            let place = usize::from(input.byte()?) % earlier.len().max(1);
            let value = input.byte()?;
            earlier.get_mut(place).into_iter().for_each(|byte| *byte = value);
            (earlier, way)
        }
        11 | 12 => return Some(Step::Wait(input.pick(&WAITS)?)),
        13 => return Some(Step::Reload(usize::from(input.byte()?) % rules::COUNT)),
        14 => {
            let (mut earlier, way) = earlier(input, sent)?;
            let less = usize::from(input.byte()? % 40);
            earlier.truncate(earlier.len().saturating_sub(less));
            (earlier, way)
        }
        _ => {
            let (earlier, way) = earlier(input, sent)?;
            (frames::tagged(&[frames::VLAN], &padded(earlier)), way)
        }
    };
    sent.push((bytes.clone(), direction));
    let frame = Frame { segmented: kind & 0x70 == 0x70, ..bytes.into() };
    Some(Step::Packet { frame, direction, sender: SENDERS[usize::from(kind >> 4 & 3)] })
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().max(14), 0);
    bytes
}

fn earlier(input: &mut Input<'_>, sent: &[(Vec<u8>, Direction)]) -> Option<(Vec<u8>, Direction)> {
    let back = usize::from(input.byte()?);
    if sent.is_empty() {
        return Some((Vec::new(), Direction::Ingress));
    }
    Some(sent[sent.len() - 1 - back % sent.len()].clone())
}

/// A packet whose headers are right.
fn made(input: &mut Input<'_>) -> Option<Vec<u8>> {
    let ends = input.byte()?;
    let family = usize::from(ends >> 7);
    let [source, target] = [ends & 7, ends >> 3 & 7].map(|n| frames::ip(HOSTS[family][usize::from(n)]));
    let kind = input.byte()?;
    let [port, peer] = {
        let ports = input.byte()?;
        [ports & 7, ports >> 3 & 7].map(|n| PORTS[usize::from(n)])
    };
    let data = vec![7; usize::from(kind >> 6) * 4];
    let (protocol, payload) = match kind & 3 {
        0 => (frames::TCP, frames::tcp_segment(port, peer, FLAGS[usize::from(kind >> 2 & 7)], &data)),
        1 => (frames::UDP, frames::udp_datagram(port, peer, &data)),
        2 => {
            let message = frames::icmp_message(TYPES[family][usize::from(kind >> 2 & 7)], port, &data);
            (frames::icmp_number(source), message)
        }
        _ => (OTHER[usize::from(kind >> 2 & 3)], vec![0; 8]),
    };
    Some(frames::packet(source, target, protocol, &payload))
}

const fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}

/// The frame with its ends exchanged, as far as they are at the usual place.
fn answer(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some((source, _)) = addresses(&frame) else {
        return frame;
    };
    let (first, length, protocol, transport) =
        if source.is_ipv4() { (26, 4, frame[23], 34) } else { (22, 16, frame[20], 54) };
    for n in 0..length {
        frame.swap(first + n, first + length + n);
    }
    if frame.len() < transport + 14 {
        return frame;
    }
    match protocol {
        frames::TCP | frames::UDP => {
            frame.swap(transport, transport + 2);
            frame.swap(transport + 1, transport + 3);
            if protocol == frames::TCP {
                frame[transport + 13] |= 0x10;
            }
        }
        frames::ICMP => frame[transport] = frame[transport].wrapping_sub(8),
        frames::ICMPV6 => frame[transport] = frame[transport].wrapping_add(1),
        _ => {}
    }
    frame
}

/// An ICMP error to the sender of a packet.
fn quote(input: &mut Input<'_>, frame: &[u8]) -> Option<Vec<u8>> {
    let kind = input.byte()?;
    let Some((source, target)) = addresses(frame) else {
        return Some(frame.to_vec());
    };
    let family = usize::from(source.is_ipv6());
    let router = if kind & 0x80 == 0 { target } else { frames::ip(HOSTS[family][7]) };
    let quoted = &frame[frames::NETWORK..];
    let length = quoted.len().min(if kind & 0x40 == 0 { 200 } else { 28 });
    let message = frames::icmp_message(TYPES[family][usize::from(kind & 7)], 0, &quoted[..length]);
    Some(frames::packet(router, source, frames::icmp_number(source), &message))
}

/// The frame as a fragment of a packet.
fn part(input: &mut Input<'_>, frame: Vec<u8>) -> Option<Vec<u8>> {
    let kind = input.byte()?;
    let (offset, more, id) = ([0, 0, 1, 3][usize::from(kind & 3)], kind & 4 == 0, u16::from(kind >> 3 & 3));
    let Some(ends) = addresses(&frame) else {
        return Some(frame);
    };
    if ends.0.is_ipv4() {
        let h = V4 { id, fragment: offset | if more { frames::MORE } else { 0 }, ..V4::default() };
        return Some(frames::ipv4(ends.0, ends.1, frame[23], frame.get(34..).unwrap_or_default(), &h));
    }
    let header = frames::fragment_header(frame[20], u32::from(id), offset, more);
    let payload = [&header, frame.get(54..).unwrap_or_default()].concat();
    Some(frames::ipv6(ends.0, ends.1, 44, &payload, V6::default()))
}

/// Source and target of an untagged frame.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let at = |from: usize, length: usize| frame.get(from..from + length);
    match at(12, 2)? {
        [0x08, 0x00] => {
            let four = |from| at(from, 4).and_then(|octets| <[u8; 4]>::try_from(octets).ok());
            Some((four(26)?.into(), four(30)?.into()))
        }
        [0x86, 0xdd] => {
            let six = |from| at(from, 16).and_then(|octets| <[u8; 16]>::try_from(octets).ok());
            Some((six(22)?.into(), six(38)?.into()))
        }
        _ => None,
    }
}
