//! The cgroups by their ids: which unit each is, and the groups that it is in.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use mpesa_fw_common::owner::{LEVELS, Owner};

use super::{
    audit::Sender,
    holder::Holder,
    processes::{is_of_root, unit_in},
};
use crate::{datapath::cgroup_root, printable::Printable};

/// Groups that are remembered at most; a host has some hundreds.
const MOST: usize = 1 << 16;
/// Bytes of a path that are kept: its end says most.
const PATH: usize = 256;
/// How deep below the root is looked.
const DEPTH: usize = 64;

/// The ids of the groups that a group is in and its own, from the one below the root on.
type Lineage = [u64; LEVELS];

/// Every cgroup at the last look, by id.
#[derive(Debug, Default)]
pub(super) struct Groups(BTreeMap<u64, (Sender, Lineage)>);

impl Groups {
    /// Whose a group is, if it was there at the last look.
    #[must_use]
    pub(super) fn sender(&self, id: u64) -> Option<&Sender> {
        self.0.get(&id).map(|(sender, _)| sender)
    }

    /// Whose a socket is to a rule, as the programs at the hooks know it. None: it can't be told, since it is closed, or its group has come,
    /// or gone, meanwhile. Without cgroup v2 no unit is there, and nobody's groups matter.
    #[must_use]
    pub(super) fn owner(&self, holder: &Holder) -> Option<Owner> {
        let cgroups = match holder.group {
            _ if self.0.is_empty() => [0; LEVELS],
            Some(group) => self.0.get(&group)?.1,
            None => return None,
        };
        Some(Owner { cgroups, uid: holder.user?, is_known: 1 })
    }

    /// Looks. What can't be read is left out: its packets are then those of a group that is gone.
    pub(super) fn look(&mut self) {
        match cgroup_root().map_err(|error| error.to_string()).and_then(|root| Self::below(&root, MOST)) {
            Ok(groups) => *self = groups,
            Err(error) => {
                tracing::debug!(%error, "cgroups can't be looked at: owners are known by number only")
            }
        }
    }

    fn below(root: &Path, most: usize) -> Result<Self, String> {
        let mut groups = Self::default();
        let id = fs::metadata(root).map_err(|error| format!("{}: {error}", root.display()))?.ino();
        groups.0.insert(id, (Sender::Group("/".to_owned()), [0; LEVELS]));
        let mut places = Places::default();
        places.push(Place {
            directory: root.to_owned(),
            path: String::new(),
            roots: String::new(),
            is_roots: true,
            lineage: [0; LEVELS],
            depth: 0,
        });
        while let Some(place) = places.pop() {
            groups.enter(&place, &mut places, most);
        }
        Ok(groups)
    }

    /// Enters the groups that lie in a place.
    fn enter(&mut self, place: &Place, places: &mut Places, most: usize) {
        let Ok(entries) = fs::read_dir(&place.directory) else { return };
        for entry in entries.flatten() {
            // A group has dozens of files, of which nothing is asked.
            let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !is_group || place.depth == DEPTH || self.0.len() >= most {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let mut lineage = place.lineage;
            if let Some(level) = lineage.get_mut(place.depth) {
                *level = metadata.ino();
            }
            let is_roots = place.is_roots && is_of_root(&metadata);
            let path = format!("{}/{}", place.path, entry.file_name().to_string_lossy());
            let roots = if is_roots { path.clone() } else { place.roots.clone() };
            self.0.insert(metadata.ino(), (sender(&path, &roots), lineage));
            let (directory, depth) = (entry.path(), place.depth + 1);
            places.push(Place { directory, path, roots, is_roots, lineage, depth });
        }
    }
}

/// Where groups lie.
struct Place {
    directory: PathBuf,
    /// Below the root.
    path: String,
    /// The same as far as root owns it; a user names his own groups as he likes.
    roots: String,
    is_roots: bool,
    /// The groups that it is in, and how many those are.
    lineage: Lineage,
    depth: usize,
}

/// Those that are to be looked at: what is root's first, for a user may make as many groups as there is room for.
#[derive(Default)]
struct Places {
    of_root: VecDeque<Place>,
    of_users: VecDeque<Place>,
}

impl Places {
    fn push(&mut self, place: Place) {
        if place.is_roots { &mut self.of_root } else { &mut self.of_users }.push_back(place);
    }

    fn pop(&mut self) -> Option<Place> {
        self.of_root.pop_front().or_else(|| self.of_users.pop_front())
    }
}

/// The unit of the part that root owns, else the path.
fn sender(path: &str, roots: &str) -> Sender {
    unit_in(roots).map_or_else(|| Sender::Group(end_of(path)), |unit| Sender::Unit(end_of(unit)))
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
    fn the_unit_of_root_counts() {
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
        let container = "/machine.slice/libpod-1.scope/system.slice/payments.service";
        assert_eq!(
            unit(container, container),
            Sender::Unit("libpod-1.scope".into()),
            "what its root calls so is the container's"
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
        let groups = Groups::below(root.path(), MOST).map_err(io::Error::other)?;
        let id = fs::metadata(&group)?.ino();
        let is_root = nix::unistd::geteuid().is_root();
        let unit = Sender::Unit("payments.service".into());
        assert_eq!(groups.sender(id).is_some_and(|sender| *sender == unit), is_root, "only what root owns");
        assert_eq!(groups.sender(0), None);
        Ok(())
    }

    #[test]
    fn what_a_user_makes_leaves_room_for_what_is_roots() -> io::Result<()> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(()); // nothing could be another's
        }
        let root = tempfile::tempdir()?;
        let of_user = root.path().join("a.slice/user@1000.service");
        for n in 0..50 {
            fs::create_dir_all(of_user.join(format!("{n}/below")))?;
        }
        std::os::unix::fs::chown(&of_user, Some(1000), Some(1000))?;
        for name in ["payments.service", "nginx.service"] {
            fs::create_dir_all(root.path().join("z.slice/deep.slice").join(name))?;
        }
        let groups = Groups::below(root.path(), 20).map_err(io::Error::other)?;
        assert_eq!(groups.0.len(), 20);
        for name in ["payments.service", "nginx.service"] {
            let id = fs::metadata(root.path().join("z.slice/deep.slice").join(name))?.ino();
            assert_eq!(groups.sender(id), Some(&Sender::Unit(name.into())));
        }
        Ok(())
    }

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
        let groups = Groups::below(root.path(), MOST).map_err(io::Error::other)?;
        let cgroups =
            |group| groups.owner(&Holder { user: Some(7), group: Some(group) }).map(|owner| owner.cgroups);
        assert_eq!(cgroups(fs::metadata(root.path())?.ino()), Some([0; LEVELS]), "the root is in none");
        assert_eq!(cgroups(ids[1]), Some([ids[0], ids[1], 0, 0, 0, 0, 0, 0]));
        assert_eq!(
            cgroups(ids[LEVELS]).as_ref().map(|all| all.as_slice()),
            Some(&ids[..LEVELS]),
            "as deep as the programs look"
        );
        assert_eq!(cgroups(1), None, "one that is gone");
        assert_eq!(groups.owner(&Holder { user: Some(7), group: None }), None, "the kernel does not say");
        let closed = Holder { user: None, group: Some(ids[1]) };
        assert_eq!(groups.owner(&closed), None, "closed");
        let none = Groups::default().owner(&Holder { user: Some(7), group: None });
        assert_eq!(none.map(|owner| (owner.uid, owner.cgroups)), Some((7, [0; LEVELS])), "without cgroups");
        Ok(())
    }
}
