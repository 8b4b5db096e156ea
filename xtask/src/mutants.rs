//! `cargo xtask mutants`: puts one defect after the other into a copy of the tree and expects tests to fail.
//!
//! The copy and what is built of it lie below `target/mutants` and are kept, so that a defect costs no more than what
//! depends on its file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{self, capture, is_root, target};
use crate::test::Tally;

const TABLE: &str = include_str!("mutants/table.yaml");

/// Which defects.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only those whose part, file or text holds this; a number of the precedence as a whole
    #[arg(long)]
    only: Option<String>,
    /// Go on with that one: an earlier run was interrupted
    #[arg(long, value_name = "N", default_value_t = 1)]
    from: usize,
    /// Only say whether each text is found
    #[arg(long)]
    check: bool,
}

/// One defect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    breaks: String,
    file: PathBuf,
    text: String,
    instead: String,
    suites: Vec<Suite>,
    /// Parts of the names of those that must notice it, where the whole suite takes minutes; nobody else of it is asked.
    #[serde(default)]
    tests: Vec<String>,
}

/// Who looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Suite {
    /// Catalogue, properties and law, on the host
    Decision,
    /// Tests beside the code of compile
    Compile,
    /// Tests beside the code of the agent
    Agent,
    /// Policies, good and bad
    Policy,
    /// Tests beside the code of mpesa-fw-common
    Common,
    /// Catalogue and law in the kernel
    Kernel,
    /// The lock-out guard, with the real agent
    Guard,
    /// Reloads on trial, with the real agent
    Trial,
    /// Connections that are no longer permitted, with the real agent
    Revocation,
    /// The tamper watch, with ip, tc and bpftool
    Tamper,
    /// Ways round TC, with the attackers' programs
    Bypass,
    /// Who sent what was dropped, with an insider's programs
    Evidence,
    /// Rules with owners, with cgroups, users and an insider's programs
    Owners,
    /// What the kernel answers by itself where rules have owners
    Answers,
}

impl Suite {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Decision => &["-p", "mpesa-fw", "--test", "decision"],
            Self::Compile => &["-p", "mpesa-fw", "--lib", "compile::"],
            Self::Agent => &["-p", "mpesa-fw", "--lib", "agent::"],
            Self::Policy => &["-p", "mpesa-fw", "--test", "policy_errors", "--test", "policy_files"],
            Self::Common => &["-p", "mpesa-fw-common", "--lib"],
            Self::Kernel => &["-p", "mpesa-fw", "--test", "decision", "--", "--ignored"],
            Self::Guard => &["-p", "mpesa-fw", "--test", "netns_guard", "--", "--ignored"],
            Self::Trial => &["-p", "mpesa-fw", "--test", "netns_trial", "--", "--ignored"],
            Self::Revocation => &["-p", "mpesa-fw", "--test", "netns_revocation", "--", "--ignored"],
            Self::Tamper => &["-p", "mpesa-fw", "--test", "netns_tamper_watch", "--", "--ignored"],
            Self::Bypass => &["-p", "mpesa-fw", "--test", "netns_bypass", "--", "--ignored"],
            Self::Evidence => &["-p", "mpesa-fw", "--test", "netns_evidence", "--", "--ignored"],
            Self::Owners => &["-p", "mpesa-fw", "--test", "netns_owners", "--", "--ignored"],
            Self::Answers => &["-p", "mpesa-fw", "--test", "netns_answers", "--", "--ignored"],
        }
    }

    /// Those with the object in them are built apart, or each turn would build everything anew.
    const fn with_object(self) -> bool {
        matches!(
            self,
            Self::Kernel
                | Self::Guard
                | Self::Trial
                | Self::Revocation
                | Self::Tamper
                | Self::Bypass
                | Self::Evidence
                | Self::Owners
                | Self::Answers
        )
    }
}

/// Tries each defect and prints by which tests it was caught; whether all were.
///
/// # Errors
/// When a text is not found exactly once, or something can't be run.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let mutants: Vec<Mutant> = serde_yaml::from_str(TABLE).context("the table of mutants")?;
    let mut wanted: Vec<&Mutant> = mutants.iter().filter(|mutant| mutant.is_wanted(arguments)).collect();
    for mutant in &wanted {
        mutant.applied(&process::workspace())?;
    }
    println!("{} defects, each found where it belongs", wanted.len());
    if arguments.check {
        return Ok(true);
    }
    let all = wanted.len();
    if arguments.from == 0 || arguments.from > all {
        bail!("--from {}: there are {all}, the first is 1", arguments.from);
    }
    wanted.drain(..arguments.from - 1);
    let tree = Tree::update()?;
    tree.must_be_sound(&wanted)?;
    let (mut survivors, mut table) = (0, Vec::new());
    for (mutant, n) in wanted.iter().zip(arguments.from..) {
        if mutant.suites.iter().copied().any(Suite::with_object) && !is_root() {
            bail!("`{}` is looked for in the kernel: run `cargo xtask mutants` as root", mutant.breaks);
        }
        let caught = tree.try_one(mutant)?;
        let by = if caught.is_empty() { String::from("SURVIVED") } else { caught.join(", ") };
        println!("{n}/{all} {}: {by}", mutant.label());
        survivors += usize::from(caught.is_empty());
        table.push(vec![
            mutant.breaks.clone(),
            mutant.file.display().to_string(),
            mutant.instead.clone(),
            by,
        ]);
    }
    let mut shown = comfy_table::Table::new();
    shown.load_preset(comfy_table::presets::ASCII_MARKDOWN).set_header([
        "Breaks",
        "File",
        "Instead",
        "Caught by",
    ]);
    shown.add_rows(table);
    println!("\n{shown}\n{} defects, {survivors} survived", wanted.len());
    Ok(survivors == 0)
}

