//! A snapshot becomes values.

use std::collections::BTreeSet;

use mpesa_fw_common::{Direction, DropReason, Mode, counter::Counter, dns::LEARNT_CAPACITY};
use prometheus::{GaugeVec, IntCounterVec};

use super::Families;
use crate::{
    agent::{
        HandshakeStatus, Snapshot, clock,
        network::{Protection, egress_label, ingress_label},
    },
    datapath::RuleCounts,
};

/// Results of a reload, so that each has a row before it occurs.
const RESULTS: [&str; 5] = ["ok", "invalid", "refused", "failed", "reverted"];

impl Families {
    /// Fills them.
    pub(in crate::metrics) fn fill(&self, snapshot: &Snapshot) {
        self.zero_rows(snapshot);
        for counts in &snapshot.counts {
            self.fill_counts(counts);
        }
        self.fill_handshakes(snapshot);
        for (kind, count) in snapshot.bypasses.iter().flatten() {
            self.bypasses.with_label_values(&[kind.label()]).inc_by(*count);
        }
        self.fill_refusals(snapshot);
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

    fn fill_refusals(&self, snapshot: &Snapshot) {
        let observes = snapshot.running.mode() == Mode::Observe;
        for (rule, counts) in snapshot.refusals.iter().flatten() {
            for (family, counts, is_current) in [
                (&self.refused_connects, &counts.refused, !observes),
                (&self.let_go_connects, &counts.let_go, observes),
            ] {
                for (reason, count) in DropReason::ALL.iter().zip(counts) {
                    // With a row before its first increase, which would be lost to `rate()`.
                    let usual = if rule.is_empty() {
                        DropReason::NoDestination
                    } else {
                        DropReason::DestinationNotAllowed
                    };
                    if *count > 0 || is_current && *reason == usual {
                        family.with_label_values(&[rule.as_str(), reason.label()]).inc_by(*count);
                    }
                }
            }
        }
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
