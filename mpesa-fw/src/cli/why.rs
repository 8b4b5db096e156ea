//! `mpesa-fw why`

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use serde::Serialize;

use super::{
    arguments::{Format, WhyArguments},
    failure::Failure,
    output::{print, print_json, table},
    pcap::{self, Document, Wish, json},
};
use crate::{
    agent::{
        Options,
        why::{Explanation, FrameAnswer, Outcome, OwnerAsked, PacketFacts, Question, Socket, Verdicts, Way},
    },
    control::{Answer, Client, Request},
};

/// Explains one packet, or those of a capture.
pub(super) fn why(runtime_dir: &Path, arguments: WhyArguments) -> Result<(), Failure> {
    let client = Client::new(&Options::control_socket(runtime_dir));
    let format = arguments.format.format;
    if let Some(file) = &arguments.pcap {
        let wish = Wish {
            way: pcap::way(arguments.ingress, arguments.egress),
            interface: arguments.interface,
            candidate: None,
        };
        return of_capture(&client, file, &wish, format);
    }
    let question = Question {
        way: if arguments.egress { Way::Egress } else { Way::Ingress },
        from: arguments.from,
        to: arguments.to,
        protocol: arguments.protocol,
        port: arguments.port,
        from_port: arguments.from_port,
        icmp_type: arguments.icmp_type,
        flags: arguments.flags,
        interface: arguments.interface,
        socket: if arguments.no_socket { Socket::None } else { Socket::Bound(arguments.bound_port) },
        owner: OwnerAsked { unit: arguments.unit, user: arguments.user },
    };
    let Answer::Why(explanation) = client.ask(Request::Why(Box::new(question)))? else {
        return Err(Failure::another_answer());
    };
    match format {
        Format::Json => print_json(&explanation)?,
        Format::Table => print(&text(&explanation))?,
    }
    if explanation.dropped { Err(Failure::said()) } else { Ok(()) }
}

/// An explanation for people.
fn text(explanation: &Explanation) -> String {
    let Explanation { outcome, dropped, description, rule_at, flow, packet, chosen, injected, advice, asked } =
        explanation;
    let mut text = String::new();
    let word = match (outcome.passes(), dropped) {
        (true, _) => "PASS",
        (false, true) => "DROP",
        (false, false) => "PASS (observed: enforce mode would drop it)",
    };
    let _ = writeln!(text, "{word}  {} ({})  {description}", outcome.reason, outcome.step);
    let direction = match packet.way {
        Way::Ingress => "ingress",
        Way::Egress => "egress",
    };
    let _ = writeln!(text, " packet    {} {direction}, {}", ends(packet), packet.protocol);
    let place = rule_at.as_ref().map(|at| format!(", {}:{}", at.file.display(), at.line)).unwrap_or_default();
    let rule = if outcome.rule.is_empty() { "none" } else { &outcome.rule };
    let _ = writeln!(text, " rule      {rule}{place}");
    if let Some(flow) = flow {
        let by =
            if flow.destination.is_empty() { String::new() } else { format!(" by {}", flow.destination) };
        let _ =
            writeln!(text, " flow      live, {}{by}, last packet {} s ago", flow.phase, flow.idle_seconds);
    }
    for line in advice {
        let _ = writeln!(text, " advice    {line}");
    }
    for line in chosen {
        let _ = writeln!(text, " chosen    {line}");
    }
    for line in injected {
        let _ = writeln!(text, " injected  {line}");
    }
    let interface = asked.interface.as_deref().unwrap_or("no interface");
    let _ = writeln!(
        text,
        " asked     {} of {interface} ({}), generation {}, digest {}: a twin with the same instructions and tables",
        asked.program,
        asked.hook,
        asked.generation,
        asked.digest.chars().take(12).collect::<String>()
    );
    text
}

