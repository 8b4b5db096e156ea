//! Which unit a cgroup is, by its id.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use super::{
    audit::Sender,
    processes::{innermost, is_of_root},
};
use crate::{datapath::cgroup_root, printable::Printable};

/// Groups that are remembered at most; a host has some hundreds.
const MOST: usize = 1 << 16;
/// Bytes of a path that are kept: its end says most.
const PATH: usize = 256;
/// How deep below the root is looked.
const DEPTH: usize = 64;

/// Every cgroup at the last look, by id.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<u64, Sender>);

impl Groups {
    /// Whose a group is, if it was there at the last look.
    #[must_use]
    pub(super) fn sender(&self, id: u64) -> Option<&Sender> {
        self.0.get(&id)
    }

    /// Looks. What can't be read is left out: its packets are then those of a group that is gone.
    pub(super) fn look(&mut self) {
        match cgroup_root().map_err(|error| error.to_string()).and_then(|root| Self::below(&root)) {
            Ok(groups) => *self = groups,
            Err(error) => {
                tracing::debug!(%error, "cgroups can't be looked at: owners are known by number only")
            }
        }
    }

    fn below(root: &Path) -> Result<Self, String> {
        let mut groups = Self::default();
        let id = fs::metadata(root).map_err(|error| format!("{}: {error}", root.display()))?.ino();
        groups.0.insert(id, Sender::Group("/".to_owned()));
        groups.walk(root, "", "", true, DEPTH);
        Ok(groups)
    }

    /// `path`: of the directory below the root. `roots`: as far as root owns it; a user names his own groups as he likes.
    fn walk(&mut self, directory: &Path, path: &str, roots: &str, is_roots: bool, depth: usize) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_dir() || depth == 0 || self.0.len() >= MOST {
                continue;
            }
            let is_roots = is_roots && is_of_root(&metadata);
            let below = format!("{path}/{}", entry.file_name().to_string_lossy());
            let roots = if is_roots { below.as_str() } else { roots };
            self.0.insert(metadata.ino(), sender(&below, roots));
            self.walk(&entry.path(), &below, roots, is_roots, depth - 1);
        }
    }
}

/// The innermost unit of the part that root owns, else the path.
fn sender(path: &str, roots: &str) -> Sender {
    innermost(roots).map_or_else(|| Sender::Group(end_of(path)), |unit| Sender::Unit(end_of(unit)))
}

fn end_of(path: &str) -> String {
    let path = Printable(path).to_string();
    if path.len() <= PATH {
        return path;
    }
    let from = (path.len() - PATH..path.len()).find(|at| path.is_char_boundary(*at)).unwrap_or(path.len());
    format!("…{}", &path[from..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_innermost_unit_of_root_counts() {
        let unit = |path: &str, roots: &str| sender(path, roots);
        let service = "/system.slice/payments.service";
        assert_eq!(unit(service, service), Sender::Unit("payments.service".into()));
        assert_eq!(
            unit("/system.slice/payments.service/worker", "/system.slice/payments.service/worker"),
            Sender::Unit("payments.service".into())
        );
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        assert_eq!(
            unit(&format!("{manager}/app.slice/payments.service"), manager),
            Sender::Unit("user@1000.service".into()),
            "what a user calls so is his"
        );
        assert_eq!(unit("/lxc/a", "/lxc/a"), Sender::Group("/lxc/a".into()));
        let long = format!("/{}", "é".repeat(400));
        assert!(end_of(&long).len() <= PATH + 4 && end_of(&long).starts_with('…'));
    }

    #[test]
    fn directories_are_groups() -> io::Result<()> {
        let root = tempfile::tempdir()?;
        let group = root.path().join("system.slice/payments.service/worker");
        fs::create_dir_all(&group)?;
        let groups = Groups::below(root.path()).map_err(io::Error::other)?;
        let id = fs::metadata(&group)?.ino();
        let is_root = nix::unistd::geteuid().is_root();
        let unit = Sender::Unit("payments.service".into());
        assert_eq!(groups.sender(id).is_some_and(|sender| *sender == unit), is_root, "only what root owns");
        assert_eq!(groups.sender(0), None);
        Ok(())
    }
}
