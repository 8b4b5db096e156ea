//! What the agent has seen: whether it runs and enforces, what nobody used, where callers come from.

use std::{collections::BTreeMap, net::IpAddr};

use time::OffsetDateTime;

use super::{Finding, Subject, tampering};
use crate::agent::{CallerStatus, Listeners, Status, network::Protection};

/// So many calls from one address are no accident.
const MANY_CALLS: u64 = 20;

/// A service may be idle for so long, seconds.
const IDLE: i64 = 24 * 3600;

pub(super) fn examine(subject: &Subject) -> Vec<Finding> {
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
    findings.extend(warnings(status));
    findings.extend(unused(status));
    findings.extend(near_misses(status));
    findings.extend(unprotected(status));
    findings.extend(callers(status));
    if let Ok(listeners) = &subject.listeners {
        findings.extend(undeclared(listeners));
    }
    findings
}

/// Where all callers of a service are one, or come from inside, something stands between this host and them.
fn callers(status: &Status) -> Vec<Finding> {
    let mut by_service: BTreeMap<&str, Vec<&CallerStatus>> = BTreeMap::new();
    for caller in &status.callers {
        by_service.entry(&caller.service).or_default().push(caller);
    }
    let why =
        "a proxy or NAT hides the callers' addresses: the rule proves that a call came by it, not from whom";
    let advice =
        "let it keep source addresses (DNAT, PROXY protocol behind the rule), or judge the callers there";
    let one = |(service, callers): (&str, Vec<&CallerStatus>)| {
        let calls: u64 = callers.iter().map(|caller| caller.connections).sum();
        if callers.iter().all(|caller| is_inside(caller.source)) {
            let what =
                format!("every caller of the service `{service}` has a private address ({calls} calls)");
            return Some(Finding::note("callers", what, why, advice));
        }
        let [only] = callers.as_slice() else { return None };
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

fn undeclared(listeners: &Listeners) -> Vec<Finding> {
    let undeclared = listeners.sockets.iter().filter(|socket| socket.service.is_none());
    let undeclared = undeclared.map(|socket| {
        Finding::note(
            "listeners",
            format!(
                "{} {} port {} is listened on, and no service declares it",
                socket.protocol, socket.address, socket.port
            ),
            "it is closed now; one rule too many would open it",
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

fn warnings(status: &Status) -> Vec<Finding> {
    // Those of the rules are told by their file.
    let of_rules = |warning: &str| warning.contains(".yaml:");
    let warnings = status.warnings.iter().filter(|warning| !of_rules(warning));
    warnings
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
