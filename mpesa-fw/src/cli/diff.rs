//! `mpesa-fw diff`

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde::Serialize;

use super::{
    arguments::{DiffArguments, Format},
    failure::Failure,
    output::{print, print_json, table},
    pcap::{self, Document, Wish, json},
    why::{ends, left_out},
};
use crate::{
    agent::{
        Options,
        why::{Difference, DifferenceRequest, FrameAnswer, Outcome, Verdicts},
    },
    control::{Answer, Client, Request},
};

/// Shows what another policy would change.
pub(super) fn diff(runtime_dir: &Path, arguments: &DiffArguments) -> Result<(), Failure> {
    let client = Client::new(&Options::control_socket(runtime_dir));
    let file = &arguments.file;
    // The agent has another working directory.
    let rules = std::path::absolute(file)
        .map_err(|error| Failure::usage(format!("`{}` is no path: {error}", file.display())))?;
    let request = Request::Diff(DifferenceRequest { rules, load: arguments.pcap.is_some() });
    let Answer::Difference(difference) = client.ask(request)? else {
        return Err(Failure::another_answer());
    };
    let differs = match &arguments.pcap {
        None => {
            match arguments.format.format {
                Format::Json => print_json(&difference)?,
                Format::Table => print(&policy(&difference))?,
            }
            !difference.change.is_empty()
        }
        Some(capture) => {
            let wish = Wish {
                way: pcap::way(arguments.ingress, arguments.egress),
                interface: None,
                candidate: difference.candidate,
            };
            of_capture(&client, capture, &wish, &difference, arguments.format.format)?
        }
    };
    if differs { Err(Failure::said()) } else { Ok(()) }
}

/// The difference of the policies.
fn policy(difference: &Difference) -> String {
    let mut text: String = difference.change.lines().iter().map(|line| format!("{line}\n")).collect();
    if difference.change.is_empty() {
        text.push_str("no difference in the policy\n");
    }
    for note in &difference.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// Packets that are judged otherwise in the same way.
#[derive(Serialize)]
struct Group {
    now: Outcome,
    then: Outcome,
    packets: usize,
    /// Number in the capture of the first, from 1.
    first: usize,
    example: String,
}

#[derive(Default)]
struct Summary {
    groups: BTreeMap<(Outcome, Outcome), Group>,
    not_judged: BTreeMap<String, usize>,
    shortened: usize,
    same: usize,
}

impl Summary {
    /// Whether the packet is judged otherwise.
    fn take(&mut self, number: usize, answer: &FrameAnswer) -> bool {
        let (now, then, packet) = match (&answer.verdicts, &answer.packet) {
            (Verdicts::Judged { now, then: Some(then), shortened }, Some(packet)) => {
                self.shortened += usize::from(*shortened);
                (now, then, packet)
            }
            (Verdicts::NotJudged(why), _) => {
                *self.not_judged.entry(why.clone()).or_default() += 1;
                return false;
            }
            (Verdicts::Judged { .. }, _) => {
                *self.not_judged.entry("the other policy gave no answer".to_owned()).or_default() += 1;
                return false;
            }
        };
        if now == then {
            self.same += 1;
            return false;
        }
        let group = self.groups.entry((now.clone(), then.clone())).or_insert_with(|| Group {
            now: now.clone(),
            then: then.clone(),
            packets: 0,
            first: number,
            example: ends(packet),
        });
        group.packets += 1;
        true
    }
}

/// Judges a capture by both; whether anything differs.
fn of_capture(
    client: &Client,
    file: &Path,
    wish: &Wish,
    difference: &Difference,
    format: Format,
) -> Result<bool, Failure> {
    let mut summary = Summary::default();
    let head = || Ok::<_, Failure>([("difference", json(difference)?)]);
    let mut document = (format == Format::Json).then(|| Document::begin(&head()?)).transpose()?;
    let read = pcap::judge(client, file, wish, &mut |number, answer| {
        let differs = summary.take(number, &answer);
        document.as_mut().filter(|_| differs).map_or(Ok(()), |document| document.packet(number, &answer))
    })?;
    let groups: Vec<&Group> = summary.groups.values().collect();
    if let Some(document) = document {
        document.end(&[
            ("groups", json(&groups)?),
            ("same", json(&summary.same)?),
            ("not_judged", json(&summary.not_judged)?),
            ("shortened", json(&summary.shortened)?),
            ("generation", json(&read.generation)?),
            ("capture_is_cut", json(&read.cut)?),
        ])?;
        judged(&summary)?;
        return Ok(!groups.is_empty());
    }
    let mut text = policy(difference);
    if groups.is_empty() && summary.not_judged.is_empty() {
        let _ = writeln!(text, "\nevery packet of the capture is judged as now");
    } else if groups.is_empty() {
        let _ = writeln!(text, "\nno packet that could be judged is judged otherwise");
    } else {
        let rows = groups.iter().map(|group| {
            vec![
                shown(&group.now),
                shown(&group.then),
                group.packets.to_string(),
                format!("{}: {}", group.first, group.example),
            ]
        });
        let _ = write!(text, "\n{}", table(&["NOW", "THEN", "PACKETS", "FIRST"], rows));
    }
    text += &left_out(&summary.not_judged, summary.shortened, read.cut.as_deref());
    let _ = writeln!(
        text,
        "{} packets, {} judged as by generation {}",
        read.packets, summary.same, read.generation
    );
    print(&text)?;
    judged(&summary)?;
    Ok(!groups.is_empty())
}

/// Nothing looked at is not "as now".
fn judged(summary: &Summary) -> Result<(), Failure> {
    if summary.same > 0 || !summary.groups.is_empty() || summary.not_judged.is_empty() {
        return Ok(());
    }
    Err(Failure::no(
        "no packet of the capture could be judged",
        "capture on one Ethernet interface (not on `any`), with at least 128 bytes a packet (`tcpdump -s 128`)",
    ))
}

fn shown(outcome: &Outcome) -> String {
    let rule = if outcome.rule.is_empty() { String::new() } else { format!(" {}", outcome.rule) };
    format!("{} {}{rule}", outcome.verdict, outcome.reason)
}
