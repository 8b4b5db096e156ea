//! Every metric: its name, help and labels, and where its values come from.

use prometheus::{
    GaugeVec, IntCounterVec, Opts, Result,
    core::{Collector, Desc},
    proto::MetricFamily,
};

mod fill;

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
    refused_connects: IntCounterVec,
    let_go_connects: IntCounterVec,
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
                "SYNs without ACK that a service let pass, retransmissions included. Spoofed ones are among them. Absent without cgroup v2.",
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
            refused_connects: counter(
                "refused_connects_total",
                "Attempts of programs to connect, or to send a datagram, that got EPERM because egress would drop the packets. No packet \
                 came of them. Absent where programs are not refused (`at_connect: pass`, no cgroup v2).",
                &["rule", "reason"],
            )?,
            let_go_connects: counter(
                "let_go_connects_total",
                "Attempts whose packets egress would drop and that were let go: in observe mode, and where only the owner is wrong, \
                 who may be another by the time of the packet.",
                &["rule", "reason"],
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

    fn all(&self) -> [&dyn Collector; 34] {
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
            &self.refused_connects,
            &self.let_go_connects,
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
