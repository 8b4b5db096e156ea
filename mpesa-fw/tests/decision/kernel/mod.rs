//! The decision in the kernel: the real programs, their real maps, packets through `BPF_PROG_TEST_RUN`.
//!
//! After each packet everything that the programs tell of it is compared with what the host decided: the verdict, every
//! counter (those that must not move too), near misses, the event; in the end the state that is left.

#[cfg(test)]
mod catalogue;
mod foretold;
#[cfg(test)]
mod law;
mod ledger;
mod maps;
mod reuse;
#[cfg(test)]
mod shadow;
mod trace;

use std::{mem::take, time::Instant};

use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::RingBuf,
    programs::{Program, ProgramError, SchedClassifier, TestRun, Xdp},
};
use mpesa_fw::datapath::{Judgement, OBJECT, Probe, Program as Asked, Twin, fill, tables};
use mpesa_fw_common::{
    DropReason, Reason, Verdict,
    decide::{Decision, step},
    dns::tick,
    event::{CAPTURE_BYTES, Event, Occasion, ProgramEvent},
    program,
    settings::Direction,
    tables::Tables,
};
use zerocopy::FromBytes;

use crate::{
    case::{Case, Packet, Rules, Step, TEST_RUN},
    host::{self, Frame},
    twins::{Judged, Twins},
};
use ledger::{Counted, Ledger, strays};
use maps::PerCpu;
use trace::Trace;

/// Which program judges ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    Tc,
}

/// One generation in the kernel, with state of its own.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    events: RingBuf<aya::maps::MapData>,
    trace: Option<Trace>,
    maps: PerCpu,
    ledger: Ledger,
    judged: usize,
    /// What `mpesa-fw why` asks. Asked before each packet, it must leave nothing that the ledger would show.
    twin: Twin,
}

/// Packets after which also those counts are read that can't move.
const STRAYS: usize = 16;

impl Kernel {
    pub(crate) fn load(rules: &Rules, traced: bool) -> Self {
        let compiled = &rules.compiled;
        let mut settings = compiled.settings;
        settings.trace = u32::from(traced);
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("SETTINGS", &settings, true);
        let tables = tables(&compiled.tables);
        for table in &tables {
            loader.map_max_entries(table.name, table.entries);
        }
        let mut ebpf = loader.load(OBJECT.expect("it was built")).expect("the maps are made");
        for table in &tables {
            fill(&ebpf, table).unwrap_or_else(|error| panic!("{error}"));
        }
        let trace = traced.then(|| Trace::new(&mut ebpf));
        for name in ["ingress_xdp", "ingress_tc", "egress_tc"] {
            let loaded = match ebpf.program_mut(name) {
                Some(Program::Xdp(program)) => program.load(),
                Some(Program::SchedClassifier(program)) => program.load(),
                _ => panic!("no program {name}"),
            };
            loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let twin = Twin::beside(&ebpf).unwrap_or_else(|error| panic!("a twin: {error}"));
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").expect("events")).expect("a ring");
        maps::put_owners(&ebpf, rules);
        let maps = PerCpu::of(&ebpf);
        let ledger = Ledger::read(&maps, rules);
        Self { maps, ebpf, events, trace, ledger, judged: 0, twin }
    }

    /// Runs a frame; the verdict that the program returns. None: a test run can't have such a frame.
    fn run(&self, direction: Direction, hook: Hook, frame: &Frame) -> Option<Verdict> {
        let options = || TestRunOptions { data_in: Some(&frame.bytes), ..TestRunOptions::default() };
        let (answer, pass, drop) = match (direction, hook) {
            (Direction::Ingress, Hook::Xdp) if frame.segmented => return None,
            (Direction::Ingress, Hook::Xdp) => {
                let program: &Xdp = self.program("ingress_xdp");
                (program.test_run(options()), 2, 1)
            }
            (Direction::Ingress | Direction::Egress, _) => {
                let name = if matches!(direction, Direction::Ingress) { "ingress_tc" } else { "egress_tc" };
                let program: &SchedClassifier = self.program(name);
                let context = segmented_context();
                let context = frame.segmented.then_some(&context[..]);
                (program.test_run(TestRunOptions { ctx_in: context, ..options() }), u32::MAX, 2)
            }
        };
        match answer {
            Ok(result) if result.return_value == pass => Some(Verdict::Pass),
            Ok(result) if result.return_value == drop => Some(Verdict::Drop),
            Ok(result) => panic!("the program returned {}", result.return_value),
            Err(ProgramError::SyscallError(error)) if !has_form(frame) => {
                assert!(error.io_error.raw_os_error().is_some(), "{error}");
                None
            }
            Err(error) => panic!("{error:?}, {} octets", frame.bytes.len()),
        }
    }

    /// What the twin says of a frame. None: a test run can't have it.
    fn ask(&self, packet: &Packet, hook: Hook) -> Option<Judgement> {
        let program = match (packet.direction, hook) {
            (Direction::Ingress, Hook::Xdp) => Asked::IngressXdp,
            (Direction::Ingress, Hook::Tc) => Asked::IngressTc,
            (Direction::Egress, _) => Asked::EgressTc,
        };
        if packet.frame.segmented && program == Asked::IngressXdp {
            return None;
        }
        let sender = packet.sender.unwrap_or(TEST_RUN);
        let Frame { bytes: frame, segmented, .. } = &packet.frame;
        let probe = Probe { program, frame, segmented: *segmented, sender };
        self.twin.judge(&probe).unwrap_or_else(|error| panic!("{error}"))
    }

    fn program<'a, P>(&'a self, name: &str) -> &'a P
    where
        &'a P: TryFrom<&'a Program, Error = ProgramError>,
    {
        self.ebpf.program(name).expect("it was loaded").try_into().expect("its type")
    }

