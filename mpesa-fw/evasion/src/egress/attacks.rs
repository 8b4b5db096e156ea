//! The attacks of `attack.py`, and what should become of each.

/// What should become of an attack.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// Nothing of it gets out; dropped for these reasons, `REASON RULE`, and no others. None: the program is refused (EPERM).
    Stopped(&'static [&'static str]),
    /// Honest traffic: it gets out and nothing is dropped.
    Passes,
    /// It gets out, which this version knows and says (why).
    Gap(&'static str),
}

use Outcome::{Gap, Passes, Stopped};

/// What tells that a frame outside is of this attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// It goes to the drop box, by either address.
    DropBox,
    /// It carries the token of the attack.
    Token,
    /// The program ends well: it has compared what came back.
    Ended,
}

/// An attack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attack {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    /// Its key in `attack.py`.
    pub(super) key: &'static str,
    pub(super) sign: Sign,
    pub(super) outcome: Outcome,
}

const fn attack(
    class: &'static str,
    key: &'static str,
    name: &'static str,
    sign: Sign,
    outcome: Outcome,
) -> Attack {
    Attack { class, name, key, sign, outcome }
}

const ORDINARY: &str = "egress: ordinary sockets";
const PACKET: &str = "egress: packet sockets";
const RAW: &str = "egress: raw sockets";
const CONTROL: &str = "egress: in the guise of control traffic";
const LARGE: &str = "egress: segments, rings, pages";
const DEVICES: &str = "egress: devices on top";

const NOWHERE: Outcome = Stopped(&["no_destination"]);
const NOT_THERE_UDP: Outcome = Stopped(&["destination_not_allowed queries"]);
const NOT_THERE_TCP: Outcome = Stopped(&["destination_not_allowed api"]);

use Sign::{DropBox, Ended, Token};

