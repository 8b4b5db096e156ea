//! Services and destinations.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use ipnet::IpNet;
use mpesa_fw_common::{
    state::OWN_ADDRESSES_CAPACITY,
    tables::{NAMES, RULES},
};

use super::{
    claims,
    document::Node,
    fields::{self, Fields},
    finding::Severity,
    limits,
    model::{Addresses, Destination, Service},
    names, owners, prefix,
    report::{Report, Span},
    sets::Sets,
};

const SERVICE: [&str; 8] = ["name", "protocol", "ports", "types", "to", "from", "limit", "by"];
const DESTINATION: [&str; 6] = ["name", "to", "protocol", "ports", "types", "by"];

/// `ingress.services`.
pub(super) fn services(node: &Node, sets: &mut Sets, report: &mut Report) -> Vec<Service> {
    let nodes = fields::list_or_empty(
        node,
        "`services`",
        "services: [{ name: ssh, ports: [22], from: [admins] }]",
        report,
    );
    too_many(nodes, "services", report);
    let mut names = BTreeMap::new();
    let mut services = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(rule) = Fields::open(node, "a service", &SERVICE, report) else {
            continue;
        };
        let (name, at) = name(&rule, &mut names, report);
        let by = rule.optional("by").map(|node| owners::decode(node, report)).unwrap_or_default();
        let claims = claims::decode(&rule, at, report);
        let mut to = rule.optional("to").map(|node| local(node, sets, report)).unwrap_or_default();
        // Too many services are refused, and their lists are in the way.
        if services.len() >= RULES {
            to.clear();
            to.shrink_to_fit();
        }
        let from = rule.required("from", "[safaricom]", report);
        let from = from.map(|node| targets(node, Side::Source, sets, report)).unwrap_or_default();
        let limit = rule.optional("limit").and_then(|node| limits::decode(node, report));
        services.push(Service { name, claims, to, from: from.addresses, limit, by, at: report.location(at) });
    }
    services
}

/// `egress.allow`.
pub(super) fn destinations(node: &Node, sets: &mut Sets, report: &mut Report) -> Vec<Destination> {
    let nodes = fields::list_or_empty(
        node,
        "`allow`",
        "allow: [{ name: dns, to: [10.0.0.2], protocol: udp, ports: [53] }]",
        report,
    );
    too_many(nodes, "destinations", report);
    let mut names = BTreeMap::new();
    let mut hosts = BTreeSet::new();
    let mut destinations = Vec::with_capacity(nodes.len());
    for node in nodes {
        let Some(rule) = Fields::open(node, "a destination", &DESTINATION, report) else {
            continue;
        };
        let (name, at) = name(&rule, &mut names, report);
        let by = rule.optional("by").map(|node| owners::decode(node, report)).unwrap_or_default();
        let claims = claims::decode(&rule, at, report);
        let to = rule.required("to", "[api.safaricom.co.ke]", report);
        let to = to.map(|node| targets(node, Side::Destination, sets, report)).unwrap_or_default();
        let before = hosts.len();
        hosts.extend(to.names.iter().cloned());
        if before <= NAMES && hosts.len() > NAMES {
            report
                .error(at, format!("with this destination the policy has more than {NAMES} DNS names"))
                .hint("use a set of prefixes for destinations that publish them");
        }
        destinations.push(Destination {
            name,
            claims,
            to: to.addresses,
            names: to.names,
            by,
            at: report.location(at),
        });
    }
    destinations
}

fn too_many(nodes: &[Node], what: &str, report: &mut Report) {
    if let Some(node) = nodes.get(RULES) {
        report
            .error(node.span, format!("there are {} {what}; {RULES} are possible", nodes.len()))
            .hint("join rules that differ only in ports or addresses: both are lists");
    }
}

fn name(rule: &Fields<'_>, names: &mut BTreeMap<String, Span>, report: &mut Report) -> (String, Span) {
    let Some(node) = rule.required("name", "callbacks", report) else {
        return (String::new(), rule.span);
    };
    let Some(name) = fields::text(node, "`name`", report) else {
        return (String::new(), node.span);
    };
    if let Err((message, hint)) = names::check_label(name) {
        report.error(node.span, message).hint(hint);
    } else if let Some(first) = names.insert(name.to_owned(), node.span) {
        report
            .error(node.span, format!("the name `{name}` is used twice, first on line {}", first.line))
            .hint("every rule is counted under its name: choose another for this one");
    }
    (name.to_owned(), node.span)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
    Local,
}

