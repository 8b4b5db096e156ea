//! `protocol`, `ports` and `types` of a rule.

use std::ops::RangeInclusive;

use super::{
    document::{Node, Value},
    fields::{self, Fields, describe},
    model::{ALL_PORTS, Claim},
    report::{Report, Span},
    suggest::nearest,
};

/// IANA protocol numbers that have a name here, and ports or types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
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

    fn has_ports(self) -> bool {
        match self {
            Self::Tcp | Self::Udp => true,
            Self::Icmp | Self::Icmpv6 | Self::Other(_) => false,
        }
    }

    fn has_types(self) -> bool {
        match self {
            Self::Icmp | Self::Icmpv6 => true,
            Self::Tcp | Self::Udp | Self::Other(_) => false,
        }
    }

    fn label(self) -> String {
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

/// What a rule claims. Empty if something is wrong, which was reported.
pub(super) fn decode(rule: &Fields<'_>, name: Span, report: &mut Report) -> Vec<Claim> {
    let protocols = match rule.optional("protocol") {
        None => vec![Protocol::Tcp],
        Some(node) => protocols(node, report),
    };
    let ports = rule.optional("ports").map(|node| ports(node, report));
    if protocols.is_empty() || !check(&protocols, rule, name, report) {
        return Vec::new();
    }
    let types = rule
        .optional("types")
        .map(|node| types(node, &protocols, report));
    protocols
        .iter()
        .enumerate()
        .map(|(index, protocol)| {
            let ports = || ports.clone().unwrap_or_default();
            let types = || {
                types
                    .as_ref()
                    .map(|types| types[index].clone())
                    .unwrap_or_default()
            };
            match protocol {
                Protocol::Tcp => Claim::Tcp(ports()),
                Protocol::Udp => Claim::Udp(ports()),
                Protocol::Icmp => Claim::Icmp(types()),
                Protocol::Icmpv6 => Claim::Icmpv6(types()),
                Protocol::Other(number) => Claim::Other(*number),
            }
        })
        .collect()
}

fn protocols(node: &Node, report: &mut Report) -> Vec<Protocol> {
    let mut protocols = Vec::new();
    for node in fields::list_or_one(node, "`protocol`", "[udp, tcp]", report) {
        let Some(protocol) = protocol(node, report) else {
            continue;
        };
        if protocols.contains(&protocol) {
            report
                .error(
                    node.span,
                    format!("{} is in this list twice", protocol.label()),
                )
                .hint("remove one of them");
            continue;
        }
        protocols.push(protocol);
    }
    protocols
}

fn protocol(node: &Node, report: &mut Report) -> Option<Protocol> {
    let text = match &node.value {
        Value::Number {
            integer: Some(integer),
            written,
        } => {
            let number = u8::try_from(*integer).ok();
            if number.is_none() {
                report
                    .error(node.span, format!("there is no protocol {written}"))
                    .hint("protocol numbers are 0 to 255; did you mean `ports`?");
            }
            return number.map(Protocol::from_number);
        }
        Value::Text(text) => text.as_str(),
        Value::Bad => return None,
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::List(_)
        | Value::Map(_)) => {
            report
                .error(
                    node.span,
                    format!("a protocol is a name or a number, not {}", describe(other)),
                )
                .hint("for example `tcp`, `[udp, tcp]` or `47`");
            return None;
        }
    };
    let found = NAMES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, protocol)| *protocol);
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
        report
            .error(node.span, format!("unknown protocol `{text}`"))
            .hint(hint);
    }
    found
}

/// Whether the protocols go together with each other and with the keys that are written.
fn check(protocols: &[Protocol], rule: &Fields<'_>, name: Span, report: &mut Report) -> bool {
    let with_ports: Vec<_> = protocols
        .iter()
        .filter(|protocol| protocol.has_ports())
        .collect();
    let without: Vec<_> = protocols
        .iter()
        .filter(|protocol| !protocol.has_ports())
        .collect();
    if let (Some(with), Some(without)) = (with_ports.first(), without.first()) {
        let at = rule.key("protocol").unwrap_or(name);
        report
            .error(
                at,
                format!(
                    "one rule can't hold both {}, which has ports, and {}, which has none",
                    with.label(),
                    without.label()
                ),
            )
            .hint("split it into two rules with names of their own");
        return false;
    }
    let mut good = true;
    match (without.first(), rule.key("ports")) {
        (None, None) => {
            good = false;
            report
                .error(
                    name,
                    format!("this rule claims {} but no `ports`", protocols[0].label()),
                )
                .hint("for example `ports: [443]`; `ports: any` means all of them");
        }
        (Some(protocol), Some(at)) => {
            good = false;
            let hint = match protocol {
                Protocol::Icmp | Protocol::Icmpv6 => {
                    "remove `ports`; `types: [echo-request]` narrows it"
                }
                Protocol::Tcp | Protocol::Udp | Protocol::Other(_) => {
                    "remove `ports`: of this protocol a rule claims every packet, whatever its ports"
                }
            };
            report
                .error(
                    at,
                    format!(
                        "`ports` does not go with {}, which is judged as a whole",
                        protocol.label()
                    ),
                )
                .hint(hint);
        }
        (None, Some(_)) | (Some(_), None) => {}
    }
    if let Some(at) = rule.key("types")
        && let Some(protocol) = protocols.iter().find(|protocol| !protocol.has_types())
    {
        good = false;
        report
            .error(at, format!("`types` does not go with {}", protocol.label()))
            .hint(
                "only `icmp` and `icmpv6` have types: set `protocol` to these, or remove `types`",
            );
    }
    good
}

