//! Another policy, without a gap: all of it or nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    Agent, SshConnection,
    change::Change,
    error::{AgentError, Kind},
    install::{Surroundings, Tell, install, learn_names, resolver_notes},
    kernel::beside,
    notify,
    prepare::Prepared,
    running::hex,
    start::{ATTEMPTS, is_interface_gone},
};
use crate::fault::{self, Point};

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadRequest {
    /// Another file than the one in force.
    pub rules: Option<PathBuf>,
    /// Even where that cuts the caller's own connection.
    pub force: bool,
    /// The caller's own connection.
    pub caller: Option<SshConnection>,
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
    /// What is different.
    pub change: Change,
    /// Open connections that are no longer permitted.
    pub flows_removed: usize,
    /// What the author or the admin should look at.
    pub warnings: Vec<String>,
    /// Where another file than that of `run --rules` is in force: it is not what a restart takes.
    pub after_restart: Option<PathBuf>,
}

impl Agent {
    /// Reloads. One at a time: a second one waits.
    ///
    /// # Errors
    /// See [`AgentError`]; nothing has changed then.
    pub async fn reload(&self, request: ReloadRequest) -> Result<Reloaded, AgentError> {
        let one = self.change.lock().await;
        notify::reloading();
        let result = self.reload_now(request).await;
        let label = match &result {
            Ok(_) => "ok",
            Err(error) => match error.kind() {
                Kind::Invalid => "invalid",
                Kind::Refused => "refused",
                Kind::Failed | Kind::Internal => "failed",
            },
        };
        match &result {
            Ok(done) => tracing::info!(generation = done.generation, digest = &done.digest[..12], "reloaded"),
            Err(error) => {
                tracing::error!(result = label, "nothing was reloaded, the policy in force stays: {error}")
            }
        }
        let reloads = {
            let mut state = self.state();
            *state.reloads.entry(label.to_owned()).or_default() += 1;
            state.reloads.clone()
        };
        if let Err(error) = self.reloads_store.write(&reloads) {
            tracing::warn!(%error, "the count of reloads was not saved");
        }
        fault::passed(Point::ReloadDone);
        drop(one);
        // Not before the answer: it takes a while after a large policy.
        tokio::task::spawn_blocking(crate::sys::trim_memory);
        notify::ready(self.state().protection.label());
        result
    }

    async fn reload_now(&self, request: ReloadRequest) -> Result<Reloaded, AgentError> {
        if self.state().detached {
            return Err(AgentError::Detached);
        }
        let old = self.state().current.running.clone();
        let rules = request.rules.unwrap_or_else(|| old.rules.clone());
        let mut attempt = 1;
        let (installed, surroundings, names, change) = loop {
            let rows = self.kernel.with(|datapath| datapath.registry_rows().clone()).await;
            let (path, before) = (rules.clone(), old.clone());
            let (prepared, change) = beside(move || {
                let prepared = Prepared::read(&path, &rows)?;
                let change = Change::between(&before.policy, &prepared.policy);
                Ok::<_, AgentError>((prepared, change))
            })
            .await?;
            let (known, around) = {
                let current = &self.state().current;
                (current.names.clone(), current.before())
            };
            let resolver = self.resolver().current();
            let names = learn_names(&known, &prepared, resolver).await;
            let surroundings = Surroundings::look(&prepared.policy, &around).await?;
            if !request.force {
                surroundings.guard(&prepared, &names, request.caller)?;
            }
            let published = self.state().current.published.clone();
            match install(&self.kernel, prepared, rules.clone(), &surroundings, published, &names).await {
                Ok(installed) => break (installed, surroundings, names, change),
                Err(error) if is_interface_gone(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        let own: Vec<_> = surroundings.view.addresses.iter().map(|(_, a)| *a).collect();
        let notes = resolver_notes(&installed, &self.resolver().servers(), &own);
        let flows_removed = installed.flows_removed;
        let current = installed.settle(surroundings, names, notes);
        let running = current.running.clone();
        let warnings = running.warnings.iter().chain(&current.notes).cloned().collect();
        self.event_log().learn(&running);
        self.twins.forget();
        self.state().current = current;
        self.tell_protection(Tell::Anew);
        self.wake_names.notify_one();
        Ok(Reloaded {
            generation: running.stamp.number,
            digest: hex(&running.stamp.digest),
            mode: running.mode().label().to_owned(),
            after_restart: (running.rules != self.options.rules).then(|| self.options.rules.clone()),
            rules: running.rules.clone(),
            change,
            flows_removed,
            warnings,
        })
    }
}
