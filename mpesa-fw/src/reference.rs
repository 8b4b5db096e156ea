//! The oracle: what the policy says of a packet, by asking its rules one after the other.
//!
//! Nothing here is shared with what judges packets in earnest, neither tables nor bits, nor is anything here fast. The
//! numbers are those of the precedence in `ARCHITECTURE.md`. Tests hold three against each other: this,
//! [`decide`](mpesa_fw_common::decide) over compiled tables, and the programs in the kernel.

mod facts;
mod questions;
mod state;

use std::net::IpAddr;

use mpesa_fw_common::{Direction, DropReason, PassReason, Reason, Verdict, settings::Mode};

pub use facts::{Conversation, Facts, Fragment, Header, Packet, Topic, Upper};
use questions::{
    admits, asks_owner, asks_to_live, claims, contains, ends_connection, is_at, is_by, is_by_name_only,
    is_impossible, is_last_word, keeps_alive, opens_connection, opens_flow,
};
pub use state::{FirstFragment, Flow, FragmentedPacket, Phase, State};

use crate::policy::model::{Owner, Policy, Service};

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the precedence that decided it, 1 to 8.
    pub step: u8,
    /// Why; the verdict follows from it.
    pub reason: Reason,
    /// The rule that is charged, by name; empty: none.
    pub rule: String,
    /// Sets that watch for a source that was not allowed.
    pub near_misses: Vec<String>,
}

/// The socket that a packet comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Socket {
    /// What tells it from others; 0: nothing.
    pub id: u64,
    /// Who it belongs to: a user, and the units that it is in. Nobody: it is not known.
    pub owners: Vec<Owner>,
    /// The port that it is bound to; 0: none.
    pub port: u16,
    /// Whether a program has it; not so: it is what the kernel keeps of one that is gone.
    pub is_full: bool,
    /// Whether what it sends is made up: a raw or a packet socket.
    pub is_raw: bool,
}

/// A policy in force.
#[derive(Debug)]
pub struct Oracle<'p> {
    policy: &'p Policy,
    state: &'p mut State,
}

impl<'p> Oracle<'p> {
    /// Judges by `policy`, and remembers in `state`.
    pub fn new(policy: &'p Policy, state: &'p mut State) -> Self {
        Self { policy, state }
    }

    /// Judges a packet; `socket` is where one from this host comes from.
    pub fn judge(&mut self, direction: Direction, facts: &Facts, socket: Option<&Socket>) -> Answer {
        let packet = match facts {
            Facts::LinkLayer => return pass(1, PassReason::LinkLayer, ""), // 1, E1
            Facts::UnknownEthertype => return drop(1, DropReason::UnknownEthertype, ""), // 1, E1
            Facts::Malformed => return drop(2, DropReason::Malformed, ""), // 2, E2
            Facts::Ip(packet) => packet,
        };
        let answer = match direction {
            Direction::Ingress => self.ingress(packet),
            Direction::Egress => self.egress(packet, socket),
        };
        if answer.passes() {
            self.state.note_fragment(direction, packet, &answer.rule); // 5, E4
        }
        answer
    }

    fn ingress(&mut self, packet: &Packet) -> Answer {
        let Packet { header, .. } = packet;
        if is_impossible(header) || self.state.own.contains(&header.source) {
            return drop(3, DropReason::Spoofed, ""); // 3
        }
        let is_whole = packet.fragment == Fragment::Whole;
        if is_whole && (keeps_alive(packet) || self.is_about_permitted(packet, Direction::Egress)) {
            return pass(4, PassReason::Control, ""); // 4
        }
        if let Some(answer) = self.later_fragment(packet, Direction::Ingress) {
            return answer; // 5
        }
        let policy = self.policy;
        let claiming =
            || policy.ingress.services.iter().filter(|service| claims(&service.claims, header.topic()));
        let admitting = || claiming().filter(|service| admits(policy, service, header.target, header.source));
        let is_cut_tcp = matches!(header.upper, Upper::Tcp { .. }) && !is_whole;
        let mut within_limit = admitting().filter(|service| self.state.is_within_limit(service, header));
        if !is_cut_tcp && let Some(service) = within_limit.next() {
            return pass(6, PassReason::Service, &service.name); // 6
        }
        if !opens_connection(header) && self.live_flow(header, Direction::Ingress, None).is_some() {
            return pass(7, PassReason::Flow, ""); // 7, which neither 5 nor 6 takes away
        }
        if let Some(service) = admitting().next() {
            let (step, reason) =
                if is_cut_tcp { (5, DropReason::Fragment) } else { (6, DropReason::RateLimited) };
            return drop(step, reason, &service.name); // 5, 6
        }
        if let Some(service) = claiming().next() {
            let watching = policy.sets.iter().filter(|set| contains(&set.watch, header.source));
            let near_misses = watching.map(|set| set.name.clone()).collect();
            return Answer { near_misses, ..drop(6, DropReason::SourceNotAllowed, &service.name) }; // 6
        }
        by_default(policy.ingress.default, DropReason::NoService) // 8
    }

