//! What programs read: every field of the answers, filled. A field that is renamed shows here; one that is new has to be
//! named here, or this does not compile.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use crate::agent::{
    AttemptRecord, AttemptsStatus, CallerStatus, Confirmed, Denied, EgressAudit, Ended, EventRecord,
    HandshakeStatus, KeptGeneration, Listener, ListenerRecord, Listeners, NameStatus, OwnerStatus,
    PacketRecord, Process, ProgramRecord, Reloaded, Status, TamperRecord, TrialStatus, Unanswered,
    archive::KeptFile,
    audit::{AuditRow, Sender, Span},
    change::{Change, Names},
    evidence::{Evidence, NewlyDropped, ServiceEvidence, SessionEvidence},
    interfaces::{Refused, Unprotected},
    minute::{Recent, RecentDrop},
    network::Protection,
    status::{AgentStatus, DropStatus, FlowStatus, GenerationStatus, InterfaceStatus, RuleStatus},
};

const TIME: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap()
}

fn rule(name: &str) -> RuleStatus {
    RuleStatus {
        rule: name.into(),
        passed_packets: 1,
        passed_bytes: 60,
        dropped_packets: 2,
        last_passed: Some(TIME),
    }
}

fn trial() -> TrialStatus {
    let evidence = Evidence {
        seconds: 4,
        services: vec![ServiceEvidence {
            rule: "callbacks".into(),
            passed_packets: 1,
            dropped_packets: 2,
            last_passed: Some(TIME),
        }],
        session: Some(SessionEvidence {
            client: ([203, 0, 113, 7], 50000).into(),
            open: true,
            heard_since: true,
        }),
        newly_dropped: vec![NewlyDropped {
            direction: "ingress".into(),
            protocol: "tcp".into(),
            source: [196, 201, 214, 200].into(),
            target: [10, 0, 0, 5].into(),
            target_port: 443,
            reason: "source_not_allowed".into(),
            events: 3,
        }],
        unseen: Some("why".into()),
    };
    TrialStatus { generation: 4, confirmed: 3, seconds_left: 56, until: TIME, evidence }
}

#[test]
fn generations() {
    let kept = KeptGeneration {
        number: 4,
        digest: "00".into(),
        source_digest: "11".into(),
        serial: Some(7),
        mode: "enforce".into(),
        loaded: TIME,
        rules: "/etc/mpesa-fw/rules.yaml".into(),
        files: vec![KeptFile { path: "/etc/mpesa-fw/rules.yaml".into(), sha256: "22".into() }],
        text_of: Some(2),
    };
    insta::assert_snapshot!(json(&[kept]));
    insta::assert_snapshot!("confirmed", json(&Confirmed { generation: 4, trial: trial() }));
}

#[test]
fn status() {
    let status = Status {
        protection: Protection::Enforcing,
        since: TIME,
        agent: AgentStatus { version: "0.1.0".into(), pid: 7, started: TIME },
        generation: GenerationStatus {
            number: 3,
            digest: "00".into(),
            serial: Some(7),
            mode: "enforce".into(),
            loaded: TIME,
            rules: "/etc/mpesa-fw/rules.yaml".into(),
            text_of: Some(2),
        },
        trial: Some(trial()),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            index: 2,
            ingress: Some("xdp_native".into()),
            egress: Some("tcx".into()),
            ahead_of_ingress: vec![8],
            ahead_of_egress: vec![9],
            notes: vec!["a note".into()],
        }],
        missing: vec!["eth1".into()],
        refused: vec![Refused { name: "wg0".into(), reason: "why".into() }],
        unprotected: vec![Unprotected { name: "eth2".into(), addresses: vec![[10, 0, 0, 1].into()] }],
        services: vec![rule("callbacks")],
        destinations: vec![rule("daraja")],
        handshakes: Some(vec![HandshakeStatus {
            service: "callbacks".into(),
            syns: 3,
            connections: 2,
            last_connection: Some(TIME),
        }]),
        callers: vec![CallerStatus {
            service: "callbacks".into(),
            source: [196, 201, 214, 200].into(),
            connections: 3,
            last_seen: TIME,
        }],
        drops: vec![DropStatus {
            direction: "ingress".into(),
            reason: "source_not_allowed".into(),
            rule: "callbacks".into(),
            packets: 2,
            bytes: 120,
            would_drop_packets: 0,
        }],
        recent: Recent {
            seconds: 60,
            drops: vec![RecentDrop { direction: "ingress".into(), reason: "no_service".into(), packets: 5 }],
        },
        bypasses: Some(BTreeMap::from([("af_xdp".into(), 1)])),
        near_misses: BTreeMap::from([("safaricom".into(), 1)]),
        flows: FlowStatus { open: 1, capacity: 2 },
        names: vec![NameStatus {
            name: "api.safaricom.co.ke".into(),
            addresses: vec![[192, 0, 2, 80].into()],
            learnt: 1,
            answered_at: Some(0),
            error: Some("why".into()),
        }],
        owners: vec![OwnerStatus { owner: "unit payments.service".into(), present: 1 }],
        attempts: AttemptsStatus { refused_at_connect: false, doubts: vec!["why".into()] },
        denied_connections: vec![Denied {
            protocol: "tcp".into(),
            local: ([10, 0, 0, 5], 4000).into(),
            guest: Some("172.17.0.2".parse().unwrap()),
            remote: ([192, 0, 2, 1], 443).into(),
            reason: "no_destination".into(),
        }],
        reloads: BTreeMap::from([("ok".into(), 1)]),
        tamper_counts: BTreeMap::from([("pin_removed".into(), 1)]),
        tampering: vec![TamperRecord {
            time: TIME,
            kind: "pin_removed".into(),
            place: "/sys/fs/bpf/mpesa-fw/abi-2/links/eth0-egress".into(),
            what: "in a sentence".into(),
            culprit: Some("who".into()),
            mended: true,
        }],
        warnings: vec!["a warning".into()],
    };
    insta::assert_snapshot!(json(&status));
}

