//! Who has a socket: found by a walk through `/proc`, which shows the descriptors of other users' processes to
//! CAP_SYS_PTRACE only. `mpesa-fw listeners`, run by root, has it; the agent of the package does not.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use procfs::process::{FDTarget, all_processes};
use serde::{Deserialize, Serialize};

use crate::printable::Printable;

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

fn describe(process: &procfs::process::Process) -> Process {
    let groups = process.cgroups().map(|groups| groups.0).unwrap_or_default();
    Process {
        pid: process.pid,
        name: process.stat().map(|stat| Printable(&stat.comm).to_string()).unwrap_or_default(),
        executable: process.exe().ok().map(|path| Printable(&path.to_string_lossy()).to_string()),
        unit: groups.iter().find_map(|group| unit(&group.pathname)),
    }
}

/// The unit in the path of a control group: `/system.slice/nginx.service` and what is below it.
pub(super) fn unit(path: &str) -> Option<String> {
    let is_unit = |part: &&str| [".service", ".scope", ".socket"].iter().any(|kind| part.ends_with(kind));
    path.split('/').rfind(is_unit).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_found_in_the_path_of_its_group() {
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        assert_eq!(unit("/system.slice/payments.service/worker").as_deref(), Some("payments.service"));
        let nested = "/user.slice/user-1000.slice/user@1000.service/app.slice/api.service";
        assert_eq!(unit(nested).as_deref(), Some("api.service"));
        assert_eq!(unit("/"), None);
    }
}
