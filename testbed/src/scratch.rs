//! Directories and mounts of one testbed, and the sweeping of what killed runs left.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::command::ok;

/// First part of every name that a testbed gives to a namespace or directory; the process id follows.
pub(crate) const PREFIX: &str = "mpfw-";

/// A directory (0700) that takes the mounts inside it along when it goes.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
}

impl Scratch {
    /// A fresh one, after sweeping what dead runs left.
    ///
    /// # Errors
    /// It can't be made.
    pub fn new() -> Result<Self> {
        sweep();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", process::id()))
            .tempdir()
            .context("could not make a temporary directory")?;
        Ok(Self { directory })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory inside it, made if need be.
    ///
    /// # Errors
    /// It can't be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path).with_context(|| format!("could not make {}", path.display()))?;
        Ok(path)
    }

    /// A bpffs of its own, mounted on a directory inside it.
    ///
    /// # Errors
    /// The directory can't be made, or the kernel refuses the mount.
    pub fn bpffs(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory(name)?;
        mount(Some("bpffs"), &path, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .with_context(|| format!("could not mount a bpffs on {} (root?)", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        unmount_below(self.path());
    }
}

/// Detaches every mount on or below a directory, the last one first.
fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let inside =
        |line: &str| line.split(' ').nth(1).map(PathBuf::from).filter(|point| point.starts_with(directory));
    for point in mounts.lines().filter_map(inside).collect::<Vec<_>>().into_iter().rev() {
        let _ = umount2(&point, MntFlags::MNT_DETACH);
    }
}

/// Removes namespaces and directories whose process is gone. Two runs may sweep at once: losing is no error.
fn sweep() {
    let orphan = |name: &str| {
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    for name in names_in(Path::new("/run/netns")).into_iter().filter(|name| orphan(name)) {
        end_all_inside(&name);
        let _ = ok(Command::new("ip").args(["netns", "delete", &name]));
    }
    let temporary = std::env::temp_dir();
    for name in names_in(&temporary).into_iter().filter(|name| orphan(name)) {
        unmount_below(&temporary.join(&name));
        let _ = fs::remove_dir_all(temporary.join(&name));
    }
}

/// Ends what still runs in a namespace of a dead run: a program that changes its credentials forgets to die with us.
fn end_all_inside(namespace: &str) {
    let pids = ok(Command::new("ip").args(["netns", "pids", namespace])).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
