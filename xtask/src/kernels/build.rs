//! The agent and the kernel tests, linked statically: the guests' C library may be older than this machine's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{cargo, shown, target};

/// The test programs that run in a guest, the quickest first.
const TESTS: [&str; 14] = [
    "kernel_datapath",
    "kernel_datapath_state",
    "decision",
    "netns_ingress",
    "netns_egress",
    "netns_fragments",
    "netns_frames",
    "netns_reload",
    "netns_agent",
    "netns_state",
    "netns_interfaces",
    "netns_tamper",
    "netns_guard",
    "netns_guests",
];

/// What goes into a guest.
pub(crate) struct Built {
    pub(crate) agent: PathBuf,
    /// Where the tests look for the agent.
    pub(crate) expected_at: PathBuf,
    /// Name and file.
    pub(crate) tests: Vec<(&'static str, PathBuf)>,
}

/// Builds the agent, and the tests if they are wanted.
///
/// Only the programs themselves are built anew (`cargo rustc` gives its flags to no dependency), which is enough for the
/// linker to take the static C library.
pub(crate) fn programs(with_tests: bool) -> Result<Built> {
    let mut tests = Vec::new();
    if with_tests {
        for name in TESTS {
            tests.push((name, executable(&["--test", name, "--profile", "test"])?));
        }
    }
    let agent = executable(&["--bin", "mpesa-fw"])?;
    let expected_at = std::path::absolute(target().join("debug/mpesa-fw")).context("no current directory")?;
    Ok(Built { agent, expected_at, tests })
}

fn executable(what: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["rustc", "--package", "mpesa-fw", "--message-format", "json-render-diagnostics"]);
    command.args(what).args(["--", "-Ctarget-feature=+crt-static"]);
    let line = shown(&command);
    println!("build: {line}");
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message.get("executable").and_then(Value::as_str).map(PathBuf::from))
        .next_back()
        .with_context(|| format!("`{line}` named no executable"))?;
    is_static(&path)?;
    Ok(path)
}

/// A program that wants the machine's own loader would run in the guest by luck only.
fn is_static(program: &Path) -> Result<()> {
    let headers = crate::process::capture(
        std::process::Command::new("readelf").args(["--program-headers", "--wide"]).arg(program),
    )?;
    if headers.contains("INTERP") {
        bail!("{} is linked dynamically", program.display());
    }
    Ok(())
}
