//! Another policy, without a gap: all of it or nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    Agent, Running, SshConnection,
    archive::{Archive, KeptFile, KeptGeneration},
    change::Change,
    confirm::Pledge,
    cuts::{Before, Open},
    ended::Ended,
    error::{AgentError, Kind},
    evidence::Baseline,
    install::{Installed, Surroundings, Tell, install, learn_names, resolver_notes},
    kernel::beside,
    names::Names,
    notify,
    origin::Origin,
    prepare::Prepared,
    running::hex,
    start::{ATTEMPTS, is_interface_gone},
    trial::{Begin, Trial, TrialRecord, TrialStatus},
};
use crate::{
    compile::RegistryRows,
    fault::{self, Point},
};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadRequest {
    /// Which policy.
    pub policy: Asked,
    /// Even where that cuts connections.
    pub force: bool,
    /// The caller's own connection.
    pub caller: Option<SshConnection>,
    /// Only on trial, for so long.
    pub confirm_within: Option<Duration>,
}

/// A policy, by who asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// What the file in force says now.
    #[default]
    SameFile,
    /// Another file.
    File(PathBuf),
    /// An earlier generation, by its number.
    Generation(u32),
    /// The generation on trial is to go; without one, the generation in force.
    Back,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Number of the generation in force now.
    pub generation: u32,
    /// Its digest.
    pub digest: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// The file it was read from.
    pub rules: PathBuf,
    /// The generation whose kept text it is.
    #[serde(default)]
    pub text_of: Option<u32>,
    /// What is different.
    pub change: Change,
    /// Open connections that are no longer permitted.
    pub flows_removed: usize,
    /// Those whose sockets were ended for that, inbound ones too; of many only the first.
    #[serde(default)]
    pub ended: Vec<Ended>,
    /// How many those were.
    #[serde(default)]
    pub ended_total: usize,
    /// What the author or the admin should look at.
    pub warnings: Vec<String>,
    /// Where another file than that of `run --rules` is in force: it is not what a restart takes.
    pub after_restart: Option<PathBuf>,
    /// Its trial, if it is on one.
    #[serde(default)]
    pub trial: Option<TrialStatus>,
}

/// What is to come into force.
#[derive(Clone)]
struct Wish {
    origin: Origin,
    /// What to take where its text is lost: a return must not fail for that.
    spare: Option<Arc<Running>>,
    /// Even where that cuts connections.
    force: bool,
}

impl Wish {
    fn read(&self, archive: &Archive, rows: &RegistryRows) -> Result<Prepared, AgentError> {
        Prepared::read(&self.origin, archive, rows).or_else(|error| match &self.spare {
            Some(spare) => {
                tracing::error!("what was confirmed is taken from memory: {error}");
                Prepared::again(spare, rows)
            }
            None => Err(error),
        })
    }
}

/// A generation that has just come into force.
struct Swapped {
    installed: Installed,
    surroundings: Surroundings,
    names: Names,
    change: Change,
    /// Its files, or why their text is not kept.
    kept: Result<Vec<KeptFile>, String>,
    /// How things were before.
    baseline: Baseline,
}

impl Agent {
    /// Reloads. One at a time: a second one waits.
    ///
    /// # Errors
    /// See [`AgentError`]; nothing has changed then.
    pub async fn reload(&self, request: ReloadRequest) -> Result<Reloaded, AgentError> {
        let one = self.change.lock().await;
        self.reload_locked(request, one).await
    }

