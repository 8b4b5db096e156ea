//! Owners to the rules that name them.

use std::collections::BTreeMap;

use mpesa_fw_common::{Direction, RuleSet, owner::OwnerRules};

use super::{only, rules_where};
use crate::policy::model::{Owner, Policy};

/// Rules with `by`, by direction.
pub(super) fn owned(policy: &Policy) -> [RuleSet; 2] {
    [
        rules_where(&policy.ingress.services, |service| !service.by.is_empty()),
        rules_where(&policy.egress.allow, |destination| !destination.by.is_empty()),
    ]
}

/// Destinations some of whose owners are users.
pub(super) fn owned_by_users(policy: &Policy) -> RuleSet {
    rules_where(&policy.egress.allow, |destination| {
        destination.by.iter().any(|owner| matches!(owner, Owner::User(_)))
    })
}

/// The rules of each owner.
pub(super) fn rules(policy: &Policy) -> BTreeMap<Owner, OwnerRules> {
    let mut all: BTreeMap<Owner, OwnerRules> = BTreeMap::new();
    let mut add = |direction: Direction, position: usize, by: &[Owner]| {
        for owner in by {
            let rules = &mut all.entry(owner.clone()).or_default().rules[direction as usize];
            *rules = rules.or(only(position));
        }
    };
    for (position, service) in policy.ingress.services.iter().enumerate() {
        add(Direction::Ingress, position, &service.by);
    }
    for (position, destination) in policy.egress.allow.iter().enumerate() {
        add(Direction::Egress, position, &destination.by);
    }
    all
}