/// Every attack.
pub(super) const ATTACKS: &[Attack] = &[
    attack(ORDINARY, "udp", "UDP to the drop box", DropBox, NOWHERE),
    attack(ORDINARY, "udp6", "UDP to the drop box, IPv6", DropBox, NOWHERE),
    attack(ORDINARY, "udp-53", "UDP to the drop box, port of an allowed resolver", DropBox, NOT_THERE_UDP),
    attack(ORDINARY, "tcp", "TCP to the drop box, port of an allowed API", DropBox, NOT_THERE_TCP),
    attack(ORDINARY, "tcp6", "TCP to the drop box, IPv6", DropBox, NOT_THERE_TCP),
    attack(ORDINARY, "marked", "SO_MARK", DropBox, NOWHERE),
    attack(ORDINARY, "bound-device", "SO_BINDTODEVICE", DropBox, NOWHERE),
    attack(ORDINARY, "ttl-ecn", "TTL 1, ECN and DSCP bits", DropBox, NOWHERE),
    attack(ORDINARY, "source-route", "a loose source route by way of an allowed address", DropBox, NOWHERE),
    attack(
        ORDINARY,
        "source-route-53",
        "a loose source route by way of an allowed resolver, its port",
        DropBox,
        Gap("goes to an allowed address, which would have to obey the route"),
    ),
    attack(ORDINARY, "multicast", "multicast", Token, NOWHERE),
    attack(ORDINARY, "broadcast", "broadcast", Token, NOWHERE),
    attack(PACKET, "ping", "ping with data", DropBox, NOWHERE),
    attack(PACKET, "packet-raw", "SOCK_RAW", DropBox, NOWHERE),
    attack(PACKET, "packet-raw6", "SOCK_RAW, IPv6", DropBox, NOWHERE),
    attack(PACKET, "packet-dgram", "SOCK_DGRAM", DropBox, NOWHERE),
    attack(PACKET, "packet-tagged", "a VLAN tag", DropBox, NOWHERE),
    attack(PACKET, "packet-two-tags", "two tags", DropBox, NOWHERE),
    attack(PACKET, "packet-three-tags", "three tags", DropBox, Stopped(&["unknown_ethertype"])),
    attack(PACKET, "packet-ethertype", "an ethertype of its own", DropBox, Stopped(&["unknown_ethertype"])),
    attack(PACKET, "packet-snap", "IP behind LLC and SNAP", DropBox, Stopped(&["unknown_ethertype"])),
    attack(PACKET, "packet-spoofed", "a source of somebody else", DropBox, NOWHERE),
    attack(PACKET, "packet-malformed", "a length beyond the frame", DropBox, Stopped(&["malformed"])),
    attack(PACKET, "packet-extensions", "destination options, IPv6", DropBox, NOWHERE),
    attack(PACKET, "packet-chain", "eight headers, IPv6", DropBox, Stopped(&["malformed"])),
    attack(PACKET, "later-fragment", "a later fragment alone", DropBox, Stopped(&["fragment"])),
    attack(PACKET, "both-fragments", "two fragments", DropBox, Stopped(&["fragment", "no_destination"])),
    attack(
        PACKET,
        "later-to-allowed",
        "a later fragment to an allowed address",
        Token,
        Stopped(&["fragment"]),
    ),
    // Refused before there is a frame: nothing is counted as dropped.
    attack(PACKET, "qdisc-bypass", "PACKET_QDISC_BYPASS", DropBox, Stopped(&[])),
    attack(PACKET, "af-xdp", "AF_XDP, copy mode", DropBox, Stopped(&[])),
    attack(RAW, "raw", "UDP", DropBox, NOWHERE),
    attack(RAW, "raw-service-port", "TCP data from the service's port", DropBox, NOWHERE),
    attack(RAW, "raw-syn-service-port", "SYN from the service's port to an allowed source", Token, NOWHERE),
    attack(RAW, "raw-udp-service-port", "UDP from the service's port to an allowed source", Token, NOWHERE),
    attack(RAW, "raw-answer", "TCP data from the service's port to an allowed source", Token, NOWHERE),
    attack(RAW, "raw-gone", "RST, as if for a socket that is gone", DropBox, NOT_THERE_TCP),
    attack(
        RAW,
        "raw-middle",
        "the middle of a connection to an allowed destination",
        Token,
        Gap("a destination allows it, connection or not"),
    ),
    attack(RAW, "raw-sctp", "SCTP to an allowed destination's port", Token, NOWHERE),
    attack(RAW, "raw-ipip", "IPIP to an allowed destination", Token, NOWHERE),
    attack(RAW, "raw-gre", "GRE to an allowed destination", Token, NOWHERE),
    attack(RAW, "raw-6in4", "6in4 to an allowed destination", Token, NOWHERE),
    attack(RAW, "raw-esp", "ESP to an allowed destination", Token, NOWHERE),
    attack(CONTROL, "error-to-denied", "an ICMP error with data to the drop box", DropBox, NOWHERE),
    attack(
        CONTROL,
        "error-to-allowed",
        "an ICMP error with data to an allowed source",
        Token,
        Gap("an error about a visitor's packet (needs CAP_NET_RAW)"),
    ),
    attack(CONTROL, "dhcp-far", "DHCP to the drop box", DropBox, NOWHERE),
    attack(
        CONTROL,
        "dhcp-near",
        "DHCP with data to a near address",
        Token,
        Gap("a DHCP client needs it (needs CAP_NET_RAW or port 68)"),
    ),
    attack(CONTROL, "nd-254", "neighbour solicitation with hop limit 254", DropBox, NOWHERE),
    attack(
        CONTROL,
        "nd",
        "neighbour solicitation with data to the drop box",
        DropBox,
        Gap("neighbour discovery passes to any address (needs CAP_NET_RAW)"),
    ),
    attack(LARGE, "tx-ring", "PACKET_TX_RING: nothing of the packet is linear", DropBox, NOWHERE),
    attack(LARGE, "tx-ring-allowed", "PACKET_TX_RING to an allowed resolver", Token, Passes),
    attack(LARGE, "gso", "UDP_SEGMENT to the drop box", DropBox, NOT_THERE_UDP),
    attack(LARGE, "gso6", "UDP_SEGMENT to the drop box, IPv6", DropBox, NOT_THERE_UDP),
    attack(LARGE, "gso-allowed", "UDP_SEGMENT to an allowed resolver", Token, Passes),
    attack(LARGE, "gso-allowed6", "UDP_SEGMENT to an allowed resolver, IPv6", Token, Passes),
    attack(LARGE, "transfer", "2 MB to an allowed destination and back", Ended, Passes),
    attack(LARGE, "transfer6", "2 MB to an allowed destination and back, IPv6", Ended, Passes),
    attack(LARGE, "sendfile", "sendfile, 2 MB and back", Ended, Passes),
    attack(LARGE, "zerocopy", "MSG_ZEROCOPY, 2 MB and back", Ended, Passes),
    attack(LARGE, "big-tcp", "IPv6 BIG TCP, 8 MB and back", Ended, Passes),
    attack(DEVICES, "macvlan", "macvlan on the interface", DropBox, NOWHERE),
    attack(DEVICES, "ipvlan", "ipvlan on the interface", DropBox, NOWHERE),
    attack(DEVICES, "vlan", "VLAN device on the interface", DropBox, NOWHERE),
    attack(DEVICES, "vxlan", "VXLAN tunnel to the drop box", DropBox, NOWHERE),
    attack(DEVICES, "geneve", "Geneve tunnel to the drop box", DropBox, NOWHERE),
    attack(DEVICES, "ipip", "IPIP tunnel to the drop box", DropBox, NOWHERE),
    attack(DEVICES, "gre", "GRE tunnel to the drop box", DropBox, NOWHERE),
    attack(DEVICES, "sit", "6in4 tunnel to the drop box", DropBox, NOWHERE),
    attack(DEVICES, "bridge", "the interface in a bridge", DropBox, NOWHERE),
];

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../../../README.md");

    #[test]
    fn the_readme_counts_the_attackers_and_those_that_need_a_device() {
        let attackers = ATTACKS.iter().filter(|attack| !matches!(attack.outcome, Passes)).count();
        let on_devices = ATTACKS.iter().filter(|attack| attack.class == DEVICES).count();
        for words in [format!("{attackers} local attackers"), format!("{on_devices} of the local attackers")]
        {
            assert!(README.contains(&words), "README.md does not say \"{words}\"");
        }
    }
}
