//! Who the owners of rules are now: a table of the generation that the agent keeps up to date.

use std::{collections::BTreeMap, os::fd::BorrowedFd, path::PathBuf};

use mpesa_fw_common::owner::{OwnerKey, OwnerRules};

use super::{Datapath, Result, cgroup, error::Context, generation::Staged, tables::OWNERS};
use crate::sys::KernelMap;

/// The rules of each owner that is there.
pub type PresentOwners = BTreeMap<OwnerKey, OwnerRules>;

impl Staged {
    /// Says who is there, before the generation judges anything.
    ///
    /// # Errors
    /// The kernel refuses, or there are more than the table holds.
    pub fn set_owners(&self, present: &PresentOwners) -> Result<()> {
        self.loaded.map(OWNERS).map_or(Ok(()), |map| set(map, present))
    }
}

impl Datapath {
    /// Says who is there, to the generation with this number. False: another one judges.
    ///
    /// # Errors
    /// As [`Staged::set_owners`].
    pub fn set_owners(&self, generation: u32, present: &PresentOwners) -> Result<bool> {
        let is_running = self.running().is_some_and(|stamp| stamp.number == generation);
        match self.loaded.as_ref().and_then(|loaded| loaded.map(OWNERS)) {
            Some(map) if is_running => set(map, present).map(|()| true),
            Some(_) | None => Ok(false),
        }
    }
}

/// Where the cgroups are.
///
/// # Errors
/// No cgroup v2 is mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    cgroup::root()
}

/// Those that are gone first: where there is no room, nobody is allowed who should not be.
fn set(map: BorrowedFd<'_>, present: &PresentOwners) -> Result<()> {
    let what = || "write the owners of rules";
    let map: KernelMap<OwnerKey, OwnerRules> =
        map.try_clone_to_owned().and_then(KernelMap::new).context(what)?;
    let mut known = BTreeMap::new();
    map.for_each(|key, rules| known.extend([(*key, *rules)])).context(what)?;
    for key in known.keys().filter(|key| !present.contains_key(key)) {
        map.remove(key).context(what)?;
    }
    for (key, rules) in present.iter().filter(|(key, rules)| known.get(key) != Some(rules)) {
        map.put(key, rules).context(what)?;
    }
    Ok(())
}
