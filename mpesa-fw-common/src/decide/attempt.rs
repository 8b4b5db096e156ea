//! Attempts of programs: what egress would say of the first packet.

use super::{
    Decision,
    permission::{Permission, destination, reachable},
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
/// `owner` is who attempts. Egress asks who made the socket: a unit that is not the same for both is refused here although the
/// packet might pass, a user never is, since programs make sockets before they become another.
#[inline(always)]
pub fn attempt<T: Tables, S: State>(
    tables: &T,
    state: &S,
    attempt: &Attempt,
    owner: &Owner,
) -> Option<Decision> {
    let protocol = attempt.kind.protocol();
    if protocol == UDP && may_pass_otherwise(tables, attempt) {
        return None;
    }
    if matches!(attempt.kind, AttemptKind::ConnectUdp)
        && (attempt.remote_port == 0
            || !reachable(tables, state, attempt.family, &attempt.remote)?.is_empty())
    {
        return None;
    }
    let claim = if protocol == UDP {
        ClaimIndex::udp(attempt.remote_port)
    } else {
        ClaimIndex::tcp(attempt.remote_port)
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

const UDP: u8 = 17;

/// Whether a datagram may pass for what it is (E3: DHCP) or as an answer of a service (E5).
#[inline(always)]
fn may_pass_otherwise<T: Tables>(tables: &T, attempt: &Attempt) -> bool {
    const DHCP_CLIENTS: [u16; 2] = [68, 546];
    let port = attempt.local_port;
    port == DHCP_CLIENTS[0]
        || port == DHCP_CLIENTS[1]
        || port != 0
            && tables.claims(Direction::Ingress, ClaimIndex::udp(port)).is_none_or(|rules| !rules.is_empty())
}
