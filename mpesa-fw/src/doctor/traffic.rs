//! What the agent has seen: whether it runs and enforces, what nobody used, where callers come from.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use mpesa_fw_common::settings::Verdict;
use time::OffsetDateTime;

use super::{Finding, Subject, tampering};
use crate::{
    agent::{CallerStatus, Listeners, Status, network::Protection},
    policy::model::Policy,
};

/// So many calls from one address are no accident.
const MANY_CALLS: u64 = 20;

/// A service may be idle for so long, seconds.
const IDLE: i64 = 24 * 3600;

pub(super) fn examine(subject: &Subject, policy: Option<&Policy>) -> Vec<Finding> {
    let status = match &subject.status {
        Ok(status) => status,
        Err(why) => {
            return vec![Finding::note(
                "agent",
                format!("no agent answers: {why}"),
                "what it has seen can't be looked at, and nobody keeps the firewall up to date",
                "systemctl start mpesa-fw",
            )];
        }
    };
    let mut findings = vec![protection(status)];
    findings.extend(tampering::examine(&status.tampering, OffsetDateTime::now_utc()));
    findings.extend(warnings(&status.warnings));
    findings.extend(unused(status));
    findings.extend(near_misses(status));
    findings.extend(unprotected(status));
    findings.extend(callers(&status.callers, policy));
    if let Ok(listeners) = &subject.listeners {
        findings.extend(undeclared(listeners, closes(status, policy)));
    }
    findings
}

/// Where all callers of a service are one, or come from inside, something stands between this host and them; but for a service
/// that is for one, or for those inside.
fn callers(callers: &[CallerStatus], policy: Option<&Policy>) -> Vec<Finding> {
    let mut by_service: BTreeMap<&str, Vec<&CallerStatus>> = BTreeMap::new();
    for caller in callers {
        by_service.entry(&caller.service).or_default().push(caller);
    }
    let allowed = |name: &str| -> Option<Vec<IpNet>> {
        let policy = policy?;
        let service = policy.ingress.services.iter().find(|service| service.name == name)?;
        (!service.from.any).then(|| service.from.prefixes(&policy.sets).copied().collect())
    };
    let why =
        "a proxy or NAT hides the callers' addresses: the rule proves that a call came by it, not from whom";
    let advice =
        "let it keep source addresses (DNAT, PROXY protocol behind the rule), or judge the callers there";
    let one = |(service, callers): (&str, Vec<&CallerStatus>)| {
        let calls: u64 = callers.iter().map(|caller| caller.connections).sum();
        let allowed = allowed(service).unwrap_or_default();
        if !allowed.is_empty() && allowed.iter().all(|prefix| is_inside(prefix.network())) {
            return None;
        }
        if callers.iter().all(|caller| is_inside(caller.source)) {
            let what =
                format!("every caller of the service `{service}` has a private address ({calls} calls)");
            return Some(Finding::note("callers", what, why, advice));
        }
        let [only] = callers.as_slice() else { return None };
        if let [prefix] = allowed.as_slice()
            && prefix.prefix_len() == prefix.max_prefix_len()
        {
            return None;
        }
        let what =
            format!("every call of the service `{service}` comes from {} ({calls} calls)", only.source);
        (calls >= MANY_CALLS).then(|| Finding::note("callers", what, why, advice))
    };
    by_service.into_iter().filter_map(one).collect()
}

fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether the firewall closes what no service declares; else why not.
fn closes(status: &Status, policy: Option<&Policy>) -> Result<(), String> {
    match (status.protection, policy.map(|policy| policy.ingress.default), status.unprotected.first()) {
        (Protection::Observing, _, _) => Err("observe mode drops nothing".to_owned()),
        (Protection::Incomplete, _, _) => Err("not every interface of the policy is protected".to_owned()),
        (Protection::Enforcing, Some(Verdict::Pass), _) => {
            Err("`ingress: { default: pass }` lets it be".to_owned())
        }
        (Protection::Enforcing, _, Some(open)) => Err(format!("{} is not protected", open.name)),
        (Protection::Enforcing, Some(Verdict::Drop) | None, None) => Ok(()),
    }
}

fn undeclared(listeners: &Listeners, closes: Result<(), String>) -> Vec<Finding> {
    let why = match closes {
        Ok(()) => "it is closed now; one rule too many would open it".to_owned(),
        Err(why) => format!("it can be reached from outside: {why}"),
    };
    let undeclared = listeners.sockets.iter().filter(|socket| socket.service.is_none());
    let undeclared = undeclared.map(|socket| {
        Finding::note(
            "listeners",
            format!(
                "{} {} port {} is listened on, and no service declares it",
                socket.protocol, socket.address, socket.port
            ),
            &why,
            "`mpesa-fw listeners` says whose it is: stop it, bind it to loopback, or declare it",
        )
    });
    let unanswered = listeners.unanswered.iter().map(|service| {
        Finding::note(
            "listeners",
            format!("nobody listens for the service `{}`", service.service),
            "its callers are let in and refused: callbacks are lost",
            "start what should answer, or remove the service",
        )
    });
    undeclared.chain(unanswered).collect()
}

