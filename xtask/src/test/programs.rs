//! The programs that hold the tests of the workspace: built by cargo, run side by side. Most tests in the kernel wait most of
//! the time, and cargo runs one program after the other.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Tally, bounded, ended};
use crate::process::{cargo, shown};

/// Those that take longest, so that none of them begins last. The rest is run in the order in which cargo built it.
const LONGEST: [&str; 6] =
    ["decision", "netns_faults", "kernel_datapath", "netns_trial", "netns_reloads", "netns_memory"];

/// Those that have a promise of two seconds to keep, which begin when what takes all of a processor has ended.
const LAST: [&str; 2] = ["netns_tamper_state", "netns_tamper_watch"];

/// Those that measure, which run when the others have ended.
const ALONE: [&str; 2] = ["kernel_datapath_times", "netns_load"];

/// Failed tests that are run once more. More than these are no accident.
const AGAIN: usize = 3;

/// A program of tests.
struct Program {
    name: String,
    /// Where its package lies: cargo runs tests there.
    package: PathBuf,
    executable: PathBuf,
}

/// Builds the programs and runs the tests in them that need root and a kernel. These are marked `#[ignore = "…"]`, wherever
/// they stand.
///
/// # Errors
/// When they can't be built or started, or when one that is named here does not exist.
pub(super) fn run_ignored(tally: &mut Tally) -> Result<()> {
    let mut programs = built()?;
    if let Some(gone) = LONGEST
        .iter()
        .chain(&LAST)
        .chain(&ALONE)
        .find(|name| programs.iter().all(|program| program.name != **name))
    {
        bail!("there is no test program `{gone}` any more: take it out of {}", file!());
    }
    programs.sort_by_key(|program| {
        let place = |names: &[&str]| names.iter().position(|name| *name == program.name);
        let last = place(&LAST).map(|at| LONGEST.len() + 1 + at);
        place(&LONGEST).or(last).unwrap_or(LONGEST.len())
    });
    let (alone, beside): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|program| ALONE.contains(&program.name.as_str()));
    let lanes = thread::available_parallelism().map_or(2, usize::from).clamp(2, 4);
    let mut failed = run(beside, lanes, tally)?;
    failed.extend(run(alone, 1, tally)?);
    if failed.iter().map(|(_, tests)| tests.len()).sum::<usize>() <= AGAIN {
        run_again(&failed, tally)?;
    }
    Ok(())
}

/// A program and those of its tests that failed.
type Failed = (Program, Vec<String>);

/// Runs programs, so many at once.
fn run(programs: Vec<Program>, lanes: usize, tally: &mut Tally) -> Result<Vec<Failed>> {
    let waiting = Mutex::new(programs.into_iter());
    let tally = Mutex::new(tally);
    let lane = || -> Result<Vec<Failed>> {
        let mut failed = Vec::new();
        loop {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(program) = next else { return Ok(failed) };
            let (said, status, seconds) = program.run(&[])?;
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            println!("\n-- {} ({seconds} s)\n{said}", program.name);
            let before = tally.failed();
            said.lines().for_each(|line| tally.read(line));
            let tests = tally.failures()[before..].to_vec();
            ended(&program.name, status, before, &mut tally);
            if !tests.is_empty() {
                failed.push((program, tests));
            }
        }
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        let ended = lanes
            .into_iter()
            .map(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        Ok(ended.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    })
}

/// Runs failed tests once more, one by one with nothing beside them. What is broken fails again; what only waited too short
/// for a busy machine passes, and is named at the end, for that is to be mended too.
fn run_again(failed: &[Failed], tally: &mut Tally) -> Result<()> {
    for (program, tests) in failed {
        for test in tests {
            let (said, _, seconds) = program.run(&[test])?;
            println!("\n-- {}, again and alone: {test} ({seconds} s)\n{said}", program.name);
            let mut again = Tally::default();
            said.lines().for_each(|line| again.read(line));
            if (again.passed(), again.failed()) == (1, 0) {
                tally.passed_again(test);
            }
        }
    }
    Ok(())
}

/// Builds them.
fn built() -> Result<Vec<Program>> {
    let mut command = cargo();
    command.args(["test", "--no-run", "--workspace", "--lib", "--bins", "--tests"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    let line = shown(&command);
    println!("build: {line}");
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    let programs: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| Program::of(&message))
        .collect();
    if programs.is_empty() {
        bail!("`{line}` named no test program");
    }
    Ok(programs)
}

impl Program {
    /// What a message of cargo tells of one. The agent, which the tests need, is told of too: it is no test.
    fn of(message: &Value) -> Option<Self> {
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        message.pointer("/profile/test")?.as_bool()?.then_some(())?;
        let mut package = PathBuf::from(text("/manifest_path")?);
        package.pop();
        Some(Self {
            name: text("/target/name")?.to_owned(),
            package,
            executable: PathBuf::from(text("/executable")?),
        })
    }

    /// What it said on both outputs, in its order, how it ended, and after how many seconds. `only`: tests by their whole
    /// names; none: all that are ignored otherwise.
    fn run(&self, only: &[&str]) -> Result<(String, ExitStatus, u64)> {
        // A file: what a test left running may hold a pipe open for ever.
        let mut said = tempfile::tempfile().context("no temporary file for what tests say")?;
        let copy = |file: &File| file.try_clone().context("cannot copy a descriptor");
        // Two a program, and so more than there are processors.
        let mut command = bounded(&self.executable);
        command.args(["--ignored", "--test-threads=2"]).current_dir(&self.package);
        if !only.is_empty() {
            command.arg("--exact").args(only);
        }
        // As cargo does; what is set now is of xtask.
        command.env("CARGO_MANIFEST_DIR", &self.package);
        command.stdin(Stdio::null()).stdout(copy(&said)?).stderr(copy(&said)?);
        let start = Instant::now();
        let status = command.status().with_context(|| format!("cannot run `{}`", shown(&command)))?;
        let seconds = start.elapsed().as_secs();
        let mut bytes = Vec::new();
        said.seek(SeekFrom::Start(0))
            .and_then(|_| said.read_to_end(&mut bytes))
            .context("reading what the tests said")?;
        Ok((String::from_utf8_lossy(&bytes).into_owned(), status, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_tests_is_told_from_the_agent_that_is_built_with_it() {
        let of = |test: bool| {
            Program::of(&serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": "/w/mpesa-fw/Cargo.toml",
                "target": { "name": "decision" }, "profile": { "test": test }, "executable": "/w/target/decision-1",
            }))
        };
        let program = of(true).unwrap();
        assert_eq!((program.name.as_str(), program.package), ("decision", PathBuf::from("/w/mpesa-fw")));
        assert!(of(false).is_none());
        assert!(Program::of(&serde_json::json!({ "reason": "build-finished", "success": true })).is_none());
    }
}
