//! Flows that this host opened.

use super::{
    Sender,
    permission::{Permission, flow_permission},
};
use crate::{
    address::Family,
    owner::Owner,
    packet::{PacketMeta, icmp, icmpv6},
    reason::DropReason,
    settings::Direction,
    state::{FlowKey, FlowPhase, FlowState, State},
    tables::{RuleIndex, RuleSet, Tables},
};

/// What a packet finds of its flow.
///
/// Verifier: one integer, all of it always written. As an enum with fields the compiler packs bytes that it never set,
/// and the register that they come from may hold a pointer ("32-bit pointer arithmetic prohibited").
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Found(u32);

impl Found {
    /// There is none, or none any more.
    pub const NONE: Self = Self(0);
    const LIVE: u32 = 1 << 16;

    /// As a function returns it that can return numbers only.
    #[inline(always)]
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0
    }

    /// From [`Self::code`].
    #[inline(always)]
    #[must_use]
    pub const fn from_code(code: u32) -> Self {
        Self(code)
    }

    #[inline(always)]
    const fn live(flow: &FlowState) -> Self {
        Self(Self::LIVE | (flow.would_drop as u32) << 8 | flow.rule as u32)
    }

    /// The rule that allows it (or, where it is marked, the one charged for it).
    #[inline(always)]
    pub(super) const fn rule(self) -> RuleIndex {
        match RuleIndex::new(self.0 as u8) {
            Some(rule) => rule,
            None => RuleIndex::NONE,
        }
    }

    /// Why it would be denied, where only observe mode lets it live.
    #[inline(always)]
    pub(super) fn would_drop(self) -> Option<DropReason> {
        let code = ((self.0 >> 8) as u8).checked_sub(1)?;
        Some(DropReason::try_from(code).unwrap_or(DropReason::Internal))
    }
}

/// Looks for the live flow of a packet and moves it on. A flow that another generation judged is judged again first; where
/// owners count, also one that nobody has used yet (seeded), and that of another socket is none. `sender` matters on egress
/// only: nobody knows whose the answers are.
#[inline(always)]
pub fn find_flow<T: Tables, S: State + ?Sized>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    direction: Direction,
    sender: &Sender,
) -> Found {
    let key = meta.flow_key(direction);
    if matches!(direction, Direction::Ingress) && !state.may_have_flow(key.local_port) {
        return Found::NONE;
    }
    let Some(mut flow) = state.flow(&key) else {
        return Found::NONE;
    };
    let now = state.now();
    if flow.is_expired(key.protocol, now) {
        return Found::NONE;
    }
    let (owner, is_news) = match direction {
        Direction::Egress if !tables.owned(Direction::Egress).is_empty() && sender.cookie != 0 => {
            if flow.cookie != 0 && flow.cookie != sender.cookie {
                return Found::NONE;
            }
            (Some(&sender.owner), flow.cookie == 0)
        }
        Direction::Egress => (Some(&sender.owner), false),
        Direction::Ingress => (None, false),
    };
    let is_to_judge = is_news || flow.generation != tables.generation();
    if state.is_twin() {
        return peek(tables, state, &key, *flow, owner, is_to_judge);
    }
    if is_to_judge && !judge_again(tables, state, &key, &mut flow, owner) {
        return Found::NONE;
    }
    if is_news {
        flow.cookie = sender.cookie;
    }
    flow.last_seen = now;
    flow.phase = next_phase(FlowPhase::from_code(flow.phase), meta, direction) as u8;
    Found::live(&flow)
}

/// What a packet finds of its flow, of which this is a copy.
#[inline(always)]
fn peek<T: Tables, S: State + ?Sized>(
    tables: &T,
    state: &S,
    key: &FlowKey,
    mut flow: FlowState,
    owner: Option<&Owner>,
    is_to_judge: bool,
) -> Found {
    if is_to_judge && !judge_again(tables, state, key, &mut flow, owner) {
        return Found::NONE;
    }
    Found::live(&flow)
}

/// Records the flow that a packet of egress opens, if it opens one. False: there is no room.
#[inline(always)]
pub(super) fn open<T: Tables, S: State>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    sender: &Sender,
    rule: RuleIndex,
    would_drop: Option<DropReason>,
) -> bool {
    if !opens_flow(meta, sender) {
        return true;
    }
    let flow = FlowState {
        last_seen: state.now(),
        cookie: sender.cookie,
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
///
/// In the middle of a TCP connection nobody can tell from the packet who opened it. If it was the peer, a flow would let
/// in what no service allows (any more): so the packet goes, but opens nothing. The agent, which sees listeners, gives a
/// flow to each open connection of this host that has none. A packet without a socket is forwarded, and its connection
/// is known here or not at all.
#[inline(always)]
#[must_use]
pub const fn opens_flow(meta: &PacketMeta, sender: &Sender) -> bool {
    if meta.is_icmp() {
        return match meta.family {
            Family::V4 => matches!(meta.icmp_type, icmp::ECHO_REQUEST | icmp::TIMESTAMP_REQUEST),
            Family::V6 => meta.icmp_type == icmpv6::ECHO_REQUEST,
        };
    }
    if !meta.is_tcp() || meta.opens_connection() {
        return true;
    }
    !meta.resets_connection() && !meta.accepts_connection() && !sender.is_full
}

/// Judges a flow by this generation. False: it is not permitted any more (observe mode marks it and lets it live). Without an
/// owner, what only some owners may is left as it is: the next packet of this host decides.
#[inline(always)]
fn judge_again<T: Tables, S: State + ?Sized>(
    tables: &T,
    state: &S,
    key: &FlowKey,
    flow: &mut FlowState,
    owner: Option<&Owner>,
) -> bool {
    let (rule, denied) = match flow_permission(tables, state, key) {
        Permission::Allowed(RuleSet(rules)) => {
            let rules = RuleSet(rules);
            let own = rules.and(match owner {
                Some(owner) => tables.rules_of(Direction::Egress, owner),
                None => RuleSet(!tables.owned(Direction::Egress).0),
            });
            if !own.is_empty() {
                (own.first(), None)
            } else if owner.is_none() {
                return true;
            } else {
                (rules.first(), Some(DropReason::OwnerNotAllowed))
            }
        }
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
