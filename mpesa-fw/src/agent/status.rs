//! What `mpesa-fw status` shows, as it crosses the control socket.

use std::{collections::BTreeMap, path::PathBuf};

use mpesa_fw_common::{Direction, DropReason, counter::Counter};
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

use super::{
    AttemptsStatus, CallerStatus, HandshakeStatus, NameStatus, OwnerStatus, Snapshot, TamperRecord,
    TrialStatus, clock,
    interfaces::{Refused, Unprotected},
    minute::Recent,
    network::{Protection, egress_label, ingress_label},
    seed::Denied,
};
use crate::datapath::{Attachment, EgressHook, IngressHook, RuleCounts};

/// The agent and its datapath at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Whether the policy is in force.
    pub protection: Protection,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The agent.
    pub agent: AgentStatus,
    /// The generation in force.
    pub generation: GenerationStatus,
    /// Its trial, if it is on one.
    #[serde(default)]
    pub trial: Option<TrialStatus>,
    /// Interfaces that are protected.
    pub interfaces: Vec<InterfaceStatus>,
    /// Interfaces that the policy names and that are not there: waited for.
    pub missing: Vec<String>,
    /// Interfaces that the policy asks for and that can't be protected.
    pub refused: Vec<Refused>,
    /// Interfaces with addresses that the policy does not ask for.
    pub unprotected: Vec<Unprotected>,
    /// Services in file order.
    pub services: Vec<RuleStatus>,
    /// Destinations in file order.
    pub destinations: Vec<RuleStatus>,
    /// SYNs and completed connections of services that take TCP; none: completed connections are not counted.
    pub handshakes: Option<Vec<HandshakeStatus>>,
    /// Who finished handshakes lately, the latest first.
    #[serde(default)]
    pub callers: Vec<CallerStatus>,
    /// What was dropped, or would have been; the most first.
    pub drops: Vec<DropStatus>,
    /// What was dropped lately.
    #[serde(default)]
    pub recent: Recent,
    /// Sockets that were to pass TC by and were refused (in observe mode: counted only), by kind; none: it is not looked for.
    #[serde(default)]
    pub bypasses: Option<BTreeMap<String, u64>>,
    /// Drops from ranges that sets watch.
    pub near_misses: BTreeMap<String, u64>,
    /// Flows that this host opened.
    pub flows: FlowStatus,
    /// DNS names of the policy.
    pub names: Vec<NameStatus>,
    /// Owners that rules of the policy name.
    #[serde(default)]
    pub owners: Vec<OwnerStatus>,
    /// Whether programs hear at once where they may not connect.
    #[serde(default)]
    pub attempts: AttemptsStatus,
    /// Connections that were open at the start and are not permitted.
    pub denied_connections: Vec<Denied>,
    /// How reloads went, by result.
    pub reloads: BTreeMap<String, u64>,
    /// What somebody did to the datapath, by kind.
    pub tamper_counts: BTreeMap<String, u64>,
    /// The last of it, oldest first.
    pub tampering: Vec<TamperRecord>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// The agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    #[serde(with = "time::serde::rfc3339")]
    pub started: OffsetDateTime,
}

/// A generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerationStatus {
    /// Its number.
    pub number: u32,
    /// SHA-256 of the policy and its tables.
    pub digest: String,
    /// What the author numbered it.
    pub serial: Option<u64>,
    /// `enforce` or `observe`.
    pub mode: String,
    /// When it came into force.
    #[serde(with = "time::serde::rfc3339")]
    pub loaded: OffsetDateTime,
    /// The rules file.
    pub rules: PathBuf,
    /// The generation whose kept text it is: the file may say something else.
    #[serde(default)]
    pub text_of: Option<u32>,
}

/// An interface that is protected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `xdp_native`, `xdp_generic`, `tc_ingress`; none: ingress is not judged.
    pub ingress: Option<String>,
    /// `tcx`, `clsact`; none: egress is not judged.
    pub egress: Option<String>,
    /// Ids of foreign programs that see ingress packets before ours, and may accept them on their own.
    #[serde(default)]
    pub ahead_of_ingress: Vec<u32>,
    /// The same for egress.
    #[serde(default)]
    pub ahead_of_egress: Vec<u32>,
    /// What is second best about it.
    pub notes: Vec<String>,
}

