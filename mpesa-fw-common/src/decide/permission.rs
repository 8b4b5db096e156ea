//! What the rules say of one pair of addresses and one claim, whatever the packet around it.

use crate::{
    address::{Address, Family},
    dns::{self, tick},
    packet::claim,
    reason::DropReason,
    settings::{Direction, feature},
    state::{FlowKey, State},
    tables::{AddressTable, ClaimIndex, NAMES_PER_ADDRESS, RuleIndex, RuleSet, Tables, look_up},
};

/// What the rules of a direction say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Permission {
    /// These allow it; never empty.
    Allowed(RuleSet),
    /// Some rule claims it, none allows it; charged to the first that claims it.
    Denied(DropReason, RuleIndex, u64),
    /// No rule claims it.
    Unclaimed,
}

/// Whether services allow `remote` to send this to `local`.
#[inline(always)]
pub fn service<T: Tables>(
    tables: &T,
    family: Family,
    claim: ClaimIndex,
    local: &Address,
    remote: &Address,
) -> Permission {
    let Some(claimed) = tables.claims(Direction::Ingress, claim) else {
        return INTERNAL;
    };
    if claimed.is_empty() {
        return Permission::Unclaimed;
    }
    let Some(class) = look_up(tables, AddressTable::Source, family, remote) else {
        return INTERNAL;
    };
    let mut allowed = claimed.and(class.rules);
    if tables.features() & feature::LOCAL != 0 && !allowed.is_empty() {
        match look_up(tables, AddressTable::Local, family, local) {
            Some(here) => allowed = allowed.and(here.rules),
            None => return INTERNAL,
        }
    }
    if allowed.is_empty() {
        return Permission::Denied(DropReason::SourceNotAllowed, claimed.first(), class.watch);
    }
    Permission::Allowed(allowed)
}

/// Whether destinations allow this host to send this to `remote`.
#[inline(always)]
pub fn destination<T: Tables, S: State + ?Sized>(
    tables: &T,
    state: &S,
    family: Family,
    claim: ClaimIndex,
    remote: &Address,
) -> Permission {
    let Some(claimed) = tables.claims(Direction::Egress, claim) else {
        return INTERNAL;
    };
    if claimed.is_empty() {
        return Permission::Unclaimed;
    }
    let Some(class) = look_up(tables, AddressTable::Destination, family, remote) else {
        return INTERNAL;
    };
    let mut allowed = class.rules;
    if tables.features() & feature::NAMES != 0 {
        // Also where an address allows it: a rule that names it may come first in the file.
        allowed = allowed.or(named(tables, state, remote));
    }
    let allowed = claimed.and(allowed);
    if !allowed.is_empty() {
        return Permission::Allowed(allowed);
    }
    let only_by_name = claimed.0 & !tables.names_only().0 == 0;
    let reason = if only_by_name { DropReason::NameNotAllowed } else { DropReason::DestinationNotAllowed };
    Permission::Denied(reason, claimed.first(), 0)
}

/// Whether destinations allow a flow that this host opened.
#[inline(always)]
pub fn flow_permission<T: Tables, S: State + ?Sized>(tables: &T, state: &S, key: &FlowKey) -> Permission {
    let family = if key.family == Family::V4 as u8 { Family::V4 } else { Family::V6 };
    // Of ICMP the port is the type of the request.
    let claim = claim(family, key.protocol, key.remote_port, key.remote_port as u8);
    destination(tables, state, family, claim, &key.remote)
}

/// A table did not answer: denied, and nobody's fault but ours.
const INTERNAL: Permission = Permission::Denied(DropReason::Internal, RuleIndex::NONE, 0);

/// Destinations that name an address by DNS: by what the agent was told, or by what was learnt on its way in.
#[inline(always)]
fn named<T: Tables, S: State + ?Sized>(tables: &T, state: &S, remote: &Address) -> RuleSet {
    let mut rules = RuleSet::NONE;
    let of = |slot: u16| tables.name_rules(slot).unwrap_or(RuleSet::NONE);
    if let Some(slots) = state.resolved(remote) {
        for slot in slots.iter().take(NAMES_PER_ADDRESS) {
            if *slot != 0 {
                rules = rules.or(of(*slot - 1));
            }
        }
    }
    if let Some(learnt) = state.learnt(remote) {
        let tick = tick(state.now());
        for name in learnt.iter() {
            if let Some(slot) = name.live(tick) {
                rules = rules.or(of(slot));
            }
        }
    }
    rules
}

/// Whether answers from `remote` are learnt from: a destination lists its address as that of a name server. That it has a name which the
/// same destination lists is not enough: whoever answers for that name would say who else is believed.
#[inline(always)]
pub fn is_resolver<T: Tables>(tables: &T, family: Family, remote: &Address) -> bool {
    let Some(claimed) = tables.claims(Direction::Egress, ClaimIndex::udp(dns::PORT)) else { return false };
    let Some(class) = look_up(tables, AddressTable::Destination, family, remote) else { return false };
    !claimed.and(class.rules).and(tables.resolvers()).is_empty()
}
