//! What the programs learnt from answers of resolvers: which addresses are whose, and until when.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use mpesa_fw_common::dns::{LearnOutcome, LearntName, tick};

use nix::time::{ClockId, clock_gettime};

use super::{Datapath, Result, error::Context, state::State};

/// Ticks for which an address that a flow uses is kept at each look. Looks are half a minute apart.
const KEPT: u32 = 300;

/// The names (slots of the registry) that each address is an answer to now.
pub type LearntNames = BTreeMap<IpAddr, Vec<u16>>;

impl Datapath {
    /// What was learnt and counts now.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn learnt(&self) -> Result<LearntNames> {
        let now = now()?;
        let mut names = LearntNames::new();
        let read = self.state.learnt.for_each(|address, learnt| {
            let live: Vec<u16> = learnt.iter().filter_map(|name| name.live(now)).collect();
            if !live.is_empty() {
                names.insert((*address).into(), live);
            }
        });
        read.context(|| "read what was learnt from answers of DNS")?;
        Ok(names)
    }

    /// Forgets what is over, but for addresses in use, which are kept: for the names that they were an answer to at the last look. Before
    /// anything was loaded there may have been no look for long, and what is over then is kept as well.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn keep_learnt(&self, in_use: &BTreeSet<IpAddr>) -> Result<()> {
        let what = || "look through what was learnt from answers of DNS";
        let now = now()?;
        let (mut over, mut kept) = (Vec::new(), Vec::new());
        let since = if self.loaded.is_none() { 0 } else { now.saturating_sub(KEPT / 2) };
        let longer = |name: LearntName| match name.slot() {
            Some(slot) if (since..now + KEPT / 2).contains(&name.until()) => {
                LearntName::new(slot, now + KEPT)
            }
            Some(_) | None => name,
        };
        let read = self.state.learnt.for_each(|address, learnt| {
            if in_use.contains(&IpAddr::from(*address)) {
                let names = learnt.map(longer);
                if names != *learnt {
                    kept.push((*address, names));
                }
            } else if learnt.iter().all(|name| name.live(now).is_none()) {
                over.push(*address);
            }
        });
        read.context(what)?;
        // An answer that comes at this very moment is overwritten: the next one is learnt again.
        kept.iter()
            .try_for_each(|(at, names)| self.state.learnt.replace(at, names).map(drop))
            .context(what)?;
        over.iter().try_for_each(|at| self.state.learnt.remove(at).map(drop)).context(what)
    }

    /// What became of answers, since the maps were made.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn learning(&self) -> Result<BTreeMap<LearnOutcome, u64>> {
        let counts = self.state.learning.per_cpu(&0).context(|| "read the counts of answers of DNS")?;
        let of = |outcome: LearnOutcome| counts.iter().map(|count| count.outcomes[outcome as usize]).sum();
        Ok(LearnOutcome::ALL.into_iter().map(|outcome| (outcome, of(outcome))).collect())
    }
}

/// Takes name slots out of what was learnt: they are about to belong to other names.
pub(super) fn purge(state: &State, slots: &[u16]) -> io::Result<()> {
    let mut changed = Vec::new();
    state.learnt.for_each(|address, learnt| {
        let kept = learnt.map(|name| match name.slot() {
            Some(slot) if slots.contains(&slot) => LearntName::default(),
            Some(_) | None => name,
        });
        if kept != *learnt {
            changed.push((*address, kept));
        }
    })?;
    for (address, names) in changed {
        if names.iter().all(|name| name.slot().is_none()) {
            state.learnt.remove(&address)?;
        } else {
            state.learnt.replace(&address, &names)?;
        }
    }
    Ok(())
}

/// The tick that the programs are at.
fn now() -> Result<u32> {
    let now =
        clock_gettime(ClockId::CLOCK_MONOTONIC).map_err(io::Error::from).context(|| "read the clock")?;
    Ok(tick(Duration::from(now).as_nanos() as u64))
}
