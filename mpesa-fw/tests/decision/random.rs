//! Policies and packets by chance, chosen so that they meet: few addresses, few ports, answers to what was sent, errors
//! that quote it, and now and then a byte that is wrong.
//!
//! `MPESA_FW_TEST_SEED=n` makes others.

use std::net::IpAddr;

use mpesa_fw_common::{Address, Direction, DropReason, PassReason, Reason};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::{
    case::{Packet, Rules, drop},
    frames::{self, V4, V6},
    host::{Frame, HostState},
};

pub(crate) const NAMES: [&str; 3] = ["one.example", "two.example", "three.example"];

/// Addresses of both families, prefixes around them.
const PREFIXES: [[&str; 12]; 2] = [
    [
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.2/31",
        "10.1.2.3",
        "196.201.208.0/20",
        "196.201.214.200",
        "196.201.214.201",
        "128.0.0.0/1",
        "203.0.113.0/24",
        "203.0.113.9",
        "0.0.0.0/0",
    ],
    [
        "fd00::/8",
        "fd00:1::/32",
        "fd00:1:2::/48",
        "fd00:1:2::2/127",
        "fd00:1:2::3",
        "2c0f::/16",
        "2c0f:fe38::200",
        "2c0f:fe38::201",
        "8000::/1",
        "2001:db8::/32",
        "2001:db8:9::9",
        "::/0",
    ],
];
const REMOTE: [[&str; 9]; 2] = [
    [
        "10.1.2.2",
        "10.1.2.3",
        "10.1.2.4",
        "10.1.3.1",
        "10.200.0.1",
        "196.201.214.200",
        "196.201.214.201",
        "203.0.113.9",
        "8.8.8.8",
    ],
    [
        "fd00:1:2::2",
        "fd00:1:2::3",
        "fd00:1:2::4",
        "fd00:1:3::1",
        "fe80::1",
        "2c0f:fe38::200",
        "2c0f:fe38::201",
        "2001:db8:9::9",
        "2600::1",
    ],
];
const LOCAL: [[&str; 3]; 2] =
    [["10.0.0.5", "10.0.0.6", "192.0.2.1"], ["fd00::5", "fe80::5", "2001:db8:1::1"]];
const ODD: [[&str; 6]; 2] = [
    ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.7", "240.0.0.1"],
    ["::", "::1", "ff02::1", "::ffff:10.1.2.3", "fe80::7", "ff02::16"],
];
const PORTS: [u16; 14] = [0, 1, 53, 53, 80, 80, 442, 443, 443, 443, 444, 4000, 4001, 65535];
const FLAGS: [u8; 10] = [0x02, 0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x14, 0x03, 0x00];
const TYPES: [[u8; 10]; 2] =
    [[8, 8, 0, 0, 3, 11, 12, 13, 14, 5], [128, 128, 129, 129, 1, 2, 135, 134, 143, 133]];

