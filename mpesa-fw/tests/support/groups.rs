//! Cgroups that are named like units, and programs in them.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testbed::{Firewall, Host, Namespace, holds, ok};

use super::SOON;

/// A directory of cgroups of this test's own, gone with it.
pub struct Groups {
    top: PathBuf,
    /// Part of the name of every unit of this test.
    tag: String,
}

impl Groups {
    /// None: there is no cgroup v2 here.
    pub fn new(test: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let root = mounts.lines().filter(|line| line.contains(" - cgroup2 ")).find_map(|line| {
            let mut fields = line.split(' ').skip(3);
            (fields.next() == Some("/")).then(|| fields.next()).flatten().map(PathBuf::from)
        });
        let Some(root) = root else {
            testbed::left_out("units", "no cgroup v2 is mounted");
            return Ok(None);
        };
        let tag = format!("{test}-{}", std::process::id());
        let top = root.join(format!("mpfw-{tag}.slice"));
        fs::create_dir_all(&top)?;
        Ok(Some(Self { top, tag }))
    }

    pub fn unit(&self, name: &str) -> String {
        format!("{name}-{}.service", self.tag)
    }

    pub fn start(&self, unit: &str) -> Result<PathBuf> {
        let group = self.top.join(unit);
        fs::create_dir(&group).with_context(|| format!("make {}", group.display()))?;
        Ok(group)
    }

    pub fn stop(group: &Path) -> Result<()> {
        holds("the end of a group", SOON, || fs::remove_dir(group).is_ok())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        fn remove(directory: &Path) {
            let below = fs::read_dir(directory).into_iter().flatten().flatten();
            below.filter(|entry| entry.path().is_dir()).for_each(|entry| remove(&entry.path()));
            let _ = fs::remove_dir(directory);
        }
        let _ = holds("the end of the groups", SOON, || {
            remove(&self.top);
            !self.top.exists()
        });
    }
}

/// An agent as on a host where only version 1 is mounted: what starts the real one.
pub fn without_cgroups(firewall: &Firewall<'_>) -> Result<PathBuf> {
    mounted_otherwise(
        firewall,
        "for point in $(findmnt -n -l -t cgroup2 -o TARGET); do umount \"$point\"; done",
    )
}

/// What starts the real agent where other things are mounted, as this script does it.
pub fn mounted_otherwise(firewall: &Firewall<'_>, mounts: &str) -> Result<PathBuf> {
    let script = format!(
        "#!/bin/sh\nexec unshare --mount --propagation private sh -c '{mounts}; exec \"$0\" \"$@\"' {} \"$@\"\n",
        firewall.binary.display()
    );
    let wrapper = firewall.write("mounted-otherwise", &script)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o700)).context("an executable")?;
    Ok(wrapper)
}

/// Whether anything listens on a port.
pub fn listens(host: &Host, port: u16) -> bool {
    let port = format!("sport = {port}");
    ok(host.namespace.command("ss").args(["-Hltn", &port])).is_ok_and(|text| !text.is_empty())
}

/// Connects to a port, and says what it is told: `open`, or the error.
pub fn hears(host: &Host, group: Option<&Path>, uid: u32, to: IpAddr, port: u16) -> Result<String> {
    // Shorter than the time after which a SYN is sent again.
    let script = format!(
        "import socket\ntry:\n    socket.create_connection(('{to}', {port}), 0.6)\n    print('open')\nexcept OSError as e:\n    print(e)"
    );
    Ok(ok(&mut program(host, group, uid, &script))?.trim().to_owned())
}

/// Whether it can connect to port 443.
pub fn connects(host: &Host, group: Option<&Path>, uid: u32, to: IpAddr) -> Result<bool> {
    Ok(hears(host, group, uid, to, 443)? == "open")
}

/// A program of the host, in a group, as a user.
pub fn program(host: &Host, group: Option<&Path>, uid: u32, script: &str) -> Command {
    program_with(&host.namespace, group, uid, script, &[])
}

/// Likewise in any network namespace, with arguments.
pub fn program_with(
    namespace: &Namespace,
    group: Option<&Path>,
    uid: u32,
    script: &str,
    arguments: &[&str],
) -> Command {
    let mut command = namespace.command("sh");
    let enter =
        group.map_or(String::new(), |group| format!("echo $$ > {}/cgroup.procs && ", group.display()));
    let run = format!("{enter}exec setpriv --reuid {uid} --clear-groups /usr/bin/python3 -c \"$@\"");
    command.args(["-euc", &run, "program", script]).args(arguments);
    command
}