    /// What the kernel did with a packet, compared with what the host decided and the oracle said. Empty: the same.
    fn differences(
        &mut self,
        rules: &Rules,
        packet: &Packet,
        verdict: Verdict,
        judged: &Judged,
        step: u8,
    ) -> Vec<String> {
        let Judged { decision, said, learnt, wrong: _ } = judged;
        let mut wrong = Vec::new();
        let drops = matches!(said.reason, Reason::Drop(_)) && !rules.compiled.observes();
        if verdict != if drops { Verdict::Drop } else { Verdict::Pass } {
            wrong.push(format!("verdict {verdict:?}"));
        }
        self.compare_event(rules, packet, decision, &mut wrong);
        let after = Ledger::read(&self.maps, rules);
        let length = packet.frame.bytes.len() as u64;
        let meta = &host::facts(&packet.frame);
        let (direction, learnt) = (packet.direction, *learnt);
        let counted = Counted { direction, length, meta, answer: said, step, learnt };
        wrong.extend(self.ledger.differences(&after, rules, &counted));
        self.ledger = after;
        self.judged += 1;
        self.maps.capture(self.captures());
        if self.judged.is_multiple_of(STRAYS) {
            wrong.extend(strays(&self.maps, rules));
        }
        if let Some(trace) = &mut self.trace {
            trace.compare(decision, &mut wrong);
        }
        wrong
    }

