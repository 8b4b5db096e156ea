//! Programs that are told at once where they may not connect or send: by which way packets leave, and how many were refused.

use std::{collections::BTreeMap, io};

use mpesa_fw_common::{
    attempt::{Refusals, Way, WayKey},
    counter::SLOT_EGRESS_NONE,
    settings::Direction,
};

use super::{
    Datapath, Result,
    cgroup::CgroupProgram,
    counters::{direction_of, in_use},
    error::Context,
    registry::name_of,
    state::State,
};
use crate::compile::RegistryRows;

/// A trie is read by two calls an entry, some microseconds: so many in a second nobody notices.
const FEW: usize = 512;
/// Of more, each so manieth look.
const SELDOM: u64 = 16;

impl Datapath {
    /// Says by which way packets to each prefix leave, instead of what was said before. Nothing is refused meanwhile, nor later until
    /// [`lease_ways`](Self::lease_ways).
    ///
    /// # Errors
    /// The kernel refuses, for want of room maybe.
    pub fn set_ways(&self, ways: &BTreeMap<WayKey, Way>) -> Result<()> {
        self.put_ways(ways.iter().map(|(key, way)| (*key, *way as u32)).collect())
    }

    fn put_ways(&self, ways: BTreeMap<WayKey, u32>) -> Result<()> {
        self.end_lease()?;
        let map = &self.state.ways;
        self.state.written.borrow_mut().ways = None;
        let known = self.read_ways()?;
        for key in known.keys().filter(|key| !ways.contains_key(key)) {
            map.remove(key).context(|| "forget a way by which packets left")?;
        }
        for (key, way) in ways.iter().filter(|(key, way)| known.get(key) != Some(way)) {
            map.put(key, way).context(|| "say by which way packets leave")?;
        }
        self.state.written.borrow_mut().ways = Some(ways);
        Ok(())
    }

    fn read_ways(&self) -> Result<BTreeMap<WayKey, u32>> {
        let mut known = BTreeMap::new();
        let read = self.state.ways.for_each(|key, way| known.extend([(*key, *way)]));
        read.context(|| "read by which ways packets leave").map(|()| known)
    }

    /// Whether somebody else wrote into the ways; where there are many, not at each look.
    pub(super) fn are_ways_changed(&self) -> Result<bool> {
        let written = self.state.written.borrow();
        let Some(ways) = &written.ways else { return Ok(false) };
        if ways.len() > FEW && !self.looks.is_multiple_of(SELDOM) {
            return Ok(false);
        }
        Ok(self.read_ways()? != *ways)
    }

    /// Writes them again, and knows them also where that fails. Nothing is refused until the agent says again how long they hold.
    pub(super) fn restore_ways(&self) -> Result<()> {
        let ways = self.state.written.borrow().ways.clone().unwrap_or_default();
        let written = self.put_ways(ways.clone());
        self.state.written.borrow_mut().ways = Some(ways);
        written
    }

    /// Attempts that were refused, or told of and let go, by the destination that is charged; empty: none claims them.
    /// None: programs are not asked (the policy says so, no cgroup v2, or somebody detached them).
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn refusals(&self) -> Result<Option<Vec<(String, Refusals)>>> {
        if CgroupProgram::Connect4.attached(&self.pins).is_none() {
            return Ok(None);
        }
        read(&self.state, &self.registry).context(|| "read the counts of refused attempts").map(Some)
    }
}

fn read(state: &State, registry: &RegistryRows) -> io::Result<Vec<(String, Refusals)>> {
    let rows = in_use(&registry.rules)
        .filter(|(row, slot)| *row != SLOT_EGRESS_NONE && direction_of(slot) == Direction::Egress)
        .map(|(row, slot)| (row, name_of(&slot.name)));
    std::iter::once((SLOT_EGRESS_NONE, String::new()))
        .chain(rows)
        .map(|(row, rule)| Ok((rule, state.refusals.get(&row)?.unwrap_or_default())))
        .collect()
}

/// Forgets what is kept under rows that are about to have a new owner.
pub(super) fn forget(state: &State, rows: &[u32]) -> io::Result<()> {
    rows.iter().try_for_each(|row| state.refusals.put(row, &Refusals::default()))
}
