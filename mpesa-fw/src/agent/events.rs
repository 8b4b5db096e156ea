//! What happened last, kept in memory. The kernel sends a bounded number of dropped packets a second and counts the rest.

use std::{collections::VecDeque, net::IpAddr};

use mpesa_fw_common::{Direction, DropReason, attempt::AttemptEvent, event::Event};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zerocopy::FromBytes;

use super::{
    attempts::{AttemptRecord, ProgramRecord},
    capture::Frame,
    clock,
    feed::{Feed, Occurrence},
    running::Running,
    seed::protocol,
    selection::Selection,
};

/// Events kept.
pub const KEPT: usize = 1000;
/// Generations whose rules are still known by name.
const GENERATIONS: usize = 8;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventRecord {
    /// A packet was dropped, or would have been in enforce mode.
    Packet(PacketRecord),
    /// A program was to connect, or to send a datagram, to where no packet may go.
    Attempt(AttemptRecord),
    /// Somebody began to listen where no service is declared.
    Listener(ListenerRecord),
}

impl EventRecord {
    const fn time(&self) -> OffsetDateTime {
        match self {
            Self::Packet(packet) => packet.time,
            Self::Attempt(attempt) => attempt.time,
            Self::Listener(listener) => listener.time,
        }
    }
}

/// A listener that no service claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerRecord {
    /// When it was seen first.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// What it is bound to.
    pub address: IpAddr,
    /// Local port.
    pub port: u16,
    /// Who made it, by number.
    pub user: u32,
    /// Name and id of the process, if the agent may know it.
    pub process: Option<String>,
    /// Its systemd unit, likewise.
    pub unit: Option<String>,
}

/// A packet that was dropped, or would have been in enforce mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRecord {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub time: OffsetDateTime,
    /// Where.
    pub interface: String,
    /// `ingress` or `egress`.
    pub direction: String,
    /// The rule charged; empty: none claims it.
    pub rule: String,
    /// A [`DropReason`]'s label.
    pub reason: String,
    /// Where it came from.
    pub source: IpAddr,
    /// 0 where there is none.
    pub source_port: u16,
    /// Where it was to go.
    pub target: IpAddr,
    /// Its port, or the ICMP type.
    pub target_port: u16,
    /// Name or number.
    pub protocol: String,
    /// Bytes of the frame.
    pub length: u32,
    /// False: observe mode let it go.
    pub dropped: bool,
}

/// The last [`KEPT`] packets, and as many other events.
#[derive(Default)]
pub struct EventLog {
    packets: VecDeque<EventRecord>,
    others: VecDeque<EventRecord>,
    generations: VecDeque<RuleNames>,
    /// Whoever wants to see what comes.
    pub(super) feed: Feed,
}

struct RuleNames {
    number: u32,
    by_direction: [Vec<String>; 2],
}

impl EventLog {
    /// Rules of this generation are known from now on.
    pub fn learn(&mut self, running: &Running) {
        let policy = &running.policy;
        self.generations.push_front(RuleNames {
            number: running.stamp.number,
            by_direction: [
                policy.ingress.services.iter().map(|s| s.name.clone()).collect(),
                policy.egress.allow.iter().map(|d| d.name.clone()).collect(),
            ],
        });
        self.generations.truncate(GENERATIONS);
    }

