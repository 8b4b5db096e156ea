//! DNS names to the destinations that name them.

use std::collections::BTreeMap;

use mpesa_fw_common::{
    RuleSet,
    dns::{self, SLOTS_PER_NAME, WILDCARD, trie_key},
    tables::NAMES,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{CompileError, Slots, only, rules_where};
use crate::policy::model::Policy;

/// An element of the trie `ASKED_NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AskedName {
    /// The name, or what is below a wildcard.
    pub key: dns::TrieKey,
    /// The names of the policy that whatever it matches best is: itself, and wildcards above.
    pub slots: dns::NameSlots,
}

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

/// Destinations that list name servers.
pub(super) fn resolvers(policy: &Policy) -> RuleSet {
    rules_where(&policy.egress.allow, |destination| destination.lists_resolvers(&policy.sets))
}

/// The trie `ASKED_NAMES`.
pub(super) fn asked(names: &BTreeMap<&str, RuleSet>, slots: &Slots) -> Result<Vec<AskedName>, CompileError> {
    let mut table = Vec::with_capacity(names.len());
    for name in names.keys() {
        let no_slot = || CompileError::NoSlot { what: "DNS name", name: (*name).to_owned() };
        let mut found = [0; SLOTS_PER_NAME];
        let mut places = found.iter_mut();
        let all = std::iter::once(*name).chain(names.keys().copied().filter(|above| is_below(name, above)));
        for matching in all {
            let slot = *slots.names.get(matching).ok_or_else(no_slot)?;
            let mark = if matching.starts_with('*') { WILDCARD } else { 0 };
            let place =
                places.next().ok_or_else(|| CompileError::NestedWildcards { name: (*name).to_owned() })?;
            *place = (slot + 1) | mark;
        }
        let key = trie_key(name).ok_or_else(no_slot)?;
        table.push(AskedName { key, slots: found });
    }
    Ok(table)
}

/// Whether whatever `name` stands for lies below the wildcard `above`.
fn is_below(name: &str, above: &str) -> bool {
    let Some(domain) = above.strip_prefix('*') else { return false };
    let text = name.strip_prefix('*').unwrap_or(name);
    text.len() > domain.len() && text.ends_with(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_a_wildcard() {
        for (name, above, is) in [
            ("a.example.com", "*.example.com", true),
            ("b.a.example.com", "*.example.com", true),
            ("*.a.example.com", "*.example.com", true),
            ("example.com", "*.example.com", false),
            ("*.example.com", "*.example.com", false),
            ("badexample.com", "*.example.com", false),
            ("a.example.com", "example.com", false),
            ("*.com", "*.example.com", false),
        ] {
            assert_eq!(is_below(name, above), is, "{name} {above}");
        }
    }
}
