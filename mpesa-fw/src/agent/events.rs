//! What happened last, kept in memory. The kernel sends a bounded number of dropped packets a second and counts the rest.

use std::{collections::VecDeque, net::IpAddr};

use mpesa_fw_common::{Direction, DropReason};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    attempts::AttemptRecord,
    capture::Frame,
    clock,
    feed::{Feed, Occurrence},
    kept::{Kept, Kind},
    program::ProgramRecord,
    running::Running,
    seed::protocol,
    selection::Selection,
    told::Told,
    witness::Testimony,
};

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

    /// One more of the same.
    pub(super) const fn count_repeat(&mut self) {
        match self {
            Self::Packet(packet) => packet.repeated += 1,
            Self::Attempt(attempt) => attempt.repeated += 1,
            Self::Listener(_) => {}
        }
    }

    /// As it is in another packet of the same program to the same place.
    fn is_now(&mut self, told: &Told<'_>) {
        if let Self::Packet(packet) = self {
            packet.time = clock::wall(told.event.time);
            packet.source = told.event.source.into();
            packet.source_port = told.event.source_port;
            packet.length = told.event.length;
            packet.repeated = 0;
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
    /// Who on this host sent it; none: it came from outside, or is forwarded, or the kernel's own.
    pub program: Option<ProgramRecord>,
    /// The name that this host had asked for last of those that the target was an answer to; of egress alone.
    pub asked_for: Option<String>,
    /// Where no destination claims it, the one that comes nearest, with what it claims.
    pub nearest: Option<String>,
    /// More of the same program to the same place within the minute after it.
    #[serde(default)]
    pub repeated: u64,
}

/// The last thousand events of programs here, and as many that others caused.
#[derive(Default)]
pub struct EventLog {
    of_programs: Kept,
    others: Kept,
    generations: VecDeque<RuleNames>,
    /// Whoever wants to see what comes.
    pub(super) feed: Feed,
}

fn frame(told: &Told<'_>) -> Option<Frame> {
    (!told.frame.is_empty()).then(|| Frame::new(told.frame, told.event.length))
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

    /// Counts an event with the one that it repeats; false: it repeats none, and is to be taken. Nothing is looked up for it.
    pub(super) fn repeats(&mut self, told: &Told<'_>) -> bool {
        let Some(kind) = Kind::of(told) else { return false };
        let Some(first) = self.kept(told.is_wanted_here()).repeat(&kind, told.event.time) else {
            return false;
        };
        let Some(frame) = frame(told) else { return true };
        let mut record = first.clone();
        record.is_now(told);
        self.feed.tell(Occurrence { record, frame: Some(frame), is_first: false });
        true
    }

    /// Takes one event. `interface` finds a name by index.
    pub(super) fn take(
        &mut self,
        told: &Told<'_>,
        interface: impl FnOnce(u32) -> String,
        testimony: Testimony,
    ) {
        let event = &told.event;
        let direction =
            if event.direction == Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress };
        let reason = DropReason::try_from(event.reason).unwrap_or(DropReason::Internal).label();
        let rule = self.rule(event.generation, direction, event.rule);
        let kind = Kind::of(told).map(|kind| (kind, event.time));
        let Testimony { program, asked_for, nearest } = testimony;
        let record = match program {
            Some(program) if told.is_attempt() => {
                EventRecord::Attempt(AttemptRecord::new(event, rule, reason, program, asked_for, nearest))
            }
            program => EventRecord::Packet(PacketRecord {
                time: clock::wall(event.time),
                interface: interface(event.interface),
                direction: direction.label().to_owned(),
                rule,
                reason: reason.to_owned(),
                source: event.source.into(),
                source_port: event.source_port,
                target: event.target.into(),
                target_port: event.target_port,
                protocol: protocol(event.protocol),
                length: event.length,
                dropped: event.enforced != 0,
                program,
                asked_for,
                nearest,
                repeated: 0,
            }),
        };
        self.kept(told.is_wanted_here()).keep(record.clone(), kind);
        self.feed.tell(Occurrence { record, frame: frame(told), is_first: true });
    }

    /// Keeps an event that is like no other, and tells whoever follows.
    pub(super) fn record(&mut self, record: EventRecord) {
        self.kept(true).keep(record.clone(), None);
        self.feed.tell(Occurrence { record, frame: None, is_first: true });
    }

    /// Apart, so that no flood of what others cause takes away who tried what.
    const fn kept(&mut self, is_of_programs: bool) -> &mut Kept {
        if is_of_programs { &mut self.of_programs } else { &mut self.others }
    }

    /// The last `count` events that are wanted, oldest first.
    #[must_use]
    pub(super) fn last(&self, count: usize, selection: &Selection) -> Vec<EventRecord> {
        let of = |kept: &Kept| -> Vec<EventRecord> {
            kept.newest().filter(|event| selection.takes(event)).take(count).cloned().collect()
        };
        let mut last = of(&self.of_programs);
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
    use super::{super::kept::KEPT, *};
    use mpesa_fw_common::{
        Address,
        event::Event,
        program::{Maker, Program, SocketKind},
    };

    fn told(port: u16, process: u32) -> Told<'static> {
        let event = Event {
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
            occasion: 0,
            captured: 0,
        };
        let maker = Maker { process, ..Maker::default() };
        let socket = SocketKind::Own as u32;
        let program = Program { cookie: u64::from(port), maker, socket, ..Program::NONE };
        Told { event, program: (process != 0).then_some(program), frame: &[] }
    }

    fn take(log: &mut EventLog, told: &Told<'_>) {
        if log.repeats(told) {
            return;
        }
        let program = told.program.map(|program| ProgramRecord::of(&program, |_| None));
        let testimony = Testimony { program, ..Testimony::default() };
        log.take(told, |index| format!("if{index}"), testimony);
    }

    fn all(log: &EventLog) -> Vec<PacketRecord> {
        let packet = |event| match event {
            EventRecord::Packet(packet) => packet,
            EventRecord::Attempt(_) | EventRecord::Listener(_) => panic!("{event:?}"),
        };
        log.last(5000, &Selection::default()).into_iter().map(packet).collect()
    }

    #[test]
    fn only_the_last_thousand_are_kept() {
        let mut log = EventLog::default();
        for port in 0..1500 {
            take(&mut log, &told(port, 0));
        }
        let last = all(&log);
        assert_eq!((last.len(), last[0].target_port, last[999].target_port), (KEPT, 500, 1499));
        assert_eq!(last[0].source.to_string(), "203.0.113.9");
        assert_eq!((last[0].interface.as_str(), last[0].reason.as_str()), ("if2", "no_service"));
        assert_eq!(log.last(3, &Selection::default()).len(), 3);
    }

    #[test]
    fn what_a_program_does_again_and_again_is_one_event() {
        let mut log = EventLog::default();
        for _ in 0..5 {
            take(&mut log, &told(443, 7));
            take(&mut log, &told(443, 8));
            take(&mut log, &told(443, 0));
        }
        let repeated: Vec<u64> = all(&log).iter().map(|packet| packet.repeated).collect();
        assert_eq!(repeated, [4, 4, 0, 0, 0, 0, 0], "of nobody, each is one");

        let mut later = told(443, 7);
        later.event.time += 61_000_000_000;
        take(&mut log, &later);
        assert_eq!(all(&log).len(), 8, "after a minute it is told of again");

        for port in 1000..2000 {
            take(&mut log, &told(port, 9));
        }
        take(&mut log, &told(443, 8));
        let last: Vec<_> = all(&log).into_iter().filter(|packet| packet.target_port == 443).collect();
        assert_eq!(last.len(), 5 + 1, "what nobody here sent is kept apart");
        assert!(last.iter().all(|packet| packet.repeated == 0), "the first is gone");

        for port in 0..1500 {
            take(&mut log, &told(port, 0));
        }
        let of_programs = all(&log).iter().filter(|packet| packet.program.is_some()).count();
        assert_eq!(of_programs, KEPT, "no flood takes them away");
    }
}
