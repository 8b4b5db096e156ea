//! Who opened connections to which destination, and who was denied, as the programs count it.

use std::io;

use mpesa_fw_common::{
    counter::{COUNTER_SLOTS, SLOT_EGRESS_NONE},
    tally::{Tally, TallyKey},
};

use super::{Datapath, Result, error::Context, registry::name_of, state::State};
use crate::{compile::RegistryRows, sys};

/// One count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// Whose; none: the table had no room for whoever it was.
    pub who: Option<Who>,
    /// Row of the destination.
    pub row: u32,
    /// Name of the destination; empty: none claims the packets.
    pub destination: String,
    /// How often.
    pub tally: Tally,
}

/// The owner of a socket, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// Id of the cgroup; 0: nobody's.
    pub cgroup: u64,
    /// Numeric id of the user.
    pub uid: u32,
}

impl Count {
    fn key(&self) -> Option<TallyKey> {
        self.who.map(|Who { cgroup, uid }| TallyKey { cgroup, uid, row: self.row })
    }
}

impl Datapath {
    /// All counts, since their entries were made.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn tallies(&self) -> Result<Vec<Count>> {
        read(&self.state, &self.registry).context(|| "read who opened connections")
    }

    /// Number of the map that they are read from: no other has it before the next boot.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn tallies_map(&self) -> Result<u32> {
        let info = sys::map_info(self.state.tallies.fd()).context(|| "look at the map TALLIES")?;
        Ok(info.id)
    }

    /// Removes counts that are as they were read. Those of owners that are gone: what is counted in between is lost.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_tallies(&self, counts: &[Count]) -> Result<()> {
        let remove = |(key, tally): (TallyKey, Tally)| -> io::Result<()> {
            if self.state.tallies.get(&key)? == Some(tally) {
                self.state.tallies.remove(&key)?;
            }
            Ok(())
        };
        let mut keys = counts.iter().filter_map(|count| Some((count.key()?, count.tally)));
        keys.try_for_each(remove).context(|| "remove counts of owners that are gone")
    }
}

fn read(state: &State, registry: &RegistryRows) -> io::Result<Vec<Count>> {
    let name = |row: u32| {
        let slot = registry.rules.get(row as usize).filter(|_| row != SLOT_EGRESS_NONE);
        slot.map_or_else(String::new, |slot| name_of(&slot.name))
    };
    let mut counts = Vec::new();
    state.tallies.for_each(|key, tally| {
        let who = Some(Who { cgroup: key.cgroup, uid: key.uid });
        counts.push(Count { who, row: key.row, destination: name(key.row), tally: *tally });
    })?;
    for row in 0..COUNTER_SLOTS as u32 {
        let tally = state.tallies_rest.get(&row)?.unwrap_or_default();
        if tally != Tally::default() {
            counts.push(Count { who: None, row, destination: name(row), tally });
        }
    }
    Ok(counts)
}

/// Forgets what is kept under rows that are about to have a new owner.
pub(super) fn forget(state: &State, rows: &[u32]) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut gone = Vec::new();
    state.tallies.for_each(|key, _| gone.extend(rows.contains(&key.row).then_some(*key)))?;
    for key in gone {
        state.tallies.remove(&key)?;
    }
    rows.iter().try_for_each(|row| state.tallies_rest.put(row, &Tally::default()))
}
