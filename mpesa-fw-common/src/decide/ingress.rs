//! Packets towards this host.

use super::{
    Decision, Sender, control,
    flow::{self, Found},
    permission::{Permission, service},
};
use crate::{
    address::{Address, Family},
    limit::{LIMITED_PER_CLAIM, LimitWhat, limit_tag},
    packet::{FragmentKind, PacketMeta, Parsed, icmpv6},
    reason::{DropReason, PassReason, Reason},
    settings::{Direction, Verdict, feature},
    state::{FRAGMENT_LIFETIME, FragmentState, State},
    tables::{RuleIndex, RuleSet, Tables},
};

/// Judges a packet towards this host.
#[inline(always)]
pub fn ingress<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> Decision {
    match meta.parsed {
        Parsed::LinkLayer => return Decision::pass(PassReason::LinkLayer), // 1
        Parsed::UnknownEthertype => return Decision::drop(DropReason::UnknownEthertype), // 1
        Parsed::Malformed => return Decision::drop(DropReason::Malformed), // 2
        Parsed::Ip => {}
    }
    if is_impossible_source(state, meta) {
        return Decision::drop(DropReason::Spoofed); // 3
    }
    if control::is_ingress_control(tables, state, meta) {
        return Decision::pass(PassReason::Control); // 4
    }
    match meta.fragment {
        FragmentKind::Unjudgeable => return Decision::drop(DropReason::Fragment), // 5
        FragmentKind::Later => return later_fragment(tables, state, meta, Direction::Ingress), // 5
        FragmentKind::Whole | FragmentKind::First => {}
    }
    // Verifier: in one place for both kinds, or it walks all of it twice.
    let decision = whole(tables, state, meta);
    if matches!(meta.fragment, FragmentKind::First) {
        note_first_fragment(tables, state, meta, Direction::Ingress, &decision);
    }
    decision
}

/// 5: passes if the first fragment did, charged to the same rule.
#[inline(always)]
pub(super) fn later_fragment<T: Tables, S: State>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    direction: Direction,
) -> Decision {
    let Some(first) = state.fragment(&meta.fragment_key(direction)) else {
        return Decision::drop(DropReason::Fragment);
    };
    if state.now().saturating_sub(first.passed_at) > FRAGMENT_LIFETIME {
        return Decision::drop(DropReason::Fragment);
    }
    // The rule's number means nothing in another generation.
    let rule = if first.generation == tables.generation() { RuleIndex::new(first.rule as u8) } else { None };
    Decision::pass_by(PassReason::Fragment, rule.unwrap_or(RuleIndex::NONE))
}

/// 5: remembers a first fragment that passes. Not one that only observe mode lets go: its rest would be dropped too.
#[inline(always)]
pub(super) fn note_first_fragment<T: Tables, S: State>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    direction: Direction,
    decision: &Decision,
) {
    if matches!(decision.verdict(), Verdict::Pass) {
        let first = FragmentState {
            passed_at: state.now(),
            generation: tables.generation(),
            rule: u32::from(decision.rule.raw()),
        };
        state.note_fragment(&meta.fragment_key(direction), &first);
    }
}

/// 6 to 8, for a packet with its transport header.
#[inline(always)]
fn whole<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta) -> Decision {
    let served = match service(tables, meta.family, meta.claim(), &meta.target, &meta.source) {
        Permission::Allowed(rules) if meta.is_tcp() && matches!(meta.fragment, FragmentKind::First) => {
            Decision::drop_by(DropReason::Fragment, rules.first()) // 5: TCP never needs to fragment
        }
        Permission::Allowed(rules) => within_limit(tables, state, meta, rules), // 6
        Permission::Denied(reason, rule, near_miss) => {
            Decision { near_miss, ..Decision::drop_by(reason, rule) }
        } // 6
        Permission::Unclaimed if tables.default_passes(Direction::Ingress) => {
            Decision::pass(PassReason::Default)
        } // 8
        Permission::Unclaimed => Decision::drop(DropReason::NoService),         // 8
    };
    match served.reason {
        Reason::Pass(PassReason::Service) => return served,
        Reason::Pass(_) | Reason::Drop(_) => {}
    }
    // 7, and "never lost to rule 6"
    if flow::can_be_reply(meta)
        && state.find_flow(tables, meta, Direction::Ingress, &Sender::NONE) != Found::NONE
    {
        return Decision::pass(PassReason::Flow);
    }
    served
}

