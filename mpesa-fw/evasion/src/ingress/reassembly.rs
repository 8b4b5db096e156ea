//! Fragments again, and what the application hears of them: the kernel puts together what the firewall lets by.
//!
//! Since Linux 4.18 and 4.20 overlapping fragments discard the whole packet in both families (RFC 5722), which takes
//! most of these their point; the firewall stands on kernels whose rules may change.

use std::net::IpAddr;

use mpesa_fw_common::DropReason::{self, NoService};

use crate::{
    case::{Case, Pass, drop_for},
    checksum,
    field::{ALLOWED, ECHO, HOST6, SAFARICOM6, STRAY},
    frames::{UDP, V6, chain, fragment, fragment_header, ip, ipv6, octets, udp_datagram},
};

const FRAGMENT: crate::case::Expected = drop_for(DropReason::Fragment);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (source, host) in ALLOWED {
        let ends = (ip(source), ip(host));
        let from = |what: &str| format!("{what}, from {source}");
        cases.extend([
            honest(from("in order"), ends, 3000, &[0, 1, 2, 3]),
            honest(from("the last pieces backwards"), ends, 3001, &[0, 3, 2, 1]),
            honest(from("each piece twice"), ends, 3002, &[0, 0, 1, 1, 2, 2, 3, 3]),
            last_first(from("the first piece last"), ends),
            overlapping(from("a piece that overlaps, with other data"), ends),
            ports_written_over(from("ports written over by a second first piece"), ends),
        ]);
    }
    cases.extend(header_written_over());
    cases
}

/// A datagram of 80 bytes to the service, its checksum right.
fn datagram((source, host): (IpAddr, IpAddr), port: u16) -> Vec<u8> {
    let mut datagram = udp_datagram(4000, port, &[0x61; 72]);
    checksum::udp(&[octets(source), octets(host)].concat(), &mut datagram);
    datagram
}

/// One of four pieces of 24, 24, 24 and 8 bytes.
fn piece(ends: (IpAddr, IpAddr), id: u16, number: usize, datagram: &[u8]) -> Vec<u8> {
    let (start, end) = (number * 24, datagram.len().min(number * 24 + 24));
    fragment(ends, UDP, id, start as u16 / 8, end < datagram.len(), &datagram[start..end])
}

fn honest(name: String, ends: (IpAddr, IpAddr), id: u16, order: &[usize]) -> Case {
    let whole = datagram(ends, ECHO);
    Case::new(name).all(Pass("echo"), order.iter().map(|number| piece(ends, id, *number, &whole))).heard(1)
}

fn last_first(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let whole = datagram(ends, ECHO);
    Case::new(name)
        .all(FRAGMENT, [3, 2, 1].map(|number| piece(ends, 3100, number, &whole)))
        .frame(piece(ends, 3100, 0, &whole), Pass("echo"))
        .heard(0)
}

fn overlapping(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let whole = datagram(ends, ECHO);
    Case::new(name)
        .frame(piece(ends, 3200, 0, &whole), Pass("echo"))
        .frame(piece(ends, 3200, 1, &whole), Pass("echo"))
        .frame(fragment(ends, UDP, 3200, 2, true, &[0x62; 40]), Pass("echo"))
        .frame(piece(ends, 3200, 2, &whole), Pass("echo"))
        .frame(piece(ends, 3200, 3, &whole), Pass("echo"))
        .heard(0)
}

/// The first of the two that says which port it is for goes to the service, the second to the stray listener: were both
/// let by, a kernel that prefers the later would hand the data to the listener.
fn ports_written_over(name: String, ends: (IpAddr, IpAddr)) -> Case {
    let (good, bad) = (datagram(ends, ECHO), datagram(ends, STRAY));
    Case::new(name)
        .frame(piece(ends, 3300, 0, &good), Pass("echo"))
        .frame(piece(ends, 3300, 0, &bad), drop_for(NoService))
        .frame(fragment(ends, UDP, 3300, 0, true, &bad[..8]), drop_for(NoService))
        .all(Pass("echo"), [1, 2, 3].map(|number| piece(ends, 3300, number, &good)))
        .heard(1)
}

/// IPv6 only: with options behind the fragment header the ports lie further in, where a later fragment can overlap them.
/// It passes, as any later fragment does. The kernel takes no notice of one that brings nothing new, and discards the
/// packet for any other.
fn header_written_over() -> [Case; 2] {
    let ends = (ip(SAFARICOM6), ip(HOST6));
    let (_, first) = chain(&[60], UDP, &datagram(ends, ECHO));
    let over = datagram(ends, STRAY);
    [(3400, 24, 1), (3401, 32, 0)].map(|(id, length, heard)| {
        let frame = |offset, more, bytes: &[u8]| {
            let payload = [&fragment_header(60, id, offset, more)[..], bytes].concat();
            ipv6(ends.0, ends.1, 44, &payload, V6::default())
        };
        Case::new(format!("IPv6: a later piece of {length} bytes over the ports of the first"))
            .frame(frame(0, true, &first[..32]), Pass("echo"))
            .frame(frame(1, true, &over[..length]), Pass("echo"))
            .frame(frame(4, false, &first[32..]), Pass("echo"))
            .heard(heard)
    })
}
