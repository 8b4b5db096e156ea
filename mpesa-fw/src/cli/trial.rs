//! A trial, for who has to decide whether it is confirmed.

use std::fmt::Write as _;

use crate::agent::{
    TrialStatus,
    evidence::{Evidence, NewlyDropped, ServiceEvidence, SessionEvidence},
};

/// Kinds of packets that are shown; JSON has all.
const SHOWN: usize = 10;

/// That it is one, and until when.
pub(super) fn head(trial: &TrialStatus) -> String {
    format!(
        "ON TRIAL: unless somebody runs `mpesa-fw confirm {}`, generation {} comes back in {} s\n",
        trial.generation, trial.confirmed, trial.seconds_left
    )
}

/// What was seen so far.
pub(super) fn evidence(evidence: &Evidence) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "seen in {} s:", evidence.seconds);
    if let Some(session) = &evidence.session {
        let _ = writeln!(text, "  {}", session_line(session));
    }
    for service in &evidence.services {
        let _ = writeln!(text, "  {}", service_line(service));
    }
    match evidence.newly_dropped.as_slice() {
        [] => text += "  nothing is dropped that passed before (tcp and udp, as far as events were sent)\n",
        dropped => {
            text += "  DROPPED NOW, PASSED BEFORE:\n";
            for kind in dropped.iter().take(SHOWN) {
                let _ = writeln!(text, "    {}", dropped_line(kind));
            }
            if dropped.len() > SHOWN {
                let _ = writeln!(text, "    and {} more kinds", dropped.len() - SHOWN);
            }
        }
    }
    if let Some(why) = &evidence.unseen {
        let _ = writeln!(text, "  not everything could be looked at: {why}");
    }
    text
}

fn session_line(session: &SessionEvidence) -> String {
    let what = match session {
        SessionEvidence { open: false, .. } => "IS GONE",
        SessionEvidence { heard_since: true, .. } => "is alive: it was heard of since the change",
        SessionEvidence { heard_since: false, .. } => "HAS NOT BEEN HEARD OF since the change",
    };
    format!("your SSH connection from {} {what}", session.client)
}

fn service_line(service: &ServiceEvidence) -> String {
    let ServiceEvidence { rule, passed_packets, dropped_packets, last_passed } = service;
    let quiet = match (passed_packets, last_passed) {
        (0, Some(_)) => " (it had let packets pass before)",
        (0, None) => " (it never has)",
        _ => "",
    };
    format!("service {rule}: {passed_packets} packets passed{quiet}, {dropped_packets} dropped")
}

fn dropped_line(kind: &NewlyDropped) -> String {
    let NewlyDropped { direction, protocol, source, target, target_port, reason, events } = kind;
    format!("{direction} {protocol} {source} -> {target} port {target_port} ({reason}), {events} event(s)")
}