#[test]
fn events() {
    let event = EventRecord::Packet(PacketRecord {
        time: TIME,
        interface: "eth0".into(),
        direction: "ingress".into(),
        rule: "callbacks".into(),
        reason: "source_not_allowed".into(),
        source: [198, 51, 100, 66].into(),
        source_port: 4000,
        target: [203, 0, 113, 10].into(),
        target_port: 443,
        protocol: "tcp".into(),
        length: 74,
        dropped: true,
        program: None,
        asked_for: None,
        nearest: None,
        repeated: 0,
    });
    let listener = EventRecord::Listener(ListenerRecord {
        time: TIME,
        protocol: "tcp".into(),
        address: "::".parse().unwrap(),
        port: 9000,
        user: 33,
        process: Some("nginx (7)".into()),
        unit: Some("nginx.service".into()),
    });
    let attempt = EventRecord::Attempt(AttemptRecord {
        time: TIME,
        rule: String::new(),
        reason: "no_destination".into(),
        protocol: "tcp".into(),
        target: [198, 51, 100, 66].into(),
        target_port: 4444,
        refused: true,
        program: ProgramRecord {
            process: Some(4711),
            name: "curl".into(),
            user: 1000,
            executable: Some("/usr/bin/curl".into()),
            began: Some(8_000_000),
            login_user: Some(1000),
            unit: Some("session-3.scope".into()),
            socket: 12345,
        },
        asked_for: Some("evil.example".into()),
        nearest: Some("daraja (tcp 443)".into()),
        repeated: 2,
    });
    insta::assert_snapshot!(json(&[event, listener, attempt]));
}

#[test]
fn egress_audit() {
    let row = |sender, user: Option<u32>| AuditRow {
        destination: "daraja".into(),
        sender,
        user,
        user_name: user.map(|_| "payments".into()),
        opened: 12,
        denied: 3,
        first: TIME,
        last: TIME,
    };
    let audit = EgressAudit {
        since: TIME,
        until: TIME,
        rows: vec![
            row(Sender::Unit("payments.service".into()), Some(4711)),
            row(Sender::Group("/lxc/a".into()), Some(0)),
            row(Sender::Gone(1234), Some(0)),
            row(Sender::Nobody, None),
            row(Sender::Others, None),
            row(Sender::NoRoom, None),
        ],
        unrecorded: vec![Span { from: TIME, until: TIME }],
        unrecorded_hours: 1,
        unreadable: vec!["2026-11-29.1795946400.unreadable".into()],
    };
    insta::assert_snapshot!(json(&audit));
}

#[test]
fn listeners() {
    let process = Process {
        pid: 7,
        name: "nginx".into(),
        executable: Some("/usr/sbin/nginx".into()),
        unit: Some("nginx.service".into()),
    };
    let listener = Listener {
        protocol: "tcp".into(),
        address: "::".parse().unwrap(),
        port: 9000,
        service: None,
        user: 33,
        inode: 1,
        process: Some(process),
    };
    let unanswered =
        Unanswered { service: "callbacks".into(), protocol: "tcp".into(), first: 443, last: 443 };
    insta::assert_snapshot!(json(&Listeners {
        sockets: vec![listener],
        unanswered: vec![unanswered],
        left_out: 0
    }));
}

#[test]
fn reload() {
    let names = || Names { added: vec!["a".into()], removed: vec!["b".into()], changed: vec!["c".into()] };
    let reloaded = Reloaded {
        generation: 4,
        digest: "00".into(),
        mode: "enforce".into(),
        rules: "/etc/mpesa-fw/other.yaml".into(),
        change: Change {
            services: names(),
            destinations: names(),
            sets: names(),
            prefixes_added: 1,
            prefixes_removed: 2,
            other: vec!["mode: observe -> enforce".into()],
        },
        flows_removed: 1,
        ended: vec![Ended {
            protocol: "tcp".into(),
            local: "10.0.0.5:443".parse().unwrap(),
            remote: "198.51.100.66:50000".parse().unwrap(),
            opened: "ingress".into(),
            direction: "ingress".into(),
            reason: "source_not_allowed".into(),
        }],
        ended_total: 1,
        warnings: vec!["a warning".into()],
        after_restart: Some("/etc/mpesa-fw/rules.yaml".into()),
        text_of: Some(2),
        trial: Some(trial()),
    };
    insta::assert_snapshot!(json(&reloaded));
}
