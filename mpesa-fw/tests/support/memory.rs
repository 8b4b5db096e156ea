//! A memory cgroup: what an agent in it may take, its maps in the kernel included (Linux 5.11).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testbed::holds;

use super::SOON;

/// A cgroup of the memory controller, of either version; gone with it.
pub struct MemoryGroup {
    directory: PathBuf,
    /// The file of the limit, by the controller's version.
    limit: &'static str,
}

impl MemoryGroup {
    /// None: no memory controller is at hand here.
    pub fn new(test: &str) -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let Some((root, limit)) = mounts.lines().find_map(hierarchy) else {
            testbed::left_out("limits of memory", "no memory controller of cgroups is mounted");
            return Ok(None);
        };
        // systemd gives it to all groups; where nobody did, it stays given.
        let given = root.join("cgroup.subtree_control");
        let is_given = || {
            fs::read_to_string(&given).is_ok_and(|all| all.split_whitespace().any(|name| name == "memory"))
        };
        if limit == V2_LIMIT
            && !is_given()
            && let Err(error) = fs::write(&given, "+memory")
        {
            testbed::left_out("limits of memory", &format!("groups can't have the controller: {error}"));
            return Ok(None);
        }
        let directory = root.join(format!("mpfw-{test}-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        Ok(Some(Self { directory, limit }))
    }

    /// Lets those in it take that many bytes.
    pub fn limit(&self, bytes: u64) -> Result<()> {
        fs::write(self.directory.join(self.limit), bytes.to_string())
            .with_context(|| format!("limit {} to {bytes} bytes", self.directory.display()))
    }

    /// Ends the limit.
    pub fn unlimited(&self) -> Result<()> {
        let all = if self.limit == V2_LIMIT { "max" } else { "-1" };
        fs::write(self.directory.join(self.limit), all).context("end the limit of memory")
    }

    /// Moves a process into it. What it holds already is not counted here.
    pub fn take(&self, process: u32) -> Result<()> {
        fs::write(self.directory.join(PROCESSES), process.to_string())
            .with_context(|| format!("move the process {process} to {}", self.directory.display()))
    }

    /// The same program, in this cgroup from its first instruction.
    pub fn command(&self, program: &Command) -> Command {
        let enter = format!("echo $$ > {} && exec \"$@\"", self.directory.join(PROCESSES).display());
        let mut command = Command::new("sh");
        command.args(["-euc", &enter, "sh"]).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = holds("the end of the cgroup", SOON, || fs::remove_dir(&self.directory).is_ok());
    }
}

const PROCESSES: &str = "cgroup.procs";
const V1_LIMIT: &str = "memory.limit_in_bytes";
const V2_LIMIT: &str = "memory.max";

/// Where the memory controller is mounted, by a line of mountinfo, and what its limits are called.
fn hierarchy(mount: &str) -> Option<(PathBuf, &'static str)> {
    let (place, kind) = mount.split_once(" - ")?;
    let root = Path::new(place.split(' ').nth(4)?);
    let mut kind = kind.split(' ');
    match (kind.next()?, kind.nth(1)?) {
        ("cgroup", options) => {
            options.split(',').any(|option| option == "memory").then(|| (root.to_owned(), V1_LIMIT))
        }
        ("cgroup2", _) => {
            let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
            controllers.split_whitespace().any(|name| name == "memory").then(|| (root.to_owned(), V2_LIMIT))
        }
        _ => None,
    }
}
