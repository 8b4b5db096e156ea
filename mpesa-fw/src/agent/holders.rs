//! Whose a socket is, as the programs at the hooks know it: the user that made it, and the cgroups that it is in.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use mpesa_fw_common::owner::{LEVELS, Owner};

use crate::datapath::cgroup_root;

/// Groups that are looked at most; a host has some hundreds.
const MOST: usize = 1 << 16;
/// How deep below the root is looked.
const DEPTH: usize = 64;

/// What the kernel's list of sockets says of whose a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Who made it, or accepted it. None: its program has closed it, and before Linux 6.17 the kernel says root then.
    pub user: Option<u32>,
    /// The id of its cgroup. A socket that was accepted is in that of its listener. None: this kernel does not say.
    pub group: Option<u64>,
}

/// The ids of the groups that a group is in and its own, from the one below the root on.
type Lineage = [u64; LEVELS];

/// Every group with its lineage.
#[derive(Debug, Default)]
pub(super) struct Holders(HashMap<u64, Lineage>);

impl Holders {
    /// Looks at all groups. Without cgroup v2 no unit is there, and nobody's groups matter.
    #[must_use]
    pub(super) fn look() -> Self {
        cgroup_root().map(|root| Self::below(&root)).unwrap_or_default()
    }

    fn below(root: &Path) -> Self {
        let mut holders = Self::default();
        if let Ok(metadata) = fs::metadata(root) {
            holders.0.insert(metadata.ino(), [0; LEVELS]);
            holders.add(root, [0; LEVELS], 0);
        }
        holders
    }

    fn add(&mut self, directory: &Path, lineage: Lineage, depth: usize) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            // A group has dozens of files, of which nothing is asked.
            if depth == DEPTH || self.0.len() >= MOST || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let mut below = lineage;
            if let Some(place) = below.get_mut(depth) {
                *place = metadata.ino();
            }
            self.0.insert(metadata.ino(), below);
            self.add(&entry.path(), below, depth + 1);
        }
    }

    /// Whose the socket is to a rule. None: it can't be told, since it is closed, or its group has come, or gone, meanwhile.
    #[must_use]
    pub(super) fn owner(&self, holder: &Holder) -> Option<Owner> {
        let cgroups = match holder.group {
            _ if self.0.is_empty() => [0; LEVELS],
            Some(group) => *self.0.get(&group)?,
            None => return None,
        };
        Some(Owner { cgroups, uid: holder.user?, is_known: 1 })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_group_is_in_all_that_it_lies_below() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let mut path = root.path().to_owned();
        let mut ids = Vec::new();
        for level in 0..=LEVELS {
            path.push(format!("level-{level}"));
            fs::create_dir(&path)?;
            ids.push(fs::metadata(&path)?.ino());
        }
        let holders = Holders::below(root.path());
        let cgroups =
            |group| holders.owner(&Holder { user: Some(7), group: Some(group) }).map(|owner| owner.cgroups);
        assert_eq!(cgroups(fs::metadata(root.path())?.ino()), Some([0; LEVELS]), "the root is in none");
        assert_eq!(cgroups(ids[1]), Some([ids[0], ids[1], 0, 0, 0, 0, 0, 0]));
        assert_eq!(
            cgroups(ids[LEVELS]).as_ref().map(|all| all.as_slice()),
            Some(&ids[..LEVELS]),
            "as deep as the programs look"
        );
        assert_eq!(cgroups(1), None, "one that is gone");
        assert_eq!(holders.owner(&Holder { user: Some(7), group: None }), None, "the kernel does not say");
        let closed = Holder { user: None, group: Some(ids[1]) };
        assert_eq!(holders.owner(&closed), None, "closed");
        let none = Holders::default().owner(&Holder { user: Some(7), group: None });
        assert_eq!(none.map(|owner| (owner.uid, owner.cgroups)), Some((7, [0; LEVELS])), "without cgroups");
        Ok(())
    }
}