/// 6: the first rule, in file order, that allows the packet and whose limit it keeps.
#[inline(always)]
fn within_limit<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, rules: RuleSet) -> Decision {
    let first = rules.first();
    if tables.features() & feature::LIMITS == 0 {
        return Decision::pass_by(PassReason::Service, first);
    }
    let mut rest = rules;
    // The limited ones, and one without a limit behind them.
    for _ in 0..=LIMITED_PER_CLAIM {
        if rest.is_empty() {
            break;
        }
        let rule = rest.first();
        if keeps_limit(tables, state, meta, rule) {
            return Decision::pass_by(PassReason::Service, rule);
        }
        rest = RuleSet(rest.0 & rest.0.wrapping_sub(1));
    }
    Decision::drop_by(DropReason::RateLimited, first)
}

/// Whether a packet keeps the limit of one rule; charges it if so.
#[inline(always)]
fn keeps_limit<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, rule: RuleIndex) -> bool {
    let Some(info) = tables.rule_info(Direction::Ingress, rule) else {
        return false;
    };
    let only_connections = info.limit_what == LimitWhat::NewConnections as u32;
    if info.limit_interval == 0 || (only_connections && meta.is_tcp() && !meta.opens_connection()) {
        return true;
    }
    let tag = limit_tag(tables.limit_seed(), &info, meta.family, &meta.source);
    state.charge(tag, info.limit_interval, info.limit_tolerance)
}

/// 3: whether no honest packet can come from there.
#[inline(always)]
fn is_impossible_source<S: State>(state: &S, meta: &PacketMeta) -> bool {
    let never = match meta.family {
        Family::V4 => is_impossible_v4(meta),
        Family::V6 => is_impossible_v6(meta),
    };
    never || state.is_own(&meta.source)
}

#[inline(always)]
fn is_impossible_v4(meta: &PacketMeta) -> bool {
    const DHCP_CLIENT: u16 = 68;
    const DHCP_SERVER: u16 = 67;
    let bits = meta.source.v4_bits();
    match bits >> 24 {
        // 0/8, RFC 1122 3.2.1.3: "this host", which says so to a DHCP server
        0 => {
            !(bits == 0
                && meta.is_udp()
                && meta.source_port == DHCP_CLIENT
                && meta.target_port == DHCP_SERVER)
        }
        127 | 224..=239 => true,
        _ => bits == u32::MAX,
    }
}

#[inline(always)]
fn is_impossible_v6(meta: &PacketMeta) -> bool {
    const LOOPBACK: Address = Address { words: [0, 0, 0, 1] };
    if meta.source == Address::UNSPECIFIED {
        // Duplicate address detection, router solicitation, MLD (RFC 4862 5.4.2, RFC 4861 4.1, RFC 3810 5.2.13).
        return !(meta.is_icmp()
            && matches!(
                meta.icmp_type,
                icmpv6::NEIGHBOUR_SOLICITATION
                    | icmpv6::ROUTER_SOLICITATION
                    | icmpv6::MLD_REPORT
                    | icmpv6::MLD_DONE
                    | icmpv6::MLD2_REPORT
            ));
    }
    // An IPv4 address in mapped form is for sockets, never for the wire (RFC 4038 4.2).
    meta.source == LOOPBACK || meta.source.words[0] >> 24 == 0xff || meta.source.is_v4()
}
