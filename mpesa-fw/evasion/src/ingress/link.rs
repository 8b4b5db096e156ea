//! What is in front of the IP header: tags, other encapsulations, other addresses.

use mpesa_fw_common::DropReason::{Malformed, NoService, SourceNotAllowed, UnknownEthertype};

use crate::{
    case::{Case, Drop, Expected, Pass, drop_for},
    field::{ALLOWED, ATTACKER4, ATTACKER6, CALLBACKS, HOST4, HOST6, SAFARICOM4, SAFARICOM6, STRAY, at},
    frames::{IPV4, IPV6, SERVICE_VLAN, SYN, VLAN, ethernet, tagged, tcp},
};

const UNKNOWN: Expected = drop_for(UnknownEthertype);

pub(super) fn cases() -> Vec<Case> {
    vec![
        tags(),
        too_many_tags(),
        odd_tags(),
        cut_in_a_tag(),
        snap(),
        llc(),
        encapsulations(),
        every_ethertype(),
        wrong_ethertype(),
        hardware_addresses(),
        needed(),
    ]
}

fn packets() -> [(Vec<u8>, Expected); 6] {
    let frame = |source, host, port| tcp(&at(source, 4000), &at(host, port), SYN);
    [
        (frame(SAFARICOM4, HOST4, CALLBACKS), Pass("callbacks")),
        (frame(SAFARICOM6, HOST6, CALLBACKS), Pass("callbacks")),
        (frame(SAFARICOM4, HOST4, STRAY), drop_for(NoService)),
        (frame(SAFARICOM6, HOST6, STRAY), drop_for(NoService)),
        (frame(ATTACKER4, HOST4, CALLBACKS), Drop(SourceNotAllowed, "callbacks")),
        (frame(ATTACKER6, HOST6, CALLBACKS), Drop(SourceNotAllowed, "callbacks")),
    ]
}

/// Judged by what is inside, whether the host has such a VLAN or not.
fn tags() -> Case {
    let mut case = Case::new("one and two tags, 802.1Q and 802.1ad");
    for kinds in [&[VLAN][..], &[SERVICE_VLAN], &[VLAN, VLAN], &[SERVICE_VLAN, VLAN], &[VLAN, SERVICE_VLAN]] {
        case = case.frames(packets().map(|(frame, expected)| (tagged(kinds, &frame), expected)));
    }
    case
}

fn too_many_tags() -> Case {
    let mut case = Case::new("three to six tags");
    for count in 3..=6 {
        for outer in [VLAN, SERVICE_VLAN] {
            let kinds = [&[outer][..], &vec![VLAN; count - 1]].concat();
            case = case.all(UNKNOWN, packets().map(|(frame, _)| tagged(&kinds, &frame)));
        }
    }
    case
}

fn odd_tags() -> Case {
    let mut case = Case::new("priority tag (VLAN 0), every priority, VLAN 4095, a tag before ARP");
    for control in (0..8u16).map(|priority| priority << 13).chain([0x0fff, 0x1000, 0xffff]) {
        for (frame, expected) in packets() {
            let mut tagged = tagged(&[VLAN], &frame);
            tagged[14..16].copy_from_slice(&control.to_be_bytes());
            case = case.frame(tagged, expected);
        }
    }
    // 0x9100 and 0x9200 are tags of old switches: not walked, not let by.
    for kind in [0x9100, 0x9200, 0x9300] {
        case = case.all(UNKNOWN, packets().map(|(frame, _)| tagged(&[kind], &frame)));
    }
    case.frame(tagged(&[VLAN], &ethernet(0x0806, &[0; 28])), Pass(""))
        .frame(tagged(&[SERVICE_VLAN], &ethernet(0x88b5, &[0; 46])), UNKNOWN)
}

fn cut_in_a_tag() -> Case {
    let frame = tagged(&[SERVICE_VLAN, VLAN], &packets()[0].0);
    let mut case = Case::new("cut in a tag");
    for length in 14..22 {
        case = case.frame(frame[..length].to_vec(), drop_for(Malformed));
        // `skb_vlan_untag` takes off the first tag in front of TC, and drops what is cut there: it wants two bytes
        // behind the ethertype, too.
        if length < 20 {
            case = case.at_tc(Expected::Kernel);
        }
    }
    case
}

