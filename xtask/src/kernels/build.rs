//! The agent and the kernel tests, linked statically: the guests' C library may be older than this machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::base;
use crate::process::{cargo, shown, target};

const AGENT: &str = "mpesa-fw";

/// The test programs that run in a guest, what says most first: where the time does not suffice, the last are not begun.
/// Those that ask a kernel for what kernels differ in; all of them would keep an emulated processor for an hour.
const TESTS: [&str; 20] = [
    "kernel_verifier",
    "decision",
    "netns_answers",
    "netns_owners",
    "netns_evidence",
    "netns_egress",
    "netns_ingress",
    "kernel_datapath_interfaces",
    "kernel_datapath",
    "netns_reload",
    "netns_revocation",
    "netns_pins",
    "netns_state",
    "netns_interfaces",
    "netns_fragments",
    "kernel_datapath_state",
    "netns_guests",
    "netns_connections",
    "netns_bypass",
    "netns_memory",
];

/// Those that do not, and why.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[
    ("kernel_datapath_times", "measures time, which means nothing in emulation"),
    ("netns_load", "30,000 packets a second are more than an emulated processor sends"),
    (
        "netns_evasion",
        "11,000 frames take longer than a guest lives; they are judged by what `decision` asks of the kernel",
    ),
    (
        "netns_faults",
        "an agent killed at every step takes longer than a guest lives; `netns_pins` and `kernel_datapath` kill it at some",
    ),
    (
        "netns_reloads",
        "a hundred reloads, and limits in seconds; `netns_reload` has those that ask the kernel",
    ),
    ("netns_links", "limits in seconds; `netns_interfaces` has what comes and goes"),
    ("netns_frames", "odd frames are judged by what `decision` asks of the kernel"),
    ("netns_control", "waits out timers that all kernels have"),
    ("netns_agent", "asks the agent more than the kernel: its command line, its end and its next start"),
    ("netns_doctor", "looks at the host with tools of its own; nothing of it is in the kernel programs"),
    (
        "netns_trial",
        "kills agents and waits for what becomes of reloads on trial; the swap is that of `netns_reload`",
    ),
    ("netns_tamper", "waits for the agent to look again, again and again; `netns_state` has foreign filters"),
    (
        "netns_tamper_watch",
        "limits in seconds; what it looks at is what `netns_pins` and `netns_state` attach",
    ),
    ("netns_tamper_state", "limits in seconds; the maps are written from user space as anywhere"),
    ("netns_guard", "asks the agent about connections of SSH; nothing of it is in the kernel programs"),
    (
        "netns_addresses",
        "asks the agent what it takes from netlink; what it writes is a table like any other",
    ),
    ("netns_events", "asks the agent; what events carry is judged by what `decision` asks of the kernel"),
    (
        "netns_capture",
        "needs tshark; that frames are what was sent is judged by what `decision` asks of the kernel",
    ),
    (
        "netns_listeners",
        "asks the agent what it makes of the kernel's list of sockets, which `netns_state` reads too",
    ),
    ("netns_metrics", "needs Prometheus, and asks the agent only"),
    (
        "netns_why",
        "`decision` asks the same twin of each kernel; the rest is the agent's and the command line's",
    ),
    (
        "netns_bridge",
        "what is forwarded is judged as `netns_state` asks of the kernel; what a bridge adds is the policy",
    ),
    (
        "netns_learning",
        "thousands of names, and resolvers that a guest does not have; answers are judged by what `decision` asks of the kernel",
    ),
    (
        "netns_learning_bounds",
        "a table that is filled to its end; whose answers are learnt is judged by what `decision` asks of the kernel",
    ),
    (
        "netns_attempts",
        "what programs are told is asked by the scenario; the rest is the agent's and the command line's",
    ),
    ("netns_ways", "asks the agent what it makes of routes; the programs are tried by `netns_attempts`"),
    ("netns_audit", "asks the agent what it makes of its counts, which `decision` reads after each packet"),
    (
        "netns_owners_bounds",
        "thousands of cgroups, and users who come and go; whose packets are whose is asked by `netns_owners`",
    ),
    ("netns_names", "asks a resolver and the agent; what they write is a table like any other"),
];

/// Tests of the programs that do run, and why they don't.
pub(crate) const LEFT_OUT_TESTS: [(&str, &str, &str); 4] = [
    (
        "decision",
        "fuzz::host_and_kernel_agree_on_what_was_kept",
        "what was kept lies in the tree, which a guest does not have; the catalogue of the same program runs",
    ),
    (
        "decision",
        "kernel::law::the_oracle_says_what_the_kernel_does",
        "thousands of random policies, each loaded anew; the catalogue of the same program runs",
    ),
    (
        "decision",
        "kernel::law::the_oracle_says_what_the_twin_foretells",
        "thousands of random policies, each loaded anew; the catalogue of the same program runs",
    ),
    (
        "netns_reload",
        "fifty_reloads_under_traffic_misjudge_nothing",
        "a quarter of an hour in emulation; the scenario reloads under pings, and `kernel_datapath` loses none",
    ),
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
            tests.push((name, executable(name, &["--test", name, "--profile", "test"])?));
        }
    }
    let agent = executable(AGENT, &["--bin", AGENT])?;
    let expected_at =
        std::path::absolute(target().join("debug").join(AGENT)).context("no current directory")?;
    Ok(Built { agent, expected_at, tests })
}

/// Builds one program. A test has the agent built as well, and either may be done last: it is told by its name.
fn executable(name: &str, what: &[&str]) -> Result<PathBuf> {
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
        .filter(|message| message.pointer("/target/name").and_then(Value::as_str) == Some(name))
        .filter_map(|message| message.get("executable").and_then(Value::as_str).map(PathBuf::from))
        .next_back()
        .with_context(|| format!("`{line}` named no executable"))?;
    // What cargo builds next at that place is for this machine again.
    let place = base().join("built");
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let kept = place.join(name);
    fs::copy(&path, &kept).with_context(|| format!("cannot copy {}", path.display()))?;
    is_static(&kept)?;
    Ok(kept)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A test program that is new is either run in the guests or left out with a reason.
    #[test]
    fn every_test_program_that_needs_a_kernel_is_named() {
        let directory = crate::process::workspace().join("mpesa-fw/tests");
        let mut unnamed = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_program = path.extension().is_some_and(|extension| extension == "rs");
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let needs_a_kernel = if is_program {
                std::fs::read_to_string(&path).unwrap().contains("needs root and a kernel")
            } else {
                path.join("main.rs").is_file()
            };
            if needs_a_kernel
                && !TESTS.contains(&name.as_str())
                && LEFT_OUT.iter().all(|(left, _)| *left != name)
            {
                unnamed.push(name);
            }
        }
        assert_eq!(unnamed, [] as [String; 0]);
    }
}