/// Counts of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Its name.
    pub rule: String,
    /// Packets it let pass.
    pub passed_packets: u64,
    /// Bytes of them.
    pub passed_bytes: u64,
    /// Packets charged to it that were dropped.
    pub dropped_packets: u64,
    /// When it last let one pass.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_passed: Option<OffsetDateTime>,
}

/// What was dropped for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropStatus {
    /// `ingress` or `egress`.
    pub direction: String,
    /// A [`DropReason`]'s label.
    pub reason: String,
    /// The rule charged; empty: none claims it.
    pub rule: String,
    /// Packets dropped.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets that observe mode let go.
    pub would_drop_packets: u64,
}

/// The flow table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Entries.
    pub open: u32,
    /// Room.
    pub capacity: u32,
}

impl Status {
    /// Makes a status of a snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot, trial: Option<TrialStatus>, callers: Vec<CallerStatus>) -> Self {
        let running = &snapshot.running;
        let policy = &running.policy;
        let rule = |direction, name: &str| rule_status(&snapshot.counts, direction, name);
        let services = policy.ingress.services.iter().map(|s| rule(Direction::Ingress, &s.name)).collect();
        let destinations = policy.egress.allow.iter().map(|d| rule(Direction::Egress, &d.name)).collect();
        let interfaces: Vec<InterfaceStatus> =
            snapshot.attachments.iter().map(InterfaceStatus::new).collect();
        let warnings = snapshot.warnings(&interfaces);
        Self {
            protection: snapshot.protection,
            since: clock::at(snapshot.since),
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started: clock::at(snapshot.started_at),
            },
            generation: GenerationStatus {
                number: running.stamp.number,
                digest: running.digest(),
                serial: policy.serial,
                mode: policy.mode.label().to_owned(),
                loaded: clock::at(running.stamp.loaded_at),
                rules: running.rules.clone(),
                text_of: running.text_of,
            },
            trial,
            interfaces,
            services,
            destinations,
            handshakes: snapshot.handshakes.as_deref().map(|counts| HandshakeStatus::of(policy, counts)),
            callers,
            drops: drop_statuses(&snapshot.counts),
            recent: snapshot.recent,
            bypasses: snapshot
                .bypasses
                .map(|counts| counts.iter().map(|(kind, count)| (kind.label().to_owned(), *count)).collect()),
            near_misses: snapshot.near_misses.iter().cloned().collect(),
            flows: FlowStatus { open: snapshot.flows, capacity: snapshot.flows_capacity },
            missing: snapshot.missing,
            refused: snapshot.refused,
            unprotected: snapshot.unprotected,
            names: snapshot.names,
            owners: snapshot.owners,
            attempts: snapshot.attempts,
            denied_connections: snapshot.denied,
            reloads: snapshot.reloads,
            tamper_counts: snapshot.tamper_counts,
            tampering: snapshot.tampering,
            warnings,
        }
    }
}

/// Sums of a rule over all interfaces.
#[must_use]
pub fn rule_status(counts: &[RuleCounts], direction: Direction, rule: &str) -> RuleStatus {
    let mut status = RuleStatus {
        rule: rule.to_owned(),
        passed_packets: 0,
        passed_bytes: 0,
        dropped_packets: 0,
        last_passed: None,
    };
    let mut last_passed = 0;
    for counts in counts.iter().filter(|c| c.direction == direction && c.rule == rule) {
        status.passed_packets += counts.block.passed.packets;
        status.passed_bytes += counts.block.passed.bytes;
        status.dropped_packets += counts.block.dropped.iter().map(|c| c.packets).sum::<u64>();
        last_passed = last_passed.max(counts.block.last_passed);
    }
    status.last_passed = (last_passed > 0).then(|| clock::wall(last_passed));
    status
}

