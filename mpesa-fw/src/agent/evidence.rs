//! What was seen since a generation came on trial: what its services let pass, whether the admin's session is alive, and
//! what is dropped that passed before.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mpesa_fw_common::{Address, Direction, Family, Reason, owner::Owner, state::FlowKey};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    PacketRecord, Running, SshConnection, clock,
    frame::{ACK, Ends, SYN},
    judge::Judge,
    kernel::Kernel,
    sockets::Sockets,
    status::{RuleStatus, rule_status},
};
use crate::datapath::{Datapath, DatapathError, RuleCounts};

/// How things were when the trial began.
#[derive(Clone)]
pub(super) struct Baseline {
    counts: Vec<RuleCounts>,
    /// Nanoseconds of the monotonic clock.
    at: u64,
}

impl Baseline {
    /// Looks.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) fn take(datapath: &Datapath) -> Result<Self, DatapathError> {
        Ok(Self { counts: datapath.counters()?, at: clock::monotonic() })
    }
}

/// What speaks for a generation on trial and against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Seconds that were watched.
    pub seconds: u64,
    /// Services in file order.
    pub services: Vec<ServiceEvidence>,
    /// The SSH connection of whoever asked for the trial.
    pub session: Option<SessionEvidence>,
    /// What is dropped and passed before, of the events that were sent (a flood sends a part). TCP and UDP only.
    pub newly_dropped: Vec<NewlyDropped>,
    /// What could not be looked at, and why.
    pub unseen: Option<String>,
}

/// What a service did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEvidence {
    /// Its name.
    pub rule: String,
    /// Packets it let pass since.
    pub passed_packets: u64,
    /// Packets charged to it that were dropped since.
    pub dropped_packets: u64,
    /// When it last let one pass, be it before.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_passed: Option<OffsetDateTime>,
}

/// Whether a connection is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEvidence {
    /// The admin's end.
    pub client: SocketAddr,
    /// This host still has its socket.
    pub open: bool,
    /// Something was heard of it since the trial began.
    pub heard_since: bool,
}

/// Packets of one kind that passed before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NewlyDropped {
    /// `ingress` or `egress`.
    pub direction: String,
    /// Name or number.
    pub protocol: String,
    /// Where they come from.
    pub source: IpAddr,
    /// Where they go.
    pub target: IpAddr,
    /// Its port.
    pub target_port: u16,
    /// Why they are dropped.
    pub reason: String,
    /// How many events tell of them.
    pub events: usize,
}

/// All that the evidence is made of.
pub(super) struct Scene {
    pub kernel: Kernel,
    pub previous: Option<Arc<Running>>,
    pub baseline: Baseline,
    pub caller: Option<SshConnection>,
    pub running: Arc<Running>,
    pub own: HashSet<IpAddr>,
    pub published: BTreeMap<IpAddr, Vec<u16>>,
    pub events: Vec<PacketRecord>,
}

impl Scene {
    /// Looks at it. Blocks.
    pub(super) fn evidence(&self) -> Evidence {
        let since = Duration::from_nanos(clock::monotonic().saturating_sub(self.baseline.at));
        let mut evidence =
            Evidence { seconds: since.as_secs(), newly_dropped: self.newly_dropped(), ..Evidence::default() };
        let counts = self.kernel.lock().counters();
        match counts {
            Ok(counts) => evidence.services = self.services(&counts),
            Err(error) => evidence.unseen = Some(error.to_string()),
        }
        if let Some(caller) = self.caller {
            match Sockets::dump_with_activity() {
                Ok(sockets) => evidence.session = Some(session(caller, &sockets, since)),
                Err(error) => {
                    evidence.unseen = Some(format!("cannot list the sockets of this host: {error}"))
                }
            }
        }
        evidence
    }

    fn services(&self, counts: &[RuleCounts]) -> Vec<ServiceEvidence> {
        let services = self.running.policy.ingress.services.iter();
        services
            .map(|service| {
                let of = |counts| -> RuleStatus { rule_status(counts, Direction::Ingress, &service.name) };
                let (before, now) = (of(&self.baseline.counts), of(counts));
                ServiceEvidence {
                    rule: now.rule,
                    passed_packets: now.passed_packets.saturating_sub(before.passed_packets),
                    dropped_packets: now.dropped_packets.saturating_sub(before.dropped_packets),
                    last_passed: now.last_passed,
                }
            })
            .collect()
    }

    fn newly_dropped(&self) -> Vec<NewlyDropped> {
        let Some(previous) = &self.previous else { return Vec::new() };
        let judge = Judge::new(&previous.compiled, self.own.iter().copied(), &self.published);
        let begun = clock::wall(self.baseline.at);
        let mut kinds: BTreeMap<NewlyDropped, usize> = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.dropped && event.time >= begun) {
            if passes(&judge, event) {
                *kinds.entry(NewlyDropped::of(event)).or_default() += 1 + event.repeated as usize;
            }
        }
        let mut list: Vec<_> =
            kinds.into_iter().map(|(kind, events)| NewlyDropped { events, ..kind }).collect();
        list.sort_by_key(|kind| std::cmp::Reverse(kind.events));
        list
    }
}

impl NewlyDropped {
    fn of(event: &PacketRecord) -> Self {
        Self {
            direction: event.direction.clone(),
            protocol: event.protocol.clone(),
            source: event.source,
            target: event.target,
            target_port: event.target_port,
            reason: event.reason.clone(),
            events: 0,
        }
    }
}

/// Whether a packet like that of the event would pass: as the first of its connection, or as an answer of a service.
fn passes(judge: &Judge<'_>, event: &PacketRecord) -> bool {
    let ends = Ends {
        source: SocketAddr::new(event.source, event.source_port),
        target: SocketAddr::new(event.target, event.target_port),
    };
    let frame = |flags| match event.protocol.as_str() {
        "tcp" => ends.tcp(flags),
        "udp" => ends.udp(),
        _ => None,
    };
    if event.direction == Direction::Ingress.label() {
        return frame(SYN).is_some_and(|frame| matches!(judge.ingress(&frame).reason, Reason::Pass(_)));
    }
    let answers = frame(ACK).is_some_and(|frame| {
        matches!(judge.egress(&frame, event.source_port, Owner::UNKNOWN).reason, Reason::Pass(_))
    });
    answers || flow_of(event).is_some_and(|key| judge.flow(&key).is_ok())
}

fn flow_of(event: &PacketRecord) -> Option<FlowKey> {
    let family = if event.target.is_ipv4() { Family::V4 } else { Family::V6 };
    let protocol = match event.protocol.as_str() {
        "tcp" => 6,
        "udp" => 17,
        _ => return None,
    };
    let (local, remote) = (Address::from(event.source), Address::from(event.target));
    Some(FlowKey::new(family, protocol, local, event.source_port, remote, event.target_port))
}

fn session(caller: SshConnection, sockets: &Sockets, since: Duration) -> SessionEvidence {
    let is_it = |key: &FlowKey| {
        IpAddr::from(key.remote) == caller.client
            && key.remote_port == caller.client_port
            && key.local_port == caller.server_port
    };
    let socket = sockets.connected.iter().find(|connected| is_it(&connected.key));
    SessionEvidence {
        client: SocketAddr::new(caller.client, caller.client_port),
        open: socket.is_some(),
        heard_since: socket.and_then(|socket| socket.heard).is_some_and(|heard| heard < since),
    }
}