    fn compare_event(
        &mut self,
        rules: &Rules,
        packet: &Packet,
        decision: &Decision,
        wrong: &mut Vec<String>,
    ) {
        let mut events = Vec::new();
        let captures = self.captures();
        while let Some(item) = self.events.next() {
            let (event, rest) = Event::read_from_prefix(&item).expect("an event");
            let captured = usize::from(event.captured);
            if captures {
                let (program, frame) = program::Program::read_from_prefix(rest).expect("a program");
                let most = packet.frame.bytes.len().min(CAPTURE_BYTES);
                if captured != most || frame[..captured] != packet.frame.bytes[..most] {
                    wrong.push(format!("captured {:x?}", &frame[..captured]));
                }
                if packet.direction == Direction::Ingress && program != program::Program::NONE {
                    wrong.push(format!("sent by {program:?}"));
                }
            } else {
                let length = match packet.direction {
                    Direction::Ingress => size_of::<Event>(),
                    Direction::Egress => size_of::<ProgramEvent>(),
                };
                if captured != 0 || item.len() != length {
                    wrong.push(format!("{} bytes, captured {captured} unasked", item.len()));
                }
            }
            events.push(Event { captured: 0, ..event });
        }
        if !events.is_empty() {
            // Only so many are sent a second: the next packet begins with a full bucket.
            self.maps.fill_event_bucket();
        }
        let expected: Vec<Event> = match decision.reason {
            Reason::Pass(_) => Vec::new(),
            Reason::Drop(reason) => vec![event(rules, packet, decision, reason)],
        };
        let seen: Vec<Event> = events.iter().map(|event| Event { time: 0, interface: 0, ..*event }).collect();
        if seen != expected {
            wrong.push(format!("events {seen:?}, not {expected:?}"));
        }
        if events.iter().any(|event| event.time == 0) {
            wrong.push(String::from("an event without a time"));
        }
    }

    /// Whether the frame of the packet at hand is captured: that of every second one.
    const fn captures(&self) -> bool {
        self.judged % 2 == 1
    }

    /// Takes the state of an older generation.
    fn inherit(&mut self, older: &Self) {
        maps::copy_state(&older.ebpf, &mut self.ebpf);
    }
}

fn event(rules: &Rules, packet: &Packet, decision: &Decision, reason: DropReason) -> Event {
    let meta = host::facts(&packet.frame);
    Event {
        time: 0,
        source: meta.source,
        target: meta.target,
        interface: 0,
        generation: rules.compiled.generation(),
        length: packet.frame.bytes.len() as u32,
        source_port: meta.source_port,
        target_port: if meta.is_icmp() { u16::from(meta.icmp_type) } else { meta.target_port },
        protocol: meta.protocol,
        direction: packet.direction as u8,
        reason: reason as u8,
        rule: decision.rule.raw(),
        enforced: u8::from(!rules.compiled.observes()),
        occasion: Occasion::Packet as u8,
        captured: 0,
    }
}

/// Whether any test run takes such a frame. Not (at TC) one whose network header is cut short, nor one longer than a page.
fn has_form(frame: &Frame) -> bool {
    (54..=3000).contains(&frame.bytes.len())
}

/// `struct __sk_buff` that says no more than a `gso_size`, which makes a frame a segmented one.
fn segmented_context() -> [u8; 192] {
    const GSO_SIZE: usize = 176;
    let mut context = [0; 192];
    context[GSO_SIZE..GSO_SIZE + 4].copy_from_slice(&500u32.to_ne_bytes());
    context
}

/// Oracle, host and kernel side by side.
pub(crate) struct Pair {
    pub(crate) twins: Twins,
    kernel: Kernel,
    traced: bool,
    /// Until when the host's clock, which stands still by itself, has gone with the kernel's.
    clock: Instant,
    /// How much older the kernel's entries were made, nanoseconds.
    aged: u64,
    /// Of generations before.
    strays: Vec<String>,
}

impl Pair {
    pub(crate) fn new(case: &Case, traced: bool) -> Self {
        Self::of(Twins::new(case), traced)
    }

    /// With whatever the twins know.
    pub(crate) fn of(twins: Twins, traced: bool) -> Self {
        let mut kernel = Kernel::load(&twins.rules, traced);
        maps::put_state(&mut kernel.ebpf, &twins.state);
        Self { twins, kernel, traced, clock: Instant::now(), aged: 0, strays: Vec::new() }
    }

    /// From now on oracle and host are asked about another policy than the kernel has.
    pub(crate) fn mislead(&mut self, case: &Case) {
        self.twins = Twins::new(case);
        self.kernel.ledger = Ledger::read(&self.kernel.maps, &self.twins.rules);
    }