pub(crate) struct Chance(StdRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.0).expect("not empty")
    }

    /// Once in `n`.
    fn one_in(&mut self, n: u32) -> bool {
        self.0.random_ratio(1, n)
    }

    fn up_to(&mut self, n: usize) -> usize {
        self.0.random_range(0..=n)
    }

    fn some(&mut self, list: &[&str], most: usize) -> Vec<String> {
        let count = 1 + self.up_to(most - 1);
        let mut some: Vec<String> =
            list.choose_multiple(&mut self.0, count).map(|item| format!("\"{item}\"")).collect();
        some.sort();
        some
    }

    /// A list of prefixes of both families and of sets; or `any`.
    fn addresses(&mut self, sets: usize) -> Vec<String> {
        if self.one_in(5) {
            return vec![String::from("any")];
        }
        let mut list = self.prefixes();
        if sets > 0 && self.one_in(2) {
            list.push(format!("set-{}", self.up_to(sets - 1)));
        }
        list
    }

    fn prefixes(&mut self) -> Vec<String> {
        let mut list = Vec::new();
        let families = self.pick(&[1, 2, 3]);
        for (n, prefixes) in PREFIXES.iter().enumerate() {
            if families & (1 << n) != 0 {
                list.extend(self.some(prefixes, 3));
            }
        }
        list
    }

    /// `protocol:` with what goes with it.
    fn claim(&mut self) -> String {
        match self.up_to(9) {
            0..=4 => format!("protocol: tcp, ports: [{}]", self.ports()),
            5 => format!("protocol: [tcp, udp], ports: [{}]", self.ports()),
            6 | 7 => format!("protocol: udp, ports: [{}]", self.ports()),
            8 => self
                .pick(&[
                    "protocol: [icmp, icmpv6], types: [echo-request]",
                    "protocol: [icmp, icmpv6]",
                    "protocol: icmp, types: [timestamp-request, 5]",
                    "protocol: icmpv6, types: [128, 129]",
                ])
                .to_owned(),
            _ => self.pick(&["protocol: 47", "protocol: [sctp, 50]", "protocol: 253"]).to_owned(),
        }
    }

    fn ports(&mut self) -> String {
        self.pick(&["443", "80, 443", "\"1-65535\"", "\"442-443\"", "53", "4000, \"1-80\"", "444, 65535"])
            .to_owned()
    }

    /// The text of a policy, without its head.
    pub(crate) fn policy(&mut self) -> String {
        let sets = self.up_to(3);
        let mut text = format!("mode: {}\n", if self.one_in(4) { "observe" } else { "enforce" });
        if sets > 0 {
            text += "sets:\n";
        }
        for n in 0..sets {
            let watch = self.prefixes().join(", ");
            let watch = if self.one_in(2) { format!(", watch: [{watch}]") } else { String::new() };
            text += &format!("  set-{n}: {{ addresses: [{}]{watch} }}\n", self.prefixes().join(", "));
        }
        text += &format!("ingress:\n  default: {}\n  services:\n", self.default_verdict());
        let mut limits = 0;
        for n in 0..=self.up_to(6) {
            let mut rule =
                format!("name: in-{n}, {}, from: [{}]", self.claim(), self.addresses(sets).join(", "));
            if self.one_in(4) {
                let local = [self.some(&LOCAL[0], 2), self.some(&LOCAL[1], 2)].concat();
                rule += &format!(", to: [{}]", local.join(", "));
            }
            if self.one_in(2) && limits < 4 {
                limits += 1;
                let what = self.pick(&["packets", "new_connections"]);
                let per = self.pick(&["source", "service"]);
                rule += &format!(", limit: {{ {what}: 1/h, burst: {}, per: {per} }}", 1 + self.up_to(1));
            }
            text += &format!("    - {{ {rule} }}\n");
        }
        text += &format!("egress:\n  default: {}\n  allow:\n", self.default_verdict());
        for n in 0..=self.up_to(5) {
            let mut list = if self.one_in(4) { Vec::new() } else { self.addresses(sets) };
            if list.is_empty() || self.one_in(4) {
                list.extend(self.some(&NAMES, 2));
            }
            text += &format!("    - {{ name: out-{n}, {}, to: [{}] }}\n", self.claim(), list.join(", "));
        }
        text
    }

    fn default_verdict(&mut self) -> &'static str {
        if self.one_in(4) { "pass" } else { "drop" }
    }

    /// What the host knows.
    pub(crate) fn state(&mut self, rules: &Rules) -> HostState {
        let mut state = HostState::new();
        for family in 0..2 {
            for own in LOCAL[family].iter().chain(&REMOTE[family][..1]) {
                if !self.one_in(4) {
                    state.own.insert(Address::from(frames::ip(own)));
                }
            }
            for remote in REMOTE[family] {
                let mut names = [0; 8];
                for (place, name) in names.iter_mut().zip(NAMES) {
                    if self.one_in(4) {
                        *place = rules.slots.names.get(name).map_or(0, |slot| slot + 1);
                    }
                }
                if self.one_in(2) {
                    state.resolved.insert(Address::from(frames::ip(remote)), names);
                }
            }
        }
        state
    }

    /// A packet, perhaps an answer to one before.
    pub(crate) fn packet(&mut self, history: &[Packet], label: String) -> Packet {
        let mut direction = self.pick(&Direction::ALL);
        let mut bytes = match history.choose(&mut self.0) {
            Some(earlier) if self.one_in(3) => {
                direction = if self.one_in(6) { earlier.direction } else { other(earlier.direction) };
                answer(&earlier.frame.bytes)
            }
            Some(earlier) if self.one_in(5) => {
                direction = earlier.direction;
                self.part(&earlier.frame.bytes)
            }
            Some(earlier) if self.one_in(8) => self.quote(&earlier.frame.bytes),
            Some(earlier) if self.one_in(4) => {
                direction = earlier.direction;
                earlier.frame.bytes.clone()
            }
            _ => self.fresh(direction),
        };
        self.spoil(&mut bytes);
        let segmented = self.one_in(12);
        let frame = Frame { segmented, ..bytes.into() };
        Packet { label, frame, direction, sender: None, expected: drop(DropReason::Internal, "") }
    }

    fn fresh(&mut self, direction: Direction) -> Vec<u8> {
        if self.one_in(30) {
            let kind = self.pick(&[0x0806, 0x88cc, 0x8847, 40, 1501]);
            return frames::ethernet(kind, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]);
        }
        let family = self.up_to(1);
        let mut remote = self.pick(&REMOTE[family]);
        if self.one_in(12) {
            remote = self.pick(&ODD[family]);
        }
        let local = self.pick(&LOCAL[family]);
        let (source, target) = match direction {
            Direction::Ingress => (remote, local),
            Direction::Egress => (local, remote),
        };
        let pair = (frames::ip(source), frames::ip(target));
        let (protocol, payload) = self.payload(family);
        self.network(pair, protocol, &payload)
    }

    fn payload(&mut self, family: usize) -> (u8, Vec<u8>) {
        let (source, target) = (self.pick(&PORTS), self.pick(&PORTS));
        let length = self.pick(&[0, 4, 16]);
        let data = vec![7; length];
        match self.up_to(9) {
            0..=4 => (frames::TCP, frames::tcp_segment(source, target, self.pick(&FLAGS), &data)),
            5 | 6 => (frames::UDP, frames::udp_datagram(source, target, &data)),
            7 if self.one_in(4) => {
                let pairs = [(67, 68), (68, 67), (546, 547), (547, 546)];
                let (source, target) = self.pick(&pairs);
                (frames::UDP, frames::udp_datagram(source, target, &data))
            }
            7 | 8 => {
                let message =
                    frames::icmp_message(self.pick(&TYPES[family]), self.pick(&[1, 2, 4000]), &data);
                (if family == 0 { frames::ICMP } else { frames::ICMPV6 }, message)
            }
            _ => (self.pick(&[47, 50, 132, 253, 1, 58, 59, 200]), vec![0; 8 + length]),
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

    /// An ICMP error to the sender of a packet, or to somebody else.
    fn quote(&mut self, frame: &[u8]) -> Vec<u8> {
        let Some((source, target)) = addresses(frame) else {
            return frame.to_vec();
        };
        let family = usize::from(source.is_ipv6());
        let router = if self.one_in(2) { target } else { frames::ip(self.pick(&REMOTE[family])) };
        let kind = self.pick(&TYPES[family][2..7]);
        let kind = if self.one_in(2) { frames::unreachable(source.is_ipv4()) } else { kind };
        let quoted = &frame[frames::NETWORK..];
        let length = quoted.len().min(self.pick(&[28, 48, 200]));
        let message = frames::icmp_message(kind, 0, &quoted[..length]);
        frames::packet(router, source, frames::icmp_number(source), &message)
    }

    /// The frame as the first fragment of a packet, or as a later one of the same.
    fn part(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        let is_first = self.one_in(2);
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

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
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

const fn other(direction: Direction) -> Direction {
    match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    }
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

/// How often each reason came up: a run that leaves most out shows nothing.
#[derive(Default)]
pub(crate) struct Tally(std::collections::BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn count(&mut self, direction: Direction, reason: Reason) {
        let word = match reason {
            Reason::Pass(reason) => format!("{} pass {}", direction.label(), reason.label()),
            Reason::Drop(reason) => format!("{} drop {}", direction.label(), reason.label()),
        };
        *self.0.entry(word).or_default() += 1;
    }

    /// All reasons that random packets can have.
    pub(crate) fn assert_complete(&self) {
        let ingress_only = [
            DropReason::Spoofed,
            DropReason::SourceNotAllowed,
            DropReason::RateLimited,
            DropReason::NoService,
        ];
        let egress_only =
            [DropReason::DestinationNotAllowed, DropReason::NameNotAllowed, DropReason::NoDestination];
        let never = [DropReason::OwnerNotAllowed, DropReason::FlowTableFull, DropReason::Internal];
        for direction in Direction::ALL {
            let is_ingress = direction == Direction::Ingress;
            let others = if is_ingress { &egress_only[..] } else { &ingress_only[..] };
            let drops =
                DropReason::ALL.iter().filter(|reason| !never.contains(reason) && !others.contains(reason));
            let others = if is_ingress {
                [PassReason::ServiceReply, PassReason::Destination]
            } else {
                [PassReason::Service, PassReason::Service]
            };
            let passes = PassReason::ALL.iter().filter(|reason| !others.contains(reason));
            let wanted = drops
                .map(|reason| format!("{} drop {}", direction.label(), reason.label()))
                .chain(passes.map(|reason| format!("{} pass {}", direction.label(), reason.label())));
            for word in wanted {
                assert!(self.0.contains_key(&word), "no packet was `{word}`: {:?}", self.0);
            }
        }
        println!("{:?}", self.0);
    }
}
