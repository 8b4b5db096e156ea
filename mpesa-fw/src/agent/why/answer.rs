//! What is answered.

use std::{net::IpAddr, path::PathBuf};

use mpesa_fw_common::{
    Direction, Family, Reason, Verdict,
    decide::step,
    packet::{PacketMeta, Parsed},
};
use serde::{Deserialize, Serialize};

use super::Way;
use crate::{
    agent::seed::protocol,
    datapath::Judgement,
    policy::model::{Location, Policy},
};

/// How a packet is judged.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outcome {
    /// `pass` or `drop`, as the policy says.
    pub verdict: String,
    /// The number of the precedence: `1` to `8`, `E1` to `E8`.
    pub step: String,
    /// Label of the reason.
    pub reason: String,
    /// The rule that is charged; empty: none.
    pub rule: String,
}

impl Outcome {
    pub(super) fn new(policy: &Policy, direction: Direction, judgement: &Judgement) -> Self {
        let decision = &judgement.decision;
        let number = step(direction, decision, judgement.of_flow);
        let reason = match decision.reason {
            Reason::Pass(reason) => reason.label(),
            Reason::Drop(reason) => reason.label(),
        };
        let rule = rule(policy, direction, judgement).map_or("", |(name, _)| name);
        Self {
            verdict: match decision.verdict() {
                Verdict::Pass => "pass".to_owned(),
                Verdict::Drop => "drop".to_owned(),
            },
            step: match direction {
                Direction::Ingress => number.to_string(),
                Direction::Egress => format!("E{number}"),
            },
            reason: reason.to_owned(),
            rule: rule.to_owned(),
        }
    }

    /// Whether the policy lets it pass.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.verdict == "pass"
    }
}

/// Name and place of the rule that is charged.
pub(super) fn rule<'p>(
    policy: &'p Policy,
    direction: Direction,
    judgement: &Judgement,
) -> Option<(&'p str, &'p Location)> {
    let index = judgement.decision.rule.index()?;
    match direction {
        Direction::Ingress => policy.ingress.services.get(index).map(|s| (s.name.as_str(), &s.at)),
        Direction::Egress => policy.egress.allow.get(index).map(|d| (d.name.as_str(), &d.at)),
    }
}

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As it was given or included.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
}

impl From<&Location> for Place {
    fn from(location: &Location) -> Self {
        Self { file: location.file.clone(), line: location.line }
    }
}

/// What a packet says of itself, where it is IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFacts {
    /// Which way it goes.
    pub way: Way,
    /// Where it comes from; none: it is not IP.
    pub source: Option<IpAddr>,
    /// 0 where there is none.
    pub source_port: u16,
    /// Where it goes to.
    pub target: Option<IpAddr>,
    /// Its port, or the ICMP type.
    pub target_port: u16,
    /// Name or number.
    pub protocol: String,
}

impl PacketFacts {
    pub(super) fn new(way: Way, meta: &PacketMeta) -> Self {
        let is_ip = matches!(meta.parsed, Parsed::Ip);
        let target_port = if meta.is_icmp() { u16::from(meta.icmp_type) } else { meta.target_port };
        Self {
            way,
            source: is_ip.then(|| meta.source.into()),
            source_port: if is_ip { meta.source_port } else { 0 },
            target: is_ip.then(|| meta.target.into()),
            target_port: if is_ip { target_port } else { 0 },
            protocol: match meta.parsed {
                Parsed::Ip => protocol(meta.protocol),
                Parsed::LinkLayer => "link layer".to_owned(),
                Parsed::UnknownEthertype => "unknown".to_owned(),
                Parsed::Malformed => "malformed".to_owned(),
            },
        }
    }
}

/// The flow that a packet belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFacts {
    /// The destination that allows it; empty: none is charged.
    pub destination: String,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
    /// `opened`, `answered` or `closing`.
    pub phase: String,
}

/// What was asked, so that everybody sees that it was the loaded object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Number of the generation in force.
    pub generation: u32,
    /// Its digest, which is that of the twin.
    pub digest: String,
    /// The program.
    pub program: String,
    /// The hook's interface; none: no interface is protected in this direction.
    pub interface: Option<String>,
    /// How that hook judges.
    pub hook: String,
}

/// The answer to a [`Question`](super::Question).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// How it is judged.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Whether it would be dropped: not in observe mode, whatever the verdict.
    pub dropped: bool,
    /// The reason in a sentence.
    pub description: String,
    /// Where the rule stands.
    pub rule_at: Option<Place>,
    /// The live flow that it belongs to.
    pub flow: Option<FlowFacts>,
    /// The packet.
    pub packet: PacketFacts,
    /// Facts of it that nobody named.
    pub chosen: Vec<String>,
    /// Facts that a test run can't have and was given.
    pub injected: Vec<String>,
    /// What would change the answer, a sentence each.
    pub advice: Vec<String>,
    /// What was asked.
    pub asked: Asked,
}

/// What became of a frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdicts {
    /// It was judged.
    Judged {
        /// By the generation in force.
        now: Outcome,
        /// By the candidate, where one was asked for.
        then: Option<Outcome>,
        /// It was longer than a test run takes: judged as one of many segments.
        shortened: bool,
    },
    /// It was not, and why.
    NotJudged(String),
}

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameAnswer {
    /// What it says of itself, as far as that can be read.
    pub packet: Option<PacketFacts>,
    /// What became of it.
    pub verdicts: Verdicts,
}

/// Answers for a batch, by one generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchAnswer {
    /// What was asked, as [`Asked`]: number of the generation in force.
    pub generation: u32,
    /// Its digest.
    pub digest: String,
    /// In the order of the question.
    pub frames: Vec<FrameAnswer>,
}

/// The word for a family.
pub(super) const fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
