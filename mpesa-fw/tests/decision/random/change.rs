//! What becomes of packets that were sent: answers, fragments, quotations, damage.

use std::net::IpAddr;

use rand::Rng;

use super::{Chance, packet::FLAGS, pool::Pool};
use crate::frames;

/// Errors, and types that are none.
const ERRORS: [[u8; 5]; 2] = [[3, 11, 12, 5, 4], [1, 2, 3, 4, 5]];

impl Chance {
    /// The same packet, in TCP another of the connection.
    pub(super) fn again(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let (protocol, flags) = if frame.get(12) == Some(&0x86) { (20, 67) } else { (23, 47) };
        if frame.get(protocol) == Some(&frames::TCP) && frame.len() > flags {
            frame[flags] = self.pick(&FLAGS);
        }
        frame
    }

    /// An ICMP error to the sender of a packet, or to somebody else.
    pub(super) fn quote(&mut self, pool: &Pool, frame: &[u8]) -> Vec<u8> {
        let Some((source, target)) = addresses(frame) else {
            return frame.to_vec();
        };
        let family = usize::from(source.is_ipv6());
        let router = if self.one_in(2) { target } else { self.pick(&pool.remote[family]) };
        let kind = self.pick(&ERRORS[family]);
        let kind = if self.one_in(2) { frames::unreachable(source.is_ipv4()) } else { kind };
        let quoted = &frame[frames::NETWORK..];
        let length = quoted.len().min(self.pick(&[28, 48, 200]));
        let message = frames::icmp_message(kind, 0, &quoted[..length]);
        frames::packet(router, source, frames::icmp_number(source), &message)
    }

    /// The frame with up to four octets changed, most of them in its headers, or cut.
    pub(crate) fn spoilt(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        for _ in 0..self.up_to(4) {
            let place = self.up_to(frame.len().clamp(1, 96) - 1);
            let change = self.pick(&[0, 1, 6, 17, 44, 51, 58, 60, 0xff]);
            if let Some(octet) = frame.get_mut(place) {
                *octet = if self.one_in(2) { change } else { self.0.random() };
            }
        }
        if self.one_in(6) {
            frame.truncate(self.up_to(frame.len()));
        }
        frame
    }

    pub(super) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if self.one_in(20) {
            let kinds = [frames::VLAN, frames::SERVICE_VLAN];
            let count = 1 + self.up_to(2);
            let tags: Vec<u16> = (0..count).map(|_| self.pick(&kinds)).collect();
            *bytes = frames::tagged(&tags, bytes);
        }
        if self.one_in(14) {
            let place = 12 + self.up_to(bytes.len() - 13);
            bytes[place] = self.0.random();
        }
        if self.one_in(20) {
            bytes.truncate(14 + self.up_to(bytes.len() - 14));
        }
        if self.one_in(10) {
            bytes.resize(bytes.len().max(60), 0);
        }
    }
}

/// The frame as the first fragment of a packet, or as a later one of the same.
pub(super) fn piece(frame: &[u8], is_first: bool) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match frame.get(12..14) {
        Some([0x08, 0x00]) if frame.len() > 34 => {
            let bits = if is_first { frames::MORE } else { 3 };
            frame[20..22].copy_from_slice(&bits.to_be_bytes());
        }
        Some([0x86, 0xdd]) if frame.len() > 62 && frame[20] == 44 => {
            frame[57] = if is_first { 1 } else { 3 << 3 };
        }
        _ => {}
    }
    frame
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

/// The frame with its ends exchanged, ports too where they are at the usual place.
pub(super) fn answer(frame: &[u8]) -> Vec<u8> {
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
        frames::ICMP => {
            frame[transport] = match frame[transport] {
                8 => 0,
                13 => 14,
                kind => kind.wrapping_sub(8),
            }
        }
        frames::ICMPV6 => frame[transport] = frame[transport].wrapping_add(1),
        _ => {}
    }
    frame
}