    /// With the lock of changes.
    pub(super) async fn reload_locked(
        &self,
        request: ReloadRequest,
        one: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Reloaded, AgentError> {
        notify::reloading();
        let is_back = request.policy == Asked::Back && self.state().trial.is_some();
        let result = self.reload_now(request).await;
        let label = match &result {
            Ok(_) if is_back => "reverted",
            Ok(_) => "ok",
            Err(error) => match error.kind() {
                Kind::Invalid => "invalid",
                Kind::Refused => "refused",
                Kind::Failed | Kind::Internal => "failed",
            },
        };
        match &result {
            Ok(done) => {
                tracing::info!(
                    generation = done.generation,
                    digest = &done.digest[..12],
                    result = label,
                    "reloaded"
                );
            }
            Err(error) => {
                tracing::error!(result = label, "nothing was reloaded, the policy in force stays: {error}")
            }
        }
        self.count_reload(label);
        fault::passed(Point::ReloadDone);
        drop(one);
        // Not before the answer: it takes a while after a large policy.
        tokio::task::spawn_blocking(crate::sys::trim_memory);
        notify::ready(self.state().protection.label());
        result
    }

    fn count_reload(&self, label: &str) {
        let reloads = {
            let mut state = self.state();
            *state.reloads.entry(label.to_owned()).or_default() += 1;
            state.reloads.clone()
        };
        if let Err(error) = self.reloads_store.write(&reloads) {
            tracing::warn!(%error, "the count of reloads was not saved");
        }
    }

    async fn reload_now(&self, request: ReloadRequest) -> Result<Reloaded, AgentError> {
        if self.state().detached {
            return Err(AgentError::Detached);
        }
        let old = self.state().current.running.clone();
        let is_back = request.policy == Asked::Back;
        let returned = if is_back { self.trial_record() } else { None };
        let spare =
            if is_back { self.state().trial.as_ref().and_then(|trial| trial.previous.clone()) } else { None };
        // Back to what was confirmed, whatever that cuts: somebody waits for it behind a closed door.
        let force = request.force || returned.is_some();
        let wanted = Wish { origin: self.wanted(&request)?, spare, force };
        let mut pledge = None;
        let swapped = match self.swap(&request, &wanted, &old, &mut pledge).await {
            Ok(swapped) => swapped,
            Err(error) => {
                // Whatever failed: nothing came into force, so there is nothing to take back.
                if let Some(pledge) = pledge {
                    self.withdraw(pledge).await;
                }
                return Err(error);
            }
        };
        let Swapped { installed, surroundings, names, change, kept, baseline } = swapped;
        let own: Vec<_> = surroundings.view.addresses.iter().map(|(_, a)| *a).collect();
        let mut notes = resolver_notes(&installed, &self.resolver().servers(), &own);
        let (flows_removed, ended) = (installed.flows_removed, installed.ended.clone());
        let trial = pledge.map(|pledge| Trial::new(pledge.record, Arc::clone(&old), baseline));
        notes.extend(returned.as_ref().map(TrialRecord::told));
        notes.extend(self.after_swap(&installed.running, kept, trial, returned).await);
        let current = installed.settle(surroundings, names, notes);
        let running = current.running.clone();
        let warnings = running.warnings.iter().chain(&current.notes).cloned().collect();
        self.event_log().learn(&running);
        self.twins.forget();
        self.state().current = current;
        self.tell_protection(Tell::Anew);
        self.wake_names.notify_one();
        self.wake_owners.notify_one();
        self.wake_ways.notify_one();
        Ok(Reloaded {
            generation: running.stamp.number,
            digest: hex(&running.stamp.digest),
            mode: running.mode().label().to_owned(),
            after_restart: self.after_restart(&running),
            rules: running.rules.clone(),
            text_of: running.text_of,
            change,
            flows_removed,
            ended: ended.listed,
            ended_total: ended.total,
            warnings,
            trial: self.trial_status().await,
        })
    }

    /// The rules file, where a restart would put something else in force than what is now.
    fn after_restart(&self, running: &Running) -> Option<PathBuf> {
        let begin = Begin::decide(&self.trial_store, &self.options.rules);
        let is_other = running.rules != self.options.rules || running.text_of.is_some();
        (is_other && matches!(begin.wanted, Origin::File(_))).then(|| self.options.rules.clone())
    }

    /// Reads, guards, promises and swaps. `pledge`: the promise that was given, whether or not the rest succeeds.
    async fn swap(
        &self,
        request: &ReloadRequest,
        wish: &Wish,
        old: &Arc<Running>,
        pledge: &mut Option<Pledge>,
    ) -> Result<Swapped, AgentError> {
        let force = wish.force;
        let mut attempt = 1;
        loop {
            let rows = self.kernel.with(|datapath| datapath.registry_rows().clone()).await;
            let (wish, archive, before) = (wish.clone(), self.archive.clone(), old.clone());
            let (mut prepared, change) = beside(move || {
                let prepared = wish.read(&archive, &rows)?;
                let change = Change::between(&before.policy, &prepared.policy);
                Ok::<_, AgentError>((prepared, change))
            })
            .await?;
            if !force && request.confirm_within.is_none() {
                self.refuse_what_was_taken_back(&prepared)?;
            }
            let (known, around, published) = {
                let current = &self.state().current;
                (current.names.clone(), current.before(), current.published.clone())
            };
            let resolver = self.resolver().current();
            let names = learn_names(&known, &prepared, resolver).await;
            let surroundings = Surroundings::look(&prepared.policy, &around).await?;
            if !force {
                let open = self.kernel.with(|datapath| Open::look(datapath)).await?;
                let (running, answers, caller) = (Arc::clone(old), published.clone(), request.caller);
                let (around, names) = (surroundings.clone(), names.clone());
                // As many connections, groups and interfaces as others make: that takes its time.
                prepared = beside(move || {
                    let before = Before::Policy(&running, answers);
                    around.guard(&mut prepared, &names, &before, &open, caller)?;
                    Ok::<_, AgentError>(prepared)
                })
                .await?;
            }
            let kept = self.keep(std::mem::take(&mut prepared.texts)).await;
            if let (Some(window), None) = (request.confirm_within, &pledge) {
                *pledge = Some(self.pledge(&prepared, &kept, window, request.caller).await?);
            }
            let baseline = self.kernel.with(|datapath| Baseline::take(datapath)).await?;
            self.collect_audit().await; // rows may change hands
            match install(&self.kernel, prepared, &surroundings, published, &names).await {
                Ok(installed) => {
                    return Ok(Swapped { installed, surroundings, names, change, kept, baseline });
                }
                Err(error) if is_interface_gone(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Which text is asked for.
    fn wanted(&self, request: &ReloadRequest) -> Result<Origin, AgentError> {
        let state = self.state();
        let current = &state.current.running;
        let on_trial = state.trial.as_ref();
        let to_file = |file: PathBuf| match on_trial {
            Some(trial) if request.confirm_within.is_none() => Err(AgentError::OnTrial {
                number: current.stamp.number,
                seconds: trial.record.left().unwrap_or_default().as_secs(),
            }),
            _ => Ok(Origin::File(file)),
        };
        match &request.policy {
            Asked::SameFile => to_file(current.rules.clone()),
            Asked::File(file) => to_file(file.clone()),
            Asked::Generation(number) => match self.archive.get(*number) {
                Some(kept) => Ok(Origin::Kept(Box::new(kept))),
                None => Err(AgentError::NotKept {
                    number: *number,
                    why: "it is not among those that are kept".into(),
                }),
            },
            Asked::Back => match on_trial {
                Some(trial) => Ok(Origin::Kept(Box::new(trial.record.confirmed.clone()))),
                None => {
                    let number = current.stamp.number;
                    let earlier = self.archive.list().into_iter().find(|kept| kept.number < number);
                    earlier.map(|kept| Origin::Kept(Box::new(kept))).ok_or(AgentError::NothingKept)
                }
            },
        }
    }

    /// Keeps the texts of a policy.
    ///
    /// # Errors
    /// Why they can't be kept, in words.
    pub(super) async fn keep(&self, texts: crate::policy::Texts) -> Result<Vec<KeptFile>, String> {
        if texts.0.is_empty() {
            return Err("it is known from memory alone".to_owned());
        }
        let archive = self.archive.clone();
        beside(move || archive.keep(&texts)).await.map_err(|error| error.to_string())
    }

    /// Notes on file what came into force; what to tell of it.
    pub(super) async fn after_swap(
        &self,
        running: &Running,
        kept: Result<Vec<KeptFile>, String>,
        mut trial: Option<Trial>,
        returned: Option<TrialRecord>,
    ) -> Vec<String> {
        let generation = kept.map(|files| KeptGeneration::new(running, files));
        let mut notes = Vec::new();
        if let (Some(trial), Ok(generation)) = (&mut trial, &generation) {
            trial.record.trial = generation.clone();
        }
        if let Err(error) = self.settle_trial(trial, returned, generation.as_ref().ok()).await {
            notes.push(format!("what is on file of the trial is not up to date: {error}"));
        }
        // Of a trial, and of one that was taken back: its text must not go.
        let confirmed = self.trial_store.read().map(|record: TrialRecord| record.confirmed);
        let recorded = match &generation {
            Ok(generation) => {
                let (archive, generation) = (self.archive.clone(), generation.clone());
                beside(move || archive.record(&generation, &confirmed.iter().collect::<Vec<_>>()))
                    .await
                    .map_err(|error| error.to_string())
            }
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = recorded {
            notes.push(format!("the text of this generation is not kept, nothing can go back to it: {why}"));
        }
        self.state().kept = generation.ok();
        notes
    }
}
