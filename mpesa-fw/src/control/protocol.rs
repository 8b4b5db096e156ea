//! What is said on the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::agent::{
    AgentError, Confirmed, Depth, EgressAudit, EventRecord, KeptGeneration, Kind, Listeners, PacketRecord,
    Reloaded, SshConnection, Status, TrialStatus, Wanted, Why,
    why::{Batch, BatchAnswer, Difference, DifferenceRequest, Explanation, Question},
};

/// Version of everything in this file. Both sides refuse another one.
pub const VERSION: u32 = 1;
/// Longest line in either direction, bytes.
pub const LINE_LIMIT: usize = 1 << 20;

/// What a client sends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    /// [`VERSION`] of the client.
    pub version: u32,
    /// What it asks for.
    pub request: Request,
}

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How things are.
    Status,
    /// Another policy, or the same file again.
    Reload {
        /// An absolute path; none: the file in force.
        rules: Option<PathBuf>,
        /// Even where that cuts `caller` off.
        force: bool,
        /// The SSH connection of whoever asks.
        caller: Option<SshConnection>,
        /// Only on trial, for so many seconds.
        confirm_within: Option<u64>,
    },
    /// An earlier generation.
    Rollback {
        /// Its number; none: what was confirmed before the trial, or the one before the generation in force.
        generation: Option<u32>,
        /// Even where that cuts connections.
        force: bool,
        /// The SSH connection of whoever asks.
        caller: Option<SshConnection>,
        /// Only on trial, for so many seconds.
        confirm_within: Option<u64>,
    },
    /// What is on trial is to stay.
    Confirm {
        /// Only if that is what is on trial.
        generation: Option<u32>,
    },
    /// How the trial goes.
    Trial,
    /// The generations whose text is kept.
    Generations,
    /// The last packets that were dropped.
    Events {
        /// How many.
        last: usize,
        /// Which; none: all.
        wanted: Option<Wanted>,
    },
    /// What would become of a packet, and why.
    Why(Box<Question>),
    /// What would become of the packets of a capture.
    Judge(Box<Batch>),
    /// What another policy would change.
    Diff(DifferenceRequest),
    /// The same, and what comes after them: the [`Reply`] is followed by [`Line`]s.
    Follow {
        /// How many of those that were before.
        last: usize,
        /// Which; none: all.
        wanted: Option<Wanted>,
        /// The frames of packets, and no other events.
        frames: Option<Depth>,
    },
    /// What listens, against what the policy declares.
    Listeners,
    /// Who opened connections to which destination.
    Audit {
        /// Seconds since 1970.
        since: u64,
        /// Only to this destination; empty: to where none claims it; none: to all.
        rule: Option<String>,
    },
    /// Stop judging, and end.
    Detach {
        /// Only if the agent's pins are there; none: wherever they are.
        bpffs: Option<PathBuf>,
    },
}

/// What the agent sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// [`VERSION`] of the agent.
    pub version: u32,
    /// What became of it.
    pub outcome: Result<Answer, Refusal>,
}

/// An answer, by request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<Status>),
    /// To [`Request::Reload`] and [`Request::Rollback`].
    Reloaded(Box<Reloaded>),
    /// To [`Request::Confirm`].
    Confirmed(Box<Confirmed>),
    /// To [`Request::Trial`]; none: nothing is on trial.
    Trial(Option<Box<TrialStatus>>),
    /// To [`Request::Generations`], the last first.
    Generations(Vec<KeptGeneration>),
    /// To [`Request::Events`], oldest first.
    Events(Vec<EventRecord>),
    /// To [`Request::Why`].
    Why(Box<Explanation>),
    /// To [`Request::Judge`].
    Judged(Box<BatchAnswer>),
    /// To [`Request::Diff`].
    Difference(Box<Difference>),
    /// To [`Request::Listeners`], without the processes: who asks may see more of them than the agent.
    Listeners(Listeners),
    /// To [`Request::Audit`].
    Audit(Box<EgressAudit>),
    /// To [`Request::Detach`]: what was detached.
    Detached(Vec<String>),
    /// To [`Request::Follow`]: the last ones, oldest first.
    Following(Vec<EventRecord>),
}

/// What comes after [`Answer::Following`], one a line. The client ends it by closing its end, or half of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Something happened.
    Event(EventRecord),
    /// A packet was dropped, and frames are wanted.
    Packet {
        /// The event.
        event: PacketRecord,
        /// As much of the frame as is wanted, in hexadecimal.
        frame: String,
    },
    /// So many events are missing here: this client did not read.
    Missed(u64),
    /// So many more packets were dropped since the beginning, of whatever kind, of which the kernel sent no event.
    Suppressed(u64),
    /// The last line.
    Ended(Why),
}

/// Why the answer is no.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Decides the exit code.
    pub kind: Kind,
    /// What was tried, on what, and why it failed.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl From<AgentError> for Refusal {
    fn from(error: AgentError) -> Self {
        Self { kind: error.kind(), help: error.help(), message: error.to_string() }
    }
}
