//! Which name servers are believed.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{Answer, POLICY, address, answer_frame, ask, connect, flow, opened};
use crate::{
    case::{Case, drop, from, pass, to},
    catalogue::{NETS, at},
    frames::{self, SYN, ip, packet, tcp, udp, udp_datagram},
};

/// Who is believed.
pub(super) fn senders() -> Case {
    let name = "api.safaricom.co.ke";
    let mut steps = Vec::new();
    for net in &NETS {
        let one = |number| address(net, number);
        let denied = || drop(NameNotAllowed, "daraja");
        steps.push(to(
            net.label("to nobody's question"),
            Answer::of(name, &one(1)).frame(net),
            drop(NoService, ""),
        ));
        steps.push(connect("unasked", &one(1), 443, denied()));
        // One that only a rule for any permits.
        steps.push(from(
            net.label("asks somebody"),
            udp(&at(net.us, 4000), &at(net.outsider, 53)),
            opened("any-dns"),
        ));
        let bytes = Answer::of(name, &one(2)).bytes();
        steps.push(to(net.label("somebody's answer"), answer_frame(net.outsider, net.us, &bytes), flow()));
        steps.push(connect("of somebody", &one(2), 443, denied()));
        // The right one, over TCP: the beginning of a segment is anybody's choice.
        let (us, server) = (at(net.us, 4001), at(net.dns, 53));
        steps.push(from(net.label("TCP"), tcp(&us, &server, SYN), opened("dns")));
        let bytes = Answer::of(name, &one(3)).bytes();
        let mut segment = (bytes.len() as u16).to_be_bytes().to_vec();
        segment.extend(&bytes);
        for payload in [&segment[..], &bytes[..]] {
            let frame = frames::tcp_with(&server, &us, frames::ACK | frames::PSH, payload);
            steps.push(to(net.label("an answer over TCP"), frame, flow()));
        }
        steps.push(connect("over TCP", &one(3), 443, denied()));
        // A question is no answer, whoever sends it.
        steps.push(ask(net));
        let question = packet(ip(net.us), ip(net.dns), 17, &udp_datagram(4000, 53, &bytes));
        steps.push(from(net.label("an answer that goes out"), question, pass(PassReason::Flow, "dns")));
        steps.push(connect("going out", &one(3), 443, denied()));
    }
    Case::new("senders of answers", POLICY, steps)
}

/// A name server that may be asked by its name is not believed: only an address makes one.
pub(super) fn by_name() -> Case {
    let policy = POLICY.replace("\"fd00::2\"]", "\"fd00::2\", ns.example.org]");
    let mut steps = Vec::new();
    for net in &NETS {
        steps.push(ask(net));
        let where_it_is = Answer::of("ns.example.org", net.outsider).frame(net);
        steps.push(to(net.label("where the server is"), where_it_is, flow()));
        let question = udp(&at(net.us, 4000), &at(net.outsider, 53));
        steps.push(from(net.label("asks the server"), question, opened("dns")));
        let target = address(net, 4);
        let bytes = Answer::of("api.safaricom.co.ke", &target).bytes();
        steps.push(to(net.label("its answer"), answer_frame(net.outsider, net.us, &bytes), flow()));
        steps.push(connect("of a server by name", &target, 443, drop(NameNotAllowed, "daraja")));
    }
    Case::new("name servers by name", policy, steps)
}
