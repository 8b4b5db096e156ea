//! `cargo xtask evade`: what evasion tools and insiders know, tried on the firewall in network namespaces.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use evasion::{Part, Report, try_part};
use testbed::watch_interrupts;

use crate::process::{cargo, is_root, run as run_command, target};

/// What to try, and on what.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// An installed program instead of the one in this tree, such as /usr/bin/mpesa-fw
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Only these parts: bare, native, generic, tc, egress, genuine
    #[arg(long, value_name = "PART", value_parser = part)]
    only: Vec<Part>,
}

/// Tries everything and prints the table; whether all was as expected.
///
/// # Errors
/// Something could not even be tried.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    ensure!(is_root(), "the suite makes network namespaces: run it as root");
    let binary = match &arguments.against {
        Some(binary) => binary.canonicalize().map_err(|error| {
            anyhow::anyhow!("cannot try {}: {error}; name an mpesa-fw binary", binary.display())
        })?,
        None => {
            run_command(cargo().args(["build", "--quiet", "--package", "mpesa-fw"]))?;
            target().join("debug/mpesa-fw")
        }
    };
    watch_interrupts()?;
    println!(
        "trying {} in network namespaces; none of this machine's interfaces is touched",
        binary.display()
    );
    let mut report = Report::default();
    let parts = if arguments.only.is_empty() { Part::ALL.as_slice() } else { arguments.only.as_slice() };
    for part in parts {
        println!("  {}", part.label());
        // What was seen before something could not be tried is worth its table.
        if let Err(error) = try_part(*part, &binary, &mut report) {
            println!("\n{report}");
            return Err(error);
        }
    }
    println!("\n{report}\n{}", report.summary());
    Ok(report.differences() == 0)
}

fn part(word: &str) -> Result<Part, String> {
    let known = Part::ALL.into_iter().find(|part| part.label() == word);
    known.ok_or_else(|| String::from("the parts are bare, native, generic, tc, egress and genuine"))
}
