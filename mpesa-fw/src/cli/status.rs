//! `mpesa-fw status`: readable in five seconds, the worst first.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use time::OffsetDateTime;

use super::{
    arguments::Format,
    failure::Failure,
    handshakes::handshakes,
    output::{print, print_json, table},
    summary,
    tampering::tampering,
    when::ago,
};
use crate::{
    agent::{
        Options, Status,
        status::{DropStatus, RuleStatus},
    },
    control::{Answer, Client, Request},
};

/// Rows of drops that are shown; JSON has all.
const DROPS: usize = 12;

/// Shows how things are.
pub(super) fn status(runtime_dir: &Path, format: Format) -> Result<(), Failure> {
    let Answer::Status(status) = Client::new(&Options::control_socket(runtime_dir)).ask(Request::Status)?
    else {
        return Err(Failure::another_answer());
    };
    match format {
        Format::Json => print_json(&status),
        Format::Table => print(&text(&status, OffsetDateTime::now_utc())),
    }
}

fn text(status: &Status, now: OffsetDateTime) -> String {
    let mut text = summary::summary(status, now);
    interfaces(&mut text, status);
    let Status { services, destinations, drops, near_misses, .. } = status;
    text += &counts(services, destinations, drops, near_misses, now);
    text += &handshakes(status, now);
    names(&mut text, status);
    owners(&mut text, status);
    text += &tampering(status, now);
    text
}

/// Counts as `mpesa-fw status` shows them.
#[must_use]
pub fn counts(
    services: &[RuleStatus],
    destinations: &[RuleStatus],
    drops: &[DropStatus],
    near_misses: &BTreeMap<String, u64>,
    now: OffsetDateTime,
) -> String {
    let mut text = String::new();
    rules(&mut text, services, destinations, now);
    dropped(&mut text, drops, near_misses);
    text
}

fn interfaces(text: &mut String, status: &Status) {
    let hook = |kind: &Option<String>| kind.clone().unwrap_or_else(|| "NOT JUDGED".to_owned());
    let rows = status.interfaces.iter().map(|i| vec![i.name.clone(), hook(&i.ingress), hook(&i.egress)]);
    let missing =
        status.missing.iter().map(|name| vec![name.clone(), "waited for".into(), "waited for".into()]);
    let refused = status.refused.iter().map(|r| vec![r.name.clone(), "refused".into(), r.reason.clone()]);
    let _ =
        write!(text, "\n{}", table(&["INTERFACE", "INGRESS", "EGRESS"], rows.chain(missing).chain(refused)));
    for open in &status.unprotected {
        let addresses: Vec<String> = open.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, " {}  not protected, carries {}", open.name, addresses.join(", "));
    }
}

fn rules(text: &mut String, services: &[RuleStatus], destinations: &[RuleStatus], now: OffsetDateTime) {
    let row = |kind: &str, rule: &RuleStatus| {
        let last = rule.last_passed.map_or_else(|| "never".to_owned(), |time| ago(time, now));
        vec![
            format!("{kind} {}", rule.rule),
            rule.passed_packets.to_string(),
            rule.dropped_packets.to_string(),
            last,
        ]
    };
    let services = services.iter().map(|rule| row("service", rule));
    let destinations = destinations.iter().map(|rule| row("destination", rule));
    let head = ["RULE", "PASSED", "DROPPED", "LAST PASSED"];
    let _ = write!(text, "\n{}", table(&head, services.chain(destinations)));
}

fn dropped(text: &mut String, drops: &[DropStatus], near_misses: &BTreeMap<String, u64>) {
    if drops.is_empty() {
        let _ = writeln!(text, "\n nothing was dropped yet");
        return;
    }
    let row = |d: &DropStatus| {
        let rule = if d.rule.is_empty() { "-".to_owned() } else { d.rule.clone() };
        let (packets, observed) = (d.packets.to_string(), d.would_drop_packets.to_string());
        vec![d.reason.clone(), d.direction.clone(), rule, packets, observed]
    };
    let head = ["DROPPED FOR", "DIRECTION", "RULE", "PACKETS", "WOULD DROP"];
    let _ = write!(text, "\n{}", table(&head, drops.iter().take(DROPS).map(row)));
    if drops.len() > DROPS {
        let _ = writeln!(text, " and {} more: --format json shows all", drops.len() - DROPS);
    }
    for (set, packets) in near_misses.iter().filter(|(_, packets)| **packets > 0) {
        let _ = writeln!(
            text,
            " {packets} of them from the range that set {set} watches: has the provider moved?"
        );
    }
}

fn names(text: &mut String, status: &Status) {
    if status.names.is_empty() {
        return;
    }
    let rows = status.names.iter().map(|name| {
        let addresses: Vec<String> = name.addresses.iter().take(4).map(ToString::to_string).collect();
        let more = match name.addresses.len() {
            0 if name.name.starts_with('*') => "learnt when a program asks for them".to_owned(),
            0 => "none yet: egress to it is denied".to_owned(),
            n if n > 4 => format!("{} and {} more", addresses.join(", "), n - 4),
            _ => addresses.join(", "),
        };
        vec![name.name.clone(), name.learnt.to_string(), more]
    });
    let _ = write!(text, "\n{}", table(&["NAME", "LEARNT", "ADDRESSES"], rows));
}

fn owners(text: &mut String, status: &Status) {
    if status.owners.is_empty() {
        return;
    }
    let rows = status.owners.iter().map(|owner| {
        let present = match owner.present {
            0 => "not there: what only it may do is denied".to_owned(),
            1 => "there".to_owned(),
            count => format!("there, {count} times"),
        };
        vec![owner.owner.clone(), present]
    });
    let _ = write!(text, "\n{}", table(&["OWNER", "NOW"], rows));
}
