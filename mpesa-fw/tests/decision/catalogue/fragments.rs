//! 5 and E4: fragments.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, NETS, Net, V4 as NET4, V6 as NET6, at};
use crate::{
    case::{Case, Expected, Step, drop, from, near_miss, pass, to},
    frames::{
        ACK, MORE, SYN, TCP, UDP, V4, V6, chain, fragment, fragment_header, icmp_message, icmp_number, ip,
        ipv4, ipv6, tcp, tcp_segment, udp, udp_datagram,
    },
    host::SECOND,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        whole_life(),
        tcp_fragments(),
        tiny(),
        lifetimes(),
        too_long(),
        atomic(),
        chains(),
        of_flows(),
        from_here(),
    ]
}

fn later(rule: &str) -> Expected {
    pass(PassReason::Fragment, rule)
}

fn refused() -> Expected {
    drop(Fragment, "")
}

fn first_of(net: &Net, source: &str, port: u16, id: u16) -> Vec<u8> {
    fragment((ip(source), ip(net.us)), UDP, id, 0, true, &udp_datagram(4000, port, &[0; 16]))
}

fn rest_of(net: &Net, source: &str, id: u16, offset: u16) -> Vec<u8> {
    fragment((ip(source), ip(net.us)), UDP, id, offset, false, &[0; 20])
}

fn whole_life() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let (near, far) = (net.intranet, net.outsider);
        let mut case = |label: &str, frame, expected| steps.push(to(net.label(label), frame, expected));
        let served = || pass(PassReason::Service, "resolver");
        case("a later one alone", rest_of(&net, near, 1, 3), refused());
        case("a first one", first_of(&net, near, 53, 1), served());
        case("its rest", rest_of(&net, near, 1, 3), later("resolver"));
        case("its rest again", rest_of(&net, near, 1, 3), later("resolver"));
        case("further away", rest_of(&net, near, 1, 1000), later("resolver"));
        case("another id", rest_of(&net, near, 2, 3), refused());
        case("another source", rest_of(&net, far, 1, 3), refused());
        let other = fragment((ip(near), ip(net.us2)), UDP, 1, 3, false, &[0; 20]);
        case("another target", other, refused());
        let other = fragment((ip(near), ip(net.us)), 132, 1, 3, false, &[0; 20]);
        case("another protocol", other, refused());
        case("a first one that is denied", first_of(&net, far, 53, 3), drop(SourceNotAllowed, "resolver"));
        case("its rest", rest_of(&net, far, 3, 3), refused());
        case("a first one to nothing", first_of(&net, near, 54, 4), drop(NoService, ""));
        case("its rest", rest_of(&net, near, 4, 3), refused());
        // Read as if it had ports, this one would be served.
        let disguised = udp_datagram(4000, 53, &[0; 16]);
        let disguised = fragment((ip(near), ip(net.us)), UDP, 5, 3, false, &disguised);
        case("a later one that looks like a first", disguised, refused());
        // Only TCP has a header that offset 1 could overlap in what matters.
        case("offset 1 of UDP alone", rest_of(&net, near, 6, 1), refused());
        case("offset 1 of UDP", rest_of(&net, near, 1, 1), later("resolver"));
    }
    Case::new("fragments", BASE, steps)
}

fn tcp_fragments() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let pair = (ip(net.safaricom), ip(net.us));
        let first = |port, flags, id| {
            let segment = tcp_segment(4000, port, flags, &[0; 20]);
            fragment(pair, TCP, id, 0, true, &segment)
        };
        let rest = |id, offset| fragment(pair, TCP, id, offset, false, &[0; 20]);
        let mut case = |label: &str, frame, expected| steps.push(to(net.label(label), frame, expected));
        case("first, SYN", first(443, SYN, 1), drop(Fragment, "callbacks"));
        case("first, ACK", first(443, ACK, 2), drop(Fragment, "callbacks"));
        case("rest", rest(1, 5), refused());
        case("first, to nothing", first(22, SYN, 3), drop(NoService, ""));
        let watched = near_miss(SourceNotAllowed, "api", &["safaricom"]);
        case("first, not allowed", first(8080, SYN, 4), watched);
        case("offset 1", rest(1, 1), refused());
        case("offset 1 alone", rest(9, 1), refused());
    }
    Case::new("fragments of TCP", BASE, steps)
}

