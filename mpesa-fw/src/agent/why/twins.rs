//! The twins that an agent keeps at hand, while somebody asks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::super::{Agent, AgentError, Running};
use crate::{datapath::Twin, policy::model::Policy};

/// How long a twin that nobody asks stays loaded.
const IDLE: Duration = Duration::from_secs(300);

/// A policy that is not in force, ready to be asked.
pub(super) struct Candidate {
    pub(super) number: u64,
    pub(super) policy: Policy,
    pub(super) twin: Twin,
}

#[derive(Default)]
struct Kept {
    running: Option<Arc<Twin>>,
    candidate: Option<Arc<Candidate>>,
    candidates: u64,
    last_asked: Option<Instant>,
    /// Somebody waits to let them go.
    is_watched: bool,
}

/// What is kept at hand.
#[derive(Default)]
pub(in crate::agent) struct Twins(Mutex<Kept>);

impl Twins {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.last_asked = Some(Instant::now());
        kept
    }

    /// Lets all of them go: another generation is in force.
    pub(in crate::agent) fn forget(&self) {
        let mut kept = self.kept();
        (kept.running, kept.candidate) = (None, None);
    }

    /// Lets them go if nobody has asked for long; when to look again otherwise.
    fn rest(&self) -> Option<Duration> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = kept.last_asked.map_or(IDLE, |last| last.elapsed());
        if idle < IDLE {
            return Some(IDLE - idle);
        }
        (kept.running, kept.candidate, kept.is_watched) = (None, None, false);
        None
    }
}

impl Agent {
    /// The twin of the generation in force, loaded if need be, and the policy that it is of.
    pub(super) async fn running_twin(self: &Arc<Self>) -> Result<(Arc<Running>, Arc<Twin>), AgentError> {
        // No reload between the two.
        let _one = self.change.lock().await;
        if self.state().detached {
            return Err(AgentError::Detached);
        }
        let running = Arc::clone(&self.state().current.running);
        let known = self.twins.kept().running.clone();
        let twin = match known.filter(|twin| twin.stamp() == running.stamp) {
            Some(twin) => twin,
            None => Arc::new(self.kernel.with(|datapath| datapath.twin()).await?),
        };
        if twin.stamp() != running.stamp || twin.stamp().digest != running.compiled.digest {
            return Err(AgentError::Internal(
                "the datapath runs another generation than the agent".to_owned(),
            ));
        }
        self.twins.kept().running = Some(Arc::clone(&twin));
        self.watch_twins();
        Ok((running, twin))
    }

    /// Keeps a candidate, in the place of an earlier one; its number.
    pub(super) fn keep_candidate(self: &Arc<Self>, policy: Policy, twin: Twin) -> u64 {
        let mut kept = self.twins.kept();
        kept.candidates += 1;
        let number = kept.candidates;
        kept.candidate = Some(Arc::new(Candidate { number, policy, twin }));
        drop(kept);
        self.watch_twins();
        number
    }

    /// A candidate that is kept.
    pub(super) fn candidate(&self, number: u64) -> Result<Arc<Candidate>, AgentError> {
        let known = self.twins.kept().candidate.clone();
        known.filter(|candidate| candidate.number == number).ok_or_else(|| {
            AgentError::Question(
                "the policy to compare with is not loaded any more: somebody reloaded, or compares too; run it again"
                    .to_owned(),
            )
        })
    }

    fn watch_twins(self: &Arc<Self>) {
        {
            let mut kept = self.twins.kept();
            if std::mem::replace(&mut kept.is_watched, true) {
                return;
            }
        }
        let agent = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut wait = IDLE;
            loop {
                tokio::time::sleep(wait).await;
                match agent.upgrade().map(|agent| agent.twins.rest()) {
                    Some(Some(more)) => wait = more,
                    Some(None) | None => return,
                }
            }
        });
    }
}
