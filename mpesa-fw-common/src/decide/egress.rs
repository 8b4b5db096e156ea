//! Packets from this host.

use super::{
    Decision, Sender, control,
    flow::{self, Found},
    ingress::{later_fragment, note_first_fragment},
    permission::{Permission, destination, service},
};
use crate::{
    packet::{FragmentKind, PacketMeta, Parsed, claim, question},
    reason::{DropReason, PassReason},
    settings::Direction,
    state::State,
    tables::{RuleIndex, Tables},
};

/// Judges a packet from this host, and opens the flow of a new connection that is permitted (in observe mode also of
/// one that isn't, marked).
#[inline(always)]
pub fn egress<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, sender: &Sender) -> Decision {
    match meta.parsed {
        Parsed::LinkLayer => return Decision::pass(PassReason::LinkLayer), // E1
        Parsed::UnknownEthertype => return Decision::drop(DropReason::UnknownEthertype), // E1
        Parsed::Malformed => return Decision::drop(DropReason::Malformed), // E2
        Parsed::Ip => {}
    }
    if control::is_egress_control(tables, state, meta) || speaks_for_the_gone(tables, state, meta, sender) {
        return Decision::pass(PassReason::Control); // E3
    }
    match meta.fragment {
        FragmentKind::Unjudgeable => return Decision::drop(DropReason::Fragment), // E4
        FragmentKind::Later => return later_fragment(tables, state, meta, Direction::Egress), // E4
        FragmentKind::Whole | FragmentKind::First => {}
    }
    // Verifier: in one place for both kinds, or it walks all of it twice.
    let decision = whole(tables, state, meta, sender);
    if matches!(meta.fragment, FragmentKind::First) {
        note_first_fragment(tables, state, meta, Direction::Egress, &decision);
    }
    decision
}

/// E5 to E8, for a packet with its transport header.
#[inline(always)]
fn whole<T: Tables, S: State>(tables: &T, state: &S, meta: &PacketMeta, sender: &Sender) -> Decision {
    let reply = service_reply(tables, meta, sender);
    if matches!(reply, Reply::Allowed) {
        return Decision::pass(PassReason::ServiceReply); // E5
    }
    if !meta.opens_connection() {
        let found = state.find_flow(tables, meta, Direction::Egress, sender);
        if found != Found::NONE {
            return match found.would_drop() {
                None => Decision::pass_by(PassReason::Flow, found.rule()), // E7
                Some(reason) => Decision::drop_by(reason, found.rule()),   // E7, observe mode
            };
        }
    }
    let (denied, rule) = match destination(tables, state, meta.family, meta.claim(), &meta.target) {
        Permission::Allowed(rules) => {
            let own = rules.and(tables.rules_of(Direction::Egress, &sender.owner));
            if own.is_empty() {
                (Some(DropReason::OwnerNotAllowed), rules.first())
            } else {
                (None, own.first())
            } // E6
        }
        Permission::Denied(reason, rule, _) => (Some(reason), rule), // E6
        Permission::Unclaimed if tables.default_passes(Direction::Egress) => (None, RuleIndex::NONE), // E8
        // It would have been an answer, had the owner of its socket been allowed to give it.
        Permission::Unclaimed if matches!(reply, Reply::OfAnother) => {
            (Some(DropReason::OwnerNotAllowed), RuleIndex::NONE) // E5
        }
        Permission::Unclaimed => (Some(DropReason::NoDestination), RuleIndex::NONE), // E8
    };
    if let Some(reason) = denied {
        if tables.observes() {
            // Whether there is room changes nothing: the packet goes either way.
            let _recorded = flow::open(tables, state, meta, sender, rule, denied);
        }
        return Decision::drop_by(reason, rule);
    }
    if !flow::open(tables, state, meta, sender, rule, None) {
        return Decision::drop_by(DropReason::FlowTableFull, rule);
    }
    let is_default = rule.index().is_none();
    Decision::pass_by(if is_default { PassReason::Default } else { PassReason::Destination }, rule)
}

/// What a packet is to E5.
#[derive(Clone, Copy)]
enum Reply {
    /// A reply of a service to a source that it allows.
    Allowed,
    /// It would be, from a socket of another owner.
    OfAnother,
    /// None.
    No,
}

/// E5, told without state.
#[inline(always)]
fn service_reply<T: Tables>(tables: &T, meta: &PacketMeta, sender: &Sender) -> Reply {
    let question = question(meta.family, meta.icmp_type);
    let can_reply = if meta.is_icmp() {
        question != meta.icmp_type
    } else {
        meta.is_tcp() && !meta.opens_connection() || meta.is_udp()
    };
    if !can_reply || sender.is_raw || meta.is_udp() && sender.bound_port != meta.source_port {
        return Reply::No;
    }
    let served = claim(meta.family, meta.protocol, meta.source_port, question);
    let Permission::Allowed(rules) = service(tables, meta.family, served, &meta.source, &meta.target) else {
        return Reply::No;
    };
    // A connection that was accepted by somebody who may is his whoever holds it now. The kernel answers pings for all.
    if meta.is_icmp() || meta.is_tcp() && !meta.accepts_connection() {
        return Reply::Allowed;
    }
    if rules.and(tables.rules_of(Direction::Ingress, &sender.owner)).is_empty() {
        Reply::OfAnother
    } else {
        Reply::Allowed
    }
}

/// E3: what the kernel sends for a socket that is gone, to a peer that the policy permits.
#[inline(always)]
fn speaks_for_the_gone<T: Tables, S: State>(
    tables: &T,
    state: &S,
    meta: &PacketMeta,
    sender: &Sender,
) -> bool {
    matches!(meta.fragment, FragmentKind::Whole)
        && meta.is_bare_tcp()
        && !sender.is_full
        && control::peer_is_permitted(tables, state, meta)
}
