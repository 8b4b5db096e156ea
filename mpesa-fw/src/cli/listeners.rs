//! `mpesa-fw listeners`

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use nix::unistd::{Uid, User};

use super::{
    arguments::Format,
    failure::Failure,
    output::{print, print_json, table},
};
use crate::{
    agent::{Listener, Listeners, Options, Unanswered},
    control::{Answer, Client, Request},
};

/// Shows what listens and is not declared, and what is declared and does not listen.
pub(super) fn listeners(runtime_dir: &Path, format: Format) -> Result<(), Failure> {
    let Answer::Listeners(mut found) =
        Client::new(&Options::control_socket(runtime_dir)).ask(Request::Listeners)?
    else {
        return Err(Failure::another_answer());
    };
    // Whoever runs this may see more of other users' processes than the agent.
    found.find_processes();
    match format {
        Format::Json => print_json(&found)?,
        Format::Table => print(&text(&found))?,
    }
    if found.undeclared().next().is_some() { Err(Failure::said()) } else { Ok(()) }
}

fn text(found: &Listeners) -> String {
    let mut text = String::new();
    let undeclared: Vec<&Listener> = found.undeclared().collect();
    match undeclared.len() {
        0 => text.push_str("every listener is declared by a service\n"),
        shown => {
            let count = shown + found.left_out;
            let _ = writeln!(text, "{count} undeclared: no service of the policy claims what listens there");
            let head = ["PROTOCOL", "LISTENS ON", "PROCESS", "EXECUTABLE", "USER", "UNIT"];
            text.push_str(&table(&head, undeclared.into_iter().map(row)));
            if found.left_out > 0 {
                let _ = writeln!(text, "and {} more, for which an answer has no room", found.left_out);
            }
        }
    }
    if !found.unanswered.is_empty() {
        text.push_str("\nservices that nobody answers:\n");
        text.push_str(&table(&["SERVICE", "PROTOCOL", "PORTS"], found.unanswered.iter().map(unanswered)));
    }
    text
}

fn row(listener: &Listener) -> Vec<String> {
    let process = listener.process.as_ref();
    let unknown = || "?".to_owned();
    vec![
        listener.protocol.clone(),
        SocketAddr::new(listener.address, listener.port).to_string(),
        process.map_or_else(unknown, ToString::to_string),
        process.and_then(|process| process.executable.clone()).unwrap_or_else(unknown),
        user(listener.user),
        process.map_or_else(unknown, |process| process.unit.clone().unwrap_or_else(|| "-".to_owned())),
    ]
}

fn unanswered(ports: &Unanswered) -> Vec<String> {
    let Unanswered { service, protocol, first, last } = ports;
    let ports = if first == last { first.to_string() } else { format!("{first}-{last}") };
    vec![service.clone(), protocol.clone(), ports]
}

fn user(id: u32) -> String {
    match User::from_uid(Uid::from_raw(id)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => id.to_string(),
    }
}