fn protection(status: &Status) -> Finding {
    match status.protection {
        Protection::Enforcing => Finding::fine("agent", "enforcing"),
        Protection::Observing => Finding::note(
            "agent",
            "observing: nothing is dropped",
            "everything passes, and is counted",
            "say `mode: enforce` when nothing that you need is among the would-be drops, then reload on trial",
        ),
        Protection::Incomplete => Finding::wrong(
            "agent",
            "not every interface of the policy is protected",
            "packets come in and go out there unjudged",
            "`mpesa-fw status` shows which, and why",
        ),
    }
}

fn warnings(warnings: &[String]) -> Vec<Finding> {
    // Those of the rules (`FILE:LINE: …`) are told by their file.
    let of_rules = |warning: &str| {
        let place = warning.split_once(": ").and_then(|(place, _)| place.rsplit_once(':'));
        place.is_some_and(|(_, line)| line.parse::<usize>().is_ok())
    };
    let of_agent = warnings.iter().filter(|warning| !of_rules(warning));
    of_agent
        .map(|warning| Finding::note("agent", warning.clone(), "the agent has said so", "see its log"))
        .collect()
}

fn unused(status: &Status) -> Vec<Finding> {
    let age = (OffsetDateTime::now_utc() - status.agent.started).whole_seconds();
    if age < IDLE {
        return Vec::new();
    }
    let idle = status.services.iter().filter(|service| service.passed_packets == 0);
    idle.map(|service| {
        Finding::note(
            "services",
            format!("nobody ever used the service `{}`", service.rule),
            "a rule that nobody needs is a door that nobody watches",
            "remove it; or is what should use it kept away (see its drops)?",
        )
    })
    .collect()
}

fn near_misses(status: &Status) -> Vec<Finding> {
    let misses = status.near_misses.iter().filter(|(_, packets)| **packets > 0);
    misses
        .map(|(set, packets)| {
            Finding::wrong(
                "sets",
                format!(
                    "{packets} packet(s) were dropped that came from the neighbourhood of the set `{set}`"
                ),
                "the provider may call from addresses that are not in the set: callbacks are lost",
                "compare the set with what the provider says today; `mpesa-fw events` shows the addresses",
            )
        })
        .collect()
}

fn unprotected(status: &Status) -> Vec<Finding> {
    status
        .unprotected
        .iter()
        .map(|open| {
            Finding::note(
                "interfaces",
                format!("{} carries addresses and is not protected", open.name),
                "what reaches this host through it is not judged",
                "add it to `interfaces` if packets from outside reach it",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{self, Permissions};

    fn policy(ingress: &str) -> Policy {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.yaml");
        let egress = "egress: { default: drop, allow: [] }";
        std::fs::write(
            &path,
            format!("version: 1\ninterfaces: [eth0]\ningress: {{ {ingress} }}\n{egress}\n"),
        )
        .unwrap();
        policy::load(&path, Permissions::Ignore).unwrap().policy
    }

    #[test]
    fn who_calls_as_the_policy_says_is_no_proxy() {
        let policy = policy(
            "default: drop, services: [ { name: public, ports: [443], from: [196.201.214.200, 192.168.0.9] },\
             { name: api, ports: [80], from: [10.0.0.0/8] }, { name: ssh, ports: [22], from: [203.0.113.7] },\
             { name: web, ports: [81], from: [any] } ]",
        );
        let told = |service: &str, source: &str| {
            let caller = CallerStatus {
                service: service.into(),
                source: source.parse().unwrap(),
                connections: 30,
                last_seen: OffsetDateTime::now_utc(),
            };
            !callers(&[caller], Some(&policy)).is_empty()
        };
        assert!(!told("api", "10.0.0.9") && !told("ssh", "203.0.113.7"));
        assert!(told("public", "192.168.0.9") && told("web", "10.0.0.9"), "from inside");
        assert!(told("public", "196.201.214.200") && told("web", "203.0.113.7"), "all from one");
    }

    #[test]
    fn what_the_agent_says_is_told_and_what_the_rules_say_is_not_twice() {
        let of_agent = "in force is /etc/mpesa-fw/rules.yaml: it can't be read".to_owned();
        let of_rules = "/etc/mpesa-fw/rules.conf:7: `web` may send to any address".to_owned();
        let told = warnings(&[of_agent.clone(), of_rules]);
        assert_eq!(told.iter().map(|finding| &finding.what).collect::<Vec<_>>(), [&of_agent]);
    }
}
