//! Who runs on which CPU.

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The last one that this process may use: senders of floods go there.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn last() -> Result<usize> {
    allowed()?.last().copied().context("no CPU")
}

/// The first one: servers, clients and the agent go there.
///
/// # Errors
/// There is but one.
pub(crate) fn first() -> Result<usize> {
    let cpus = allowed()?;
    ensure!(cpus.len() > 1, "one CPU is not enough: sender and server would share it");
    Ok(cpus[0])
}

/// Keeps the calling thread, and those that it starts, on one CPU.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("stay on CPU {cpu}"))
}

fn allowed() -> Result<Vec<usize>> {
    let cpus = sched_getaffinity(Pid::from_raw(0)).context("the CPUs of this process")?;
    Ok((0..CpuSet::count()).filter(|cpu| cpus.is_set(*cpu).unwrap_or(false)).collect())
}