/// A first fragment that cuts its transport header (RFC 1858, RFC 7112).
fn tiny() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let pair = (ip(net.intranet), ip(net.us));
        for length in [0, 1, 8, 13, 19] {
            let segment = &tcp_segment(4000, 80, SYN, &[])[..length];
            let frame = fragment(pair, TCP, 1, 0, true, segment);
            steps.push(to(net.label(&format!("TCP of {length}")), frame, refused()));
        }
        let mut options = tcp_segment(4000, 80, SYN, &[0; 19]);
        options[12] = 10 << 4;
        let frame = fragment(pair, TCP, 1, 0, true, &options);
        steps.push(to(net.label("TCP without all of its options"), frame, refused()));
        for length in 0..8 {
            let frame = fragment(pair, UDP, 2, 0, true, &udp_datagram(4000, 53, &[])[..length]);
            steps.push(to(net.label(&format!("UDP of {length}")), frame, refused()));
            let message = &icmp_message(net.echo_request(), 1, &[])[..length];
            let frame = fragment(pair, icmp_number(pair.0), 3, 0, true, message);
            steps.push(to(net.label(&format!("ICMP of {length}")), frame, refused()));
        }
        steps.push(to(net.label("rest of it"), rest_of(&net, net.intranet, 2, 3), refused()));
        let wrong = fragment(pair, UDP, 4, 0, true, &[0, 80, 0, 53, 0, 7, 0, 0]);
        steps.push(to(net.label("UDP that says 7"), wrong, drop(Malformed, "")));
        let mut wrong = tcp_segment(4000, 80, SYN, &[]);
        wrong[12] = 4 << 4;
        let wrong = fragment(pair, TCP, 5, 0, true, &wrong);
        steps.push(to(net.label("TCP with a short header"), wrong, drop(Malformed, "")));
        // A first fragment says how long the whole datagram is.
        let mut long = udp_datagram(4000, 53, &[0; 16]);
        long[4..6].copy_from_slice(&1400u16.to_be_bytes());
        let long = fragment(pair, UDP, 6, 0, true, &long);
        steps.push(to(net.label("UDP longer than its first"), long, pass(PassReason::Service, "resolver")));
        let ping =
            fragment(pair, icmp_number(pair.0), 7, 0, true, &icmp_message(net.echo_request(), 1, &[0; 16]));
        steps.push(to(net.label("a long ping"), ping, pass(PassReason::Service, "ping")));
        let rest = fragment(pair, icmp_number(pair.0), 7, 3, false, &[0; 16]);
        steps.push(to(net.label("its rest"), rest, later("ping")));
    }
    Case::new("tiny fragments", BASE, steps)
}

fn lifetimes() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let near = net.intranet;
        steps.push(to(
            net.label("first"),
            first_of(&net, near, 53, 1),
            pass(PassReason::Service, "resolver"),
        ));
        steps.push(Step::Wait(29 * SECOND));
        steps.push(to(net.label("in time"), rest_of(&net, near, 1, 3), later("resolver")));
        steps.push(Step::Wait(2 * SECOND));
        steps.push(to(net.label("too late"), rest_of(&net, near, 1, 3), refused()));
        steps.push(to(
            net.label("first, again"),
            first_of(&net, near, 53, 1),
            pass(PassReason::Service, "resolver"),
        ));
        steps.push(to(net.label("its rest"), rest_of(&net, near, 1, 3), later("resolver")));
    }
    for net in NETS {
        steps.push(to(
            net.label("once more"),
            first_of(&net, net.intranet, 53, 1),
            pass(PassReason::Service, "resolver"),
        ));
    }
    // The rule's number belongs to the generation that judged the first.
    steps.push(Step::Reload(super::DENY_ALL.into()));
    for net in NETS {
        steps.push(to(net.label("after a reload"), rest_of(&net, net.intranet, 1, 3), later("")));
        steps.push(to(net.label("a new one"), first_of(&net, net.intranet, 53, 2), drop(NoService, "")));
        steps.push(to(net.label("its rest"), rest_of(&net, net.intranet, 2, 3), refused()));
    }
    Case::new("fragments that come late", BASE, steps)
}

