//! All 256 combinations of TCP flags, to whom they are and are not for.

use mpesa_fw_common::DropReason::{NoService, SourceNotAllowed};

use crate::{
    case::{Case, Drop, Expected, Pass, drop_for},
    field::{ALLOWED, API4, API6, CALLBACKS, DENIED, FLOW, HOST4, HOST6, STRAY, at},
    frames::{ACK, SYN, tcp, tcp_with},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (source, host) in ALLOWED {
        cases.push(flags(format!("to a stray port, from {source}"), source, at(host, STRAY), |_| {
            drop_for(NoService)
        }));
        cases.push(flags(format!("to the service, from {source}"), source, at(host, CALLBACKS), |_| {
            Pass("callbacks")
        }));
    }
    for (source, host) in DENIED {
        cases.push(flags(format!("to the service, from {source}"), source, at(host, CALLBACKS), |_| {
            Drop(SourceNotAllowed, "callbacks")
        }));
    }
    for (peer, host) in [(API4, HOST4), (API6, HOST6)] {
        cases.push(flow(peer, host));
        cases.push(beside_the_flow(peer, host));
    }
    cases
}

fn flags(name: String, source: &str, target: String, expected: impl Fn(u8) -> Expected) -> Case {
    let frames = (0..=255u8).flat_map(|flags| {
        // With data, a SYN is TCP Fast Open.
        let expected = expected(flags);
        [&[][..], b"GET / HTTP/1.0\r\n\r\n"]
            .map(|data| (tcp_with(&at(source, 4000), &target, flags, data), expected))
    });
    Case::new(format!("256 flag combinations {name}")).frames(frames)
}

/// From the peer of a live flow: anything but a SYN without ACK, so that nobody connects in and no simultaneous open
/// makes one.
fn flow(peer: &str, host: &str) -> Case {
    let frames = (0..=255u8).map(|flags| {
        let opens = flags & (SYN | ACK) == SYN;
        let expected = if opens { drop_for(NoService) } else { Pass("") };
        (tcp(&at(peer, 443), &at(host, FLOW), flags), expected)
    });
    Case::new(format!("256 flag combinations to a flow, from its peer {peer}")).frames(frames)
}

/// One of the four numbers is another.
fn beside_the_flow(peer: &str, host: &str) -> Case {
    let other = if peer.contains(':') { "2001:db8:0:80::81" } else { "192.0.2.81" };
    let frames = [ACK, SYN | ACK, 0x18, 0x04, 0x11].into_iter().flat_map(|flags| {
        [
            tcp(&at(peer, 444), &at(host, FLOW), flags),
            tcp(&at(peer, 443), &at(host, FLOW + 2), flags),
            tcp(&at(other, 443), &at(host, FLOW), flags),
            tcp(&at(peer, FLOW), &at(host, 443 + 1), flags),
        ]
    });
    Case::new(format!("beside a flow to {peer}: other port, other address")).all(drop_for(NoService), frames)
}
