//! `cargo xtask ci`: what continuous integration runs. The tests come last, and so does their closing line.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::process::run as run_command;
use crate::test::{self, Tally};
use crate::{deb, lint, setup};

type Step = (&'static str, fn() -> Result<()>);

/// In this order; a later one is tried also when an earlier one failed.
const STEPS: [Step; 4] =
    [("set-up", setup::run), ("lint", lint::run), ("package", deb::build_and_try), ("demo", demo)];

/// In a process of its own: the demo masks the signals that it wants to hear of, and what a masked process starts is
/// masked too. The tests signal agents.
fn demo() -> Result<()> {
    let this = std::env::current_exe().context("cannot tell where xtask is")?;
    run_command(Command::new(this).arg("demo"))
}

/// Runs everything and prints the closing line, in which each step counts as one test; whether all passed.
///
/// # Errors
/// When the tests can't be run at all.
pub(crate) fn run() -> Result<bool> {
    let mut ended: Vec<(&str, u64, Result<()>)> = Vec::new();
    for (name, step) in STEPS {
        println!("\n==== {name}");
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            println!("failed: {name}: {error:#}");
        }
        ended.push((name, start.elapsed().as_secs(), result));
    }
    println!("\n==== tests");
    let start = Instant::now();
    let mut tally: Tally = test::tally(&test::Arguments::default())?;
    let tests = start.elapsed().as_secs();

    println!();
    for (name, seconds, result) in ended {
        match result {
            Ok(()) => {
                println!("{name}: ok ({seconds} s)");
                tally.pass();
            }
            Err(error) => {
                println!("{name}: failed ({seconds} s): {error:#}");
                tally.fail(name.to_owned());
            }
        }
    }
    println!("tests: {tests} s");
    println!("\n{tally}");
    Ok(tally.failed() == 0)
}