    /// Takes the bytes of one event. `interface` finds a name by index; `program` is who made the attempt, if it is one.
    pub fn take(
        &mut self,
        bytes: &[u8],
        interface: impl FnOnce(u32) -> String,
        program: Option<ProgramRecord>,
    ) {
        if let Some(program) = program
            && let Ok(told) = AttemptEvent::read_from_bytes(bytes)
        {
            return self.take_attempt(&told, program);
        }
        let Ok((event, frame)) = Event::read_from_prefix(bytes) else { return };
        let frame = frame.get(..usize::from(event.captured)).filter(|frame| !frame.is_empty());
        let direction =
            if event.direction == Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress };
        let reason = DropReason::try_from(event.reason).unwrap_or(DropReason::Internal);
        self.record(Occurrence {
            frame: frame.map(|bytes| Frame::new(bytes, event.length)),
            record: EventRecord::Packet(PacketRecord {
                time: clock::wall(event.time),
                interface: interface(event.interface),
                direction: direction.label().to_owned(),
                rule: self.rule(event.generation, direction, event.rule),
                reason: reason.label().to_owned(),
                source: event.source.into(),
                source_port: event.source_port,
                target: event.target.into(),
                target_port: event.target_port,
                protocol: protocol(event.protocol),
                length: event.length,
                dropped: event.enforced != 0,
            }),
        });
    }

    fn take_attempt(&mut self, told: &AttemptEvent, program: ProgramRecord) {
        let event = &told.event;
        let rule = self.rule(event.generation, Direction::Egress, event.rule);
        let reason = DropReason::try_from(event.reason).unwrap_or(DropReason::Internal);
        let record = EventRecord::Attempt(AttemptRecord::new(event, rule, reason.label(), program));
        self.record(Occurrence { record, frame: None });
    }

    /// Keeps an event, and tells whoever follows.
    pub(super) fn record(&mut self, occurrence: Occurrence) {
        // Apart, so that no flood of packets takes away who tried what.
        let kept = match &occurrence.record {
            EventRecord::Packet(_) => &mut self.packets,
            EventRecord::Attempt(_) | EventRecord::Listener(_) => &mut self.others,
        };
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(occurrence.record.clone());
        self.feed.tell(occurrence);
    }

    /// The last `count` events that are wanted, oldest first.
    #[must_use]
    pub(super) fn last(&self, count: usize, selection: &Selection) -> Vec<EventRecord> {
        let of = |kept: &'_ VecDeque<EventRecord>| -> Vec<EventRecord> {
            kept.iter().rev().filter(|event| selection.takes(event)).take(count).cloned().collect()
        };
        let mut last = of(&self.packets);
        last.extend(of(&self.others));
        last.sort_by_key(|event| std::cmp::Reverse(event.time()));
        last.truncate(count);
        last.reverse();
        last
    }

    /// Names of the rules that events can have.
    pub(super) fn rules(&self) -> Vec<String> {
        let mut rules: Vec<String> =
            self.generations.iter().flat_map(|names| names.by_direction.iter().flatten().cloned()).collect();
        rules.sort();
        rules.dedup();
        rules
    }

    fn rule(&self, generation: u32, direction: Direction, index: u8) -> String {
        self.generations
            .iter()
            .find(|names| names.number == generation)
            .and_then(|names| names.by_direction[direction as usize].get(usize::from(index)))
            .cloned()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mpesa_fw_common::Address;
    use zerocopy::IntoBytes;

    fn event(port: u16) -> Event {
        Event {
            time: clock::monotonic(),
            source: Address::from_v4_octets([203, 0, 113, 9]),
            target: Address::from_v4_octets([10, 0, 0, 5]),
            interface: 2,
            generation: 1,
            length: 60,
            source_port: 4000,
            target_port: port,
            protocol: 6,
            direction: 0,
            reason: DropReason::NoService as u8,
            rule: 64,
            enforced: 1,
            reserved: 0,
            captured: 0,
        }
    }

    fn packet(event: EventRecord) -> PacketRecord {
        match event {
            EventRecord::Packet(packet) => packet,
            EventRecord::Attempt(_) | EventRecord::Listener(_) => panic!("{event:?}"),
        }
    }

    #[test]
    fn only_the_last_thousand_are_kept() {
        let mut log = EventLog::default();
        for port in 0..1500 {
            log.take(event(port).as_bytes(), |index| format!("if{index}"), None);
        }
        let all = Selection::default();
        let last: Vec<PacketRecord> = log.last(5000, &all).into_iter().map(packet).collect();
        assert_eq!((last.len(), last[0].target_port, last[999].target_port), (KEPT, 500, 1499));
        assert_eq!(last[0].source.to_string(), "203.0.113.9");
        assert_eq!((last[0].interface.as_str(), last[0].reason.as_str()), ("if2", "no_service"));
        assert_eq!(log.last(3, &all).len(), 3);
    }

    #[test]
    fn what_is_too_short_is_left_out() {
        let mut log = EventLog::default();
        log.take(&event(1).as_bytes()[..20], |_| String::new(), None);
        assert!(log.last(1, &Selection::default()).is_empty());
    }
}
