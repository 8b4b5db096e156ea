//! The command line.

mod arguments;
mod audit;
mod caller;
mod capture;
mod check;
mod confirm;
mod detach;
mod diff;
mod doctor;
mod events;
mod failure;
mod follow;
mod handshakes;
#[cfg(test)]
mod json_tests;
mod listeners;
mod logging;
mod output;
mod pages;
mod pcap;
mod pcapng;
mod reload;
mod rollback;
mod run;
mod status;
mod summary;
mod tampering;
mod trial;
mod when;
mod why;

use std::{panic, process::ExitCode};

use clap::Parser as _;

use arguments::{Arguments, Command};
use failure::Failure;
pub use status::counts;

/// Runs the command line and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` is one of these "errors". Where nobody reads there is nobody to tell.
            let _ = error.print();
            return if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    // A panic is a defect: said by the default hook, and told apart by its exit code. The datapath stays as it is.
    let result = panic::catch_unwind(|| dispatch(arguments))
        .unwrap_or_else(|_| Err(Failure::internal("mpesa-fw came to a place it should never reach")));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(Arguments { runtime_dir, command }: Arguments) -> Result<(), Failure> {
    match command {
        Command::Run(arguments) => run::run(&runtime_dir, *arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Reload(arguments) => reload::reload(&runtime_dir, arguments),
        Command::Confirm(arguments) => confirm::confirm(&runtime_dir, &arguments),
        Command::Rollback(arguments) => rollback::rollback(&runtime_dir, &arguments),
        Command::Watchdog(arguments) => run::watchdog(&runtime_dir, *arguments),
        Command::Status(arguments) => status::status(&runtime_dir, arguments.format),
        Command::Why(arguments) => why::why(&runtime_dir, *arguments),
        Command::Diff(arguments) => diff::diff(&runtime_dir, &arguments),
        Command::Doctor(arguments) => doctor::doctor(&runtime_dir, arguments),
        Command::Events(arguments) => events::events(&runtime_dir, arguments),
        Command::Capture(arguments) => capture::capture(&runtime_dir, arguments),
        Command::Listeners(arguments) => listeners::listeners(&runtime_dir, arguments.format),
        Command::Audit(arguments) => audit::audit(&runtime_dir, arguments),
        Command::Detach(arguments) => detach::detach(&runtime_dir, arguments.bpffs.as_deref()),
        Command::Completions { shell } => pages::completions(shell),
        Command::Man { command } => pages::man(command.as_deref()),
    }
}