    fn egress(&mut self, packet: &Packet, socket: Option<&Socket>) -> Answer {
        let Packet { header, .. } = packet;
        let is_whole = packet.fragment == Fragment::Whole;
        if is_whole && (asks_to_live(packet) || self.is_about_permitted(packet, Direction::Ingress)) {
            return pass(3, PassReason::Control, ""); // E3
        }
        let is_of_a_program = socket.is_some_and(|socket| socket.is_full);
        if is_whole && !is_of_a_program && is_last_word(header) && self.permits_either_way(header) {
            return pass(3, PassReason::Control, ""); // E3
        }
        if let Some(answer) = self.later_fragment(packet, Direction::Egress) {
            return answer; // E4
        }
        let owners = socket.map_or(&[][..], |socket| &socket.owners);
        let may_reply = match header.upper {
            Upper::Tcp { .. } => !opens_connection(header),
            Upper::Udp { source, .. } => socket.is_some_and(|socket| socket.port == source),
            Upper::Icmp { .. } | Upper::Icmpv6 { .. } => true,
            Upper::Other(_) => false,
        } && !socket.is_some_and(|socket| socket.is_raw);
        let answered = |by: Option<&[Owner]>| {
            may_reply && self.serves_by(header.answered_topic(), header.source, header.target, by)
        };
        let by = asks_owner(header).then_some(owners);
        if answered(by) {
            return pass(5, PassReason::ServiceReply, ""); // E5
        }
        let is_of_another = answered(None);
        if !opens_connection(header)
            && let Some(judged) = self.live_flow(header, Direction::Egress, socket)
        {
            let is_denied = !judged.passes(); // in observe mode
            return if is_denied {
                Answer { step: 7, ..judged }
            } else {
                pass(7, PassReason::Flow, &judged.rule)
            }; // E7
        }
        let mut judged = self.destination(header.topic(), header.target, Some(owners)); // E6, E8
        if is_of_another && judged.reason == Reason::Drop(DropReason::NoDestination) {
            judged = drop(6, DropReason::OwnerNotAllowed, ""); // E5
        }
        if opens_flow(header, is_of_a_program) && (judged.passes() || self.policy.mode == Mode::Observe) {
            match (self.state.is_full, judged.passes()) {
                (true, true) => return drop(judged.step, DropReason::FlowTableFull, &judged.rule),
                (true, false) => {} // it goes either way
                (false, _) => self.state.open_flow(header, &judged, socket.map_or(0, |socket| socket.id)),
            }
        }
        judged
    }

    /// E6 and E8: what the policy says of asking `remote` for this; `owners` of who asks, or whoever it is.
    fn destination(&self, topic: Topic, remote: IpAddr, owners: Option<&[Owner]>) -> Answer {
        let policy = self.policy;
        let names = self.state.names.get(&remote);
        let claiming = || policy.egress.allow.iter().filter(|destination| claims(&destination.claims, topic));
        let there = || claiming().filter(|destination| is_at(policy, destination, remote, names));
        if let Some(destination) = there().find(|destination| is_by(&destination.by, owners)) {
            return pass(6, PassReason::Destination, &destination.name); // E6
        }
        if let Some(destination) = there().next() {
            return drop(6, DropReason::OwnerNotAllowed, &destination.name); // E6
        }
        match claiming().next() {
            Some(first) if claiming().all(is_by_name_only) => {
                drop(6, DropReason::NameNotAllowed, &first.name)
            } // E6
            Some(first) => drop(6, DropReason::DestinationNotAllowed, &first.name), // E6
            None => by_default(policy.egress.default, DropReason::NoDestination),   // E8
        }
    }
}

