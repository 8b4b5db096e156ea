//! 1 and E1: what is not IP, and what is, behind tags.

use mpesa_fw_common::{DropReason::*, PassReason};

use super::{BASE, DENY_ALL, NETS, at};
use crate::{
    case::{Case, Step, drop, from, pass, to},
    frames::{IPV4, SERVICE_VLAN, SYN, VLAN, ethernet, tagged, tcp},
    host::Frame,
};

pub(super) fn cases() -> Vec<Case> {
    vec![ethertypes(), tags(), stripped()]
}

fn ethertypes() -> Case {
    let link = || pass(PassReason::LinkLayer, "");
    let unknown = || drop(UnknownEthertype, "");
    let frames = [
        ("ARP", ethernet(0x0806, &[0; 28]), link()),
        ("EAPOL", ethernet(0x888e, &[0; 46]), link()),
        ("LLDP", ethernet(0x88cc, &[0; 46]), link()),
        ("slow protocols", ethernet(0x8809, &[0; 46]), link()),
        ("spanning tree", ethernet(38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]), link()),
        ("LLC of the greatest length", ethernet(1500, &[0x42, 0x42, 3]), link()),
        ("LLC with nothing behind", ethernet(0, &[]), drop(Malformed, "")),
        ("LLC with one octet", ethernet(1, &[0x42]), drop(Malformed, "")),
        ("SNAP that carries IPv4", ethernet(28, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0, 0x45]), unknown()),
        ("neither length nor type", ethernet(1501, &[0; 46]), unknown()),
        ("neither length nor type, last", ethernet(1535, &[0; 46]), unknown()),
        ("first type", ethernet(1536, &[0; 46]), unknown()),
        ("MPLS", ethernet(0x8847, &[0; 46]), unknown()),
        ("PPPoE", ethernet(0x8864, &[0; 46]), unknown()),
        ("RARP", ethernet(0x8035, &[0; 46]), unknown()),
        ("experimental", ethernet(0x88b5, &[0; 46]), unknown()),
        ("QinQ of old", tagged(&[0x9100], &ethernet(0x0806, &[0; 28])), unknown()),
        ("MACsec", ethernet(0x88e5, &[0; 46]), unknown()),
        ("ARP behind a tag", tagged(&[VLAN], &ethernet(0x0806, &[0; 28])), link()),
        ("LLC behind a tag", tagged(&[VLAN], &ethernet(38, &[0x42, 0x42, 3])), link()),
    ];
    let both = |(label, frame, expected): (&'static str, Vec<u8>, _)| {
        [to(label, frame.clone(), Clone::clone(&expected)), from(label, frame, expected)]
    };
    Case::new("ethertypes", DENY_ALL, frames.into_iter().flat_map(both).collect())
}

fn tags() -> Case {
    let mut steps = Vec::new();
    for net in NETS {
        let open = tcp(&at(net.outsider, 4000), &at(net.us, 80), SYN);
        let closed = tcp(&at(net.outsider, 4000), &at(net.us, 22), SYN);
        for kinds in [&[VLAN][..], &[SERVICE_VLAN], &[SERVICE_VLAN, VLAN], &[VLAN, VLAN]] {
            let label = net.label(&format!("{} tags", kinds.len()));
            steps.push(to(&label, tagged(kinds, &open), pass(PassReason::Service, "site")));
            steps.push(to(&label, tagged(kinds, &closed), drop(NoService, "")));
        }
        for kinds in [[VLAN; 3], [SERVICE_VLAN, VLAN, VLAN]] {
            steps.push(to(net.label("three tags"), tagged(&kinds, &open), drop(UnknownEthertype, "")));
        }
        steps.push(to(net.label("QinQ of old"), tagged(&[0x9100], &open), drop(UnknownEthertype, "")));
        let mut priority = tagged(&[VLAN], &closed);
        (priority[14], priority[15]) = (0xe0, 0);
        steps.push(to(net.label("a priority tag"), priority, drop(NoService, "")));
        let request = tcp(&at(net.us, 4000), &at(net.outsider, 443), SYN);
        steps.push(from(
            net.label("from here, tagged"),
            tagged(&[VLAN], &request),
            drop(DestinationNotAllowed, "daraja"),
        ));
        let request = tcp(&at(net.us, 4000), &at(net.daraja, 443), SYN);
        steps.push(from(
            net.label("from here, tagged twice"),
            tagged(&[SERVICE_VLAN, VLAN], &request),
            pass(PassReason::Destination, "daraja"),
        ));
    }
    let cut = tagged(&[VLAN], &ethernet(IPV4, &[]))[..17].to_vec();
    steps.push(to("a tag cut short", cut, drop(Malformed, "")));
    let empty = ethernet(VLAN, &[]);
    steps.push(to("a tag that is not there", [&empty[..], &[0]].concat(), drop(Malformed, "")));
    Case::new("VLAN tags", BASE, steps)
}

/// Tags that the NIC took off count among the two.
fn stripped() -> Case {
    let steps = NETS.iter().flat_map(|net| {
        let open = tcp(&at(net.outsider, 4000), &at(net.us, 80), SYN);
        let frame = |kinds: &[u16]| Frame { stripped_tags: 1, ..tagged(kinds, &open).into() };
        let served = || pass(PassReason::Service, "site");
        [
            to(net.label("one"), frame(&[]), served()),
            to(net.label("one and another"), frame(&[VLAN]), served()),
            to(net.label("one and two more"), frame(&[VLAN, VLAN]), drop(UnknownEthertype, "")),
        ]
    });
    Case::new("stripped tags", BASE, steps.collect::<Vec<Step>>())
}
