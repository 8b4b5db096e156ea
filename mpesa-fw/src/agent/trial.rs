//! A generation on trial: unless somebody confirms it in time, the last confirmed one comes back.
//!
//! The record of it lies in the state directory from before the swap until the end of the trial, so that whoever is
//! left when the agent dies (its watchdog, or the next agent) knows what to do.

use std::{path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    Running, SshConnection,
    archive::KeptGeneration,
    clock,
    evidence::{Baseline, Evidence},
    hex,
    origin::Origin,
    store::Store,
};
use crate::policy::{self, Permissions};

/// Shortest and longest trial.
pub const BOUNDS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(24 * 3600));

/// What is on file of a trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrialRecord {
    /// What is on trial. Its number is 0 until it is in force.
    pub trial: KeptGeneration,
    /// What comes back.
    pub confirmed: KeptGeneration,
    /// When, in nanoseconds since the boot.
    pub deadline: u64,
    /// Of which boot.
    pub boot: String,
    /// It did come back: the files may still say what nobody confirmed.
    pub taken_back: bool,
    /// Whoever asked for the trial.
    pub caller: Option<SshConnection>,
}

impl TrialRecord {
    /// What is left of it; none where it is over, be it because the machine was started anew.
    #[must_use]
    pub(super) fn left(&self) -> Option<Duration> {
        let same_boot = clock::boot().is_ok_and(|boot| boot == self.boot);
        let left = self.deadline.checked_sub(clock::since_boot()).filter(|left| *left > 0);
        left.filter(|_| same_boot && !self.taken_back).map(Duration::from_nanos)
    }
}

impl TrialRecord {
    /// What to say of one that was taken back.
    pub(super) fn told(&self) -> String {
        format!(
            "nobody confirmed what {} says: in force is the policy of generation {}. \
             Change the file, or reload it with --confirm-within",
            self.trial.rules.display(),
            self.confirmed.number
        )
    }

    /// What stays on file when another generation comes into force that is on no trial. A file that still says what was taken
    /// back is not loaded by the next start, whatever is in force meanwhile (another file, an earlier generation); once that
    /// file was loaded with other words, or by force, there is nothing to remember.
    pub(super) fn after(self, next: Option<&KeptGeneration>) -> Option<Self> {
        let of_another_origin =
            |next: &&KeptGeneration| next.text_of.is_some() || next.rules != self.trial.rules;
        let confirmed = next.filter(of_another_origin)?.clone();
        self.taken_back.then_some(Self { confirmed, ..self })
    }
}

/// A trial that goes on.
pub(super) struct Trial {
    /// What is on file of it.
    pub record: TrialRecord,
    /// What judged packets before; none where an agent found the trial and its policy can't be had.
    pub previous: Option<Arc<Running>>,
    /// How things were at its begin.
    pub baseline: Baseline,
}

impl Trial {
    /// Of what has just come into force.
    #[must_use]
    pub(super) fn new(record: TrialRecord, previous: Arc<Running>, baseline: Baseline) -> Self {
        Self { record, previous: Some(previous), baseline }
    }
}

/// A trial, for who has to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// What is on trial.
    pub generation: u32,
    /// What comes back.
    pub confirmed: u32,
    /// Seconds until then.
    pub seconds_left: u64,
    /// When that is.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
    /// What speaks for it and against it.
    pub evidence: Evidence,
}

/// What an agent begins with.
pub(super) struct Begin {
    /// The policy.
    pub wanted: Origin,
    /// A trial that goes on.
    pub trial: Option<TrialRecord>,
    /// A trial that is over, and is to be noted as taken back once the policy is in force.
    pub taken_back: Option<TrialRecord>,
    /// Why that is not what the rules file says.
    pub note: Option<String>,
}

impl Begin {
    /// Decides. The rules file wins, unless what it says is on trial, or was and nobody confirmed it.
    #[must_use]
    pub(super) fn decide(store: &Store, rules: &Path) -> Self {
        let as_told = Self { wanted: Origin::File(rules.into()), trial: None, taken_back: None, note: None };
        let Some(record) = store.read::<TrialRecord>() else { return as_told };
        let file = record.trial.rules.display();
        // What has no number may not have come into force: whoever asked for it was told that it failed.
        if let Some(left) = record.left().filter(|_| record.trial.number != 0) {
            let seconds = left.as_secs();
            let note = format!(
                "the policy that is on trial ({file}) stays in force for {seconds} s more, unless it is confirmed"
            );
            let wanted = Origin::Kept(Box::new(record.trial.clone()));
            return Self { wanted, trial: Some(record), taken_back: None, note: Some(note) };
        }
        if record.taken_back && !says_what_was_taken_back(rules, &record) {
            return as_told;
        }
        let note = record.told();
        let wanted = Origin::Kept(Box::new(record.confirmed.clone()));
        Self { wanted, trial: None, taken_back: Some(record), note: Some(note) }
    }

    /// What the rules file says after all: what was kept can't be read.
    pub(super) fn fall_back(&mut self, rules: &Path, why: &dyn std::fmt::Display) {
        let note = format!(
            "the policy that should be in force after a reload on trial can't be had, in force is {}: {why}",
            rules.display()
        );
        *self = Self { wanted: Origin::File(rules.into()), trial: None, taken_back: None, note: Some(note) };
    }
}

/// Whether the files still say what nobody confirmed.
fn says_what_was_taken_back(rules: &Path, record: &TrialRecord) -> bool {
    policy::load(rules, Permissions::Check)
        .is_ok_and(|loaded| hex(&loaded.policy.source_digest) == record.trial.source_digest)
}
