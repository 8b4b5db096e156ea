//! Attempts of programs: what egress would say of the first packet.

use super::{
    Decision,
    permission::{Permission, destination},
};
use crate::{
    attempt::{Attempt, AttemptKind},
    owner::{Owner, rules_of},
    reason::{DropReason, PassReason},
    settings::Direction,
    state::State,
    tables::{ClaimIndex, RuleIndex, Tables},
};

/// Judges an attempt as egress would judge the packet that it leads to. None: that can't be told here.
///
/// `owner` is who attempts; see [`is_certain`]. Where a rule names a user nothing is told of owners: programs make sockets before
/// they become another.
#[inline(always)]
pub fn attempt<T: Tables, S: State>(
    tables: &T,
    state: &S,
    attempt: &Attempt,
    owner: &Owner,
) -> Option<Decision> {
    let claim = match attempt.kind {
        AttemptKind::Connect => ClaimIndex::tcp(attempt.remote_port),
        AttemptKind::Send if may_pass_otherwise(tables, state, attempt.local_port) => return None,
        AttemptKind::Send => ClaimIndex::udp(attempt.remote_port),
    };
    Some(match destination(tables, state, attempt.family, claim, &attempt.remote) {
        Permission::Allowed(rules) => {
            let own = rules.and(rules_of(tables, Direction::Egress, owner));
            if !own.is_empty() {
                Decision::pass_by(PassReason::Destination, own.first()) // E6
            } else if rules.and(tables.owned_by_users()).is_empty() {
                Decision::drop_by(DropReason::OwnerNotAllowed, rules.first()) // E6
            } else {
                return None;
            }
        }
        Permission::Denied(reason, rule, _) => Decision::drop_by(reason, rule), // E6
        Permission::Unclaimed if tables.default_passes(Direction::Egress) => {
            Decision::pass_by(PassReason::Default, RuleIndex::NONE) // E8
        }
        Permission::Unclaimed => Decision::drop(DropReason::NoDestination), // E8
    })
}

/// Whether no packet of it can pass, now or when it is sent again. Not where the owner is wrong: egress asks who made the socket, who may have
/// given it away (the kernel does, for further subflows of MPTCP), and a unit that has just started is not known for a moment.
#[inline(always)]
#[must_use]
pub const fn is_certain(reason: DropReason) -> bool {
    !matches!(reason, DropReason::OwnerNotAllowed)
}

/// Whether a datagram from a local port may pass for what it is (E3: DHCP), as an answer of a service (E5), or along a flow (E7), whose
/// name may have been forgotten meanwhile.
#[inline(always)]
fn may_pass_otherwise<T: Tables, S: State>(tables: &T, state: &S, port: u16) -> bool {
    const DHCP_CLIENTS: [u16; 2] = [68, 546];
    port == DHCP_CLIENTS[0]
        || port == DHCP_CLIENTS[1]
        || port != 0
            && (state.may_have_flow(port)
                || tables
                    .claims(Direction::Ingress, ClaimIndex::udp(port))
                    .is_none_or(|rules| !rules.is_empty()))
}
