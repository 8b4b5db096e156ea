//! Who the owners of rules are now: a table of the generation that the agent keeps up to date.

use std::{collections::BTreeMap, io, path::PathBuf};

use mpesa_fw_common::owner::{OwnerKey, OwnerRules};

use super::{Datapath, Result, cgroup, error::Context, generation::Staged, loaded::Loaded, tables::OWNERS};
use crate::sys::KernelMap;

/// The rules of each owner that is there.
pub type PresentOwners = BTreeMap<OwnerKey, OwnerRules>;

impl Staged {
    /// Says who is there, before the generation judges anything.
    ///
    /// # Errors
    /// The kernel refuses, or there are more than the table holds.
    pub fn set_owners(&mut self, present: &PresentOwners) -> Result<()> {
        set(&mut self.loaded, present).map(drop)
    }
}

impl Datapath {
    /// Says who is there, to the generation with this number. False: another one judges.
    ///
    /// # Errors
    /// As [`Staged::set_owners`].
    pub fn set_owners(&mut self, generation: u32, present: &PresentOwners) -> Result<bool> {
        let is_running = self.running().is_some_and(|stamp| stamp.number == generation);
        match &mut self.loaded {
            Some(loaded) if is_running => set(loaded, present),
            Some(_) | None => Ok(false),
        }
    }

    /// Whether somebody else wrote into the owners of rules.
    pub(super) fn are_owners_changed(&self) -> Result<bool> {
        let Some(loaded) = &self.loaded else { return Ok(false) };
        let (Some(map), Some(owners)) = (open(loaded), &loaded.owners) else { return Ok(false) };
        Ok(read(&map?)? != *owners)
    }

    /// Writes them again. Where that fails they are still known, to be found changed at the next look.
    pub(super) fn restore_owners(&mut self) -> Result<()> {
        let Some(loaded) = &mut self.loaded else { return Ok(()) };
        let owners = loaded.owners.clone().unwrap_or_default();
        let written = set(loaded, &owners).map(drop);
        loaded.owners = Some(owners);
        written
    }
}

/// Where the cgroups are.
///
/// # Errors
/// No cgroup v2 is mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    cgroup::root()
}

/// The map, where the policy has owners.
fn open(loaded: &Loaded) -> Option<Result<KernelMap<OwnerKey, OwnerRules>>> {
    let map = loaded.map(OWNERS)?;
    Some(map.try_clone_to_owned().and_then(KernelMap::new).context(|| "open the owners of rules"))
}

fn read(map: &KernelMap<OwnerKey, OwnerRules>) -> Result<PresentOwners> {
    let mut known = BTreeMap::new();
    let read = map.for_each(|key, rules| known.extend([(*key, *rules)]));
    read.context(|| "read the owners of rules").map(|()| known)
}

/// Those that are gone first: where there is no room, nobody is allowed who should not be. False: no rule has owners.
fn set(loaded: &mut Loaded, present: &PresentOwners) -> Result<bool> {
    let what = || "write the owners of rules";
    let Some(map) = open(loaded) else { return Ok(false) };
    let map = map?;
    let written = write(&map, present).context(what);
    // Also where not all is in it: what else is there is somebody else's writing.
    let mut owners = if written.is_ok() { Some(present.clone()) } else { read(&map).ok() };
    owners.iter_mut().for_each(|owners| owners.retain(|key, rules| present.get(key) == Some(rules)));
    loaded.owners = owners;
    written.map(|()| true)
}

fn write(map: &KernelMap<OwnerKey, OwnerRules>, present: &PresentOwners) -> io::Result<()> {
    let mut known = PresentOwners::new();
    map.for_each(|key, rules| known.extend([(*key, *rules)]))?;
    for key in known.keys().filter(|key| !present.contains_key(key)) {
        map.remove(key)?;
    }
    for (key, rules) in present.iter().filter(|(key, rules)| known.get(key) != Some(rules)) {
        map.put(key, rules)?;
    }
    Ok(())
}