    /// Whatever happens between packets.
    pub(crate) fn go_on(&mut self, step: &Step) {
        match step {
            Step::Packet(_) => unreachable!("it is judged"),
            Step::Wait(time) => {
                self.twins.wait(*time);
                // Each time rounded alone, ticks would be lost.
                let ticks = tick(self.aged + time) - tick(self.aged);
                self.aged += time;
                maps::age(&mut self.kernel.ebpf, *time, ticks);
            }
            Step::Reload(policy) => {
                self.strays.extend(strays(&self.kernel.maps, &self.twins.rules));
                self.twins.reload(policy);
                let mut kernel = Kernel::load(&self.twins.rules, self.traced);
                kernel.inherit(&self.kernel);
                maps::put_names(&mut kernel.ebpf, &self.twins.state);
                self.kernel = kernel;
            }
            Step::Resolve(names) => {
                self.twins.resolve(names);
                maps::put_names(&mut self.kernel.ebpf, &self.twins.state);
            }
        }
    }

    /// Judges a packet all ways; what differs, and None where a test run can't have the frame.
    pub(crate) fn judge(&mut self, packet: &Packet, hook: Hook) -> Option<(Decision, Vec<String>)> {
        let passed = self.clock.elapsed();
        self.clock += passed;
        self.twins.wait(passed.as_nanos() as u64);
        let foretold = self.kernel.ask(packet, hook);
        let verdict = self.kernel.run(packet.direction, hook, &packet.frame)?;
        let mut judged = self.twins.judge(packet, &TEST_RUN);
        let mut wrong = take(&mut judged.wrong);
        wrong.extend(self.contradictions(packet.direction, foretold, &judged.decision));
        let (rules, step) = (&self.twins.rules, self.twins.oracle.step);
        wrong.extend(self.kernel.differences(rules, packet, verdict, &judged, step));
        Some((judged.decision, wrong))
    }

    /// What the twin said of a packet before it came, where that is not what became of it, or not the oracle's number.
    fn contradictions(
        &self,
        direction: Direction,
        foretold: Option<Judgement>,
        decision: &Decision,
    ) -> Vec<String> {
        let Some(foretold) = foretold else { return vec![String::from("the twin was not asked")] };
        let mut wrong = Vec::new();
        if foretold.decision != *decision {
            wrong.push(format!("the twin said {:?}", foretold.decision));
        }
        let (number, expected) = (step(direction, decision, foretold.of_flow), self.twins.oracle.step);
        if number != expected {
            wrong.push(format!("the twin was at number {number}, the oracle at {expected}"));
        }
        wrong
    }

    /// One packet many times at XDP: events sent, events suppressed, and how often buckets can have been filled meanwhile. In one run, on
    /// one CPU: apart the packets would take as long as the kernel is busy otherwise.
    pub(crate) fn flood(&mut self, frame: &Frame, times: u32) -> (usize, usize, usize) {
        self.kernel.maps.fill_event_bucket();
        let start = Instant::now();
        let program: &Xdp = self.kernel.program("ingress_xdp");
        let mut options = TestRunOptions { data_in: Some(&frame.bytes), ..TestRunOptions::default() };
        options.repeat = times;
        let result = program.test_run(options).expect("a test run");
        assert_eq!(result.return_value, 1, "dropped");
        // 256 jiffies, which are 0.256 s at the fastest clock there is; and the epoch may end at once. The kernel may move the run.
        let epochs = start.elapsed().as_millis() as usize / 256 + 2;
        let fills = epochs.max(3);
        let mut sent = 0;
        while self.kernel.events.next().is_some() {
            sent += 1;
        }
        (sent, self.kernel.maps.suppressed_events() as usize, fills)
    }

    /// Flows, fragments and ports that host and kernel are left with, where they differ, and counts that nobody can have.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut wrong = maps::compare_state(&self.kernel.ebpf, &self.twins.state);
        wrong.extend(strays(&self.kernel.maps, &self.twins.rules));
        wrong.extend(self.strays.iter().cloned());
        wrong
    }
}
