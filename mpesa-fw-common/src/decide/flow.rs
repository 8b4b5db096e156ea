//! Flows that this host opened.

use super::permission::{Permission, flow_permission};
use crate::{
    packet::{PacketMeta, icmp, icmpv6},
    address::Family,
    settings::Direction,
    reason::DropReason,
    state::{FlowKey, FlowPhase, FlowState, State},
    tables::{RuleIndex, RuleSet, Tables},
};

/// What a packet finds of its flow.
pub(super) enum Found {
    /// It is live, and this rule allows it.
    Live(RuleIndex),
    /// Observe mode lets it live, though it would be denied for this.
    Marked(DropReason, RuleIndex),
    /// There is none, or none any more.
    None,
}

/// Looks for the live flow of a packet and moves it on. A flow that another generation judged is judged again first.
#[inline(always)]
pub(super) fn find<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, direction: Direction) -> Found {
    let key = meta.flow_key(direction);
    if matches!(direction, Direction::Ingress) && !state.may_have_flow(key.local_port) {
        return Found::None;
    }
    let now = state.now();
    let found = state.with_flow(&key, |flow| {
        if flow.is_expired(key.protocol, now) {
            return Found::None;
        }
        if flow.generation != tables.generation() && !judge_again(tables, state, &key, flow) {
            return Found::None;
        }
        flow.last_seen = now;
        flow.phase = next_phase(FlowPhase::from_code(flow.phase), meta, direction) as u8;
        let rule = RuleIndex::new(flow.rule).unwrap_or(RuleIndex::NONE);
        match flow.would_drop.checked_sub(1).map(DropReason::try_from) {
            None => Found::Live(rule),
            Some(Ok(reason)) => Found::Marked(reason, rule),
            Some(Err(_)) => Found::Marked(DropReason::Internal, rule),
        }
    });
    found.unwrap_or(Found::None)
}

/// Records the flow that a packet of egress opens. False: there is no room.
#[inline(always)]
pub(super) fn open<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, cookie: u64, rule: RuleIndex, would_drop: Option<DropReason>) -> bool {
    if !opens_flow(meta) {
        return true;
    }
    let flow = FlowState {
        last_seen: state.now(),
        cookie,
        generation: tables.generation(),
        phase: FlowPhase::Opened as u8,
        rule: rule.raw(),
        would_drop: would_drop.map_or(0, |reason| reason as u8 + 1),
        reserved: 0,
    };
    state.open_flow(&meta.flow_key(Direction::Egress), &flow)
}

/// Whether a packet towards this host can be a reply: a TCP SYN without ACK and an ICMP request never are.
#[inline(always)]
pub(super) const fn can_be_reply(meta: &PacketMeta) -> bool {
    if meta.is_icmp() {
        return match meta.family {
            Family::V4 => matches!(meta.icmp_type, icmp::ECHO_REPLY | icmp::TIMESTAMP_REPLY),
            Family::V6 => meta.icmp_type == icmpv6::ECHO_REPLY,
        };
    }
    !meta.opens_connection()
}

/// Whether a packet of this host asks for an answer. A RST and an ICMP message that is no request do not.
#[inline(always)]
const fn opens_flow(meta: &PacketMeta) -> bool {
    if meta.is_icmp() {
        return match meta.family {
            Family::V4 => matches!(meta.icmp_type, icmp::ECHO_REQUEST | icmp::TIMESTAMP_REQUEST),
            Family::V6 => meta.icmp_type == icmpv6::ECHO_REQUEST,
        };
    }
    !meta.resets_connection()
}

/// Judges a flow by this generation. False: it is not permitted any more (observe mode marks it and lets it live).
#[inline(always)]
fn judge_again<T: Tables, S: State>(tables: &T, state: &S, key: &FlowKey, flow: &mut FlowState) -> bool {
    let (rule, denied) = match flow_permission(tables, state, key) {
        Permission::Allowed(RuleSet(rules)) => (RuleSet(rules).first(), None),
        Permission::Denied(reason, rule, _) => (rule, Some(reason)),
        Permission::Unclaimed if tables.default_passes(Direction::Egress) => (RuleIndex::NONE, None),
        Permission::Unclaimed => (RuleIndex::NONE, Some(DropReason::NoDestination)),
    };
    if denied.is_some() && !tables.observes() {
        return false;
    }
    flow.generation = tables.generation();
    flow.rule = rule.raw();
    flow.would_drop = denied.map_or(0, |reason| reason as u8 + 1);
    true
}

/// Only this host's own goodbye begins the end of a flow: anybody can forge the peer's.
#[inline(always)]
const fn next_phase(phase: FlowPhase, meta: &PacketMeta, direction: Direction) -> FlowPhase {
    match (direction, phase) {
        (Direction::Egress, _) if meta.ends_connection() => FlowPhase::Closing,
        (Direction::Ingress, FlowPhase::Opened) => FlowPhase::Answered,
        (Direction::Ingress | Direction::Egress, unchanged) => unchanged,
    }
}
