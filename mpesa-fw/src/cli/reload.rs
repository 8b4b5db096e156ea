//! `mpesa-fw reload`

use std::{fmt::Write as _, path::Path, thread::sleep, time::Duration};

use super::{
    arguments::{Format, ReloadArguments},
    caller,
    failure::Failure,
    output::{print, print_json},
    trial,
};
use crate::{
    agent::{Options, Reloaded},
    control::{Answer, Client, Request},
};

/// How long a generation on trial is watched before what was seen is told.
const WATCHED: Duration = Duration::from_secs(4);

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
    let request = Request::Reload {
        rules,
        force: arguments.force,
        caller: caller::ssh_connection(),
        confirm_within: arguments.trial.seconds(),
    };
    ask(&Client::new(&Options::control_socket(runtime_dir)), request, arguments.format.format)
}

/// Asks for another generation, and tells what became of it. Of one that is on trial, a while later also what was seen.
pub(super) fn ask(client: &Client, request: Request, format: Format) -> Result<(), Failure> {
    let Answer::Reloaded(mut done) = client.ask(request)? else {
        return Err(Failure::another_answer());
    };
    if let (Some(trial), Format::Table) = (&done.trial, format) {
        print(&text(&done))?;
        sleep(WATCHED.min(Duration::from_secs(trial.seconds_left / 4)));
        return later(client);
    }
    match format {
        Format::Json => {
            if let Some(trial) = &done.trial {
                sleep(WATCHED.min(Duration::from_secs(trial.seconds_left / 4)));
                if let Ok(Answer::Trial(Some(seen))) = client.ask(Request::Trial) {
                    done.trial = Some(*seen);
                }
            }
            print_json(&done)
        }
        Format::Table => print(&text(&done)),
    }
}

/// What was seen so far, and what to do.
fn later(client: &Client) -> Result<(), Failure> {
    let Answer::Trial(trial) = client.ask(Request::Trial)? else {
        return Err(Failure::another_answer());
    };
    match trial {
        Some(trial) => print(&format!("{}{}", trial::evidence(&trial.evidence), trial::head(&trial))),
        None => print("the trial is over already: `mpesa-fw status` shows what is in force\n"),
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
    if done.ended_total > 0 {
        let _ = writeln!(text, "connections ended: {}", done.ended_total);
        for ended in &done.ended {
            let _ = writeln!(text, "  {ended}");
        }
        if done.ended_total > done.ended.len() {
            let _ = writeln!(text, "  and {} more", done.ended_total - done.ended.len());
        }
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
    if let Some(number) = done.text_of {
        let _ = writeln!(text, "its text is that of generation {number}, whatever the file says now");
    }
    let (generation, digest, mode) = (done.generation, &done.digest[..done.digest.len().min(12)], &done.mode);
    let _ = writeln!(
        text,
        "generation {generation} is in force ({mode}, digest {digest}, from {})",
        done.rules.display()
    );
    text
}