/// RFC 1042: IP behind LLC and SNAP. Linux has no receiver for it (net/802/psnap.c knows AppleTalk only).
fn snap() -> Case {
    let mut case = Case::new("IP behind LLC and SNAP");
    for (frame, _) in packets() {
        for organisation in [[0, 0, 0], [0, 0, 0xf8]] {
            let header = [&[0xaa, 0xaa, 3][..], &organisation, &frame[12..14]].concat();
            let payload = [&header[..], &frame[14..]].concat();
            case = case
                .frame(ethernet(payload.len() as u16, &payload), UNKNOWN)
                .frame(tagged(&[VLAN], &ethernet(payload.len() as u16, &payload)), UNKNOWN)
                .frame(
                    ethernet(payload.len() as u16, &[&[0xab, 0xaa, 3][..], &payload[3..]].concat()),
                    Pass(""),
                );
        }
        // SNAP with one of the two addresses' group bits is still LLC, and no receiver either.
        let novell = [&[0xff, 0xff][..], &frame[14..]].concat();
        case = case.frame(ethernet(novell.len() as u16, &novell), Pass(""));
    }
    case
}

/// Spanning tree and its like pass; a length that is none does not.
fn llc() -> Case {
    let frame = |length: u16| ethernet(length, &[0x42, 0x42, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Case::new("802.3 lengths, and the gap between length and ethertype")
        .all(Pass(""), [0, 3, 16, 38, 1500].map(frame))
        .all(UNKNOWN, (1501..=1535).map(frame))
        .frame(ethernet(0, &[]), drop_for(Malformed))
}

fn encapsulations() -> Case {
    let mut case = Case::new("PPPoE, MPLS, MACsec, HSR, PBB, batman, CFM around IP");
    for (frame, _) in packets() {
        let ppp = [&[0x11, 0, 0, 1, 0, 40, 0, 0x21][..], &frame[14..]].concat();
        let mpls = [&[0, 1, 1, 64][..], &frame[14..]].concat();
        case = case.frame(ethernet(0x8864, &ppp), UNKNOWN);
        for kind in [0x8863, 0x8847, 0x8848, 0x88e5, 0x892f, 0x88e7, 0x4305, 0x8902, 0x6558] {
            case = case.frame(ethernet(kind, &mpls), UNKNOWN);
        }
    }
    case
}

/// Each of the upper 256 numbers, and the neighbours of those that pass.
fn every_ethertype() -> Case {
    let known = [0x0800, 0x0806, 0x8100, 0x86dd, 0x8809, 0x888e, 0x88a8, 0x88cc];
    let near = known.into_iter().flat_map(|kind: u16| [kind - 1, kind + 1, kind.swap_bytes()]);
    let all = (6..=255u16).map(|high| high << 8 | 0x77).chain(near);
    let frames = all.filter(|kind| *kind >= 1536 && !known.contains(kind)).map(|kind| {
        let frame = tcp(&at(SAFARICOM4, 4000), &at(HOST4, CALLBACKS), SYN);
        ethernet(kind, &frame[14..])
    });
    Case::new("unknown ethertypes").all(UNKNOWN, frames)
}

fn wrong_ethertype() -> Case {
    let [v4, v6, ..] = packets();
    Case::new("IPv4 as IPv6, IPv6 as IPv4, IP as ARP")
        .frame(ethernet(IPV6, &v4.0[14..]), drop_for(Malformed))
        .frame(ethernet(IPV4, &v6.0[14..]), drop_for(Malformed))
        // It is ARP to the stack too.
        .frame(ethernet(0x0806, &v4.0[14..]), Pass(""))
}

/// The stack drops unicast IP that came by a group address (TCP) or not; the rules hold for it in any case.
fn hardware_addresses() -> Case {
    let mut case = Case::new("to broadcast, multicast and others' hardware addresses");
    for address in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1], [2, 9, 9, 9, 9, 9], [0; 6]] {
        for (mut frame, expected) in packets() {
            frame[..6].copy_from_slice(&address);
            case = case.frame(frame, expected);
        }
    }
    case
}

/// A host that loses these is soon off the network.
fn needed() -> Case {
    let mut case = Case::new("ARP, LLDP, LACP, EAPOL pass, also a flood of them");
    for kind in [0x0806, 0x88cc, 0x8809, 0x888e] {
        case = case.all(Pass(""), (0..200).map(|_| ethernet(kind, &[0; 46])));
    }
    let [(source, host), _] = ALLOWED;
    case.frame(tcp(&at(source, 4000), &at(host, CALLBACKS), SYN), Pass("callbacks"))
}
