//! DNS names to the destinations that name them.

use std::collections::BTreeMap;

use mpesa_fw_common::{RuleSet, tables::NAMES};

use super::{CompileError, Slots, only, rules_where};
use crate::policy::model::Policy;

/// The destinations of each name, in the order of the names: what the table says, without its slots.
pub(super) fn rules_by_name(policy: &Policy) -> BTreeMap<&str, RuleSet> {
    let mut rules = BTreeMap::new();
    for (position, destination) in policy.egress.allow.iter().enumerate() {
        for name in &destination.names {
            let set: &mut RuleSet = rules.entry(name.as_str()).or_default();
            *set = set.or(only(position));
        }
    }
    rules
}

/// The table `NAME_RULES`.
pub(super) fn by_slot(names: &BTreeMap<&str, RuleSet>, slots: &Slots) -> Result<Vec<RuleSet>, CompileError> {
    let mut table = vec![RuleSet::NONE; NAMES];
    for (name, rules) in names {
        let no_slot = || CompileError::NoSlot { what: "DNS name", name: (*name).to_owned() };
        let slot = *slots.names.get(*name).ok_or_else(no_slot)?;
        *table.get_mut(usize::from(slot)).ok_or_else(no_slot)? = *rules;
    }
    Ok(table)
}

/// Destinations whose `to` holds names only.
pub(super) fn names_only(policy: &Policy) -> RuleSet {
    rules_where(&policy.egress.allow, |destination| {
        let to = &destination.to;
        !destination.names.is_empty() && !to.any && to.prefixes.is_empty() && to.sets.is_empty()
    })
}
