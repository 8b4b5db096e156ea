//! The tamper watch: what somebody else does to the datapath is noticed within two seconds, put right, counted and said.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{Agent, error::AgentError, kernel::beside};
use crate::datapath::{Attachment, TamperKind, Tampering};

/// How often the datapath is looked at. The kernel tells nobody of a filter or a pin that goes.
const EVERY: Duration = Duration::from_secs(1);
/// The longest pause between two tries to put a table right: each asks the verifier, and says that it failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Records kept.
const KEPT: usize = 50;

/// One thing that somebody did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TamperRecord {
    /// When it was noticed.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// A [`TamperKind`]'s label.
    pub kind: String,
    /// To what: `eth0 ingress`, a pin, a table.
    pub place: String,
    /// In a sentence.
    pub what: String,
    /// What is known of whoever did it.
    pub culprit: Option<String>,
    /// Whether it is as before.
    pub mended: bool,
}

/// What somebody did so far. It outlives the agent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct TamperLog {
    /// How often, by kind.
    pub counts: BTreeMap<String, u64>,
    /// The last of them, oldest first.
    pub last: VecDeque<TamperRecord>,
    /// What is not put right yet, and can be by the agent.
    #[serde(skip)]
    pending: Vec<Tampering>,
    /// Some of it has not been tried.
    #[serde(skip)]
    is_urgent: bool,
}

impl TamperLog {
    fn add(&mut self, found: &Tampering) {
        *self.counts.entry(found.kind.label().to_owned()).or_default() += 1;
        self.last.push_back(TamperRecord {
            time: OffsetDateTime::now_utc(),
            kind: found.kind.label().to_owned(),
            place: found.place.clone(),
            what: found.what.clone(),
            culprit: found.culprit.clone(),
            mended: found.mended,
        });
        let more = self.last.len().saturating_sub(KEPT);
        self.last.drain(..more);
    }

    /// How often, with a 0 for what never happened.
    pub(super) fn all_counts(&self) -> BTreeMap<String, u64> {
        let never = TamperKind::ALL.iter().map(|kind| (kind.label().to_owned(), 0));
        never.chain(self.counts.clone()).collect()
    }
}

impl Agent {
    /// Looks every second until the agent ends.
    pub(super) async fn watch_tampering(self: Arc<Self>) {
        let mut pause = EVERY;
        let mut again: Option<Instant> = None;
        loop {
            sleep(EVERY).await;
            self.look().await;
            let is_urgent = std::mem::take(&mut self.state().tampering.is_urgent);
            if is_urgent || again.is_some_and(|at| at <= Instant::now()) {
                let is_right = self.put_right().await;
                pause = if is_right { EVERY } else { LONGEST_PAUSE.min(pause * 2) };
                again = (!is_right).then(|| Instant::now() + pause);
            }
        }
    }

    /// Looks once, and takes note of what it finds.
    pub(super) async fn look(&self) {
        let running = Arc::clone(&self.state().current.running);
        let found = match self.kernel.with(move |datapath| datapath.look(&running.compiled)).await {
            Ok(found) => found,
            Err(error) => {
                self.say_once(format!("the datapath could not be looked at for changes by others: {error}"));
                return;
            }
        };
        self.note(found).await;
    }

    /// Takes note of what was found.
    pub(super) async fn note(&self, found: Vec<Tampering>) {
        if found.is_empty() {
            return;
        }
        for Tampering { kind, place, what, culprit, mended, .. } in &found {
            let culprit = culprit.as_deref().unwrap_or("unknown: the kernel keeps no record");
            tracing::error!(kind = kind.label(), %place, %culprit, put_right = mended, "tampering: {what}");
        }
        self.change_tamper_log(|log| {
            for tampering in found {
                log.add(&tampering);
                if !tampering.mended && matches!(tampering.kind, TamperKind::Hook | TamperKind::Table) {
                    log.is_urgent = true;
                    log.pending.push(tampering);
                }
            }
        })
        .await;
    }

    /// What only the agent can put right: hooks, by attaching again; tables, by another generation of the same policy.
    /// Whether the tables are.
    async fn put_right(&self) -> bool {
        let mut is_right = true;
        let is_table = |tampering: &Tampering| tampering.kind == TamperKind::Table;
        if self.state().tampering.pending.iter().any(is_table) {
            match self.renew().await {
                Ok(()) => self.note_mended(is_table).await,
                Err(error) => {
                    tracing::error!(
                        "tables that were changed stay as they are, which is tried again: {error}"
                    );
                    is_right = false;
                }
            }
        }
        self.resync().await;
        is_right
    }

    /// Takes note of hooks that are back.
    pub(super) async fn note_hooks(&self) {
        let attached = self.state().current.network.attachments.clone();
        let is_live = |index| attached.iter().any(|a: &Attachment| a.interface.index == index && a.live());
        self.note_mended(|tampering| tampering.interface.is_some_and(is_live)).await;
    }

    async fn note_mended(&self, is_mended: impl Fn(&Tampering) -> bool) {
        let mended: Vec<Tampering> = {
            let pending = &mut self.state().tampering.pending;
            pending.extract_if(.., |tampering| is_mended(tampering)).collect()
        };
        if mended.is_empty() {
            return;
        }
        for tampering in &mended {
            tracing::warn!(kind = tampering.kind.label(), place = %tampering.place, "put right");
        }
        self.change_tamper_log(|log| {
            for tampering in mended {
                let is_it = |record: &&mut TamperRecord| {
                    record.kind == tampering.kind.label() && record.place == tampering.place
                };
                if let Some(record) = log.last.iter_mut().rev().find(is_it) {
                    record.mended = true;
                }
            }
        })
        .await;
    }

    async fn change_tamper_log(&self, change: impl FnOnce(&mut TamperLog)) {
        let log = {
            let mut state = self.state();
            change(&mut state.tampering);
            state.tampering.clone()
        };
        let store = self.tampering_store.clone();
        if let Err(error) = beside(move || store.write(&log)).await {
            tracing::warn!(%error, "what others did to the datapath was not saved");
        }
    }

    /// Another generation of the policy in force.
    async fn renew(&self) -> Result<(), AgentError> {
        let _one = self.change.lock().await;
        if self.state().detached {
            return Err(AgentError::Detached);
        }
        let running = Arc::clone(&self.state().current.running);
        let before = self.state().current.before();
        let surroundings = super::install::Surroundings::look_leniently(&running.policy, &before).await?;
        self.install_again(&running, surroundings).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_bounded_and_counts_are_not() {
        let mut log = TamperLog::default();
        let found = Tampering {
            kind: TamperKind::Pin,
            place: "a".into(),
            what: "b".into(),
            culprit: None,
            interface: None,
            mended: true,
        };
        (0..200).for_each(|_| log.add(&found));
        assert_eq!((log.last.len(), log.counts["pin_removed"]), (KEPT, 200));
        assert_eq!(log.all_counts().len(), TamperKind::ALL.len());
        let text = serde_json::to_string(&log).unwrap();
        let again: TamperLog = serde_json::from_str(&text).unwrap();
        assert_eq!((again.counts, again.last), (log.counts, log.last));
    }
}