/// Both ends of a packet.
pub(super) fn ends(packet: &PacketFacts) -> String {
    let end = |address: Option<IpAddr>, port| match (address, port) {
        (None, _) => "?".to_owned(),
        (Some(address), 0) => address.to_string(),
        (Some(address), port) => SocketAddr::new(address, port).to_string(),
    };
    let has_ports = matches!(packet.protocol.as_str(), "tcp" | "udp");
    let target_port = if has_ports { packet.target_port } else { 0 };
    let kind = if packet.protocol.starts_with("icmp") {
        format!(" type {}", packet.target_port)
    } else {
        String::new()
    };
    format!("{} -> {}{kind}", end(packet.source, packet.source_port), end(packet.target, target_port))
}

/// Packets that were judged alike.
#[derive(Serialize)]
struct Group {
    way: Way,
    #[serde(flatten)]
    outcome: Outcome,
    packets: usize,
    /// Number in the capture of the first, from 1.
    first: usize,
    example: String,
}

/// What is told of a capture.
#[derive(Default)]
struct Summary {
    groups: BTreeMap<(bool, bool, Outcome), Group>,
    not_judged: BTreeMap<String, usize>,
    shortened: usize,
}

impl Summary {
    fn take(&mut self, number: usize, answer: &FrameAnswer) {
        match (&answer.verdicts, &answer.packet) {
            (Verdicts::Judged { now, shortened, .. }, Some(packet)) => {
                self.shortened += usize::from(*shortened);
                let key = (now.passes(), packet.way == Way::Egress, now.clone());
                let group = self.groups.entry(key).or_insert_with(|| Group {
                    way: packet.way,
                    outcome: now.clone(),
                    packets: 0,
                    first: number,
                    example: ends(packet),
                });
                group.packets += 1;
            }
            (Verdicts::NotJudged(why), _) => *self.not_judged.entry(why.clone()).or_default() += 1,
            (Verdicts::Judged { .. }, None) => {}
        }
    }
}

/// Every packet of a capture, in bounded memory: JSON is written as it comes.
fn of_capture(client: &Client, file: &Path, wish: &Wish, format: Format) -> Result<(), Failure> {
    let mut summary = Summary::default();
    let mut document = (format == Format::Json).then(|| Document::begin(&[])).transpose()?;
    let read = pcap::judge(client, file, wish, &mut |number, answer| {
        summary.take(number, &answer);
        document.as_mut().map_or(Ok(()), |document| document.packet(number, &answer))
    })?;
    let groups: Vec<&Group> = summary.groups.values().collect();
    if let Some(document) = document {
        return document.end(&[
            ("groups", json(&groups)?),
            ("not_judged", json(&summary.not_judged)?),
            ("shortened", json(&summary.shortened)?),
            ("generation", json(&read.generation)?),
            ("capture_is_cut", json(&read.cut)?),
        ]);
    }
    let mut text = String::new();
    let rows = groups.iter().map(|group| {
        let Group { way, outcome, packets, first, example } = group;
        let way = match way {
            Way::Ingress => "ingress",
            Way::Egress => "egress",
        };
        let rule = if outcome.rule.is_empty() { "-" } else { &outcome.rule };
        let reason = format!("{} ({})", outcome.reason, outcome.step);
        vec![
            outcome.verdict.clone(),
            way.to_owned(),
            reason,
            rule.to_owned(),
            packets.to_string(),
            format!("{first}: {example}"),
        ]
    });
    text += &table(&["VERDICT", "DIRECTION", "REASON", "RULE", "PACKETS", "FIRST"], rows);
    text += &left_out(&summary.not_judged, summary.shortened, read.cut.as_deref());
    let _ = writeln!(text, "{} packets, by generation {}", read.packets, read.generation);
    print(&text)
}

/// What was not judged, or not as it was.
pub(super) fn left_out(not_judged: &BTreeMap<String, usize>, shortened: usize, cut: Option<&str>) -> String {
    let mut text = String::new();
    for (why, packets) in not_judged {
        let _ = writeln!(text, "not judged: {packets}, {why}");
    }
    if shortened > 0 {
        let _ = writeln!(
            text,
            "note: {shortened} were longer than a test run takes: judged as many segments in one"
        );
    }
    if let Some(cut) = cut {
        let _ = writeln!(text, "note: the end of the capture is missing ({cut})");
    }
    text
}
