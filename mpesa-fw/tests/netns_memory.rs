//! The kernel gives no memory for one more map, half-way through a start or a reload: a memory cgroup's limit, as `MemoryMax`
//! of a unit is one. Some limits end the agent instead, for a page of its own: then what was in force stays all the same.

mod support;

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use anyhow::{Context as _, Result, ensure};
use support::{FENCE, Field, SOON, WEB, memory::MemoryGroup, pins, policy};
use testbed::{Firewall, Started, eventually};

const MIB: u64 = 1 << 20;
/// An agent that is neither ready nor at its end by then hangs.
const START: Duration = Duration::from_secs(30);

/// Whether an error says that the kernel had no memory, and what to do.
fn is_told(error: &str) -> bool {
    error.contains("os error 12") && error.contains("MemoryMax")
}

/// How a start within a limit came out.
enum Outcome {
    Ready(Started),
    Ended(ExitStatus, String),
}

fn start_within(firewall: &Firewall<'_>, group: &MemoryGroup) -> Result<Outcome> {
    let mut agent = firewall.spawn_by(|agent| group.command(&agent))?;
    let ready = eventually("the agent to be ready or at its end", START, || {
        let ready =
            firewall.namespace.get(firewall.metrics, "/readyz").is_ok_and(|(status, _)| status == 200);
        (ready || !agent.process.running()).then_some(ready)
    })?;
    if ready {
        return Ok(Outcome::Ready(agent));
    }
    let status = agent.process.wait(SOON)?;
    // One log for all starts.
    let said = agent.process.log().rsplit("error:").next().unwrap_or_default().to_owned();
    Ok(Outcome::Ended(status, said))
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_start_without_memory_for_its_tables_attaches_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let Some(group) = MemoryGroup::new("start")? else { return Ok(()) };
    let firewall = field.firewall()?;
    firewall.policy(&policy(&[WEB], &[]))?;
    let mut told = 0;
    let mut ready = None;
    for limit in (20..128).step_by(2) {
        group.limit(limit * MIB)?;
        match start_within(&firewall, &group)? {
            Outcome::Ready(agent) => {
                ready = Some(agent);
                break;
            }
            Outcome::Ended(status, said) if status.code() == Some(4) => {
                ensure!(is_told(&said), "with {limit} MiB it said: {said}");
                told += usize::from(said.contains("failed to create map"));
            }
            Outcome::Ended(status, said) => {
                ensure!(status.signal() == Some(libc::SIGKILL), "with {limit} MiB: {status}: {said}");
            }
        }
        assert!(field.is_open(), "with {limit} MiB: nothing is half attached");
    }
    let mut ready = ready.context("no limit was high enough")?;
    assert!(told > 0, "the kernel refused no map");
    assert!(field.is_enforced());
    // What the failed starts left is not kept beside what this one made.
    let after = pins(&firewall)?;
    ready.process.kill()?;
    let ran = firewall.ask(["detach".as_ref(), "--bpffs".as_ref(), firewall.bpffs.as_os_str()])?;
    assert_eq!(ran.code, Some(0), "{}", ran.text());
    assert!(field.is_open());
    let _agent = firewall.start(&[])?;
    assert_eq!(pins(&firewall)?.len(), after.len());
    Ok(())
}

#[test]
#[ignore = "needs root and a kernel"]
fn a_reload_without_memory_for_its_tables_changes_nothing() -> Result<()> {
    let field = Field::new()?;
    let _web = field.web(&[80])?;
    let Some(group) = MemoryGroup::new("reload")? else { return Ok(()) };
    let (firewall, mut agent) = field.protected(&policy(&[WEB], &[]))?;
    group.take(agent.process.pid())?;
    firewall.policy(&policy(&[WEB, FENCE], &[]))?;
    let (mut told, mut reloaded) = (0, false);
    for limit in 9..64 {
        let before = (firewall.status()?["generation"].clone(), pins(&firewall)?);
        group.limit(limit * MIB)?;
        let ran = firewall.ask(["reload", "--force"])?;
        group.unlimited()?;
        if ran.code == Some(0) {
            reloaded = true;
            break;
        }
        assert!(field.is_enforced(), "with {limit} MiB: {}", ran.text());
        if agent.process.running() {
            ensure!(ran.code == Some(4) && is_told(&ran.stderr), "with {limit} MiB: {}", ran.text());
            told += usize::from(ran.stderr.contains("failed to create map"));
            let after = (firewall.status()?["generation"].clone(), pins(&firewall)?);
            assert_eq!(after, before, "with {limit} MiB: {}", ran.text());
        } else {
            // Killed for a page of its own; the next one takes over what judges.
            ensure!(ran.code == Some(3), "with {limit} MiB: {}", ran.text());
            agent = firewall.start(&["--force"])?;
            group.take(agent.process.pid())?;
        }
    }
    assert!(reloaded, "no limit was high enough");
    assert!(told > 0, "the kernel refused no map");
    assert!(field.is_enforced());
    Ok(())
}
