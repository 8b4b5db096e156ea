//! Packets.

use std::net::IpAddr;

use mpesa_fw_common::{
    Direction,
    decide::Sender,
    owner::{LEVELS, Owner},
};
use rand::seq::IndexedRandom;

use super::{
    Chance,
    change::{answer, piece},
    pool::Pool,
};
use crate::{
    case::Packet,
    frames::{self, V4, V6, ip},
    host::Frame,
};

const ODD: [[&str; 8]; 2] = [
    [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "255.255.255.255",
        "0.0.0.7",
        "240.0.0.1",
        "255.255.255.254",
    ],
    ["::", "::1", "ff02::1", "feff::1", "::ffff:10.1.2.3", "::fffe:10.1.2.3", "fe80::7", "ff02::16"],
];
pub(super) const FLAGS: [u8; 11] = [0x02, 0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0x03, 0x00];
const TYPES: [[u8; 10]; 2] =
    [[8, 8, 0, 0, 3, 11, 12, 13, 14, 5], [128, 128, 129, 129, 1, 2, 135, 134, 143, 133]];
/// Peers and targets of control traffic, and what is nearly so.
const NEAR: [[&str; 12]; 2] = [
    [
        "255.255.255.255",
        "10.0.0.1",
        "9.255.255.255",
        "100.64.0.0",
        "100.63.255.255",
        "100.127.255.255",
        "100.128.0.0",
        "172.31.255.255",
        "172.32.0.0",
        "169.254.0.1",
        "192.168.0.1",
        "0.0.0.0",
    ],
    [
        "fe80::1",
        "fe80::1",
        "febf:ffff::1",
        "fec0::1",
        "fe7f:ffff::1",
        "::",
        "2001:db8::1",
        "ff02::1",
        "ff02::1:2",
        "ff02::1:3",
        "ff05::1:3",
        "fd00::1",
    ],
];

impl Chance {
    /// A packet, perhaps an answer to one before. `injects`: from any socket.
    pub(super) fn packet(&mut self, pool: &Pool, history: &[Packet], label: String, injects: bool) -> Packet {
        let mut direction = self.pick(&Direction::ALL);
        let mut bytes = match history.choose(&mut self.0) {
            Some(earlier) if self.one_in(3) => {
                direction = if self.one_in(6) { earlier.direction } else { other(earlier.direction) };
                answer(&earlier.frame.bytes)
            }
            Some(earlier) if self.one_in(6) => {
                direction = earlier.direction;
                piece(&earlier.frame.bytes, self.one_in(2))
            }
            Some(earlier) if self.one_in(7) => {
                direction = other(earlier.direction);
                self.quote(pool, &earlier.frame.bytes)
            }
            Some(earlier) if self.one_in(3) => {
                direction = earlier.direction;
                self.again(&earlier.frame.bytes)
            }
            Some(_) | None => self.fresh(pool, direction),
        };
        self.spoil(&mut bytes);
        self.sent(label, bytes, direction, injects)
    }

    /// Packets that belong together, as honest hosts send them: a request and its answer, or the pieces of a datagram.
    pub(super) fn exchange(&mut self, pool: &Pool) -> Vec<(Direction, Vec<u8>)> {
        let direction = self.pick(&Direction::ALL);
        let frame = if self.one_in(4) { self.ping(pool, direction) } else { self.fresh(pool, direction) };
        if self.one_in(3) {
            return vec![(direction, piece(&frame, true)), (direction, piece(&frame, false))];
        }
        let back = answer(&frame);
        vec![(direction, frame), (other(direction), back)]
    }

    fn ping(&mut self, pool: &Pool, direction: Direction) -> Vec<u8> {
        let family = self.up_to(1);
        let (local, remote) = (self.pick(&pool.local[family]), self.pick(&pool.remote[family]));
        let (source, target) = ends(direction, local, remote);
        let message = frames::icmp_message(TYPES[family][0], self.pick(&[1, 2]), b"ping");
        frames::packet(source, target, frames::icmp_number(source), &message)
    }

    /// A frame, and what the hook knows of it beside.
    pub(super) fn sent(
        &mut self,
        label: String,
        bytes: Vec<u8>,
        direction: Direction,
        injects: bool,
    ) -> Packet {
        let sender = (injects && direction == Direction::Egress).then(|| self.sender(&bytes));
        let segmented = self.one_in(12);
        let stripped_tags = u32::from(injects && self.one_in(20));
        let frame = Frame { segmented, stripped_tags, ..bytes.into() };
        Packet { label, frame, direction, sender, expected: None }
    }