fn ports(node: &Node, report: &mut Report) -> Vec<RangeInclusive<u16>> {
    if matches!(&node.value, Value::Text(text) if text == "any") {
        return vec![ALL_PORTS];
    }
    let nodes = fields::list_or_one(node, "`ports`", "[443, \"9000-9010\"]", report);
    nodes.iter().filter_map(|node| port(node, report)).collect()
}

fn port(node: &Node, report: &mut Report) -> Option<RangeInclusive<u16>> {
    let (message, hint) = match &node.value {
        Value::Number {
            integer: Some(integer),
            written,
        } => match u16::try_from(*integer) {
            Ok(0) => (
                "port 0 can't be used".to_owned(),
                "ports are 1 to 65535; `ports: any` means all".to_owned(),
            ),
            Ok(port) => return Some(port..=port),
            Err(_) => (
                format!("there is no port {written}"),
                "ports are 1 to 65535".to_owned(),
            ),
        },
        Value::Text(text) => match range(text) {
            Ok(range) => return Some(range),
            Err(complaint) => complaint,
        },
        Value::Bad => return None,
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::List(_)
        | Value::Map(_)) => (
            format!("a port is a number or a range, not {}", describe(other)),
            "for example `[443, \"9000-9010\"]`".to_owned(),
        ),
    };
    report.error(node.span, message).hint(hint);
    None
}

/// `443` or `9000-9010`, both ends included.
fn range(text: &str) -> Result<RangeInclusive<u16>, (String, String)> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port > 0)
    };
    if text == "any" {
        return Err((
            "`any` stands alone, not in a list".to_owned(),
            "write `ports: any`".to_owned(),
        ));
    }
    if let Some(port) = port(text) {
        return Ok(port..=port);
    }
    let complaint =
        |hint: String| Err((format!("`{text}` is not a port or a range of ports"), hint));
    let Some((first, last)) = text.split_once(['-', ':', '–']) else {
        let service = [
            ("http", 80),
            ("https", 443),
            ("ssh", 22),
            ("dns", 53),
            ("ntp", 123),
            ("smtp", 25),
        ];
        return complaint(
            match service
                .iter()
                .find(|(name, _)| *name == text.to_lowercase())
            {
                Some((_, port)) => format!("write its number: {port}"),
                None => "for example 443 or \"9000-9010\"; ports are 1 to 65535".to_owned(),
            },
        );
    };
    match (port(first.trim()), port(last.trim())) {
        (Some(first), Some(last)) if first > last => Err((
            format!("the range `{text}` goes backwards"),
            format!("write \"{last}-{first}\""),
        )),
        (Some(start), Some(end)) if format!("{start}-{end}") == text => Ok(start..=end),
        (Some(first), Some(last)) => complaint(format!("write \"{first}-{last}\"")),
        (None, _) | (_, None) => complaint("both ends of a range are 1 to 65535".to_owned()),
    }
}

/// Type numbers for each of the protocols.
fn types(node: &Node, protocols: &[Protocol], report: &mut Report) -> Vec<Vec<u8>> {
    let mut types = vec![Vec::new(); protocols.len()];
    for node in fields::list(node, "`types`", "[echo-request]", report) {
        for (protocol, types) in protocols.iter().zip(&mut types) {
            match kind(node, *protocol, protocols, report) {
                Some(kind) if types.contains(&kind) => {
                    report
                        .error(node.span, "this type is in the list twice")
                        .hint("remove one of them");
                    break;
                }
                Some(kind) => types.push(kind),
                None => break, // one report is enough
            }
        }
    }
    types
}

fn kind(node: &Node, protocol: Protocol, all: &[Protocol], report: &mut Report) -> Option<u8> {
    let text = match &node.value {
        Value::Number {
            integer: Some(integer),
            written,
        } => {
            let kind = u8::try_from(*integer).ok();
            if kind.is_none() {
                report
                    .error(node.span, format!("there is no type {written}"))
                    .hint("types are 0 to 255");
            }
            return kind;
        }
        Value::Text(text) => text.as_str(),
        Value::Bad => return None,
        other @ (Value::Null
        | Value::Bool(_)
        | Value::Number { .. }
        | Value::List(_)
        | Value::Map(_)) => {
            report
                .error(
                    node.span,
                    format!("a type is a name or a number, not {}", describe(other)),
                )
                .hint("for example `[echo-request]`");
            return None;
        }
    };
    let known = protocol.types();
    let found = known
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, kind)| *kind);
    if found.is_none() {
        let elsewhere = all
            .iter()
            .any(|other| other.types().iter().any(|(name, _)| *name == text));
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
        report
            .error(
                node.span,
                format!("{} has no type `{text}`", protocol.label()),
            )
            .hint(hint);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges() {
        assert_eq!(range("443"), Ok(443..=443));
        assert_eq!(range("9000-9010"), Ok(9000..=9010));
        assert_eq!(range("80-80"), Ok(80..=80));
        for (text, hint) in [
            ("9010-9000", "\"9000-9010\""),
            ("9000:9010", "\"9000-9010\""),
            ("9000 - 9010", "\"9000-9010\""),
            ("0-10", "1 to 65535"),
            ("-1", "1 to 65535"),
            ("1-65536", "1 to 65535"),
            ("https", "443"),
            ("any", "ports: any"),
            ("+1", "1 to 65535"),
        ] {
            assert!(range(text).expect_err(text).1.contains(hint), "{text}");
        }
    }
}
