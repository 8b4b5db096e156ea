//! Whose socket sends the packet that is asked about.

use std::{fmt, io, path::Path};

use mpesa_fw_common::owner::{LEVELS, Owner};
use serde::{Deserialize, Serialize};

use crate::{
    agent::{AgentError, directory, owners::walk},
    datapath::cgroup_root,
};

/// Who has the socket, as somebody says; neither: nobody in particular, whom no rule with `by` knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnerAsked {
    /// A systemd unit that runs, by its full name.
    pub unit: Option<String>,
    /// A user, by name or number.
    pub user: Option<String>,
}

/// The user of a socket that the question gives none (`INVALID_UID`).
const NO_USER: u32 = u32::MAX;

impl OwnerAsked {
    pub(super) const fn is_named(&self) -> bool {
        self.unit.is_some() || self.user.is_some()
    }

    /// What the kernel would know the socket by at this moment.
    pub(super) fn find(&self) -> Result<Owner, AgentError> {
        if !self.is_named() {
            return Ok(Owner::UNKNOWN);
        }
        let uid = match &self.user {
            Some(user) => directory::uid_of(user)
                .ok_or_else(|| AgentError::Question(format!("this host has no user {user}: name another")))?,
            None => NO_USER,
        };
        let cgroups = match &self.unit {
            Some(unit) => groups_of(unit)?,
            None => [0; LEVELS],
        };
        Ok(Owner { cgroups, uid, is_known: 1 })
    }
}

impl fmt::Display for OwnerAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.unit, &self.user) {
            (Some(unit), Some(user)) => write!(f, "unit {unit}, user {user}"),
            (Some(unit), None) => write!(f, "unit {unit}, no user named"),
            (None, Some(user)) => write!(f, "user {user}, no unit named"),
            (None, None) => f.write_str("nobody in particular"),
        }
    }
}

/// The group of a unit and all that it is in, from below the root on.
fn groups_of(unit: &str) -> Result<[u64; LEVELS], AgentError> {
    let failed = |error: &dyn fmt::Display| {
        AgentError::Question(format!("the unit {unit} can't be looked for among the cgroups: {error}"))
    };
    let root = cgroup_root().map_err(|error| failed(&error))?;
    groups_below(&root, unit).map_err(|error| failed(&error))?.ok_or_else(|| {
        AgentError::Question(format!(
            "no unit {unit} runs now, so that no packet is its: `systemctl status {unit}` (of a template name an instance; what users start is none)"
        ))
    })
}

fn groups_below(root: &Path, unit: &str) -> io::Result<Option<[u64; LEVELS]>> {
    let mut groups = None;
    let mut found = |name: &str, ids: &[u64]| {
        if name == unit && groups.is_none() {
            let mut all = [0; LEVELS];
            all[..ids.len()].copy_from_slice(ids);
            groups = Some(all);
        }
    };
    walk(root, &mut Vec::new(), &mut |_| {}, &mut found)?;
    Ok(groups)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn who_is_not_there_is_no_sender() {
        let asked = OwnerAsked::default();
        assert_eq!(asked.find().unwrap(), Owner::UNKNOWN);
        let asked = OwnerAsked { user: Some("root".to_owned()), unit: None };
        let owner = asked.find().unwrap();
        assert_eq!((owner.uid, owner.is_known, owner.cgroups[0]), (0, 1, 0));
        let asked = OwnerAsked { user: Some("no-such-user-here".to_owned()), unit: None };
        let error = asked.find().unwrap_err().to_string();
        assert!(error.contains("no user no-such-user-here"), "{error}");
    }

    #[test]
    fn a_unit_is_found_with_all_that_it_is_in() {
        let root = tempfile::tempdir().unwrap();
        for group in ["a.slice/x.service", "system.slice/pay.slice/payments@ke.service/worker", "z"] {
            fs::create_dir_all(root.path().join(group)).unwrap();
        }
        let inode = |path: &str| fs::metadata(root.path().join(path)).unwrap().ino();
        let expected =
            ["system.slice", "system.slice/pay.slice", "system.slice/pay.slice/payments@ke.service"]
                .map(inode);
        // Only what root owns is a unit's.
        let is_root = nix::unistd::geteuid().is_root();
        let groups = groups_below(root.path(), "payments@ke.service").unwrap();
        assert_eq!(groups.is_some(), is_root);
        if let Some(groups) = groups {
            assert_eq!((&groups[..3], groups[3]), (&expected[..], 0));
        }
        assert_eq!(groups_below(root.path(), "payments@.service").unwrap(), None);
    }
}
