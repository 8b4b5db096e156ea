//! The positions of everything in one policy.

use std::collections::BTreeMap;

use mpesa_fw_common::Direction;

use crate::compile::CompileError;

/// The positions of everything in one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// Row of counters of each rule.
    pub rules: BTreeMap<(Direction, String), u32>,
    /// Watch bit of each set with `watch`.
    pub sets: BTreeMap<String, u8>,
    /// Slot of each DNS name.
    pub names: BTreeMap<String, u16>,
}

impl Slots {
    /// The row of a rule.
    pub(in crate::compile) fn rule(&self, direction: Direction, name: &str) -> Result<u32, CompileError> {
        let no_slot = || CompileError::NoSlot { what: "rule", name: name.to_owned() };
        self.rules.get(&(direction, name.to_owned())).copied().ok_or_else(no_slot)
    }
}
