//! `mpesa-fw events`

use std::{net::SocketAddr, path::Path};

use serde::Serialize;

use super::{
    arguments::{EventsArguments, Format, WantedArguments},
    failure::Failure,
    follow::Follow,
    output::{print, print_json, print_on, table},
    when,
};
use crate::{
    agent::{AttemptRecord, EventRecord, ListenerRecord, Options, PacketRecord, ProgramRecord, Wanted},
    control::{Answer, Client, Line, Request},
};

/// Shows what was dropped last, and with `--follow` what is dropped from then on.
pub(super) fn events(runtime_dir: &Path, arguments: EventsArguments) -> Result<(), Failure> {
    let EventsArguments { last, follow, wanted, format } = arguments;
    let client = Client::new(&Options::control_socket(runtime_dir));
    let wanted = Some(wanted.into());
    if follow {
        return follow_them(&client, Request::Follow { last, wanted, frames: None }, format.format);
    }
    let Answer::Events(mut events) = client.ask(Request::Events { last, wanted })? else {
        return Err(Failure::another_answer());
    };
    events.iter_mut().for_each(look_for_executable);
    match format.format {
        Format::Json => print_json(&events),
        Format::Table if events.is_empty() => print("nothing of that kind since the agent started\n"),
        Format::Table => {
            let head =
                ["TIME", "INTERFACE", "DIRECTION", "REASON", "RULE", "PROTOCOL", "SOURCE", "TARGET", ""];
            print(&table(&head, events.iter().map(|event| row(event).to_vec())))
        }
    }
}

fn follow_them(client: &Client, request: Request, format: Format) -> Result<(), Failure> {
    let mut follow = Follow::begin(client, request, None)?;
    for mut event in std::mem::take(&mut follow.last) {
        look_for_executable(&mut event);
        print_on(&line(&event, format)?)?;
    }
    follow.each(|line_of_agent, _| {
        match line_of_agent {
            Line::Event(mut event) => {
                look_for_executable(&mut event);
                print_on(&line(&event, format)?)?;
            }
            Line::Missed(events) => {
                let said = format!("{events} events are missing here: they came faster than this was read");
                say_gap("missed", events, &said, format)?;
            }
            Line::Suppressed(events) => {
                let said =
                    format!("{events} more drops were counted and not told one by one: too many at once");
                say_gap("suppressed", events, &said, format)?;
            }
            Line::Packet { .. } | Line::Ended(_) => {}
        }
        Ok(())
    })
}

/// What the agent may not look at, whoever asks may.
fn look_for_executable(event: &mut EventRecord) {
    match event {
        EventRecord::Packet(packet) => packet.program.iter_mut().for_each(ProgramRecord::look_for_executable),
        EventRecord::Attempt(attempt) => attempt.program.look_for_executable(),
        EventRecord::Listener(_) => {}
    }
}

/// One line, of text or JSON.
fn line(event: &EventRecord, format: Format) -> Result<String, Failure> {
    match format {
        Format::Json => json_line(event),
        Format::Table => Ok(text_line(event)),
    }
}

fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(format!("{text}\n"))
}

/// In columns that are as wide as most words are: a stream can't wait for the widest.
fn text_line(event: &EventRecord) -> String {
    let [time, interface, direction, reason, rule, protocol, source, target, note] = row(event);
    let rule = if rule.is_empty() { "-".to_owned() } else { rule };
    let line = format!(
        "{time}  {interface:<8} {direction:<7}  {reason:<20}  {rule:<12}  {protocol:<6} {source} -> {target}  {note}"
    );
    format!("{}\n", line.trim_end())
}

/// A reader of text sees it between the lines, a program among them.
fn say_gap(kind: &'static str, events: u64, said: &str, format: Format) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Gap {
        kind: &'static str,
        events: u64,
    }
    match format {
        Format::Json => print_on(&json_line(&Gap { kind, events })?),
        Format::Table => {
            eprintln!("{said}");
            Ok(())
        }
    }
}

fn row(event: &EventRecord) -> [String; 9] {
    match event {
        EventRecord::Packet(packet) => packet_row(packet),
        EventRecord::Attempt(attempt) => attempt_row(attempt),
        EventRecord::Listener(listener) => listener_row(listener),
    }
}

fn attempt_row(attempt: &AttemptRecord) -> [String; 9] {
    [
        when::stamp(attempt.time),
        String::new(),
        "connect".to_owned(),
        attempt.reason.clone(),
        attempt.rule.clone(),
        attempt.protocol.clone(),
        String::new(),
        SocketAddr::new(attempt.target, attempt.target_port).to_string(),
        note(
            Some(&attempt.program),
            attempt.asked_for.as_deref(),
            attempt.nearest.as_deref(),
            attempt.repeated,
            if attempt.refused { None } else { Some("let go") },
        ),
    ]
}

/// `curl (4711), user 1000, unit cron.service; asked for evil.example; nearest: dns (udp 53); 12 more; let go`
fn note(
    program: Option<&ProgramRecord>,
    asked_for: Option<&str>,
    nearest: Option<&str>,
    repeated: u64,
    let_go: Option<&str>,
) -> String {
    let parts = [
        program.map(who),
        asked_for.map(|name| format!("asked for {name}")),
        nearest.map(|rule| format!("nearest: {rule}")),
        (repeated > 0).then(|| format!("{repeated} more")),
        let_go.map(str::to_owned),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// `curl (4711), user 1000, logged in as 1000, unit cron.service, /usr/bin/curl`
fn who(program: &ProgramRecord) -> String {
    let mut who = match program.process {
        Some(process) => format!("{} ({process}), user {}", program.name, program.user),
        None => format!("user {}", program.user),
    };
    let more = [
        program.login_user.map(|user| format!("logged in as {user}")),
        program.unit.as_ref().map(|unit| format!("unit {unit}")),
        program.executable.clone(),
    ];
    for more in more.into_iter().flatten() {
        who.push_str(", ");
        who.push_str(&more);
    }
    who
}

fn listener_row(listener: &ListenerRecord) -> [String; 9] {
    let who = listener.unit.as_deref().or(listener.process.as_deref());
    let who = who.map_or_else(|| format!("user {}", listener.user), str::to_owned);
    [
        when::stamp(listener.time),
        String::new(),
        String::new(),
        "undeclared_listener".to_owned(),
        String::new(),
        listener.protocol.clone(),
        String::new(),
        SocketAddr::new(listener.address, listener.port).to_string(),
        who,
    ]
}

fn packet_row(packet: &PacketRecord) -> [String; 9] {
    let end = |address, port| match port {
        0 => std::net::IpAddr::to_string(&address),
        port => SocketAddr::new(address, port).to_string(),
    };
    [
        when::stamp(packet.time),
        packet.interface.clone(),
        packet.direction.clone(),
        packet.reason.clone(),
        packet.rule.clone(),
        packet.protocol.clone(),
        end(packet.source, packet.source_port),
        end(packet.target, packet.target_port),
        note(
            packet.program.as_ref(),
            packet.asked_for.as_deref(),
            packet.nearest.as_deref(),
            packet.repeated,
            if packet.dropped { None } else { Some("let go (observe)") },
        ),
    ]
}

impl From<WantedArguments> for Wanted {
    fn from(WantedArguments { reason, rule, address, direction }: WantedArguments) -> Self {
        Self { reasons: reason, rules: rule, addresses: address, direction }
    }
}
