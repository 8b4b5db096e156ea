//! What a person wants to know first: is it enforcing, do callbacks come, what is dropped, what needs attention.

use std::fmt::Write as _;

use mpesa_fw_common::{Mode, bypass::Bypass};
use time::OffsetDateTime;

use super::{
    trial,
    when::{ago, stamp},
};
use crate::agent::{
    Denied, Status,
    network::Protection,
    status::{InterfaceStatus, RuleStatus},
};

/// Reasons of the last minute that are shown; the tables below have all.
const REASONS: usize = 4;

/// The first lines of `status`.
pub(super) fn summary(status: &Status, now: OffsetDateTime) -> String {
    let mut text = String::new();
    protection(&mut text, status, now);
    generation(&mut text, status, now);
    if let Some(on_trial) = &status.trial {
        text += &trial::head(on_trial);
        text += &trial::evidence(&on_trial.evidence);
    }
    let _ = writeln!(text, "last calls: {}", calls(status, now));
    let _ = writeln!(text, "{}", drops(status));
    text += &bypasses(status);
    text += &attempts(status);
    for (set, packets) in status.near_misses.iter().filter(|(_, packets)| **packets > 0) {
        let _ = writeln!(
            text,
            "near misses: {packets} packet(s) from the range that set {set} watches: has the provider moved?"
        );
    }
    let _ = writeln!(text, "flows: {} of {}", status.flows.open, status.flows.capacity);
    attention(&mut text, status);
    text
}

fn protection(text: &mut String, status: &Status, now: OffsetDateTime) {
    let is_first = |i: &InterfaceStatus| i.ahead_of_ingress.is_empty() && i.ahead_of_egress.is_empty();
    let on = match status.interfaces.as_slice() {
        [] => "no interface".to_owned(),
        interfaces => interfaces.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join(", "),
    };
    let word = match status.protection {
        Protection::Enforcing if !status.interfaces.iter().all(is_first) => {
            format!(
                "enforcing on {on}, BUT other programs see packets first and may accept them on their own"
            )
        }
        Protection::Enforcing => format!("enforcing on {on}"),
        Protection::Observing => {
            format!("observing {on}: everything is judged and counted, NOTHING IS DROPPED")
        }
        Protection::Incomplete => "INCOMPLETE: not every interface of the policy is protected".to_owned(),
    };
    let _ = writeln!(text, "{word}, since {} ({})", stamp(status.since), ago(status.since, now));
}

fn generation(text: &mut String, status: &Status, now: OffsetDateTime) {
    let generation = &status.generation;
    let serial = generation.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
    let _ = writeln!(
        text,
        "generation {}{serial}, digest {}, loaded {}, from {}",
        generation.number,
        generation.digest.chars().take(12).collect::<String>(),
        ago(generation.loaded, now),
        generation.rules.display()
    );
    if let Some(number) = generation.text_of {
        let _ = writeln!(text, "its text is that of generation {number}, whatever the file says now");
    }
}

/// When each service was last used: a finished handshake where it takes TCP (a packet may come from nobody), else a
/// packet.
fn calls(status: &Status, now: OffsetDateTime) -> String {
    let one = |service: &RuleStatus| {
        let handshakes = status.handshakes.iter().flatten().find(|shaken| shaken.service == service.rule);
        let last = handshakes.map_or(service.last_passed, |shaken| shaken.last_connection);
        format!("{} {}", service.rule, last.map_or_else(|| "never".to_owned(), |time| ago(time, now)))
    };
    match status.services.as_slice() {
        [] => "there is no service".to_owned(),
        services => services.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

fn drops(status: &Status) -> String {
    let recent = &status.recent;
    let total: u64 = recent.drops.iter().map(|drop| drop.packets).sum();
    if total == 0 {
        return format!("dropped in the last {} s: nothing", recent.seconds);
    }
    let shown = recent.drops.iter().take(REASONS);
    let mut reasons: Vec<String> =
        shown.map(|drop| format!("{} {} {}", drop.packets, drop.direction, drop.reason)).collect();
    if recent.drops.len() > REASONS {
        reasons.push("others".to_owned());
    }
    format!("dropped in the last {} s: {total} packets ({})", recent.seconds, reasons.join(", "))
}

/// Sockets that were to pass TC by; nothing where there were none.
fn bypasses(status: &Status) -> String {
    let of = |kind: Bypass| status.bypasses.iter().flatten().find(|(label, _)| *label == kind.label());
    let count = |kind| of(kind).map_or(0, |(_, count)| *count);
    let (packet, xdp) = (count(Bypass::Packet), count(Bypass::Xdp));
    if packet + xdp == 0 {
        return String::new();
    }
    let refused = if status.generation.mode == Mode::Observe.label() {
        "so far; observe mode refuses none"
    } else {
        "so far, refused"
    };
    format!(
        "sockets that were to pass TC by: {packet} packet (PACKET_QDISC_BYPASS), {xdp} AF_XDP, {refused}\n"
    )
}

/// Whether programs hear at once where they may not connect, or why not.
fn attempts(status: &Status) -> String {
    let attempts = &status.attempts;
    if attempts.refused_at_connect && status.generation.mode == Mode::Observe.label() {
        return "at connect: what is denied would be refused; observe mode refuses none\n".to_owned();
    }
    if attempts.refused_at_connect {
        return "at connect: what is denied is refused at once\n".to_owned();
    }
    let one = |doubt: &String| {
        format!("at connect: nothing is refused, packets are judged all the same: {doubt}\n")
    };
    attempts.doubts.iter().map(one).collect()
}

fn attention(text: &mut String, status: &Status) {
    let tampered: u64 = status.tamper_counts.values().sum();
    if status.warnings.is_empty() && status.denied_connections.is_empty() && tampered == 0 {
        return;
    }
    text.push_str("needs attention:\n");
    if tampered > 0 {
        let _ = writeln!(text, "  ! TAMPERING, {tampered} so far: see below");
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "  ! {warning}");
    }
    for Denied { protocol, local, guest, remote, reason } in &status.denied_connections {
        let guest = guest.map_or_else(String::new, |guest| format!(" (of the guest {guest})"));
        let _ = writeln!(
            text,
            "  ! {protocol} connection {local}{guest} -> {remote} was open at the start and is not permitted ({reason})"
        );
    }
}
