//! `protocol`, `ports` and `types` of a rule.

use super::{
    document::Node,
    fields::{self, Fields},
    model::Claim,
    ports,
    protocol::{Protocol, kind, protocol},
    report::{Report, Span},
};

/// What a rule claims. Empty if something is wrong, which was reported.
pub(super) fn decode(rule: &Fields<'_>, name: Span, report: &mut Report) -> Vec<Claim> {
    let protocols = match rule.optional("protocol") {
        None => vec![Protocol::Tcp],
        Some(node) => protocols(node, report),
    };
    let ports = rule.optional("ports").map(|node| ports::decode(node, report));
    if protocols.is_empty() || !check(&protocols, rule, name, report) {
        return Vec::new();
    }
    let types = rule.optional("types").map(|node| types(node, &protocols, report));
    protocols
        .iter()
        .enumerate()
        .map(|(index, protocol)| {
            let ports = || ports.clone().unwrap_or_default();
            let types = || types.as_ref().map(|types| types[index].clone()).unwrap_or_default();
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
                .error(node.span, format!("{} is in this list twice", protocol.label()))
                .hint("remove one of them");
            continue;
        }
        protocols.push(protocol);
    }
    protocols
}

/// Whether the protocols go together with each other and with the keys that are written.
fn check(protocols: &[Protocol], rule: &Fields<'_>, name: Span, report: &mut Report) -> bool {
    let with_ports: Vec<_> = protocols.iter().filter(|protocol| protocol.has_ports()).collect();
    let without: Vec<_> = protocols.iter().filter(|protocol| !protocol.has_ports()).collect();
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
        (None, None) if rule.is_misspelt("ports") => good = false,
        (None, None) => {
            good = false;
            report
                .error(name, format!("this rule claims {} but no `ports`", protocols[0].label()))
                .hint("for example `ports: [443]`; `ports: any` means all of them");
        }
        (Some(protocol), Some(at)) => {
            good = false;
            let hint = match protocol {
                Protocol::Icmp | Protocol::Icmpv6 => "remove `ports`; `types: [echo-request]` narrows it",
                Protocol::Tcp | Protocol::Udp | Protocol::Other(_) => {
                    "remove `ports`: of this protocol a rule claims every packet, whatever its ports"
                }
            };
            report
                .error(
                    at,
                    format!("`ports` does not go with {}, which is judged as a whole", protocol.label()),
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
            .hint("only `icmp` and `icmpv6` have types: set `protocol` to these, or remove `types`");
    }
    good
}

/// Type numbers for each of the protocols.
fn types(node: &Node, protocols: &[Protocol], report: &mut Report) -> Vec<Vec<u8>> {
    let mut types = vec![Vec::new(); protocols.len()];
    for node in fields::list(node, "`types`", "[echo-request]", report) {
        for (protocol, types) in protocols.iter().zip(&mut types) {
            match kind(node, *protocol, protocols, report) {
                Some(kind) if types.contains(&kind) => {
                    report.error(node.span, "this type is in the list twice").hint("remove one of them");
                    break;
                }
                Some(kind) => types.push(kind),
                None => break, // one report is enough
            }
        }
    }
    types
}
