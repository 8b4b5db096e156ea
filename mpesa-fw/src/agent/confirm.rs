//! Trials: begun by a reload, ended by a confirmation, by a return, or by their deadline.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{
    Agent, EventRecord, Running, SshConnection, Wanted,
    archive::{KeptFile, KeptGeneration},
    clock,
    error::AgentError,
    evidence::Scene,
    hex,
    kernel::beside,
    prepare::Prepared,
    reload::{Asked, ReloadRequest},
    store::Store,
    trial::{BOUNDS, Trial, TrialRecord, TrialStatus},
    watchdog,
};
use crate::fault::{self, Point};

/// Pause before a return that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The promise, on file, that what comes into force next is taken back.
pub(super) struct Pledge {
    /// What is on file now.
    pub record: TrialRecord,
    /// What was before.
    before: Option<TrialRecord>,
}

/// A generation that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Its number.
    pub generation: u32,
    /// What had been seen of it.
    pub trial: TrialStatus,
}

impl Agent {
    /// Promises to take back what comes into force next. Whatever happens to this process from here on, the promise is
    /// on file, and a watchdog waits.
    ///
    /// # Errors
    /// The promise can't be given: there must be no trial then.
    pub(super) async fn pledge(
        &self,
        prepared: &Prepared,
        kept: &Result<Vec<KeptFile>, String>,
        window: Duration,
        caller: Option<SshConnection>,
    ) -> Result<Pledge, AgentError> {
        let no = |why: String| AgentError::CannotTry { why };
        if !(BOUNDS.0..=BOUNDS.1).contains(&window) {
            let (least, most) = (BOUNDS.0.as_secs(), BOUNDS.1.as_secs() / 3600);
            return Err(no(format!("a trial takes {least} s to {most} h, not {} s", window.as_secs())));
        }
        let files = kept.as_ref().map_err(|why| no(format!("its text can't be kept: {why}")))?.clone();
        let before = self.trial_store.read();
        let confirmed = {
            let state = self.state();
            let of_trial = state.trial.as_ref().map(|trial| trial.record.confirmed.clone());
            of_trial.or_else(|| state.kept.clone())
        };
        let confirmed = confirmed.ok_or_else(|| {
            no("the text of the generation in force is not kept: nothing could come back".into())
        })?;
        let record = TrialRecord {
            trial: KeptGeneration::on_trial(prepared, files),
            confirmed,
            deadline: clock::since_boot() + u64::try_from(window.as_nanos()).unwrap_or(u64::MAX),
            boot: clock::boot().map_err(|error| no(format!("this boot has no name: {error}")))?,
            taken_back: false,
            caller,
        };
        let (archive, texts) = (self.archive.clone(), [record.trial.clone(), record.confirmed.clone()]);
        let synced = beside(move || archive.sync(texts.each_ref())).await;
        synced.map_err(|error| {
            no(format!("its text, or the one to come back to, is not on the disk: {error}"))
        })?;
        self.file_trial(&record).await.map_err(|error| no(error.to_string()))?;
        fault::passed(Point::TrialPledged);
        let pledge = Pledge { record, before };
        if let Err(error) = watchdog::spawn(&self.options) {
            self.withdraw(pledge).await;
            return Err(no(format!("the watchdog does not start: {error}")));
        }
        Ok(pledge)
    }

    /// Nothing came into force after all. An earlier trial goes on, and has a watchdog again: its own ended when it read of another.
    pub(super) async fn withdraw(&self, pledge: Pledge) {
        let put_back = match &pledge.before {
            Some(record) => self.file_trial(record).await,
            None => self.unfile_trial().await,
        };
        if let Err(error) = put_back {
            tracing::error!(%error, "what is on file of a trial that did not begin could not be removed");
        }
        let goes_on = pledge.before.is_some_and(|record| !record.taken_back && record.left().is_some());
        if goes_on && let Err(error) = watchdog::spawn(&self.options) {
            tracing::error!(%error, "the earlier trial goes on without a watchdog: an agent that hangs will not take it back");
        }
    }

    async fn file_trial(&self, record: &TrialRecord) -> std::io::Result<()> {
        let (store, record) = (self.trial_store.clone(), record.clone());
        beside(move || store.write_durably(&record)).await
    }

    async fn unfile_trial(&self) -> std::io::Result<()> {
        let store = self.trial_store.clone();
        beside(move || store.remove_durably()).await
    }

    /// Another generation is in force: on a trial, as the return from one (`returned`), or as neither. `kept`: what is kept of
    /// it.
    ///
    /// # Errors
    /// The state directory can't be written. What is known in memory is right all the same.
    pub(super) async fn settle_trial(
        &self,
        trial: Option<Trial>,
        returned: Option<TrialRecord>,
        kept: Option<&KeptGeneration>,
    ) -> std::io::Result<()> {
        let record = match (&trial, returned) {
            (Some(trial), _) => Some(trial.record.clone()),
            (None, Some(record)) => Some(TrialRecord { taken_back: true, ..record }),
            (None, None) => self.trial_store.read().and_then(|record: TrialRecord| record.after(kept)),
        };
        self.state().trial = trial;
        let filed = match &record {
            Some(record) => self.file_trial(record).await,
            None => self.unfile_trial().await,
        };
        fault::passed(Point::TrialSettled);
        self.wake_trial.notify_one();
        filed
    }

    pub(super) fn trial_record(&self) -> Option<TrialRecord> {
        self.state().trial.as_ref().map(|trial| trial.record.clone())
    }

