//! `mpesa-fw reload`

use std::{fmt::Write as _, path::Path};

use super::{
    arguments::{Format, ReloadArguments},
    caller,
    failure::Failure,
    output::{print, print_json},
};
use crate::{
    agent::{Options, Reloaded},
    control::{Answer, Client, Request},
};

/// Asks the agent to reload.
pub(super) fn reload(runtime_dir: &Path, arguments: ReloadArguments) -> Result<(), Failure> {
    // The agent has another working directory.
    let rules = arguments
        .file
        .map(|file| {
            std::path::absolute(&file)
                .map_err(|e| Failure::usage(format!("`{}` is no path: {e}", file.display())))
        })
        .transpose()?;
    let request = Request::Reload { rules, force: arguments.force, caller: caller::ssh_connection() };
    let Answer::Reloaded(done) = Client::new(&Options::control_socket(runtime_dir)).ask(request)? else {
        return Err(Failure::another_answer());
    };
    match arguments.format.format {
        Format::Json => print_json(&done),
        Format::Table => print(&text(&done)),
    }
}

fn text(done: &Reloaded) -> String {
    let mut text = String::new();
    for line in done.change.lines() {
        let _ = writeln!(text, "{line}");
    }
    if done.change.is_empty() {
        let _ = writeln!(text, "no change in the policy");
    }
    if done.flows_removed > 0 {
        let _ = writeln!(text, "open connections no longer permitted: {}", done.flows_removed);
    }
    for warning in &done.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if let Some(restart) = &done.after_restart {
        let _ = writeln!(
            text,
            "note: after a restart of the agent {} is in force again (`run --rules` wins)",
            restart.display()
        );
    }
    let (generation, digest, mode) = (done.generation, &done.digest[..done.digest.len().min(12)], &done.mode);
    let _ = writeln!(
        text,
        "generation {generation} is in force ({mode}, digest {digest}, from {})",
        done.rules.display()
    );
    text
}