/// Sums of what was dropped, by direction, reason and rule; the most first.
#[must_use]
pub fn drop_statuses(counts: &[RuleCounts]) -> Vec<DropStatus> {
    let mut sums: BTreeMap<(Direction, DropReason, &str), (Counter, u64)> = BTreeMap::new();
    for counts in counts {
        for reason in DropReason::ALL {
            let (dropped, would_drop) =
                (counts.block.dropped[*reason as usize], counts.block.would_drop[*reason as usize]);
            if dropped.packets + would_drop.packets > 0 {
                let sum = sums.entry((counts.direction, *reason, &counts.rule)).or_default();
                sum.0.packets += dropped.packets;
                sum.0.bytes += dropped.bytes;
                sum.1 += would_drop.packets;
            }
        }
    }
    let mut drops: Vec<DropStatus> = sums
        .into_iter()
        .map(|((direction, reason, rule), (dropped, would_drop_packets))| DropStatus {
            direction: direction.label().to_owned(),
            reason: reason.label().to_owned(),
            rule: rule.to_owned(),
            packets: dropped.packets,
            bytes: dropped.bytes,
            would_drop_packets,
        })
        .collect();
    drops.sort_by_key(|d| std::cmp::Reverse(d.packets + d.would_drop_packets));
    drops
}

impl Snapshot {
    fn warnings(&self, interfaces: &[InterfaceStatus]) -> Vec<String> {
        let today = OffsetDateTime::now_utc().date();
        // Those that had expired when the policy was loaded are among its own warnings.
        let loaded = clock::at(self.running.stamp.loaded_at).date();
        let expired = |expires: &Option<Date>| expires.is_some_and(|day| day < today && day >= loaded);
        let mut warnings: Vec<String> = self
            .running
            .policy
            .sets
            .iter()
            .filter(|set| expired(&set.expires))
            .map(|set| format!("the set `{}` has expired: compare its addresses with the source", set.name))
            .collect();
        warnings
            .extend(interfaces.iter().flat_map(|i| i.notes.iter().map(|note| format!("{}: {note}", i.name))));
        warnings.extend(self.failed.iter().map(|(name, why)| format!("{name} is not protected: {why}")));
        warnings.extend(self.names.iter().filter_map(|name| {
            let error = name.error.as_ref()?;
            let consequence = if name.addresses.is_empty() {
                "egress to it is denied"
            } else {
                "the last good answer counts"
            };
            Some(format!("the name `{}` was not resolved, {consequence}: {error}", name.name))
        }));
        warnings.extend(self.notes.iter().cloned());
        warnings.extend(self.running.warnings.iter().cloned());
        warnings
    }
}

impl InterfaceStatus {
    fn new(attachment: &Attachment) -> Self {
        let mut notes = Vec::new();
        match attachment.ingress {
            None => notes.push("ingress is NOT judged: the hook is gone".to_owned()),
            Some(IngressHook::XdpNative) => {}
            Some(IngressHook::XdpGeneric) => {
                notes.push(
                    "native XDP was refused (no driver for it, or not at this MTU): generic mode, slower under a flood"
                        .to_owned(),
                );
            }
            Some(IngressHook::TcIngress { foreign_xdp_program: 0 }) => {
                notes.push("ingress is judged at TC, behind XDP".to_owned());
            }
            Some(IngressHook::TcIngress { foreign_xdp_program }) => notes.push(format!(
                "another XDP program (id {foreign_xdp_program}) owns the interface: ingress is judged at TC, behind it"
            )),
        }
        match attachment.egress {
            None => notes.push("egress is NOT judged: the hook is gone".to_owned()),
            Some(EgressHook::Clsact) => notes.push(
                "egress is judged by a filter of the clsact qdisc (links are of Linux 6.6): `tc qdisc del` removes it"
                    .to_owned(),
            ),
            Some(EgressHook::Tcx) => {}
        }
        notes.extend(ahead_notes(attachment));
        Self {
            name: attachment.interface.name.clone(),
            index: attachment.interface.index,
            ingress: attachment.ingress.map(|hook| ingress_label(hook).to_owned()),
            egress: attachment.egress.map(|hook| egress_label(hook).to_owned()),
            ahead_of_ingress: attachment.ahead_of_ingress.clone(),
            ahead_of_egress: attachment.ahead_of_egress.clone(),
            notes,
        }
    }
}

/// What to say of foreign programs that stand before ours.
pub(super) fn ahead_notes(attachment: &Attachment) -> impl Iterator<Item = String> {
    [("ingress", &attachment.ahead_of_ingress), ("egress", &attachment.ahead_of_egress)]
        .into_iter()
        .filter(|(_, ahead)| !ahead.is_empty())
        .map(|(direction, ahead)| {
            format!(
                "other programs see {direction} packets first and may accept them on their own: {ahead:?}"
            )
        })
}