    /// What nobody confirmed is not reloaded by accident.
    ///
    /// # Errors
    /// It is what was taken back.
    pub(super) fn refuse_what_was_taken_back(&self, prepared: &Prepared) -> Result<(), AgentError> {
        let Some(record) = self.trial_store.read::<TrialRecord>().filter(|record| record.taken_back) else {
            return Ok(());
        };
        if record.trial.source_digest != hex(&prepared.policy.source_digest) {
            return Ok(());
        }
        Err(AgentError::TakenBack { rules: prepared.rules.clone() })
    }

    /// What is on trial stays. `generation`: only if that is what is on trial.
    ///
    /// # Errors
    /// Nothing is on trial, or something else, or that can't be noted: the trial goes on then.
    pub async fn confirm(&self, generation: Option<u32>) -> Result<Confirmed, AgentError> {
        let _one = self.change.lock().await;
        let number = self.state().current.running.stamp.number;
        let Some(record) = self.trial_record() else { return Err(AgentError::NoTrial) };
        if let Some(asked) = generation.filter(|asked| *asked != number) {
            return Err(AgentError::AnotherTrial { asked, on_trial: number });
        }
        if record.left().is_none() {
            return Err(AgentError::TooLate { number });
        }
        let trial = self.trial_status().await.ok_or(AgentError::NoTrial)?;
        // The one step that decides: whoever reads the file after it finds no trial.
        let path = self.options.state_dir.join(TrialRecord::FILE);
        self.unfile_trial().await.map_err(AgentError::file("confirm: cannot remove", path))?;
        fault::passed(Point::TrialConfirmed);
        self.state().trial = None;
        self.wake_trial.notify_one();
        tracing::info!(generation = number, "confirmed: it stays");
        Ok(Confirmed { generation: number, trial })
    }

    /// The policy in force has become another generation, for another choice of interfaces.
    pub(super) async fn renumber(&self, running: &Running) {
        let (kept, trial) = {
            let mut state = self.state();
            let digest = running.digest();
            if let Some(kept) = &mut state.kept {
                (kept.number, kept.digest) = (running.stamp.number, digest);
            }
            let kept = state.kept.clone();
            if let (Some(trial), Some(kept)) = (&mut state.trial, &kept) {
                trial.record.trial = kept.clone();
            }
            (kept, state.trial.as_ref().map(|trial| trial.record.clone()))
        };
        let filed = match (&trial, kept) {
            (_, None) => Ok(()),
            (trial, Some(kept)) => {
                let (archive, confirmed) =
                    (self.archive.clone(), trial.as_ref().map(|t| t.confirmed.clone()));
                beside(move || archive.record(&kept, &confirmed.iter().collect::<Vec<_>>())).await
            }
        };
        let filed = match trial {
            Some(record) if filed.is_ok() => self.file_trial(&record).await,
            _ => filed,
        };
        if let Err(error) = filed {
            tracing::warn!(%error, "the new number of this generation is not on file");
        }
    }

    /// Waits for the end of trials.
    pub(super) async fn watch_trial(self: std::sync::Arc<Self>) {
        loop {
            let left = self.trial_record().map(|record| record.left());
            match left {
                None => self.wake_trial.notified().await,
                Some(Some(left)) => tokio::select! {
                    () = sleep(left) => {}
                    () = self.wake_trial.notified() => {}
                },
                Some(None) => {
                    if let Err(error) = self.take_back().await {
                        tracing::error!("what was on trial could not be taken back, trying again: {error}");
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    }

    async fn take_back(&self) -> Result<(), AgentError> {
        let one = self.change.lock().await;
        if self.trial_record().is_none_or(|record| record.left().is_some()) {
            return Ok(()); // confirmed, or another one, while this waited for the lock
        }
        tracing::warn!("nobody confirmed what was on trial: the generation before it comes back");
        let request = ReloadRequest { policy: Asked::Back, force: true, ..ReloadRequest::default() };
        self.reload_locked(request, one).await.map(drop)
    }

    /// The trial that goes on, with what was seen of it so far.
    pub async fn trial_status(&self) -> Option<TrialStatus> {
        let scene = {
            let state = self.state();
            let trial = state.trial.as_ref()?;
            let current = &state.current;
            Scene {
                kernel: self.kernel.clone(),
                previous: trial.previous.clone(),
                baseline: trial.baseline.clone(),
                caller: trial.record.caller,
                running: current.running.clone(),
                own: current.network.own_addresses(),
                published: current.published.clone(),
                events: Vec::new(),
            }
        };
        let packets = |event| match event {
            EventRecord::Packet(packet) => Some(packet),
            EventRecord::Attempt(_) | EventRecord::Listener(_) => None,
        };
        let events = self.last_events(super::kept::KEPT, &Wanted::default()).unwrap_or_default();
        let scene = Scene { events: events.into_iter().filter_map(packets).collect(), ..scene };
        let record = self.trial_record()?;
        let evidence = beside(move || scene.evidence()).await;
        let left = record.left().unwrap_or_default();
        Some(TrialStatus {
            generation: self.state().current.running.stamp.number,
            confirmed: record.confirmed.number,
            seconds_left: left.as_secs(),
            until: clock::at(clock::unix()) + left,
            evidence,
        })
    }

    /// The generations that are kept, the last first.
    pub async fn generations(&self) -> Vec<KeptGeneration> {
        let archive = self.archive.clone();
        beside(move || archive.list()).await
    }
}

impl TrialRecord {
    /// Its name in the state directory.
    pub(super) const FILE: &str = "trial.json";

    /// Where it is.
    #[must_use]
    pub(super) fn store(state_dir: &std::path::Path) -> Store {
        Store::new(state_dir, Self::FILE)
    }
}
