//! What random packets came to: a run that leaves things out shows nothing.

use std::{collections::BTreeMap, fmt};

use mpesa_fw::reference::{Facts, Fragment, Upper};
use mpesa_fw_common::{Direction, DropReason, PassReason, Reason, decide::Decision};

use super::policy::BY_NAME;
use crate::{case::Packet, host, twins::Twins};

/// How often each number of the precedence, each reason, and some ways to them came up.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn count(&mut self, packet: &Packet, decision: &Decision, twins: &Twins) {
        let Twins { rules, oracle, .. } = twins;
        let direction = packet.direction;
        let word = match decision.reason {
            Reason::Pass(reason) => format!("{} pass {}", direction.label(), reason.label()),
            Reason::Drop(reason) => format!("{} drop {}", direction.label(), reason.label()),
        };
        self.add_one(number(direction, decision.reason).to_owned());
        if let Facts::Ip(facts) = Facts::from(&host::facts(&packet.frame))
            && let Some(way) = way(&facts, decision.reason)
        {
            self.add_one(format!("{word}, {way}"));
        }
        // That destination has no addresses.
        let is_by_name = rules.rule_name(direction, decision.rule) == BY_NAME;
        if is_by_name && oracle.learnt(host::facts(&packet.frame).target.into()) {
            self.add_one(format!("{word}, learnt"));
        }
        if decision.near_miss != 0 {
            self.add_one(String::from("near misses"));
        }
        if oracle.state.generation > 1 {
            self.add_one(format!("{word}, after a reload"));
        }
        self.add_one(word);
    }

    fn add_one(&mut self, word: String) {
        *self.0.entry(word).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (word, count) in other.0 {
            *self.0.entry(word).or_default() += count;
        }
    }

    /// All numbers and all reasons that random packets can have. `injects`: with sockets, and tables that are full.
    pub(crate) fn assert_complete(&self, injects: bool) {
        let numbers = NUMBERS.map(str::to_owned);
        let reasons = Direction::ALL.into_iter().flat_map(|direction| reasons(direction, injects));
        let ways = WAYS.iter().chain(if injects { &WAYS_OF_SOCKETS[..] } else { &[] });
        let wanted = numbers.into_iter().chain(reasons).chain(ways.map(|way| (*way).to_owned()));
        self.assert_all(wanted);
    }

    /// What only a sender decides, all of which came up.
    #[cfg(not(mpesa_fw_no_object))]
    pub(crate) fn assert_senders(&self) {
        let reply = [
            "egress pass service_reply, TCP",
            "egress drop owner_not_allowed",
            "egress pass control, last word",
        ];
        self.assert_all(reply.map(str::to_owned).into_iter());
    }

    fn assert_all(&self, wanted: impl Iterator<Item = String>) {
        let missing: Vec<String> = wanted.filter(|word| !self.0.contains_key(word)).collect();
        assert!(missing.is_empty(), "no packet was {missing:?}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(word, count)| writeln!(f, "{count:>9}  {word}"))
    }
}

const NUMBERS: [&str; 16] =
    ["1", "2", "3", "4", "5", "6", "7", "8", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8"];

/// The number of the precedence that gives this reason.
const fn number(direction: Direction, reason: Reason) -> &'static str {
    let (ingress, egress) = match reason {
        Reason::Pass(PassReason::LinkLayer) | Reason::Drop(DropReason::UnknownEthertype) => ("1", "E1"),
        Reason::Drop(DropReason::Malformed) => ("2", "E2"),
        Reason::Drop(DropReason::Spoofed) => ("3", "-"),
        Reason::Pass(PassReason::Control) => ("4", "E3"),
        Reason::Pass(PassReason::Fragment) | Reason::Drop(DropReason::Fragment) => ("5", "E4"),
        Reason::Pass(PassReason::Service)
        | Reason::Drop(DropReason::SourceNotAllowed | DropReason::RateLimited) => ("6", "-"),
        Reason::Pass(PassReason::ServiceReply) => ("-", "E5"),
        Reason::Pass(PassReason::Destination)
        | Reason::Drop(
            DropReason::DestinationNotAllowed
            | DropReason::NameNotAllowed
            | DropReason::OwnerNotAllowed
            | DropReason::FlowTableFull,
        ) => ("-", "E6"),
        Reason::Pass(PassReason::Flow) => ("7", "E7"),
        Reason::Pass(PassReason::Default)
        | Reason::Drop(DropReason::NoService | DropReason::NoDestination) => ("8", "E8"),
        Reason::Drop(DropReason::Internal) => ("-", "-"),
    };
    match direction {
        Direction::Ingress => ingress,
        Direction::Egress => egress,
    }
}

