//! Name servers that a policy lists: whose answers say where its DNS names lead.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use mpesa_fw_common::dns;

use super::{
    covers::is_everywhere,
    model::{AddressSet, Claim, Destination, Policy},
    report::Report,
};

impl Destination {
    /// Whether it lists name servers, whose answers are learnt from: it says to which addresses UDP port 53 is open. Not one
    /// that is open to any, in one prefix or in pieces: whoever can choose the server that he asks chooses its answers. Nor one
    /// for a network and a range of ports, which is about something else.
    #[must_use]
    pub fn lists_resolvers(&self, sets: &[AddressSet]) -> bool {
        let claims = |is_asked: fn(&RangeInclusive<u16>) -> bool| {
            let of = |claim: &Claim| matches!(claim, Claim::Udp(ports) if ports.iter().any(is_asked));
            self.claims.iter().any(of)
        };
        let prefixes = || self.to.prefixes(sets);
        !self.to.any
            && prefixes().next().is_some()
            && (claims(|range| *range == (dns::PORT..=dns::PORT))
                || claims(|range| range.contains(&dns::PORT)) && prefixes().all(is_host))
            && !is_everywhere(prefixes())
    }
}

/// Whether it is one address.
fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

/// What is valid and doubtful.
pub(super) fn lint(policy: &Policy, report: &mut Report) {
    unlisted(policy, report);
    wide(policy, report);
}

/// Answers are learnt from name servers that a destination lists: without one, a name is known by what the agent asks for
/// itself, and a wildcard not at all.
fn unlisted(policy: &Policy, report: &mut Report) {
    if policy.egress.allow.iter().any(|destination| destination.lists_resolvers(&policy.sets)) {
        return;
    }
    let by_wildcard = |name: &&String| name.starts_with('*');
    for destination in &policy.egress.allow {
        if let Some(name) = destination.names.iter().find(by_wildcard) {
            let rule = (destination.name.as_str(), &destination.at);
            report
                .warning(
                    report.span(rule.1, rule.0),
                    format!("`{}` allows nothing by `{name}`: no destination lists a name server", rule.0),
                )
                .hint("what is below a wildcard is learnt from answers of name servers whose addresses a destination lists: add `{ name: dns, to: [10.0.0.2], protocol: [udp, tcp], ports: [53] }`, with yours");
        }
    }
}

/// Who is asked may say where every name of the policy leads.
fn wide(policy: &Policy, report: &mut Report) {
    let Some(named) = policy.egress.allow.iter().find_map(|destination| destination.names.first()) else {
        return;
    };
    for destination in &policy.egress.allow {
        let (rule, at) = (destination.name.as_str(), &destination.at);
        if let Some(network) = destination.to.prefixes(&policy.sets).find(|prefix| !is_host(prefix))
            && destination.lists_resolvers(&policy.sets)
        {
            report
                .warning(
                    report.span(at, rule),
                    format!("every host of {network} may say where `{named}` leads: `{rule}` lists it as name servers"),
                )
                .hint("whoever has a host there can let any address in under a name of the policy: list the name servers one by one");
        }
    }
}
