//! Questions to name servers, answers that come back, and what programs make of them.

use std::net::IpAddr;

use mpesa_fw_common::Direction;

use super::{
    Chance,
    policy::{NAMES, NAMES_PORT},
    pool::Pool,
};
use crate::frames;

const PORT: u16 = 53;
/// What else is asked for: names below a wildcard, a name that contains one, one that nobody allows.
const OTHERS: [&str; 5] =
    ["a.wild.example", "A.b.Wild.example", "wild.example", "one.example.net", "else.example"];
/// With five minutes more, in seconds of 2^30 ns, none is near a sum of the times that go by.
const TIMES: [u32; 6] = [0, 60, 125, 305, 86_400, 1 << 31];
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// To the name that is asked for.
const POINTER: [u8; 2] = [0xc0, 12];

impl Chance {
    /// A question, what comes back, and who connects to an address that was in it.
    pub(super) fn resolution(&mut self, pool: &Pool) -> Vec<(Direction, Vec<u8>)> {
        let server = self.pick(&pool.servers);
        let local = self.pick(&pool.local[usize::from(server.is_ipv6())]);
        let port = self.pick(&pool.ports);
        let datagram = |source, target, from, to, message: &[u8]| {
            frames::packet(source, target, frames::UDP, &frames::udp_datagram(from, to, message))
        };
        let (message, addresses) = self.message(pool);
        let mut packets = vec![
            (Direction::Egress, datagram(local, server, port, PORT, &[7; 16])),
            (Direction::Ingress, datagram(server, local, PORT, port, &message)),
        ];
        for address in addresses {
            let source = self.pick(&pool.local[usize::from(address.is_ipv6())]);
            let target = if self.one_in(3) { self.pick(&pool.ports) } else { NAMES_PORT };
            let segment = frames::tcp_segment(self.pick(&pool.ports), target, frames::SYN, &[]);
            packets.push((Direction::Egress, frames::packet(source, address, frames::TCP, &segment)));
        }
        packets
    }

    /// Whatever is wrong with it is so for any reader of DNS.
    fn message(&mut self, pool: &Pool) -> (Vec<u8>, Vec<IpAddr>) {
        let names: Vec<&str> = NAMES.iter().chain(&NAMES).chain(&OTHERS).copied().collect();
        let flags: u16 = if self.one_in(8) { self.pick(&[0x0100, 0x8183, 0x8580, 0x9180]) } else { 0x8180 };
        let class = if self.one_in(12) { 3 } else { 1 };
        let peers: Vec<IpAddr> = pool.remote.iter().flatten().copied().collect();
        let addresses: Vec<IpAddr> = (0..=self.up_to(2)).map(|_| self.pick(&peers)).collect();
        let mut records: Vec<Vec<u8>> = addresses.iter().map(|address| self.address(*address)).collect();
        if self.one_in(3) {
            records.insert(0, record(&POINTER, CNAME, 1, 60, &wire("edge.example.org")));
        }
        let mut message = vec![0x12, 0x34];
        message.extend([flags, 1, records.len() as u16, 0, 0].into_iter().flat_map(u16::to_be_bytes));
        message.extend(wire(self.pick(&names)));
        message.extend([A, class].into_iter().flat_map(u16::to_be_bytes));
        message.extend(records.concat());
        (message, addresses)
    }

    fn address(&mut self, address: IpAddr) -> Vec<u8> {
        let owner = if self.one_in(3) { wire("edge.example.org") } else { POINTER.to_vec() };
        let class = if self.one_in(12) { 3 } else { 1 };
        let time = self.pick(&TIMES);
        match address {
            IpAddr::V4(address) => record(&owner, A, class, time, &address.octets()),
            IpAddr::V6(address) => record(&owner, AAAA, class, time, &address.octets()),
        }
    }
}

fn record(owner: &[u8], kind: u16, class: u16, time: u32, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend([kind, class].into_iter().flat_map(u16::to_be_bytes));
    record.extend(time.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// A name as it goes over the wire.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    labels.chain([0]).collect()
}