/// More than 65,535 octets when put together: the ping of death.
fn too_long() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let pair = (ip(net.intranet), ip(net.us));
        let number = icmp_number(pair.0);
        let first = fragment(pair, number, 1, 0, true, &icmp_message(net.echo_request(), 1, &[]));
        steps.push(to(net.label("first"), first, pass(PassReason::Service, "ping")));
        for (offset, length, expected) in [
            (8190, 15, later("ping")),
            (8190, 16, drop(Malformed, "")),
            (8191, 7, later("ping")),
            (8191, 8, drop(Malformed, "")),
            (8191, 1000, drop(Malformed, "")),
        ] {
            let frame = fragment(pair, number, 1, offset, false, &vec![0; length]);
            steps.push(to(net.label(&format!("{length} octets at {offset}")), frame, expected));
        }
    }
    Case::new("fragments beyond the end", BASE, steps)
}

/// IPv6 atomic fragments (RFC 6946) are whole, whatever the protocol.
fn atomic() -> Case {
    let site = || pass(PassReason::Service, "site");
    let six = |payload: &[u8]| ipv6(ip(NET6.outsider), ip(NET6.us), 44, payload, V6::default());
    let whole = |reserved: u16, payload: &[u8]| {
        let mut header = fragment_header(TCP, 9, 0, false);
        header[3] |= reserved as u8;
        six(&[&header, payload].concat())
    };
    let syn = tcp_segment(4000, 80, SYN, &[]);
    let forged = tcp_segment(4000, 443, SYN, &[]);
    let mut four = V4 { fragment: 0x8000, ..V4::default() };
    let flagged = ipv4(ip(NET4.outsider), ip(NET4.us), TCP, &syn, &four);
    four.fragment = MORE | 0x8000;
    let first = ipv4(ip(NET4.outsider), ip(NET4.us), TCP, &syn, &four);
    Case::new(
        "atomic fragments",
        BASE,
        vec![
            to("TCP", whole(0, &syn), site()),
            to("reserved bits", whole(6, &syn), site()),
            to("forged", whole(0, &forged), drop(SourceNotAllowed, "callbacks")),
            to("cut short", whole(0, &syn[..19]), drop(Malformed, "")),
            to("nothing behind", whole(0, &[]), drop(Malformed, "")),
            to("half a header", six(&[TCP, 0, 0, 0]), drop(Malformed, "")),
            to("IPv4 with the evil bit", flagged, site()),
            to("IPv4 with it and more to come", first, drop(Fragment, "site")),
        ],
    )
}

/// What stands around a fragment header.
fn chains() -> Case {
    let (near, us) = (ip(NET6.intranet), ip(NET6.us));
    let served = || pass(PassReason::Service, "resolver");
    let datagram = udp_datagram(4000, 53, &[0; 16]);
    let first = |before: &[u8], behind: &[u8], payload: &[u8]| {
        let (next, inner) = chain(behind, UDP, payload);
        let inner = [&fragment_header(next, 1, 0, true), &inner[..]].concat();
        let (next, bytes) = chain(before, 44, &inner);
        ipv6(near, us, next, &bytes, V6::default())
    };
    let rest = |before: &[u8], next: u8| {
        let inner = [&fragment_header(next, 1, 4, false)[..], &[0; 16]].concat();
        let (outer, bytes) = chain(before, 44, &inner);
        ipv6(near, us, outer, &bytes, V6::default())
    };
    let mut cut = fragment_header(60, 1, 0, true);
    cut.extend([UDP, 5, 0, 0, 0, 0, 0, 0]);
    let cut = ipv6(near, us, 44, &cut, V6::default());
    let nothing = ipv6(near, us, 44, &fragment_header(60, 1, 0, true), V6::default());
    let twice = first(&[], &[44], &datagram);
    let disguised = [&fragment_header(60, 1, 4, false)[..], &[0xff; 4]].concat();
    let disguised = ipv6(near, us, 44, &disguised, V6::default());
    Case::new(
        "fragments and other headers",
        BASE,
        vec![
            to("behind options", first(&[0, 60], &[], &datagram), served()),
            to("its rest, without them", rest(&[], UDP), later("resolver")),
            to("its rest, with a hop-by-hop", rest(&[0], UDP), later("resolver")),
            to("options behind", first(&[], &[60], &datagram), served()),
            to("its rest", rest(&[], 60), later("resolver")),
            to("four headers behind", first(&[0], &[60, 43, 51, 60], &datagram), served()),
            to(
                "six headers and one too many",
                first(&[0], &[60, 43, 51, 60, 60], &datagram),
                drop(Malformed, ""),
            ),
            to("cut within the options", cut, refused()),
            to("cut before the options", nothing, refused()),
            to("a fragment of a fragment", twice, drop(Malformed, "")),
            to("what is behind a later one is no header", disguised, later("resolver")),
        ],
    )
}

