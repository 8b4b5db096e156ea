//! Every metric: its name, help and labels, and where its values come from.

use std::collections::BTreeSet;

use mpesa_fw_common::{Direction, DropReason, Mode, counter::Counter, dns::LEARNT_CAPACITY};
use prometheus::{
    GaugeVec, IntCounterVec, Opts, Result,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{
    agent::{
        HandshakeStatus, Snapshot, clock,
        network::{Protection, egress_label, ingress_label},
    },
    datapath::RuleCounts,
};

/// One scrape's worth of metrics: filled from a snapshot, encoded, thrown away. There is nothing to go stale.
pub(super) struct Families {
    dropped_packets: IntCounterVec,
    dropped_bytes: IntCounterVec,
    passed_packets: IntCounterVec,
    passed_bytes: IntCounterVec,
    would_drop_packets: IntCounterVec,
    would_drop_bytes: IntCounterVec,
    passed_syns: IntCounterVec,
    connections: IntCounterVec,
    bypasses: IntCounterVec,
    near_misses: IntCounterVec,
    tampering: IntCounterVec,
    reloads: IntCounterVec,
    events_suppressed: IntCounterVec,
    enforcing: GaugeVec,
    hook_info: GaugeVec,
    protection: GaugeVec,
    generation_info: GaugeVec,
    generation_loaded: GaugeVec,
    last_passed: GaugeVec,
    last_connection: GaugeVec,
    set_expires: GaugeVec,
    flows: GaugeVec,
    flows_capacity: GaugeVec,
    unprotected: GaugeVec,
    missing: GaugeVec,
    undeclared_listeners: GaugeVec,
    resolved: GaugeVec,
    owners: GaugeVec,
    learnt: GaugeVec,
    learnt_capacity: GaugeVec,
    answers: IntCounterVec,
    build_info: GaugeVec,
}

/// Results of a reload, so that each has a row before it occurs.
const RESULTS: [&str; 5] = ["ok", "invalid", "refused", "failed", "reverted"];

impl Families {
    /// All of them, empty.
    pub(super) fn new() -> Result<Self> {
        const BY_REASON: &[&str] = &["interface", "direction", "rule", "reason"];
        const BY_RULE: &[&str] = &["interface", "direction", "rule"];
        Ok(Self {
            dropped_packets: counter(
                "dropped_packets_total",
                "Packets dropped, by the rule charged (empty: none claims them) and the reason.",
                BY_REASON,
            )?,
            dropped_bytes: counter(
                "dropped_bytes_total",
                "Bytes of dropped packets, link header included.",
                BY_REASON,
            )?,
            passed_packets: counter(
                "passed_packets_total",
                "Packets passed, by the rule that allows them (empty: control traffic, replies, the default).",
                BY_RULE,
            )?,
            passed_bytes: counter(
                "passed_bytes_total",
                "Bytes of passed packets, link header included.",
                BY_RULE,
            )?,
            would_drop_packets: counter(
                "would_drop_packets_total",
                "Packets that observe mode let go and enforce mode would have dropped.",
                BY_REASON,
            )?,
            would_drop_bytes: counter(
                "would_drop_bytes_total",
                "Bytes of packets that observe mode let go and enforce mode would have dropped.",
                BY_REASON,
            )?,
            passed_syns: counter(
                "passed_syns_total",
                "SYNs without ACK that a service let pass, retransmissions included. Spoofed ones are among them.",
                &["rule"],
            )?,
            connections: counter(
                "connections_total",
                "Inbound TCP connections of a service whose handshake was finished. Absent where they can't be counted (no cgroup v2).",
                &["rule"],
            )?,
            bypasses: counter(
                "refused_bypasses_total",
                "Sockets of this host that were to send past TC and were refused (in observe mode: counted only), by kind. \
                 Absent where they can't be refused (no cgroup v2).",
                &["kind"],
            )?,
            near_misses: counter(
                "near_miss_packets_total",
                "Packets dropped whose source is in a range that this set watches: the provider may have moved.",
                &["set"],
            )?,
            tampering: counter(
                "tampering_total",
                "Changes that somebody else made to hooks, pins, tables or state, by kind. Each is in the agent's log, with what is known of it.",
                &["kind"],
            )?,
            reloads: counter("reloads_total", "Reloads, by result.", &["result"])?,
            events_suppressed: counter(
                "events_suppressed_total",
                "Events of dropped packets that were not sent to the agent because there were too many. The drops are counted all the same.",
                &[],
            )?,
            enforcing: gauge(
                "enforcing",
                "1: this hook drops what the policy denies. 0: observe mode, the hook is missing, or another program may accept packets before it.",
                &["interface", "direction"],
            )?,
            hook_info: gauge(
                "hook_info",
                "How an interface is judged: xdp_native, xdp_generic, tc_ingress (another XDP program owns the interface), tcx, clsact.",
                &["interface", "direction", "kind"],
            )?,
            protection: gauge(
                "protection",
                "1 for the state the agent is in: enforcing, observing, or incomplete (an interface of the policy is not protected).",
                &["state"],
            )?,
            generation_info: gauge(
                "generation_info",
                "The generation in force.",
                &["digest", "serial", "mode"],
            )?,
            generation_loaded: gauge(
                "generation_loaded_timestamp_seconds",
                "When the generation in force was loaded.",
                &[],
            )?,
            last_passed: gauge(
                "service_last_passed_timestamp_seconds",
                "When a service last let a packet pass; 0: never.",
                &["rule"],
            )?,
            last_connection: gauge(
                "service_last_connection_timestamp_seconds",
                "When the last handshake with a service was finished; 0: never. Absent where they can't be counted.",
                &["rule"],
            )?,
            set_expires: gauge(
                "set_expires_timestamp_seconds",
                "The end of the last day on which the addresses of a set are to be trusted.",
                &["set"],
            )?,
            flows: gauge("flows", "Flows that this host opened, in the flow table.", &[])?,
            flows_capacity: gauge("flows_capacity", "Room in the flow table.", &[])?,
            unprotected: gauge(
                "unprotected_interfaces",
                "Interfaces with an address, loopback aside, that are not protected.",
                &[],
            )?,
            missing: gauge(
                "missing_interfaces",
                "Interfaces that the policy names and that are not there.",
                &[],
            )?,
            undeclared_listeners: gauge(
                "undeclared_listeners",
                "Sockets that wait for peers from outside and that no service of the policy claims.",
                &[],
            )?,
            resolved: gauge(
                "resolved_addresses",
                "Addresses that a DNS name of the policy stands for; 0: egress to it is denied.",
                &["name"],
            )?,
            owners: gauge(
                "owners_present",
                "Cgroups of a unit, or users, that rules name by `by`, and that are there; 0: what only they may do is denied.",
                &["owner"],
            )?,
            learnt: gauge(
                "learnt_addresses",
                "Addresses of a DNS name of the policy by answers that were learnt on their way in, and that count now.",
                &["name"],
            )?,
            learnt_capacity: gauge(
                "learnt_addresses_capacity",
                "Addresses that can be learnt at the same time, of all names together.",
                &[],
            )?,
            answers: counter(
                "dns_answers_total",
                "What became of answers of name servers: `answer` to a name of the policy, `address` of it that is new, \
                 `refused` addresses for which there was no room, `unreadable` messages.",
                &["outcome"],
            )?,
            build_info: gauge("build_info", "1, by version of the agent.", &["version"])?,
        })
    }

    /// Fills them.
    pub(super) fn fill(&self, snapshot: &Snapshot) {
        self.zero_rows(snapshot);
        for counts in &snapshot.counts {
            self.fill_counts(counts);
        }
        self.fill_handshakes(snapshot);
        for (kind, count) in snapshot.bypasses.iter().flatten() {
            self.bypasses.with_label_values(&[kind.label()]).inc_by(*count);
        }
        for (set, packets) in &snapshot.near_misses {
            self.near_misses.with_label_values(&[set]).inc_by(*packets);
        }
        for (kind, count) in &snapshot.tamper_counts {
            self.tampering.with_label_values(&[kind]).inc_by(*count);
        }
        for result in RESULTS {
            self.reloads.with_label_values(&[result]).inc_by(0);
        }
        for (result, count) in &snapshot.reloads {
            self.reloads.with_label_values(&[result]).inc_by(*count);
        }
        self.events_suppressed.with_label_values::<&str>(&[]).inc_by(snapshot.events_suppressed);
        self.fill_hooks(snapshot);
        self.fill_generation(snapshot);
        set(&self.flows, &[], f64::from(snapshot.flows));
        set(&self.flows_capacity, &[], f64::from(snapshot.flows_capacity));
        set(&self.unprotected, &[], snapshot.unprotected.len() as f64);
        set(&self.missing, &[], snapshot.missing.len() as f64);
        set(&self.undeclared_listeners, &[], snapshot.undeclared_listeners as f64);
        for name in &snapshot.names {
            if !name.name.starts_with('*') {
                set(&self.resolved, &[&name.name], name.addresses.len() as f64);
            }
            set(&self.learnt, &[&name.name], name.learnt as f64);
        }
        for owner in &snapshot.owners {
            set(&self.owners, &[&owner.owner], owner.present as f64);
        }
        set(&self.learnt_capacity, &[], f64::from(LEARNT_CAPACITY));
        for (outcome, count) in &snapshot.learning {
            self.answers.with_label_values(&[outcome.label()]).inc_by(*count);
        }
        set(&self.build_info, &[env!("CARGO_PKG_VERSION")], 1.0);
    }

    /// Every rule of the policy has its row before its first packet, or its first increase would be lost to `rate()`.
    fn zero_rows(&self, snapshot: &Snapshot) {
        let policy = &snapshot.running.policy;
        let services = policy
            .ingress
            .services
            .iter()
            .map(|s| (Direction::Ingress, s.name.as_str(), DropReason::SourceNotAllowed));
        let destinations = policy
            .egress
            .allow
            .iter()
            .map(|d| (Direction::Egress, d.name.as_str(), DropReason::DestinationNotAllowed));
        let none = [
            (Direction::Ingress, "", DropReason::NoService),
            (Direction::Egress, "", DropReason::NoDestination),
        ];
        let rules: Vec<_> = services.chain(destinations).chain(none).collect();
        for attachment in &snapshot.attachments {
            let interface = attachment.interface.name.as_str();
            for (direction, rule, reason) in &rules {
                let labels = [interface, direction.label(), rule];
                self.passed_packets.with_label_values(&labels).inc_by(0);
                self.passed_bytes.with_label_values(&labels).inc_by(0);
                let labels = [interface, direction.label(), rule, reason.label()];
                self.dropped_packets.with_label_values(&labels).inc_by(0);
                self.dropped_bytes.with_label_values(&labels).inc_by(0);
                if matches!(policy.mode, Mode::Observe) {
                    self.would_drop_packets.with_label_values(&labels).inc_by(0);
                    self.would_drop_bytes.with_label_values(&labels).inc_by(0);
                }
            }
        }
    }

    fn fill_counts(&self, RuleCounts { interface, direction, rule, block }: &RuleCounts) {
        let labels = [interface.as_str(), direction.label(), rule];
        add(&self.passed_packets, &self.passed_bytes, &labels, block.passed);
        for reason in DropReason::ALL {
            let labels = [interface.as_str(), direction.label(), rule, reason.label()];
            add(&self.dropped_packets, &self.dropped_bytes, &labels, block.dropped[*reason as usize]);
            add(
                &self.would_drop_packets,
                &self.would_drop_bytes,
                &labels,
                block.would_drop[*reason as usize],
            );
        }
    }

    /// Services of the policy that take TCP, and whatever else was counted once.
    fn fill_handshakes(&self, snapshot: &Snapshot) {
        let Some(counts) = &snapshot.handshakes else { return };
        for service in HandshakeStatus::of(&snapshot.running.policy, counts) {
            self.passed_syns.with_label_values(&[&service.service]).inc_by(0);
            self.connections.with_label_values(&[&service.service]).inc_by(0);
            let last = service.last_connection.map_or(0.0, |time| time.unix_timestamp_nanos() as f64 / 1e9);
            set(&self.last_connection, &[&service.service], last);
        }
        for count in counts.iter().filter(|count| count.syns + count.completed > 0) {
            self.passed_syns.with_label_values(&[&count.service]).inc_by(count.syns);
            self.connections.with_label_values(&[&count.service]).inc_by(count.completed);
        }
    }

    fn fill_hooks(&self, snapshot: &Snapshot) {
        let enforce = matches!(snapshot.running.mode(), Mode::Enforce);
        for attachment in &snapshot.attachments {
            let name = attachment.interface.name.as_str();
            let hooks = [
                (Direction::Ingress, attachment.ingress.map(ingress_label), &attachment.ahead_of_ingress),
                (Direction::Egress, attachment.egress.map(egress_label), &attachment.ahead_of_egress),
            ];
            for (direction, kind, ahead) in hooks {
                let enforcing = enforce && kind.is_some() && ahead.is_empty();
                set(&self.enforcing, &[name, direction.label()], f64::from(u8::from(enforcing)));
                if let Some(kind) = kind {
                    set(&self.hook_info, &[name, direction.label(), kind], 1.0);
                }
            }
        }
        let refused = snapshot.refused.iter().map(|r| &r.name);
        let absent: BTreeSet<&String> =
            snapshot.missing.iter().chain(refused).chain(snapshot.failed.keys()).collect();
        for name in absent {
            for direction in Direction::ALL {
                set(&self.enforcing, &[name, direction.label()], 0.0);
            }
        }
        for state in [Protection::Enforcing, Protection::Observing, Protection::Incomplete] {
            set(&self.protection, &[state.label()], f64::from(u8::from(state == snapshot.protection)));
        }
    }

    fn fill_generation(&self, snapshot: &Snapshot) {
        let running = &snapshot.running;
        let serial = running.policy.serial.map(|s| s.to_string()).unwrap_or_default();
        set(&self.generation_info, &[&running.digest(), &serial, running.mode().label()], 1.0);
        set(&self.generation_loaded, &[], running.stamp.loaded_at as f64);
        for service in &running.policy.ingress.services {
            let last = snapshot
                .counts
                .iter()
                .filter(|c| c.direction == Direction::Ingress && c.rule == service.name)
                .map(|c| c.block.last_passed)
                .max()
                .filter(|stamp| *stamp > 0);
            let seconds = last.map_or(0.0, |stamp| clock::wall(stamp).unix_timestamp_nanos() as f64 / 1e9);
            set(&self.last_passed, &[&service.name], seconds);
        }
        for set_of in &running.policy.sets {
            if let Some(end) = set_of.expires.and_then(|day| day.next_day()) {
                set(&self.set_expires, &[&set_of.name], end.midnight().assume_utc().unix_timestamp() as f64);
            }
        }
    }

    fn all(&self) -> [&dyn Collector; 32] {
        [
            &self.dropped_packets,
            &self.dropped_bytes,
            &self.passed_packets,
            &self.passed_bytes,
            &self.would_drop_packets,
            &self.would_drop_bytes,
            &self.passed_syns,
            &self.connections,
            &self.bypasses,
            &self.near_misses,
            &self.tampering,
            &self.reloads,
            &self.events_suppressed,
            &self.enforcing,
            &self.hook_info,
            &self.protection,
            &self.generation_info,
            &self.generation_loaded,
            &self.last_passed,
            &self.last_connection,
            &self.set_expires,
            &self.flows,
            &self.flows_capacity,
            &self.unprotected,
            &self.missing,
            &self.undeclared_listeners,
            &self.resolved,
            &self.owners,
            &self.learnt,
            &self.learnt_capacity,
            &self.answers,
            &self.build_info,
        ]
    }

    /// What they are.
    pub(super) fn descriptions(&self) -> Vec<Desc> {
        self.all().iter().flat_map(|family| family.desc().into_iter().cloned()).collect()
    }

    /// What they say.
    pub(super) fn collect(&self) -> Vec<MetricFamily> {
        self.all().iter().flat_map(|family| family.collect()).collect()
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help).namespace("mpesa_fw"), labels)
}

fn gauge(name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
    GaugeVec::new(Opts::new(name, help).namespace("mpesa_fw"), labels)
}

fn set(gauge: &GaugeVec, labels: &[&str], value: f64) {
    gauge.with_label_values(labels).set(value);
}

/// Rows of what never happened are left out: 13 reasons times 64 rules times 8 interfaces would drown the rest.
fn add(packets: &IntCounterVec, bytes: &IntCounterVec, labels: &[&str], count: Counter) {
    if count.packets > 0 {
        packets.with_label_values(labels).inc_by(count.packets);
        bytes.with_label_values(labels).inc_by(count.bytes);
    }
}
