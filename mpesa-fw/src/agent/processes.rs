//! Who has a socket: found by a walk through `/proc`, which shows the descriptors of other users' processes to
//! CAP_SYS_PTRACE only. `mpesa-fw listeners`, run by root, has it; the agent of the package does not.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::Metadata,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use procfs::process::{FDTarget, all_processes};
use serde::{Deserialize, Serialize};

use crate::{datapath::cgroup_root, printable::Printable};

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its name, as it says.
    pub name: String,
    /// The file that it runs.
    pub executable: Option<String>,
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
}

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.pid)
    }
}

/// Processes that have these sockets, by inode; of several that share one, the first. What can't be looked at is left out.
#[must_use]
pub(crate) fn holders(inodes: &HashSet<u64>) -> HashMap<u64, Process> {
    let mut found: HashMap<u64, Process> = HashMap::new();
    let Ok(processes) = all_processes() else { return found };
    for process in processes.flatten() {
        let Ok(descriptors) = process.fd() else { continue };
        for descriptor in descriptors.flatten() {
            let FDTarget::Socket(inode) = descriptor.target else { continue };
            if !inodes.contains(&inode) || found.get(&inode).is_some_and(|other| other.pid < process.pid) {
                continue;
            }
            found.insert(inode, describe(&process));
        }
    }
    found
}

/// Sockets of this process, by inode.
pub(super) fn own_sockets() -> HashSet<u64> {
    let myself = procfs::process::Process::myself().and_then(|process| process.fd());
    let descriptors = myself.into_iter().flatten().flatten();
    descriptors
        .filter_map(
            |descriptor| if let FDTarget::Socket(inode) = descriptor.target { Some(inode) } else { None },
        )
        .collect()
}

fn describe(process: &procfs::process::Process) -> Process {
    Process {
        pid: process.pid,
        name: process.stat().map(|stat| Printable(&stat.comm).to_string()).unwrap_or_default(),
        executable: process.exe().ok().map(|path| Printable(&path.to_string_lossy()).to_string()),
        unit: unit_of(process),
    }
}

/// The systemd unit of a process.
pub(super) fn unit_of(process: &procfs::process::Process) -> Option<String> {
    let groups = process.cgroups().map(|groups| groups.0).unwrap_or_default();
    groups.iter().find_map(|group| match cgroups() {
        Some(root) if group.hierarchy == 0 => {
            unit(&group.pathname, |path| root.join(path).metadata().is_ok_and(|of| is_of_root(&of)))
        }
        // Of version 1, whose hierarchies may be mounted anywhere.
        Some(_) | None => unit(&group.pathname, |path| {
            !path.split('/').rev().skip(1).any(|above| above.starts_with("user@"))
        }),
    })
}

/// Where the cgroups of version 2 are. They are not mounted elsewhere while a host runs.
pub(super) fn cgroups() -> Option<&'static Path> {
    static ROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    ROOT.get_or_init(|| cgroup_root().ok()).as_deref()
}

/// The unit in the path of a control group: `/system.slice/nginx.service`, and what is below it. What root did not make has whatever
/// name a user likes, and is named as a part of what root made. `is_roots` is asked about paths without the slash at the begin.
fn unit(path: &str, is_roots: impl Fn(&str) -> bool) -> Option<String> {
    let path = path.trim_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let of_root = ends.map(|end| &path[..end]).take_while(|part| is_roots(part)).last().unwrap_or_default();
    let (real, claimed) = (unit_in(of_root), innermost(&path[of_root.len()..]));
    let text = match (real, claimed) {
        (Some(real), None) => real.to_owned(),
        (Some(real), Some(claimed)) => format!("{real} (in it {claimed}, of a user)"),
        (None, Some(claimed)) => format!("none (but {claimed}, of a user)"),
        (None, None) => return None,
    };
    Some(Printable(&text).to_string())
}

/// The unit in a path of groups that only root can make. systemd puts units into slices and nowhere else: what lies below is the
/// unit's own doing, also in a container whose root may call his groups what he likes.
pub(super) fn unit_in(path: &str) -> Option<&str> {
    path.trim_matches('/').split('/').find(|part| !is_slice(part)).filter(|part| is_unit(part))
}

/// The innermost name of a unit in a path.
fn innermost(path: &str) -> Option<&str> {
    path.split('/').rfind(|part| is_unit(part))
}

fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".socket"].iter().any(|kind| part.ends_with(kind))
}

/// Whether units may lie directly below the group of this name.
pub(super) fn is_slice(name: &str) -> bool {
    name.ends_with(".slice")
}

/// Whether only root can have made it, and can change it.
pub(super) fn is_of_root(metadata: &Metadata) -> bool {
    metadata.uid() == 0 && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_in_the_path_of_its_group() {
        let unit =
            |path| unit(path, |path| !path.contains("user@1000.service/") && !path.contains("delegated/"));
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        assert_eq!(unit("/system.slice/payments.service/worker").as_deref(), Some("payments.service"));
        let container = "/machine.slice/libpod-1.scope/container/system.slice/payments.service";
        assert_eq!(
            unit(container).as_deref(),
            Some("libpod-1.scope"),
            "what its root calls so is the container's"
        );
        assert_eq!(unit("/docker/1/payments.service"), None);
        assert_eq!(unit("/"), None);
        assert_eq!(unit("/user.slice"), None);
        let nested = "/user.slice/user-1000.slice/user@1000.service/app.slice/payments.service";
        assert_eq!(
            unit(nested).as_deref(),
            Some("user@1000.service (in it payments.service, of a user)"),
            "he may call it so"
        );
        assert_eq!(
            unit("/delegated/payments.service").as_deref(),
            Some("none (but payments.service, of a user)")
        );
        assert_eq!(unit("/system.slice/a\u{1b}.service").as_deref(), Some("a\u{fffd}.service"));
    }
}