impl Side {
    const fn key(self) -> &'static str {
        match self {
            Self::Source => "`from`",
            Self::Destination | Self::Local => "`to`",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Source => "from: [safaricom]",
            Self::Destination => "to: [api.safaricom.co.ke]",
            Self::Local => "to: [10.0.0.5]",
        }
    }
}

/// Entries of `from` or `to`.
struct Targets {
    addresses: Addresses,
    names: Vec<String>,
    /// All of them: a list may be long.
    seen: HashSet<String>,
}

impl Default for Targets {
    fn default() -> Self {
        Self {
            addresses: Addresses { any: false, prefixes: Vec::new(), sets: Vec::new() },
            names: Vec::new(),
            seen: HashSet::new(),
        }
    }
}

fn targets(node: &Node, side: Side, sets: &mut Sets, report: &mut Report) -> Targets {
    let mut targets = Targets::default();
    for node in fields::list(node, side.key(), side.example(), report) {
        let Some(text) = fields::text(node, &format!("an entry of {}", side.key()), report) else {
            continue;
        };
        if let Err((message, hint)) = target(text, side, &mut targets, sets, report) {
            report.error(node.span, message).hint_if_any(hint);
        }
    }
    targets
}

fn target(
    text: &str,
    side: Side,
    targets: &mut Targets,
    sets: &mut Sets,
    report: &Report,
) -> Result<(), (String, Option<String>)> {
    let refuse = |message: String, hint: &str| Err((message, Some(hint.to_owned())));
    let twice = || (format!("`{text}` is in this list twice"), Some("remove one of them".to_owned()));
    let addresses = &mut targets.addresses;
    if text == "any" {
        if side == Side::Local {
            return refuse(
                "`any` says nothing here".to_owned(),
                "remove `to`: without it every local address receives the service",
            );
        }
        if std::mem::replace(&mut addresses.any, true) {
            return Err(twice());
        }
    } else if let Some(set) = sets.find(text) {
        if !targets.seen.insert(text.to_owned()) {
            return Err(twice());
        }
        addresses.sets.push(set);
    } else if prefix::is_meant(text) {
        let prefix = prefix::parse(text).map_err(|invalid| (invalid.message, invalid.hint))?;
        if !targets.seen.insert(prefix.to_string()) {
            return Err(twice());
        }
        addresses.prefixes.push(prefix);
    } else if !text.contains('.') {
        let mut hint = if report.has_room(Severity::Error) { sets.suggest(text) } else { String::new() };
        if side == Side::Destination {
            hint.push_str("; a DNS name has a dot");
        }
        return Err((format!("the set `{text}` does not exist"), Some(hint)));
    } else if side == Side::Destination {
        let name = names::host(text).map_err(|(message, hint)| (message, Some(hint)))?;
        if !targets.seen.insert(name.clone()) {
            return Err(twice());
        }
        targets.names.push(name);
    } else {
        return refuse(
            format!("`{text}` is a DNS name; only `to` of a destination takes names"),
            match side {
                Side::Source => "a packet does not prove the name of its sender: write addresses, or a set",
                Side::Local | Side::Destination => "write the local addresses that receive the service",
            },
        );
    }
    Ok(())
}

/// Prefixes in `to` of a service: as many as the addresses of this host that are known to be its own. Each service has
/// a copy of them, so a provider's feed of millions in each of 64 would fill the memory.
const LOCAL: usize = OWN_ADDRESSES_CAPACITY as usize;

/// `to` of a service: local addresses, sets written out.
fn local(node: &Node, sets: &mut Sets, report: &mut Report) -> Vec<IpNet> {
    let Addresses { any: _, mut prefixes, sets: named } = targets(node, Side::Local, sets, report).addresses;
    let count = prefixes.len() + named.iter().map(|set| sets.sets[*set].prefixes.len()).sum::<usize>();
    if count > LOCAL {
        report
            .error(node.span, format!("`to` of a service has {count} prefixes; {LOCAL} are possible"))
            .hint("`to` says which addresses of this host receive the service, `from` who may send it");
        return Vec::new();
    }
    for set in named {
        prefixes.extend(&sets.sets[set].prefixes);
    }
    prefixes
}