/// What several of the steps ask.
impl Oracle<'_> {
    /// Whether a service admits `remote` to this, at `local`; limits apart.
    fn serves(&self, topic: Option<Topic>, local: IpAddr, remote: IpAddr) -> bool {
        self.serves_by(topic, local, remote, None)
    }

    /// Likewise, to be answered by one of `owners`, or by whoever it is.
    fn serves_by(
        &self,
        topic: Option<Topic>,
        local: IpAddr,
        remote: IpAddr,
        owners: Option<&[Owner]>,
    ) -> bool {
        let serves = |service: &Service| {
            topic.is_some_and(|topic| claims(&service.claims, topic))
                && admits(self.policy, service, local, remote)
                && is_by(&service.by, owners)
        };
        self.policy.ingress.services.iter().any(serves)
    }

    /// Whether an ICMP error quotes a packet, which went this way, of a live flow or between a service and whom it admits.
    /// The packet that it follows was judged when it was sent, so no flow is judged for it.
    fn is_about_permitted(&self, error: &Packet, direction: Direction) -> bool {
        let Some(quoted) = &error.quoted else { return false };
        let is_served = match direction {
            Direction::Ingress => self.serves(Some(quoted.topic()), quoted.target, quoted.source),
            Direction::Egress => self.serves(quoted.answered_topic(), quoted.source, quoted.target),
        };
        is_served || quoted.conversation(direction).is_some_and(|of| self.state.live_flow(&of).is_some())
    }

    /// Whether a service admits the peer of this packet, or a destination is the peer.
    fn permits_either_way(&self, header: &Header) -> bool {
        let is_destination = self.destination(header.topic(), header.target, None).reason
            == Reason::Pass(PassReason::Destination);
        is_destination || self.serves(header.answered_topic(), header.source, header.target)
    }

    /// What becomes of a fragment that can't be judged by itself.
    fn later_fragment(&self, packet: &Packet, direction: Direction) -> Option<Answer> {
        let step = match direction {
            Direction::Ingress => 5,
            Direction::Egress => 4,
        };
        match packet.fragment {
            Fragment::Whole | Fragment::First(..) => None,
            Fragment::Unjudgeable => Some(drop(step, DropReason::Fragment, "")),
            Fragment::Later(id, protocol) => {
                let of = FragmentedPacket::new(direction, &packet.header, id, protocol);
                Some(match self.state.first_fragment(&of) {
                    Some(first) => pass(step, PassReason::Fragment, self.state.rule_of(first)),
                    None => drop(step, DropReason::Fragment, ""),
                })
            }
        }
    }

    /// How the flow of a packet is judged, if it lives; it moves on.
    fn live_flow(
        &mut self,
        header: &Header,
        direction: Direction,
        socket: Option<&Socket>,
    ) -> Option<Answer> {
        let (now, says_goodbye) = (self.state.now, ends_connection(header));
        let flow = self.find_live(&header.conversation(direction)?, direction, socket)?;
        flow.seen = now;
        flow.phase = match (direction, flow.phase) {
            (Direction::Ingress, Phase::Opened) => Phase::Answered,
            (Direction::Egress, _) if says_goodbye => Phase::Closing,
            (Direction::Ingress | Direction::Egress, phase) => phase,
        };
        Some(flow.judged.clone())
    }

    /// A flow that is not idle for too long, that the policy in force permits, or only observes, and, where owners count,
    /// that is of this socket.
    fn find_live(
        &mut self,
        of: &Conversation,
        direction: Direction,
        socket: Option<&Socket>,
    ) -> Option<&mut Flow> {
        // Nobody knows who will read an answer: what only some owners may, it does not decide.
        let for_all = self.destination(of.topic, of.remote, Some(&[]));
        let (judged, is_open) = match direction {
            Direction::Egress => {
                let owners = socket.map_or(&[][..], |socket| &socket.owners);
                (self.destination(of.topic, of.remote, Some(owners)), false)
            }
            Direction::Ingress if for_all.passes() => (for_all, false),
            Direction::Ingress => {
                let for_any = self.destination(of.topic, of.remote, None);
                let is_open = for_any.passes();
                (for_any, is_open)
            }
        };
        let counts = self.policy.egress.allow.iter().any(|destination| !destination.by.is_empty());
        let id = socket.map_or(0, |socket| socket.id);
        let State { now, generation, flows, .. } = &mut *self.state;
        let flow = flows.get_mut(of).filter(|flow| !flow.is_expired(of.topic, *now))?;
        let mut is_stale = flow.generation != *generation;
        if counts && direction == Direction::Egress && id != 0 {
            if flow.socket != 0 && flow.socket != id {
                return None;
            }
            is_stale |= flow.socket == 0;
        }
        if !is_stale || is_open {
            return Some(flow);
        }
        if !judged.passes() && self.policy.mode != Mode::Observe {
            return None;
        }
        (flow.generation, flow.judged) = (*generation, judged);
        if counts && direction == Direction::Egress && id != 0 && flow.socket == 0 {
            flow.socket = id;
        }
        Some(flow)
    }
}

impl Answer {
    /// Whether it may pass.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self.reason, Reason::Pass(_))
    }
}

fn pass(step: u8, reason: PassReason, rule: &str) -> Answer {
    Answer { step, reason: Reason::Pass(reason), rule: rule.to_owned(), near_misses: Vec::new() }
}

fn drop(step: u8, reason: DropReason, rule: &str) -> Answer {
    Answer { step, reason: Reason::Drop(reason), rule: rule.to_owned(), near_misses: Vec::new() }
}

fn by_default(default: Verdict, otherwise: DropReason) -> Answer {
    match default {
        Verdict::Pass => pass(8, PassReason::Default, ""),
        Verdict::Drop => drop(8, otherwise, ""),
    }
}
