//! What is valid and doubtful.

use time::Date;

use super::{
    covers::{Matched, covers, is_everywhere},
    model::{AddressSet, Addresses, Location, Policy},
    names::is_public_suffix,
    report::Report,
    resolvers,
    sets::Sets,
};

/// Sets that no rule names.
pub(super) fn unused(sets: &Sets, report: &mut Report) {
    for (set, at) in sets.unused() {
        report
            .warning(at, format!("no rule uses the set `{}`", set.name))
            .hint("remove it, or name it in the `from` or `to` of a rule");
    }
}

/// Everything else.
pub(super) fn lint(policy: &Policy, today: Date, report: &mut Report) {
    for set in &policy.sets {
        expired(set, today, report);
    }
    for set in policy.sets.iter().enumerate().filter(|(index, _)| is_source(policy, *index)) {
        wide(set.1, report);
    }
    for service in &policy.ingress.services {
        let rule = (service.name.as_str(), &service.at);
        if service.limit.is_some() {
            limited_provider(policy, rule, &service.from, report);
        }
        any_and_others(rule, "from", &service.from, false, report);
    }
    for destination in &policy.egress.allow {
        let rule = (destination.name.as_str(), &destination.at);
        everywhere(policy, rule, &destination.to, report);
        customers(rule, &destination.names, report);
        any_and_others(rule, "to", &destination.to, !destination.names.is_empty(), report);
    }
    resolvers::lint(policy, report);
    useless(policy, report);
}

type Rule<'p> = (&'p str, &'p Location);

fn is_source(policy: &Policy, set: usize) -> bool {
    policy.ingress.services.iter().any(|service| service.from.sets.contains(&set))
}

fn expired(set: &AddressSet, today: Date, report: &mut Report) {
    let Some(expires) = set.expires.filter(|expires| *expires < today) else {
        return;
    };
    let checked = set.checked.map(|day| format!(", last compared on {day}")).unwrap_or_default();
    let source = set.source.as_deref().unwrap_or("where it was copied from");
    report
        .warning(report.span(&set.at, &set.name), format!("the set `{}` expired on {expires}{checked}", set.name))
        .hint(format!("compare it with its source ({source}), then set `checked` and `expires` anew; nothing is dropped because of this"));
}

/// A set wider than what it was copied from. What the source says can't be known here; providers publish the
/// single hosts that call, so the criterion is: a set with a `source`, used as the source of a service, that
/// holds a prefix of more than one address.
fn wide(set: &AddressSet, report: &mut Report) {
    let wide = |prefix: &&ipnet::IpNet| prefix.prefix_len() < prefix.max_prefix_len();
    let Some(first) = set.prefixes.iter().find(wide) else {
        return;
    };
    let Some(source) = set.source.as_deref() else {
        return;
    };
    let count = set.prefixes.iter().filter(wide).count();
    let others = if count > 1 { format!(" and {} more networks", count - 1) } else { String::new() };
    report
        .warning(
            report.span(&set.at, &set.name),
            format!("the set `{}` may be wider than its source: it holds {first}{others}", set.name),
        )
        .hint(format!("every host in a network could send what this provider sends; list its hosts unless the source ({source}) publishes networks"));
}

/// Forged SYNs from a listed address use up the limit of the genuine ones.
fn limited_provider(policy: &Policy, (name, at): Rule<'_>, from: &Addresses, report: &mut Report) {
    let mut sets = from.sets.iter().map(|set| &policy.sets[*set]);
    if let Some(set) = sets.find(|set| set.source.is_some()) {
        report
            .warning(
                report.span(at, name),
                format!("`{name}` limits the set `{}`, which is a provider's: genuine packets may be dropped", set.name),
            )
            .hint("forged packets from the provider's addresses use the limit up: remove `limit`; the kernel's SYN cookies absorb forged connections");
    }
}

fn everywhere(policy: &Policy, (name, at): Rule<'_>, to: &Addresses, report: &mut Report) {
    if to.any || is_everywhere(to.prefixes(&policy.sets)) {
        report
            .warning(report.span(at, name), format!("`{name}` may send to any address"))
            .hint("whoever gets a program onto this host can send data out through it: name the hosts or prefixes that are needed");
    }
}

fn customers((rule, at): Rule<'_>, names: &[String], report: &mut Report) {
    for name in names {
        if let Some(domain) = name.strip_prefix("*.")
            && is_public_suffix(domain).is_some()
        {
            report
                .warning(
                    report.span(at, rule),
                    format!("`{rule}` allows `{name}`, which many customers of one company have names below"),
                )
                .hint("whoever becomes one could be sent to: name yours");
        }
    }
}

fn any_and_others((name, at): Rule<'_>, key: &str, addresses: &Addresses, names: bool, report: &mut Report) {
    if addresses.any && (names || !addresses.sets.is_empty() || !addresses.prefixes.is_empty()) {
        report
            .warning(
                report.span(at, name),
                format!("`{key}` of `{name}` holds `any`, which makes its other entries useless"),
            )
            .hint("remove `any`, or the others");
    }
}

fn useless(policy: &Policy, report: &mut Report) {
    let services: Vec<_> = policy.ingress.services.iter().map(Matched::from).collect();
    let destinations: Vec<_> = policy.egress.allow.iter().map(Matched::from).collect();
    for rules in [services, destinations] {
        for (index, later) in rules.iter().enumerate() {
            let Some(earlier) = rules[..index].iter().find(|earlier| covers(&policy.sets, earlier, later))
            else {
                continue;
            };
            report
                .warning(
                    report.span(later.at, later.name),
                    format!(
                        "`{}` is useless: `{}` on line {} allows all of it already",
                        later.name, earlier.name, earlier.at.line
                    ),
                )
                .hint(format!("move it before `{}` to count its packets apart, or remove it", earlier.name));
        }
    }
}
