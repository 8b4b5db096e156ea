//! Set-up, demo, tests, benches and packaging of mpesa-fw: one module a verb.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod deb;
mod demo;
mod evade;
mod fuzz;
mod kernels;
mod law;
mod lint;
mod mutants;
mod object;
mod process;
mod setup;
mod test;
mod toolchain;

/// Everything around the build of mpesa-fw.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what is missing for building, testing and showing mpesa-fw
    Setup,
    /// Show the firewall at work between network namespaces
    Demo,
    /// Try to get past the firewall in every known way, between network namespaces
    Evade(evade::Arguments),
    /// Run every test that can run here, and say which could not
    Test(test::Arguments),
    /// Rate the programs and the agent, and keep the figures
    Bench(bench::Arguments),
    /// Hold oracle, decision and kernel against each other on random policies and packets
    Law(law::Arguments),
    /// Fuzz the parsers, the decision and the programs in the kernel
    Fuzz(fuzz::Arguments),
    /// Put defects into a copy of the tree, one by one, and expect tests to fail
    Mutants(mutants::Arguments),
    /// Boot the kernels of Debian's releases with the firewall inside, and keep the table of what each can do
    Kernels(kernels::Arguments),
    /// Check formatting, clippy and docs, warnings being errors
    Lint,
    /// Make the Debian package
    Deb(deb::Arguments),
    /// What continuous integration runs: set-up, lint, package, demo, tests
    Ci,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().verb {
        Verb::Setup => setup::run().map(|()| true),
        Verb::Demo => setup::run().and_then(|()| demo::run()).map(|()| true),
        Verb::Evade(arguments) => setup::run().and_then(|()| evade::run(&arguments)),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments).map(|()| true),
        Verb::Law(arguments) => law::run(&arguments).map(|()| true),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Mutants(arguments) => mutants::run(&arguments),
        Verb::Kernels(arguments) => kernels::run(&arguments),
        Verb::Lint => lint::run().map(|()| true),
        Verb::Deb(arguments) => deb::run(&arguments).map(|()| true),
        Verb::Ci => ci::run(),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        // What failed has been said.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
