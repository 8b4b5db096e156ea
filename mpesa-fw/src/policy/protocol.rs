//! Protocols and their types, by name and number.

use super::{
    document::Node,
    fields::{self, Scalar},
    report::Report,
    suggest::nearest,
};

/// IANA protocol numbers that have a name here, and ports or types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    /// Judged as a whole.
    Other(u8),
}

/// `icmpv6` is also known as `ipv6-icmp`, as /etc/protocols has it; here there is one word for it.
const NAMES: [(&str, Protocol); 5] = [
    ("tcp", Protocol::Tcp),
    ("udp", Protocol::Udp),
    ("icmp", Protocol::Icmp),
    ("icmpv6", Protocol::Icmpv6),
    ("sctp", Protocol::Other(132)),
];

/// Protocols that people name and that have no name here.
const NUMBERS: [(&str, u8); 8] = [
    ("igmp", 2),
    ("ipip", 4),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
];

impl Protocol {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Icmp,
            6 => Self::Tcp,
            17 => Self::Udp,
            58 => Self::Icmpv6,
            other => Self::Other(other),
        }
    }

    pub(super) fn has_ports(self) -> bool {
        match self {
            Self::Tcp | Self::Udp => true,
            Self::Icmp | Self::Icmpv6 | Self::Other(_) => false,
        }
    }

    pub(super) fn has_types(self) -> bool {
        match self {
            Self::Icmp | Self::Icmpv6 => true,
            Self::Tcp | Self::Udp | Self::Other(_) => false,
        }
    }

    pub(super) fn label(self) -> String {
        match NAMES.iter().find(|(_, protocol)| *protocol == self) {
            Some((name, _)) => format!("`{name}`"),
            None => match self {
                Self::Other(number) => format!("protocol {number}"),
                Self::Tcp | Self::Udp | Self::Icmp | Self::Icmpv6 => {
                    unreachable!("these have names")
                }
            },
        }
    }

    /// Name and number of its types (IANA: ICMP Parameters, ICMPv6 Parameters).
    fn types(self) -> &'static [(&'static str, u8)] {
        match self {
            Self::Icmp => &[
                ("echo-reply", 0),
                ("destination-unreachable", 3),
                ("redirect", 5),
                ("echo-request", 8),
                ("router-advertisement", 9),
                ("router-solicitation", 10),
                ("time-exceeded", 11),
                ("parameter-problem", 12),
                ("timestamp-request", 13),
                ("timestamp-reply", 14),
            ],
            Self::Icmpv6 => &[
                ("destination-unreachable", 1),
                ("packet-too-big", 2),
                ("time-exceeded", 3),
                ("parameter-problem", 4),
                ("echo-request", 128),
                ("echo-reply", 129),
                ("mld-query", 130),
                ("mld-report", 131),
                ("mld-done", 132),
                ("router-solicitation", 133),
                ("router-advertisement", 134),
                ("neighbour-solicitation", 135),
                ("neighbour-advertisement", 136),
                ("redirect", 137),
                ("mld2-report", 143),
            ],
            Self::Tcp | Self::Udp | Self::Other(_) => &[],
        }
    }
}

/// A protocol by name or number.
pub(super) fn protocol(node: &Node, report: &mut Report) -> Option<Protocol> {
    let example = "`tcp`, `[udp, tcp]` or `47`";
    let text = match fields::scalar(node, "a protocol is a name or a number", example, report)? {
        Scalar::Text(text) => text,
        Scalar::Integer(integer, written) => {
            let number = u8::try_from(integer).ok();
            if number.is_none() {
                report
                    .error(node.span, format!("there is no protocol {written}"))
                    .hint("protocol numbers are 0 to 255; did you mean `ports`?");
            }
            return number.map(Protocol::from_number);
        }
    };
    let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
    if found.is_none() {
        let lower = text.to_lowercase();
        let hint = if ["ipv6-icmp", "icmp6"].contains(&lower.as_str()) {
            "write `icmpv6`".to_owned()
        } else if ["any", "all", "ip"].contains(&lower.as_str()) {
            "a rule names its protocols: for example `[tcp, udp]`".to_owned()
        } else if let Some((_, number)) = NUMBERS.iter().find(|(name, _)| *name == lower) {
            format!("write its number: `protocol: {number}`")
        } else if let Some(name) = nearest(&lower, NAMES.map(|(name, _)| name)) {
            format!("did you mean `{name}`?")
        } else {
            "known are `tcp`, `udp`, `icmp`, `icmpv6` and `sctp`; write others by number".to_owned()
        };
        report.error(node.span, format!("unknown protocol `{text}`")).hint(hint);
    }
    found
}

/// A type of `protocol` by name or number. `all`: the protocols of the rule.
pub(super) fn kind(node: &Node, protocol: Protocol, all: &[Protocol], report: &mut Report) -> Option<u8> {
    let text = match fields::scalar(node, "a type is a name or a number", "`[echo-request]`", report)? {
        Scalar::Text(text) => text,
        Scalar::Integer(integer, written) => {
            let kind = u8::try_from(integer).ok();
            if kind.is_none() {
                report.error(node.span, format!("there is no type {written}")).hint("types are 0 to 255");
            }
            return kind;
        }
    };
    let known = protocol.types();
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, kind)| *kind);
    if found.is_none() {
        let elsewhere = all.iter().any(|other| other.types().iter().any(|(name, _)| *name == text));
        let hint = if elsewhere {
            format!("give {} a rule of its own", protocol.label())
        } else if let Some(name) = nearest(text, known.iter().map(|(name, _)| *name)) {
            format!("did you mean `{name}`?")
        } else if ["ping", "echo"].contains(&text) {
            "did you mean `echo-request`?".to_owned()
        } else if text == "packet-too-big" || text == "fragmentation-needed" {
            "for ICMP that is `destination-unreachable`".to_owned()
        } else {
            format!(
                "known are {}, or a number",
                fields::listed(&known.iter().map(|(name, _)| *name).collect::<Vec<_>>())
            )
        };
        report.error(node.span, format!("{} has no type `{text}`", protocol.label())).hint(hint);
    }
    found
}
