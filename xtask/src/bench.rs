//! `cargo xtask bench`: rates the programs and the agent on this machine and keeps the figures.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::{self, capture, is_root, run as run_command, shown, target};
use crate::{object, setup, toolchain};

mod machine;

/// Where the figures are kept, below the workspace.
const RESULTS: &str = "mpesa-fw/benches/RESULTS.md";
/// The picture beside them.
const PLOT: &str = "mpesa-fw/benches/wire.svg";
/// What the figures mean; the beginning of that file.
const METHOD: &str = include_str!("bench/method.md");

/// What to rate.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer rounds, to see where it goes; the figures are not kept
    #[arg(long)]
    quick: bool,
    /// Only this part; the figures are not kept
    #[arg(long, value_enum)]
    only: Option<Part>,
}

impl Arguments {
    /// Whether the figures are.
    const fn is_kept(&self) -> bool {
        !self.quick && self.only.is_none()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Nanoseconds a packet
    Datapath,
    /// Rates on a link, beside other firewalls
    Wire,
    /// Callbacks while floods arrive
    Load,
    /// Reloads, memory, processor time
    Agent,
}

impl Part {
    const ALL: [Self; 4] = [Self::Datapath, Self::Wire, Self::Load, Self::Agent];

    /// In Markdown, to stand before the figures.
    fn picture(self) -> &'static str {
        match self {
            Self::Wire => "![ns a denied packet, by prefixes](wire.svg)\n\n",
            Self::Datapath | Self::Load | Self::Agent => "",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Datapath => "Nanoseconds a packet",
            Self::Wire => "On a link, beside other firewalls",
            Self::Load => "Callbacks while floods arrive",
            Self::Agent => "Reloads and the agent",
        }
    }
}

/// Rates, prints, and keeps the figures of a whole run.
///
/// # Errors
/// When something can't be built or run.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if !is_root() {
        bail!("the bench loads programs and makes namespaces: run `cargo xtask bench` as root");
    }
    // What can't be had is said in the results.
    if let Err(error) = setup::rating() {
        println!("note: {error:#}");
    }
    let object = build_object()?;
    run_command(process::cargo().args(["bench", "--package", "mpesa-fw", "--bench", "figures", "--no-run"]))?;
    let machine = machine::describe()?;
    let mut results = format!("{METHOD}\n{machine}");
    for part in Part::ALL {
        if arguments.only.is_some_and(|only| only != part) {
            continue;
        }
        let load = machine::load();
        let figures = figures(part, &object, arguments)?;
        write!(
            results,
            "\n## {}\n\nLoad average before {load}, after {}.\n\n{}{figures}",
            part.title(),
            machine::load(),
            part.picture()
        )?;
    }
    println!("{results}");
    if !arguments.is_kept() {
        println!("(not kept: not a whole run)");
        return Ok(());
    }
    fs::write(process::workspace().join(RESULTS), results)
        .with_context(|| format!("cannot write {RESULTS}"))?;
    println!("kept in {RESULTS}");
    Ok(())
}

/// The object with the programs of the bench, built like the agent's.
fn build_object() -> Result<PathBuf> {
    let toolchain =
        toolchain::find().map_err(|missing| anyhow::anyhow!("{missing}; run `cargo xtask setup`"))?;
    let below = target().join("bench-object");
    let mut cargo = object::cargo(&toolchain, std::env::consts::ARCH, &process::workspace(), &below);
    cargo.args(["--features", "bench"]);
    run_command(&mut cargo)?;
    Ok(object::built(&below))
}

/// What one part prints on standard output.
fn figures(part: Part, object: &PathBuf, arguments: &Arguments) -> Result<String> {
    let quick = arguments.quick;
    let mut cargo = process::cargo();
    cargo.args(["bench", "--quiet", "--package", "mpesa-fw", "--bench", "figures", "--"]);
    match part {
        Part::Datapath => {
            cargo.arg("datapath").arg("--object").arg(object);
            if quick {
                cargo.args(["--rounds", "11", "--packets", "50000"]);
            }
        }
        Part::Wire => {
            cargo.arg("wire").arg("--object").arg(object);
            if quick {
                cargo.args(["--rounds", "11", "--packets", "100000"]);
            }
            if arguments.is_kept() {
                cargo.arg("--plot").arg(process::workspace().join(PLOT));
            }
        }
        Part::Load => {
            cargo.arg("load").arg("--object").arg(object);
            if quick {
                cargo.args(["--rounds", "2", "--seconds", "4"]);
            }
        }
        Part::Agent => {
            cargo.arg("agent");
            if quick {
                cargo.args(["--reloads", "6", "--idle", "5"]);
            }
        }
    }
    let line = shown(&cargo);
    let output = cargo.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).context("the bench printed something else than text")
}

/// What a command says, or why it says nothing.
fn said(program: &str, arguments: &[&str]) -> String {
    capture(Command::new(program).args(arguments))
        .map_or_else(|error| error.to_string(), |said| said.trim().to_owned())
}
