//! `mpesa-fw events`

use std::{net::SocketAddr, path::Path};

use super::{
    arguments::{EventsArguments, Format},
    failure::Failure,
    output::{print, print_json, table},
    when,
};
use crate::{
    agent::{EventRecord, Options},
    control::{Answer, Client, Request},
};

/// Shows what was dropped last.
pub(super) fn events(runtime_dir: &Path, arguments: &EventsArguments) -> Result<(), Failure> {
    let request = Request::Events { last: arguments.last };
    let Answer::Events(events) = Client::new(&Options::control_socket(runtime_dir)).ask(request)? else {
        return Err(Failure::another_answer());
    };
    match arguments.format.format {
        Format::Json => print_json(&events),
        Format::Table if events.is_empty() => print("nothing was dropped since the agent started\n"),
        Format::Table => {
            let head =
                ["TIME", "INTERFACE", "DIRECTION", "REASON", "RULE", "PROTOCOL", "SOURCE", "TARGET", ""];
            print(&table(&head, events.iter().map(row)))
        }
    }
}

fn row(event: &EventRecord) -> Vec<String> {
    let end = |address, port| match port {
        0 => std::net::IpAddr::to_string(&address),
        port => SocketAddr::new(address, port).to_string(),
    };
    vec![
        when::stamp(event.time),
        event.interface.clone(),
        event.direction.clone(),
        event.reason.clone(),
        event.rule.clone(),
        event.protocol.clone(),
        end(event.source, event.source_port),
        end(event.target, event.target_port),
        if event.dropped { String::new() } else { "let go (observe)".to_owned() },
    ]
}
