//! Completions and manual pages.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{arguments::Arguments, failure::Failure, output::print};

/// Prints completions.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "mpesa-fw", &mut text);
    print(&String::from_utf8_lossy(&text))
}

/// Prints the manual page of the program or of one of its commands.
pub(super) fn man(command: Option<&str>) -> Result<(), Failure> {
    let mut program = Arguments::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => {
            let unknown = || Failure::usage(format!("there is no command `{name}`"));
            let command = program.find_subcommand(name).ok_or_else(unknown)?;
            command.clone()
        }
    };
    let mut text = Vec::new();
    Man::new(page).section("8").render(&mut text)?;
    print(&String::from_utf8_lossy(&text))
}
