//! The policy in force against another one.

use std::{path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::agent::{Agent, AgentError, change::Change, kernel::beside, origin::Origin, prepare::Prepared};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DifferenceRequest {
    /// The policy file to compare with: an absolute path, read as a reload would read it.
    pub rules: PathBuf,
    /// Load it too, so that packets can be judged by it. It judges no others.
    pub load: bool,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// What a reload would change.
    pub change: Change,
    /// Number of the generation in force.
    pub generation: u32,
    /// By which packets can be judged by the other policy.
    pub candidate: Option<u64>,
    /// What the author or the admin should know.
    pub notes: Vec<String>,
}

impl Agent {
    /// Compares, and loads the other policy if that is wanted.
    ///
    /// # Errors
    /// The other policy is not valid or does not fit, or the kernel refuses it.
    pub async fn difference(self: &Arc<Self>, request: DifferenceRequest) -> Result<Difference, AgentError> {
        // Numbers of the registry must not move meanwhile.
        let one = self.change.lock().await;
        if self.state().detached {
            return Err(AgentError::Detached);
        }
        let running = Arc::clone(&self.state().current.running);
        let rows = self.kernel.with(|datapath| datapath.registry_rows().clone()).await;
        let (before, archive) = (Arc::clone(&running), self.archive.clone());
        let (prepared, change, contested) = beside(move || {
            let prepared = Prepared::read(&Origin::File(request.rules), &archive, &rows)?;
            let change = Change::between(&before.policy, &prepared.policy);
            let contested = !prepared.contested_name_slots(&rows).is_empty();
            Ok::<_, AgentError>((prepared, change, contested))
        })
        .await?;
        let mut notes = prepared.warnings.clone();
        let mut candidate = None;
        if request.load {
            notes.extend(unresolved(&running.policy, &prepared.policy));
            if contested {
                notes.push(
                    "the policy has so many new DNS names that one takes the place of another: packets to such names may be judged by the old one's addresses"
                        .to_owned(),
                );
            }
            let Prepared { policy, compiled, .. } = prepared;
            let serial = policy.serial;
            let twin = self.kernel.with(move |datapath| datapath.candidate(&compiled, serial)).await?;
            candidate = Some(self.keep_candidate(policy, twin));
        }
        drop(one);
        Ok(Difference { change, generation: running.stamp.number, candidate, notes })
    }
}

/// A note on names that nobody has asked DNS for yet.
fn unresolved(old: &crate::policy::model::Policy, new: &crate::policy::model::Policy) -> Option<String> {
    let known: Vec<&String> = old.egress.allow.iter().flat_map(|d| &d.names).collect();
    let fresh: Vec<&str> = new
        .egress
        .allow
        .iter()
        .flat_map(|d| &d.names)
        .filter(|n| !known.contains(n))
        .map(String::as_str)
        .collect();
    (!fresh.is_empty()).then(|| {
        format!(
            "not asked for before a reload, so that packets to them count as denied: {}",
            fresh.join(", ")
        )
    })
}
