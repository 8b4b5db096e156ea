//! What the oracle remembers: plain sets and maps, nothing of fixed size.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use mpesa_fw_common::{
    Direction,
    limit::{LimitPer, LimitWhat},
};

use super::{
    Answer,
    facts::{Conversation, Fragment, Header, Packet, Topic, Upper},
    questions::opens_connection,
};
use crate::policy::model::Service;

/// What the host knows, and what it has seen.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The time, since any beginning.
    pub now: Duration,
    /// Number of the policy in force.
    pub generation: u32,
    /// Addresses of this host.
    pub own: HashSet<IpAddr>,
    /// Names that an address is the answer to.
    pub names: HashMap<IpAddr, HashSet<String>>,
    /// Whether there is room for another flow.
    pub is_full: bool,
    /// What this host opened.
    pub flows: HashMap<Conversation, Flow>,
    /// Fragmented packets whose first fragment passed.
    pub fragments: HashMap<FragmentedPacket, FirstFragment>,
    /// When what a limit counts will have recovered, by service and source (none: all of them).
    pub limits: HashMap<(String, Option<IpAddr>), Duration>,
}

/// What this host opened.
#[derive(Clone, Debug)]
pub struct Flow {
    /// When its last packet went either way.
    pub seen: Duration,
    /// How far it is.
    pub phase: Phase,
    /// The policy that last judged it.
    pub generation: u32,
    /// And how.
    pub judged: Answer,
    /// The socket that it belongs to; 0: nobody has used it yet.
    pub socket: u64,
}

/// How far a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The peer has not answered.
    Opened,
    /// The peer has answered.
    Answered,
    /// This host has sent FIN or RST.
    Closing,
}

/// What the fragments of one packet have in common (RFC 791 3.2, RFC 8200 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentedPacket {
    /// Which way it goes.
    pub direction: Direction,
    /// Source.
    pub source: IpAddr,
    /// Target.
    pub target: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol.
    pub protocol: u8,
}

/// A first fragment that passed.
#[derive(Clone, Debug)]
pub struct FirstFragment {
    /// When.
    pub at: Duration,
    /// Under which policy.
    pub generation: u32,
    /// By which rule.
    pub rule: String,
}

/// As long as Linux waits for the rest of a packet.
const FRAGMENT_LIFETIME: Duration = Duration::from_secs(30);

impl Flow {
    /// Whether it has been idle for too long: TCP by its phase, others 60 s, and 180 s once answered.
    #[must_use]
    pub fn is_expired(&self, topic: Topic, now: Duration) -> bool {
        let seconds = match (topic, self.phase) {
            (Topic::Tcp(_), Phase::Opened) => 130,
            (Topic::Tcp(_), Phase::Answered) => 5 * 86_400,
            (Topic::Tcp(_), Phase::Closing) => 120,
            (_, Phase::Opened) => 60,
            (_, Phase::Answered | Phase::Closing) => 180,
        };
        now - self.seen > Duration::from_secs(seconds)
    }
}

impl FragmentedPacket {
    /// What a fragment is a part of.
    #[must_use]
    pub const fn new(direction: Direction, header: &Header, id: u32, protocol: u8) -> Self {
        Self { direction, source: header.source, target: header.target, id, protocol }
    }
}

impl State {
    /// Notes a first fragment that passed by `rule`.
    pub fn note_fragment(&mut self, direction: Direction, packet: &Packet, rule: &str) {
        if let Fragment::First(id, protocol) = packet.fragment {
            let of = FragmentedPacket::new(direction, &packet.header, id, protocol);
            let first = FirstFragment { at: self.now, generation: self.generation, rule: rule.to_owned() };
            self.fragments.insert(of, first);
        }
    }

    /// The first fragment of a packet, if it passed and the rest may still come.
    #[must_use]
    pub fn first_fragment(&self, of: &FragmentedPacket) -> Option<&FirstFragment> {
        self.fragments.get(of).filter(|first| self.now - first.at <= FRAGMENT_LIFETIME)
    }

    /// The rule that a first fragment passed by; none, if that was another policy's.
    #[must_use]
    pub fn rule_of<'f>(&self, first: &'f FirstFragment) -> &'f str {
        if first.generation == self.generation { &first.rule } else { "" }
    }

    /// A flow that is not idle for too long, and that the policy in force has judged.
    #[must_use]
    pub fn live_flow(&self, of: &Conversation) -> Option<&Flow> {
        let is_live =
            |flow: &&Flow| flow.generation == self.generation && !flow.is_expired(of.topic, self.now);
        self.flows.get(of).filter(is_live)
    }

    /// Remembers what this host opens.
    pub fn open_flow(&mut self, header: &Header, judged: &Answer, socket: u64) {
        if let Some(of) = header.conversation(Direction::Egress) {
            let (seen, generation, judged) = (self.now, self.generation, judged.clone());
            self.flows.insert(of, Flow { seen, phase: Phase::Opened, generation, judged, socket });
        }
    }

    /// Whether a packet to `service` is within its limit, and is counted: the generic cell rate algorithm (ITU-T I.371).
    pub fn is_within_limit(&mut self, service: &Service, packet: &Header) -> bool {
        let Some(limit) = service.limit else { return true };
        let is_counted = !matches!(packet.upper, Upper::Tcp { .. }) || opens_connection(packet);
        if limit.what == LimitWhat::NewConnections && !is_counted {
            return true;
        }
        let interval = limit.period / u32::try_from(limit.rate.get()).unwrap_or(u32::MAX);
        let ahead = interval * u32::try_from(limit.burst.get() - 1).unwrap_or(u32::MAX);
        let source = (limit.per == LimitPer::Source).then(|| subscriber(packet.source));
        let recovered = self.limits.entry((service.name.clone(), source)).or_default();
        let from = (*recovered).max(self.now);
        if from - self.now > ahead {
            return false;
        }
        *recovered = from + interval;
        true
    }
}

/// An IPv4 address, an IPv6 /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX)).into(),
    }
}