    /// A program's, bound to the port that a packet without options comes from or to another; nobody's; one that is gone.
    fn sender(&mut self, bytes: &[u8]) -> Sender {
        let at = if bytes.get(12) == Some(&0x86) { 54 } else { 34 };
        let port = bytes.get(at..at + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
        let bound_port = if self.one_in(4) { port.wrapping_add(1) } else { port };
        match self.up_to(5) {
            0 | 1 => Sender::default(),
            2 => Sender { cookie: 3, owner: self.owner(), bound_port, ..Sender::NONE },
            _ => {
                let cookie = self.pick(&[1, 2]);
                Sender { cookie, owner: self.owner(), bound_port, is_full: true, is_raw: self.one_in(8) }
            }
        }
    }

    fn owner(&mut self) -> Owner {
        let mut cgroups = [0; LEVELS];
        cgroups[0] = self.pick(&[0, 5, 1000, 1001]);
        cgroups[1] = self.pick(&[0, 6, 1000, 1001]);
        Owner { cgroups, uid: self.pick(&[33, 1001, 1002]), is_known: u32::from(!self.one_in(6)) }
    }

    fn fresh(&mut self, pool: &Pool, direction: Direction) -> Vec<u8> {
        if self.one_in(30) {
            let kind = self.pick(&[0x0806, 0x88cc, 0x8809, 0x888e, 0x8847, 40, 1500, 1501]);
            let service_points = self.pick(&[0x42, 0xaa]);
            return frames::ethernet(kind, &[service_points, service_points, 3, 0, 0, 0, 0, 0]);
        }
        let family = self.up_to(1);
        if self.one_in(8) {
            return self.control(pool, family, direction);
        }
        let mut remote = self.pick(&pool.remote[family]);
        if self.one_in(12) {
            remote = ip(self.pick(&ODD[family]));
        }
        let local = self.pick(&pool.local[family]);
        let (protocol, payload) = self.payload(pool, family);
        self.network(ends(direction, local, remote), protocol, &payload)
    }

    /// DHCP, neighbour discovery, MLD, and what is nearly so.
    fn control(&mut self, pool: &Pool, family: usize, direction: Direction) -> Vec<u8> {
        let local =
            if self.one_in(3) { ip(self.pick(&NEAR[family])) } else { self.pick(&pool.local[family]) };
        let (source, target) = ends(direction, local, ip(self.pick(&NEAR[family])));
        let hop_limit = Some(self.pick(&[255, 255, 1, 1, 254, 2, 64]));
        if family == 0 || self.one_in(3) {
            let ports = [(67, 68), (68, 67), (546, 547), (547, 546), (66, 67), (68, 68), (67, 67), (67, 69)];
            let (from, to) = self.pick(&ports);
            return frames::packet(source, target, frames::UDP, &frames::udp_datagram(from, to, b"data"));
        }
        let kind = self.pick(&[127, 130, 131, 132, 133, 134, 134, 135, 135, 136, 136, 137, 142, 143]);
        let message = frames::icmp_message(kind, 0, &[0; 16]);
        if self.one_in(6) {
            return frames::fragment((source, target), frames::ICMPV6, 9, 0, self.one_in(2), &message);
        }
        frames::ipv6(source, target, frames::ICMPV6, &message, V6 { hop_limit, ..V6::default() })
    }

    fn payload(&mut self, pool: &Pool, family: usize) -> (u8, Vec<u8>) {
        let (source, target) = (self.pick(&pool.ports), self.pick(&pool.ports));
        let length = self.pick(&[0, 0, 4, 16]);
        let data = vec![7; length];
        match self.up_to(9) {
            0..=4 => (frames::TCP, frames::tcp_segment(source, target, self.pick(&FLAGS), &data)),
            5 | 6 => (frames::UDP, frames::udp_datagram(source, target, &data)),
            7 | 8 => {
                let message =
                    frames::icmp_message(self.pick(&TYPES[family]), self.pick(&[1, 2, 4000]), &data);
                (if family == 0 { frames::ICMP } else { frames::ICMPV6 }, message)
            }
            _ => (self.pick(&[47, 47, 50, 132, 253, 1, 58, 59, 200]), vec![0; 8 + length]),
        }
    }

    fn network(&mut self, pair: (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> Vec<u8> {
        if self.one_in(6) {
            let offset = self.pick(&[0, 0, 0, 1, 3, 8190]);
            let more = self.one_in(2) || offset == 0;
            return frames::fragment(pair, protocol, self.pick(&[1, 2]), offset, more, payload);
        }
        if pair.0.is_ipv4() {
            let options = vec![1; 4 * self.pick(&[0, 0, 0, 1, 10])];
            return frames::ipv4(pair.0, pair.1, protocol, payload, &V4 { options, ..V4::default() });
        }
        let mut kinds = Vec::new();
        if self.one_in(4) {
            for _ in 0..=self.up_to(6) {
                kinds.push(self.pick(&[0, 43, 44, 51, 60, 60, 135]));
            }
        }
        let (next, bytes) = frames::chain(&kinds, protocol, payload);
        let hop_limit = Some(self.pick(&[64, 255, 255, 1]));
        frames::ipv6(pair.0, pair.1, next, &bytes, V6 { hop_limit, ..V6::default() })
    }
}

/// Source and target.
const fn ends(direction: Direction, local: IpAddr, remote: IpAddr) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Ingress => (remote, local),
        Direction::Egress => (local, remote),
    }
}

const fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
}