fn of_flows() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let pair = (ip(net.dns), ip(net.us));
        let first = fragment(pair, UDP, 1, 0, true, &udp_datagram(53, 5000, &[0; 16]));
        let rest = fragment(pair, UDP, 1, 3, false, &[0; 20]);
        steps.push(to(net.label("first of nothing"), first.clone(), drop(NoService, "")));
        steps.push(to(net.label("its rest"), rest.clone(), refused()));
        let query = udp(&at(net.us, 5000), &at(net.dns, 53));
        steps.push(from(net.label("a query"), query, pass(PassReason::Destination, "dns")));
        steps.push(to(net.label("first of the answer"), first, pass(PassReason::Flow, "")));
        steps.push(to(net.label("its rest"), rest, later("")));
        let syn = tcp(&at(net.us, 6000), &at(net.daraja, 443), SYN);
        steps.push(from(net.label("a connection"), syn, pass(PassReason::Destination, "daraja")));
        let segment = tcp_segment(443, 6000, ACK, &[0; 20]);
        let pair = (ip(net.daraja), ip(net.us));
        let first = fragment(pair, TCP, 2, 0, true, &segment);
        steps.push(to(net.label("a fragment of its answer"), first, pass(PassReason::Flow, "")));
        let rest = fragment(pair, TCP, 2, 5, false, &[0; 20]);
        steps.push(to(net.label("its rest"), rest, later("")));
        let rest = fragment(pair, TCP, 2, 1, false, &[0; 20]);
        steps.push(to(net.label("its rest at offset 1"), rest, refused()));
    }
    Case::new("fragments of answers", BASE, steps)
}

fn from_here() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let mut case = |label: &str, target: &str, id, port, rule: Result<&str, Expected>| {
            let pair = (ip(net.us), ip(target));
            let first = fragment(pair, UDP, id, 0, true, &udp_datagram(5000, port, &[0; 16]));
            let rest = fragment(pair, UDP, id, 3, false, &[0; 20]);
            let (one, two) = match rule {
                Ok(rule) => (pass(PassReason::Destination, rule), later(rule)),
                Err(expected) => (expected, refused()),
            };
            steps.push(from(net.label(&format!("{label}: rest first")), rest.clone(), refused()));
            steps.push(from(net.label(label), first, one));
            steps.push(from(net.label(&format!("{label}: rest")), rest, two));
        };
        case("to a destination", net.dns, 1, 53, Ok("dns"));
        case("to a stranger", net.outsider, 2, 53, Err(drop(DestinationNotAllowed, "dns")));
        case("to no port", net.dns, 3, 54, Err(drop(NoDestination, "")));
        // The same id, seen from the other side, is another packet.
        let pair = (ip(net.dns), ip(net.us));
        let rest = fragment(pair, UDP, 1, 3, false, &[0; 20]);
        steps.push(to(net.label("the same id towards here"), rest, refused()));
        let tiny = fragment((ip(net.us), ip(net.dns)), UDP, 4, 0, true, &[0; 7]);
        steps.push(from(net.label("tiny"), tiny, refused()));
        let tcp = fragment((ip(net.us), ip(net.dns)), TCP, 5, 1, false, &[0; 20]);
        steps.push(from(net.label("TCP at offset 1"), tcp, refused()));
    }
    Case::new("fragments from here", BASE, steps)
}
