//! Control traffic passes without a rule; what only looks like it does not.

use mpesa_fw_common::DropReason::{NoService, SourceNotAllowed, Spoofed};

use crate::{
    case::{Case, Drop, Pass, drop_for},
    field::{ATTACKER4, ATTACKER6, HOST4, HOST6, SAFARICOM4, SAFARICOM6, at},
    frames::{V4, icmp, icmpv6_hop, ip, ipv4, udp},
};

const ROUTER: &str = "fe80::1";
const GLOBAL: &str = "2001:db8:0:113::1";

pub(super) fn cases() -> Vec<Case> {
    vec![
        neighbour_discovery(),
        router_messages(),
        listener_discovery(),
        dhcp(),
        dhcpv6(),
        group_protocols(),
        pings(),
    ]
}

/// RFC 4861: hop limit 255, so that nobody can send it from further away.
fn neighbour_discovery() -> Case {
    let mut case = Case::new("neighbour solicitation and advertisement, hop limits 0 to 255");
    for kind in [135, 136] {
        for limit in 0..=255 {
            let expected = if limit == 255 { Pass("") } else { drop_for(NoService) };
            case = case.frame(icmpv6_hop(GLOBAL, HOST6, kind, limit), expected);
        }
    }
    case.frame(icmpv6_hop("::", "ff02::1:ff00:10", 135, 255), Pass(""))
        .frame(icmpv6_hop("::", "ff02::1:ff00:10", 135, 254), drop_for(NoService))
        .frame(icmpv6_hop("::", "ff02::1", 136, 255), drop_for(Spoofed))
}

fn router_messages() -> Case {
    Case::new("router advertisements from the link only, solicitations never")
        .frame(icmpv6_hop(ROUTER, "ff02::1", 134, 255), Pass(""))
        .frame(icmpv6_hop(ROUTER, "ff02::1", 134, 254), drop_for(NoService))
        .frame(icmpv6_hop(GLOBAL, "ff02::1", 134, 255), drop_for(NoService))
        .frame(icmpv6_hop(ATTACKER6, HOST6, 134, 255), drop_for(NoService))
        .frame(icmpv6_hop("::", "ff02::1", 134, 255), drop_for(Spoofed))
        .frame(icmpv6_hop(ROUTER, "ff02::2", 133, 255), drop_for(NoService))
        .frame(icmpv6_hop("::", "ff02::2", 133, 255), drop_for(NoService))
}

fn listener_discovery() -> Case {
    let mut case = Case::new("MLD, hop limits 0 to 3 and 255");
    for kind in [130, 131, 132, 143] {
        for limit in [0, 1, 2, 3, 255] {
            let expected = if limit == 1 { Pass("") } else { drop_for(NoService) };
            case = case.frame(icmpv6_hop(ROUTER, "ff02::1", kind, limit), expected);
        }
        case = case.frame(icmpv6_hop(ATTACKER6, HOST6, kind, 1), drop_for(NoService));
    }
    case
}

/// Answers may come from anywhere (a relay's server is not on the link), and a spoofed one is possible with any firewall:
/// the client checks the transaction, and nothing else listens on port 68.
fn dhcp() -> Case {
    Case::new("DHCP: answers to the client pass, all else by rule")
        .frame(udp(&at("203.0.113.1", 67), &at("255.255.255.255", 68)), Pass(""))
        .frame(udp(&at(ATTACKER4, 67), &at(HOST4, 68)), Pass(""))
        .frame(udp(&at(ATTACKER4, 67), &at(HOST4, 67)), drop_for(NoService))
        .frame(udp(&at(ATTACKER4, 68), &at(HOST4, 67)), drop_for(NoService))
        .frame(udp(&at(ATTACKER4, 66), &at(HOST4, 68)), drop_for(NoService))
        .frame(udp(&at("0.0.0.0", 68), &at("255.255.255.255", 67)), drop_for(NoService))
        .frame(udp(&at("0.0.0.0", 67), &at("255.255.255.255", 68)), drop_for(Spoofed))
}

fn dhcpv6() -> Case {
    Case::new("DHCPv6: answers from the link only")
        .frame(udp(&at(ROUTER, 547), &at("fe80::2", 546)), Pass(""))
        .frame(udp(&at(ATTACKER6, 547), &at(HOST6, 546)), drop_for(NoService))
        .frame(udp(&at(ROUTER, 546), &at("ff02::1:2", 547)), drop_for(NoService))
        .frame(udp(&at(ROUTER, 548), &at("fe80::2", 546)), drop_for(NoService))
}

/// IGMP, PIM, OSPF, VRRP, EIGRP by their own numbers.
fn group_protocols() -> Case {
    let alert = V4 { options: vec![0x94, 4, 0, 0], ttl: Some(1), ..V4::default() };
    let frames = [2, 103, 89, 112, 88]
        .map(|number| ipv4(ip("203.0.113.1"), ip("224.0.0.1"), number, &[0x11, 0, 0, 0, 0, 0, 0, 0], &alert));
    Case::new("IGMP, PIM, OSPF, VRRP need a rule").all(drop_for(NoService), frames)
}

fn pings() -> Case {
    Case::new("pings by rule, answers by flow only")
        .frame(icmp(SAFARICOM4, HOST4, 8, 7), Pass("ping"))
        .frame(icmp(SAFARICOM6, HOST6, 128, 7), Pass("ping"))
        .frame(icmp(ATTACKER4, HOST4, 8, 7), Drop(SourceNotAllowed, "ping"))
        .frame(icmp(ATTACKER6, HOST6, 128, 7), Drop(SourceNotAllowed, "ping"))
        .frame(icmp(SAFARICOM4, HOST4, 0, 7), drop_for(NoService))
        .frame(icmp(SAFARICOM6, HOST6, 129, 7), drop_for(NoService))
        .frame(icmp(SAFARICOM4, HOST4, 13, 7), drop_for(NoService))
        .frame(icmp(SAFARICOM4, HOST4, 17, 7), drop_for(NoService))
}
