//! A policy becomes tables. (Provisional shapes of the datapath branch, replaced by branch `compile`.)
#![allow(missing_docs)]

use mpesa_fw_common::{
    settings::Settings,
    state::NameSlot,
    tables::{AddressClass, Block4, Bucket, Ids6, RuleInfo, RuleSet, Start6},
};

#[derive(Clone, Debug)]
pub struct AddressTables {
    pub index4: Vec<Bucket>,
    pub ranges4: Vec<Block4>,
    pub index6: Vec<Bucket>,
    pub starts6: Vec<Start6>,
    pub ids6: Vec<Ids6>,
    pub classes: Vec<AddressClass>,
}

#[derive(Clone, Debug)]
pub struct GenerationTables {
    pub address: [AddressTables; 3],
    pub claims: [Vec<RuleSet>; 2],
    pub rule_info: Vec<RuleInfo>,
    pub name_rules: Vec<RuleSet>,
}

#[derive(Clone, Debug)]
pub struct Compiled {
    pub settings: Settings,
    pub tables: GenerationTables,
    pub digest: [u8; 32],
}

#[derive(Clone, Debug, Default)]
pub struct RegistryRows {
    pub counters: Vec<NameSlot>,
    pub sets: Vec<NameSlot>,
    pub names: Vec<NameSlot>,
}
