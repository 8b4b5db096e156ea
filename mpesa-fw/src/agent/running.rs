//! The generation that judges packets, as the agent knows it.

use std::path::PathBuf;

use mpesa_fw_common::{Direction, Mode, tables::GenerationStamp};

use super::prepare::Prepared;
use crate::{
    compile::{Compiled, Slots},
    policy::model::{InterfacePattern, Policy},
};

/// A policy in force, with its tables.
pub struct Running {
    /// What the author wrote.
    pub policy: Policy,
    /// What the author should look at.
    pub warnings: Vec<String>,
    /// Its tables, with the number of the generation.
    pub compiled: Compiled,
    /// Positions of its rules, sets and names.
    pub slots: Slots,
    /// What the kernel knows of it.
    pub stamp: GenerationStamp,
    /// The file it was read from.
    pub rules: PathBuf,
    /// The generation whose kept text it is, where no file was read for it.
    pub text_of: Option<u32>,
}

impl Running {
    /// A prepared policy that has become a generation.
    #[must_use]
    pub fn new(prepared: Prepared, stamp: GenerationStamp) -> Self {
        let Prepared { policy, warnings, assignment, mut compiled, texts: _, rules, text_of } = prepared;
        compiled.settings.generation = stamp.number;
        Self { policy, warnings, compiled, slots: assignment.slots, stamp, rules, text_of }
    }

    /// Whether it drops what it denies.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.policy.mode
    }

    /// Its digest in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        hex(&self.stamp.digest)
    }

    /// The name of a rule, by its position; empty where there is none.
    #[must_use]
    pub fn rule(&self, direction: Direction, index: u8) -> &str {
        let index = usize::from(index);
        let name = match direction {
            Direction::Ingress => self.policy.ingress.services.get(index).map(|s| &s.name),
            Direction::Egress => self.policy.egress.allow.get(index).map(|d| &d.name),
        };
        name.map_or("", String::as_str)
    }

    /// Whether its interfaces depend on the default route.
    #[must_use]
    pub fn follows_default(&self) -> bool {
        self.policy.interfaces.contains(&InterfacePattern::Default)
    }
}

/// Bytes as people compare them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