impl Mutant {
    fn is_wanted(&self, arguments: &Arguments) -> bool {
        arguments.only.as_ref().is_none_or(|only| {
            self.breaks == *only
                || only.len() > 2
                    && [&self.breaks, &self.text, &self.file.display().to_string()]
                        .iter()
                        .any(|s| s.contains(only))
        })
    }

    fn label(&self) -> String {
        format!("{} ({}: `{}`)", self.breaks, self.file.display(), self.instead)
    }

    /// The file with the defect in it.
    fn applied(&self, tree: &Path) -> Result<String> {
        let file = tree.join(&self.file);
        let good = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        match good.matches(&self.text).count() {
            1 => Ok(good.replace(&self.text, &self.instead)),
            n => bail!(
                "{} holds {n} times, not once, `{}`: change xtask/src/mutants/table.yaml with it",
                self.file.display(),
                self.text
            ),
        }
    }
}

/// The copy.
struct Tree(PathBuf);

impl Tree {
    /// Makes it what the workspace is; what has not changed keeps its time, and is not built again.
    fn update() -> Result<Self> {
        let (from, to) = (process::workspace(), target().join("mutants/tree"));
        let list = capture(Command::new("git").current_dir(&from).args([
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        for file in list.lines() {
            let (from, to) = (from.join(file), to.join(file));
            let Ok(contents) = fs::read(&from) else { continue };
            if fs::read(&to).is_ok_and(|there| there == contents) {
                continue;
            }
            if let Some(directory) = to.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&to, contents).with_context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(Self(to))
    }

    /// Without a defect nothing may fail, or what fails with one would show nothing.
    fn must_be_sound(&self, wanted: &[&Mutant]) -> Result<()> {
        let mut asked = BTreeSet::new();
        for mutant in wanted {
            for suite in &mutant.suites {
                // Each name must be that of a test.
                asked.extend(mutant.tests.iter().map(|test| (*suite, std::slice::from_ref(test))));
                if mutant.tests.is_empty() {
                    asked.insert((*suite, &[][..]));
                }
            }
        }
        for (suite, tests) in asked {
            let tally = self.test(suite, tests)?;
            if tally.failed() > 0 {
                bail!("without any defect these fail: {}", tally.failures().join(", "));
            }
            if tally.passed() == 0 {
                bail!("{suite:?} has no test called {}", tests.concat());
            }
        }
        Ok(())
    }

    /// The tests that fail with a defect in the tree; without it the tree is left.
    fn try_one(&self, mutant: &Mutant) -> Result<Vec<String>> {
        let file = self.0.join(&mutant.file);
        let good = fs::read(&file)?;
        fs::write(&file, mutant.applied(&self.0)?)?;
        let caught: Result<Vec<Vec<String>>> = mutant
            .suites
            .iter()
            .map(|suite| Ok(self.test(*suite, mutant.tests.as_slice())?.failures().to_vec()))
            .collect();
        fs::write(&file, good)?;
        Ok(caught.with_context(|| mutant.label())?.concat())
    }

    /// How the tests of a suite come out, or those of it that are called so.
    fn test(&self, suite: Suite, tests: &[String]) -> Result<Tally> {
        let (options, filter) = match suite.arguments().iter().position(|argument| *argument == "--") {
            Some(at) => suite.arguments().split_at(at),
            None => (suite.arguments(), &[][..]),
        };
        let cargo = |no_run: bool| {
            let mut cargo = process::cargo();
            cargo.current_dir(&self.0).args(["test", "--no-fail-fast"]).args(options);
            if no_run {
                cargo.arg("--no-run");
            } else {
                cargo.args(if filter.is_empty() { &["--"] } else { filter }).args(tests);
            }
            let below = if suite.with_object() { "target/mutants/kernel" } else { "target/mutants/host" };
            cargo.env("CARGO_TARGET_DIR", process::workspace().join(below));
            cargo.env("MPESA_FW_LAW_HOST", "15000").env("MPESA_FW_LAW_KERNEL", "3000");
            if !suite.with_object() {
                cargo.env("MPESA_FW_SKIP_EBPF", "1");
            }
            cargo
        };
        capture(&mut cargo(true)).context("the tests can't be built")?;
        let output = cargo(false).output().context("cannot run cargo")?;
        let mut tally = Tally::default();
        String::from_utf8_lossy(&output.stdout).lines().for_each(|line| tally.read(line));
        if !output.status.success() && tally.failed() == 0 {
            tally.fail(format!("{suite:?}: the tests died"));
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever changes a line that is broken on purpose hears of it here, not hours into a run.
    #[test]
    fn each_text_is_found_once() {
        let mutants: Vec<Mutant> = serde_yaml::from_str(TABLE).unwrap();
        let tree = process::workspace();
        let wrong: Vec<String> = mutants
            .iter()
            .filter_map(|mutant| mutant.applied(&tree).err())
            .map(|error| format!("{error:#}"))
            .collect();
        assert_eq!(wrong, [] as [String; 0]);
    }
}
