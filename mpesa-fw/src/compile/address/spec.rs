//! Which lists of prefixes make a table, and what each stands for.

use ipnet::IpNet;
use mpesa_fw_common::{
    RuleSet,
    tables::{AddressClass, AddressTable},
};

use crate::{
    compile::{only, rules_where},
    policy::model::{Addresses, Policy},
};

/// What one table is made of.
pub(in crate::compile) struct AddressSpec<'a> {
    pub(super) table: AddressTable,
    /// Rules that every address of both families satisfies.
    pub(super) any: RuleSet,
    pub(super) lists: Vec<PrefixList<'a>>,
}

/// Prefixes that all stand for the same.
pub(super) struct PrefixList<'a> {
    pub(super) class: AddressClass,
    pub(super) prefixes: &'a [IpNet],
}

impl<'a> AddressSpec<'a> {
    /// Who may send: `from` of the services, and what the sets watch (every set, used or not: a near miss is a
    /// drop *from* a watched prefix).
    pub(in crate::compile) fn source(policy: &'a Policy, watch_bits: &[u64]) -> Self {
        let from: Vec<&Addresses> = policy.ingress.services.iter().map(|service| &service.from).collect();
        let mut spec = Self::of_addresses(AddressTable::Source, &from, policy);
        for (set, bit) in policy.sets.iter().zip(watch_bits) {
            spec.add(AddressClass { rules: RuleSet::NONE, watch: *bit }, &set.watch);
        }
        spec
    }

    /// Which address of this host may receive: `to` of the services, without it all.
    pub(in crate::compile) fn local(policy: &'a Policy) -> Self {
        let services = &policy.ingress.services;
        let mut spec = Self {
            table: AddressTable::Local,
            any: rules_where(services, |service| service.to.is_empty()),
            lists: Vec::new(),
        };
        for (position, service) in services.iter().enumerate() {
            spec.add(AddressClass { rules: only(position), watch: 0 }, &service.to);
        }
        spec
    }

    /// Where packets may go: `to` of the destinations.
    pub(in crate::compile) fn destination(policy: &'a Policy) -> Self {
        let to: Vec<&Addresses> = policy.egress.allow.iter().map(|destination| &destination.to).collect();
        Self::of_addresses(AddressTable::Destination, &to, policy)
    }

    /// A set that several rules use is one list, so that it is swept once.
    fn of_addresses(table: AddressTable, rules: &[&'a Addresses], policy: &'a Policy) -> Self {
        let mut spec = Self { table, any: rules_where(rules, |addresses| addresses.any), lists: Vec::new() };
        for (position, addresses) in rules.iter().enumerate() {
            spec.add(AddressClass { rules: only(position), watch: 0 }, &addresses.prefixes);
        }
        for (number, set) in policy.sets.iter().enumerate() {
            let rules = rules_where(rules, |addresses| addresses.sets.contains(&number));
            spec.add(AddressClass { rules, watch: 0 }, &set.prefixes);
        }
        spec
    }

    fn add(&mut self, class: AddressClass, prefixes: &'a [IpNet]) {
        if class != AddressClass::default() && !prefixes.is_empty() {
            self.lists.push(PrefixList { class, prefixes });
        }
    }
}