fn reasons(direction: Direction, injects: bool) -> Vec<String> {
    use DropReason::*;
    let never = |reason: &DropReason| match direction {
        Direction::Ingress => {
            matches!(
                reason,
                DestinationNotAllowed
                    | NameNotAllowed
                    | NoDestination
                    | OwnerNotAllowed
                    | FlowTableFull
                    | Internal
            )
        }
        Direction::Egress => {
            matches!(reason, Spoofed | SourceNotAllowed | RateLimited | NoService | Internal)
                || !injects && matches!(reason, FlowTableFull | OwnerNotAllowed)
        }
    };
    let never_passes = |reason: &PassReason| match direction {
        Direction::Ingress => matches!(reason, PassReason::ServiceReply | PassReason::Destination),
        Direction::Egress => matches!(reason, PassReason::Service),
    };
    let label = direction.label();
    let drops = DropReason::ALL.iter().filter(|reason| !never(reason));
    let passes = PassReason::ALL.iter().filter(|reason| !never_passes(reason));
    let drops = drops.map(|reason| format!("{label} drop {}", reason.label()));
    drops.chain(passes.map(|reason| format!("{label} pass {}", reason.label()))).collect()
}

/// How a packet came to its reason, where there are several ways.
fn way(packet: &mpesa_fw::reference::Packet, reason: Reason) -> Option<&'static str> {
    let is_first = matches!(packet.fragment, Fragment::First(..));
    match (reason, packet.header.upper) {
        (Reason::Pass(PassReason::Control), _) if packet.quoted.is_some() => Some("quotes"),
        (Reason::Pass(PassReason::Control), Upper::Udp { .. }) => Some("DHCP"),
        (Reason::Pass(PassReason::Control), Upper::Tcp { .. }) => Some("last word"),
        (Reason::Pass(PassReason::Control), Upper::Icmpv6 { .. }) => Some("discovery"),
        (Reason::Drop(DropReason::Fragment), Upper::Tcp { .. }) => Some("first of TCP"),
        (Reason::Drop(DropReason::Fragment), _) if packet.fragment == Fragment::Unjudgeable => {
            Some("can't be judged")
        }
        (Reason::Pass(_), _) if is_first => Some("first"),
        (Reason::Pass(PassReason::Flow | PassReason::ServiceReply), Upper::Tcp { .. }) => Some("TCP"),
        (Reason::Pass(PassReason::Flow | PassReason::ServiceReply), Upper::Udp { .. }) => Some("UDP"),
        (
            Reason::Pass(PassReason::Flow | PassReason::ServiceReply),
            Upper::Icmp { .. } | Upper::Icmpv6 { .. },
        ) => Some("ICMP"),
        (Reason::Pass(PassReason::Flow), Upper::Other(_)) => Some("another protocol"),
        (Reason::Drop(_), _) if packet.quoted.is_some() => Some("quotes"),
        (Reason::Pass(_) | Reason::Drop(_), _) => None,
    }
}

const WAYS: [&str; 26] = [
    "near misses",
    "ingress pass control, quotes",
    "ingress pass control, DHCP",
    "ingress pass control, discovery",
    "egress pass control, quotes",
    "egress pass control, DHCP",
    "egress pass control, discovery",
    "ingress drop no_service, quotes",
    "ingress drop fragment, first of TCP",
    "ingress drop fragment, can't be judged",
    "egress drop fragment, can't be judged",
    "ingress pass service, first",
    "egress pass destination, first",
    "egress pass destination, learnt",
    "ingress pass fragment, after a reload",
    "ingress pass flow, TCP",
    "ingress pass flow, UDP",
    "ingress pass flow, ICMP",
    "ingress pass flow, another protocol",
    "ingress pass flow, after a reload",
    "egress pass flow, TCP",
    "egress pass flow, UDP",
    "egress pass flow, ICMP",
    "egress pass flow, after a reload",
    "egress pass service_reply, TCP",
    "egress pass service_reply, ICMP",
];

/// Only with a socket, or without one.
const WAYS_OF_SOCKETS: [&str; 2] = ["egress pass control, last word", "egress pass service_reply, UDP"];
