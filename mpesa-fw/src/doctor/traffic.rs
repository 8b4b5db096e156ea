//! What the agent has seen: whether it runs and enforces, what nobody used, where callers come from.

use time::OffsetDateTime;

use super::{Finding, Subject};
use crate::agent::{Status, network::Protection};

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
    findings.extend(warnings(status));
    findings.extend(unused(status));
    findings.extend(near_misses(status));
    findings.extend(unprotected(status));
    findings
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
                format!("{packets} packets were dropped that came from the neighbourhood of the set `{set}`"),
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
