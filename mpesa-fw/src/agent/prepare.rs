//! From a policy file to tables, off to the side: nothing here touches the kernel.

use std::path::PathBuf;

use super::{archive::Archive, error::AgentError, origin::Origin, owners, running::Running};
use crate::{
    compile::{self, Assignment, Compiled, Registry, RegistryRows},
    policy::{Finding, Texts, model::Policy},
};

/// A policy that is ready to be loaded.
pub struct Prepared {
    /// What the author wrote.
    pub policy: Policy,
    /// What the author should look at, a line each.
    pub warnings: Vec<String>,
    /// Positions of everything in it.
    pub assignment: Assignment,
    /// Its tables.
    pub compiled: Compiled,
    /// Its files, where they were read for it.
    pub texts: Texts,
    /// The rules file.
    pub rules: PathBuf,
    /// The generation whose kept text it is.
    pub text_of: Option<u32>,
}

impl Prepared {
    /// Reads and compiles. `rows` is the registry of the running generation.
    ///
    /// # Errors
    /// The policy is not valid, or does not fit.
    pub(super) fn read(wanted: &Origin, archive: &Archive, rows: &RegistryRows) -> Result<Self, AgentError> {
        let loaded = wanted.load(archive)?;
        let assignment = Registry::from_rows(rows).assign(&loaded.policy)?;
        let compiled = compile::compile(&loaded.policy, &assignment.slots)?;
        let warnings = loaded.warnings.iter().map(one_line).collect();
        Ok(Self {
            policy: loaded.policy,
            warnings,
            assignment,
            compiled,
            texts: loaded.texts,
            rules: wanted.rules().clone(),
            text_of: wanted.text_of(),
        })
    }

    /// The policy in force once more, for another choice of interfaces.
    ///
    /// # Errors
    /// It fitted before: none are expected.
    pub fn again(running: &Running, rows: &RegistryRows) -> Result<Self, AgentError> {
        let assignment = Registry::from_rows(rows).assign(&running.policy)?;
        let compiled = compile::compile(&running.policy, &assignment.slots)?;
        let (policy, warnings) = (running.policy.clone(), running.warnings.clone());
        let (rules, text_of) = (running.rules.clone(), running.text_of);
        Ok(Self { policy, warnings, assignment, compiled, texts: Texts::default(), rules, text_of })
    }

    /// Notes who of the owners is there, for whoever judges by it.
    pub(super) fn look_for_owners(&mut self) {
        self.compiled.present = owners::look(&self.compiled.owners, &mut |_| {}).rules;
    }

    /// Name slots that have a new owner while the running generation still knows them by another: their answers must
    /// not be in the table until the new generation judges.
    #[must_use]
    pub fn contested_name_slots(&self, rows: &RegistryRows) -> Vec<u16> {
        let before = Registry::from_rows(rows);
        let fresh = &self.assignment.fresh.name_slots;
        before
            .names()
            .filter(|owner| owner.in_use)
            .filter_map(|owner| u16::try_from(owner.row).ok())
            .filter(|slot| fresh.contains(slot))
            .collect()
    }
}

/// A finding in one line, for logs and `status`.
fn one_line(finding: &Finding) -> String {
    format!("{}:{}: {}", finding.file.display(), finding.line, finding.message)
}
