//! The digest that names a generation's contents.

use std::collections::BTreeMap;

use mpesa_fw_common::{ABI_VERSION, RuleSet, settings::Settings, tables::RuleInfo};
use sha2::{Digest, Sha256};
use zerocopy::{Immutable, IntoBytes};

use super::{AddressTables, Compiled, GenerationTables};

/// Says what is hashed, and how, so that no other digest can be taken for this one.
const DOMAIN: &[u8] = b"mpesa-fw generation 1\0";

/// SHA-256 over the policy's files and everything that decides a verdict, in a fixed order and each with its length.
///
/// What differs between hosts with the same policy is left out: counter slots, the slots of names (they are hashed by
/// name), the bits of watched sets (see [`watch`](super::watch)), and what is only known at loading.
pub(super) fn digest(source: &[u8; 32], compiled: &Compiled, names: &BTreeMap<&str, RuleSet>) -> [u8; 32] {
    let Compiled { settings, tables, owners, present: _, digest: _ } = compiled;
    let GenerationTables { address, claims, rule_info, name_rules: _, asked_names: _ } = &**tables;
    let mut hash = Hash(Sha256::new());
    hash.bytes(DOMAIN);
    hash.bytes(&ABI_VERSION.to_le_bytes());
    hash.bytes(source);
    hash.settings(settings);
    for table in address {
        hash.address_tables(table);
    }
    for table in claims {
        hash.runs(table);
    }
    let without_slots: Vec<RuleInfo> =
        rule_info.iter().map(|rule| RuleInfo { counter_slot: 0, ..*rule }).collect();
    hash.elements(&without_slots);
    hash.length(owners.len());
    for (owner, rules) in owners {
        hash.bytes(owner.to_string().as_bytes());
        hash.bytes(rules.as_bytes());
    }
    hash.length(names.len());
    for (name, rules) in names {
        hash.bytes(name.as_bytes());
        hash.bytes(rules.as_bytes());
    }
    hash.0.finalize().into()
}

struct Hash(Sha256);

impl Hash {
    fn length(&mut self, length: usize) {
        self.0.update((length as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.update(bytes);
    }

    fn elements<T: IntoBytes + Immutable>(&mut self, table: &[T]) {
        self.bytes(table.as_bytes());
    }

    /// A table that consists of few runs of equal elements, as those runs: as exact, and some megabytes shorter.
    fn runs<T: IntoBytes + Immutable + PartialEq>(&mut self, table: &[T]) {
        self.length(table.len());
        for run in table.chunk_by(PartialEq::eq) {
            self.length(run.len());
            self.0.update(run[0].as_bytes());
        }
    }

    fn settings(&mut self, settings: &Settings) {
        let Settings {
            windows,
            outside,
            names_only,
            owned,
            owned_by_users,
            resolvers,
            limit_seed: _,
            netns_cookie: _,
            generation: _,
            mode,
            defaults,
            features,
            trace: _,
            twin: _,
            reserved: _,
        } = settings;
        self.elements(windows);
        self.elements(outside);
        self.bytes(names_only.as_bytes());
        self.bytes(owned.as_bytes());
        self.bytes(owned_by_users.as_bytes());
        self.bytes(resolvers.as_bytes());
        self.bytes(mode.as_bytes());
        self.bytes(defaults.as_bytes());
        self.bytes(features.as_bytes());
    }

    fn address_tables(&mut self, tables: &AddressTables) {
        let AddressTables { index4, ranges4, index6, starts6, ids6, classes } = tables;
        self.runs(index4);
        self.elements(ranges4);
        self.runs(index6);
        self.elements(starts6);
        self.elements(ids6);
        self.elements(classes);
    }
}
