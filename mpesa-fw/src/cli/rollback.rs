//! `mpesa-fw rollback`

use std::path::Path;

use super::{
    arguments::{Format, RollbackArguments},
    caller,
    failure::Failure,
    output::{print, print_json, table},
    reload,
    when::stamp,
};
use crate::{
    agent::{KeptGeneration, Options},
    control::{Answer, Client, Request},
};

/// Goes back to an earlier generation, or lists those that are kept.
pub(super) fn rollback(runtime_dir: &Path, arguments: &RollbackArguments) -> Result<(), Failure> {
    let client = Client::new(&Options::control_socket(runtime_dir));
    if arguments.list {
        return list(&client, arguments.format.format);
    }
    let request = Request::Rollback {
        generation: arguments.generation,
        force: arguments.force,
        caller: caller::ssh_connection(),
        confirm_within: arguments.trial.seconds(),
    };
    reload::ask(&client, request, arguments.format.format)
}

fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let Answer::Generations(generations) = client.ask(Request::Generations)? else {
        return Err(Failure::another_answer());
    };
    match format {
        Format::Json => print_json(&generations),
        Format::Table if generations.is_empty() => print("no generation is kept\n"),
        Format::Table => {
            let head = ["GENERATION", "LOADED", "MODE", "SERIAL", "DIGEST", "RULES", "TEXT OF"];
            print(&table(&head, generations.iter().map(row)))
        }
    }
}

fn row(kept: &KeptGeneration) -> Vec<String> {
    vec![
        kept.number.to_string(),
        stamp(kept.loaded),
        kept.mode.clone(),
        kept.serial.map_or_else(String::new, |serial| serial.to_string()),
        kept.digest.chars().take(12).collect(),
        kept.rules.display().to_string(),
        kept.text_of.map_or_else(String::new, |number| number.to_string()),
    ]
}
