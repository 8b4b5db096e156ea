//! A policy becomes tables.
//!
//! [`compile`] turns the lists of a [`Policy`] into the bit vectors of [`mpesa_fw_common::tables`]: pure, no kernel, no
//! clock. The positions that must outlive a policy (a rule's row of counters, a set's watch bit, a DNS name's slot)
//! come from the [`Registry`]. [`Compiled`] implements [`Tables`](mpesa_fw_common::tables::Tables), so that the
//! kernel's own decision runs on the host.

mod address;
mod claims;
mod compiled;
mod digest;
mod error;
mod limited;
mod names;
mod owners;
mod registry;
mod rule_info;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::{collections::BTreeMap, sync::Arc};

use mpesa_fw_common::{
    Direction, RuleSet,
    settings::{Settings, feature},
    tables::{RULES, RuleIndex},
};

use crate::policy::model::Policy;

pub use compiled::{AddressTables, Compiled, GenerationTables};
pub use error::CompileError;
pub use names::AskedName;
pub use registry::{Assignment, Fresh, Registry, RegistryError, RegistryRows, RowOwner, Slots};

use address::{AddressSpec, Built};

/// Compiles a policy. `slots` must come from [`Registry::assign`] with the same policy.
///
/// The generation's number, the trace switch and the limiter's secret stay 0: they belong to the loading.
///
/// # Errors
/// Where the policy does not fit the tables: see [`CompileError`].
pub fn compile(policy: &Policy, slots: &Slots) -> Result<Compiled, CompileError> {
    check_rule_count(Direction::Ingress, policy.ingress.services.len())?;
    check_rule_count(Direction::Egress, policy.egress.allow.len())?;
    let watch_bits = watch::bits_in_file_order(policy)?;

    let source = address::build(&AddressSpec::source(policy, &watch_bits))?;
    let local = address::build(&AddressSpec::local(policy))?;
    let destination = address::build(&AddressSpec::destination(policy))?;
    let names = names::rules_by_name(policy);

    let mut compiled = Compiled {
        settings: settings(policy, [&source, &local, &destination]),
        tables: Arc::new(GenerationTables {
            address: [source.tables, local.tables, destination.tables],
            claims: [
                claims::claims(policy.ingress.services.iter().map(|s| s.claims.as_slice())),
                claims::claims(policy.egress.allow.iter().map(|d| d.claims.as_slice())),
            ],
            rule_info: rule_info::rule_info(policy, slots)?,
            name_rules: names::by_slot(&names, slots)?,
            asked_names: names::asked(&names, slots)?,
        }),
        owners: owners::rules(policy),
        present: BTreeMap::new(),
        digest: [0; 32],
    };
    limited::check(policy, &compiled.tables.claims[Direction::Ingress as usize])?;
    compiled.digest = digest::digest(&policy.source_digest, &compiled, &names);
    // Nobody has a copy yet.
    watch::move_to_slots(&mut Arc::make_mut(&mut compiled.tables).address, policy, slots)?;
    Ok(compiled)
}

fn settings(policy: &Policy, built: [&Built; 3]) -> Settings {
    let mut features = built.iter().fold(0, |all, table| all | table.features);
    if policy.ingress.services.iter().any(|s| !s.to.is_empty()) {
        features |= feature::LOCAL;
    }
    if policy.ingress.services.iter().any(|s| s.limit.is_some()) {
        features |= feature::LIMITS;
    }
    if policy.egress.allow.iter().any(|d| !d.names.is_empty()) {
        features |= feature::NAMES;
    }
    if policy.egress.refuses_attempts {
        features |= feature::REFUSES_ATTEMPTS;
    }
    Settings {
        windows: built.map(|table| table.window),
        outside: built.map(|table| table.outside.0),
        names_only: names::names_only(policy).0,
        owned: owners::owned(policy).map(|rules| rules.0),
        owned_by_users: owners::owned_by_users(policy).0,
        resolvers: names::resolvers(policy).0,
        limit_seed: 0,
        netns_cookie: 0,
        generation: 0,
        mode: policy.mode as u32,
        defaults: [policy.ingress.default as u32, policy.egress.default as u32],
        features,
        trace: 0,
        twin: 0,
        reserved: 0,
    }
}

fn check_rule_count(direction: Direction, count: usize) -> Result<(), CompileError> {
    if count > RULES {
        return Err(CompileError::TooManyRules { direction, count });
    }
    Ok(())
}

/// The set of the rules that satisfy `matches`, given all rules of a direction in file order.
fn rules_where<T>(rules: &[T], matches: impl Fn(&T) -> bool) -> RuleSet {
    rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| matches(rule))
        .fold(RuleSet::NONE, |set, (position, _)| set.or(only(position)))
}

/// The set of one rule. Positions were checked by [`check_rule_count`].
const fn only(position: usize) -> RuleSet {
    debug_assert!(position < RULES);
    RuleSet(1 << (position % RULES))
}

/// The index of a rule. Positions were checked by [`check_rule_count`].
fn rule_index(position: usize) -> RuleIndex {
    u8::try_from(position).ok().and_then(RuleIndex::new).unwrap_or(RuleIndex::NONE)
}
