//! A packet cut at every byte: with lengths that no longer fit, and with lengths that do.

use mpesa_fw_common::DropReason::{Malformed, NoService};

use crate::{
    case::{Case, Expected, Pass, drop_for},
    field::{ALLOWED, API4, CALLBACKS, ECHO, FLOW, HOST4, HOST6, SAFARICOM4, SAFARICOM6, at},
    frames::{self, ACK, NETWORK, TCP, V4, V6, chain, ip, ipv4, ipv6, tcp_segment, tcp_with, udp},
};

/// Cuts never below an Ethernet header: the kernel does not send that.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let options = V4 { options: [1; 12].to_vec(), ..V4::default() };
    let segment = tcp_segment(4000, CALLBACKS, ACK, b"twenty bytes of data");
    let with_options = ipv4(ip(SAFARICOM4), ip(HOST4), TCP, &segment, &options);
    cases.push(cut("IPv4 with options, TCP", &with_options, 14 + 32 + 20, Pass("callbacks")));

    let (next, payload) = chain(&[0, 60, 43, 60], TCP, &segment);
    let with_chain = ipv6(ip(SAFARICOM6), ip(HOST6), next, &payload, V6::default());
    cases.push(cut("IPv6 with four headers, TCP", &with_chain, 14 + 40 + 32 + 20, Pass("callbacks")));

    for (source, host) in ALLOWED {
        let family = if source.contains(':') { "IPv6" } else { "IPv4" };
        let header = if family == "IPv6" { 40 } else { 20 };
        let datagram = udp(&at(source, 4000), &at(host, ECHO));
        // The UDP length says what was there.
        cases.push(cut(&format!("{family}, UDP"), &datagram, datagram.len(), Pass("echo")));
        let tcp = tcp_with(&at(source, 4000), &at(host, CALLBACKS), ACK, b"data");
        cases.push(cut(&format!("{family}, TCP"), &tcp, 14 + header + 20, Pass("callbacks")));
    }
    cases.push(cut_error());
    cases
}

/// Two frames for each length. With lengths that agree, from `whole` bytes on it is the `expected` packet.
fn cut(name: &str, frame: &[u8], whole: usize, expected: Expected) -> Case {
    let mut case = Case::new(format!("{name}: cut at every byte"));
    for length in 14..frame.len() {
        case = case.frame(frame[..length].to_vec(), drop_for(Malformed));
        if let Some(mended) = mended(frame, length) {
            let expected = if length >= whole { expected } else { drop_for(Malformed) };
            case = case.frame(mended, expected);
        }
    }
    case.frame(frame.to_vec(), expected)
}

/// An ICMP error is control traffic as soon as it quotes the ports of a flow, which no rule but the flow allows.
fn cut_error() -> Case {
    let quoted = tcp_with(&at(HOST4, FLOW), &at(API4, 443), ACK, b"data");
    let error = frames::icmp_error("192.0.2.1", HOST4, 3, &quoted);
    let (header, readable) = (14 + 20 + 8, 14 + 20 + 8 + 20 + 8);
    let mut case = Case::new("ICMP error: cut at every byte");
    for length in 14..error.len() {
        case = case.frame(error[..length].to_vec(), drop_for(Malformed));
        if let Some(mended) = mended(&error, length) {
            case = case.frame(
                mended,
                match length {
                    _ if length < header => drop_for(Malformed),
                    _ if length < readable => drop_for(NoService),
                    _ => Pass(""),
                },
            );
        }
    }
    case
}

/// The first bytes of a frame, the length in its network header being what is there.
fn mended(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut cut = frame[..length].to_vec();
    let (place, value) = match cut.get(NETWORK).map(|byte| byte >> 4) {
        Some(4) if length >= NETWORK + 20 => (NETWORK + 2, length - NETWORK),
        Some(6) if length >= NETWORK + 40 => (NETWORK + 4, length - NETWORK - 40),
        _ => return None,
    };
    cut[place..place + 2].copy_from_slice(&(value as u16).to_be_bytes());
    Some(cut)
}
