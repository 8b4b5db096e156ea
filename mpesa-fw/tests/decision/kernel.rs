//! The decision in the kernel: the real programs, their real maps, packets through `BPF_PROG_TEST_RUN`.
//!
//! After each packet everything that the programs tell of it is compared with what the host decided: the verdict, every
//! counter (those that must not move too), near misses, the event; in the end the state that is left.

mod maps;
mod trace;

use std::os::fd::AsFd;

use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Map, RingBuf},
    programs::{Program, ProgramError, SchedClassifier, TestRun, Xdp},
};
use mpesa_fw::{
    compile::{AddressTables, Compiled},
    sys,
};
use mpesa_fw_common::{
    DropReason, PassReason, Reason, Verdict,
    counter::{COUNTER_BLOCKS, COUNTER_SLOTS, CounterBlock},
    decide::Decision,
    event::Event,
    settings::Direction,
    tables::{AddressTable, Tables, WATCHED_SETS},
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    case::{Case, Packet, Rules, Step, TEST_RUN},
    catalogue,
    host::{self, Frame, HostState},
};
use maps::PerCpu;
use trace::Trace;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mpesa-fw"));

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
    counters: Vec<CounterBlock>,
    near_misses: [u64; WATCHED_SETS],
}

impl Kernel {
    pub(crate) fn load(compiled: &Compiled, traced: bool) -> Self {
        let mut settings = compiled.settings;
        settings.trace = u32::from(traced);
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("SETTINGS", &settings, true);
        let tables = tables(compiled);
        for (name, entries, _) in &tables {
            loader.map_max_entries(name, *entries);
        }
        let mut ebpf = loader.load(OBJECT).expect("the maps are made");
        for (name, _, bytes) in &tables {
            let Some(Map::Array(map)) = ebpf.map(name) else { panic!("no table {name}") };
            sys::fill(map.fd().as_fd(), bytes).unwrap_or_else(|error| panic!("fill {name}: {error}"));
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
        let events = RingBuf::try_from(ebpf.take_map("EVENTS").expect("events")).expect("a ring");
        Self {
            maps: PerCpu::of(&ebpf),
            ebpf,
            events,
            trace,
            counters: vec![CounterBlock::ZERO; COUNTER_SLOTS],
            near_misses: [0; WATCHED_SETS],
        }
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

    fn program<'a, P>(&'a self, name: &str) -> &'a P
    where
        &'a P: TryFrom<&'a Program, Error = ProgramError>,
    {
        self.ebpf.program(name).expect("it was loaded").try_into().expect("its type")
    }

    /// What the kernel did with a packet, compared with what the host decided. Empty: the same.
    fn differences(
        &mut self,
        rules: &Rules,
        packet: &Packet,
        verdict: Verdict,
        decision: &Decision,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let observes = rules.compiled.observes();
        let expected = if observes { Verdict::Pass } else { decision.verdict() };
        if verdict != expected {
            wrong.push(format!("verdict {verdict:?}"));
        }
        self.compare_counters(rules, packet, decision, &mut wrong);
        self.compare_near_misses(rules, decision, &mut wrong);
        self.compare_event(rules, packet, decision, &mut wrong);
        if let Some(trace) = &mut self.trace {
            trace.compare(decision, &mut wrong);
        }
        wrong
    }

    fn compare_counters(
        &mut self,
        rules: &Rules,
        packet: &Packet,
        decision: &Decision,
        wrong: &mut Vec<String>,
    ) {
        let info =
            rules.compiled.rule_info(packet.direction, decision.rule).expect("there is one of each rule");
        let length = packet.frame.bytes.len() as u64;
        let rows = rows_in_use(&rules.compiled);
        for (slot, before) in self.counters.clone().iter().enumerate().take(rows) {
            let mut expected = *before;
            let after = self.maps.counters(slot as u32);
            if slot as u32 == info.counter_slot {
                let counter = match decision.reason {
                    Reason::Pass(_) => &mut expected.passed,
                    Reason::Drop(reason) if rules.compiled.observes() => {
                        &mut expected.would_drop[reason as usize]
                    }
                    Reason::Drop(reason) => &mut expected.dropped[reason as usize],
                };
                counter.packets += 1;
                counter.bytes += length;
                if matches!(decision.reason, Reason::Pass(PassReason::Service)) {
                    if after.last_passed == 0 {
                        wrong.push(String::from("no time of the last pass"));
                    }
                    expected.last_passed = after.last_passed;
                }
            }
            if after != expected {
                wrong.push(format!("row {slot}: {}", moved(before, &after)));
            }
            self.counters[slot] = after;
        }
    }

    fn compare_near_misses(&mut self, rules: &Rules, decision: &Decision, wrong: &mut Vec<String>) {
        for bit in 0..rules.slots.sets.len() {
            let after = self.maps.near_misses(bit as u32);
            let expected = self.near_misses[bit] + (decision.near_miss >> bit & 1);
            if after != expected {
                wrong.push(format!("near misses of set {bit}: {after}, not {expected}"));
            }
            self.near_misses[bit] = after;
        }
    }

    fn compare_event(
        &mut self,
        rules: &Rules,
        packet: &Packet,
        decision: &Decision,
        wrong: &mut Vec<String>,
    ) {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(Event::read_from_bytes(&item).expect("an event"));
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

    /// Counts where nothing can have been counted.
    fn stray_counts(&self, rules: &Rules) -> Vec<String> {
        let rows = (rows_in_use(&rules.compiled)..COUNTER_BLOCKS).map(|row| row as u32);
        let counters = rows.filter(|row| self.maps.counters(*row) != CounterBlock::ZERO);
        let bits = (rules.slots.sets.len()..WATCHED_SETS).map(|bit| bit as u32);
        let misses = bits.filter(|bit| self.maps.near_misses(*bit) != 0);
        let say = |what: &'static str| move |n| format!("{what} {n} moved");
        counters.map(say("row")).chain(misses.map(say("near misses of set"))).collect()
    }

    /// Takes the state of an older generation.
    fn inherit(&mut self, older: &Self) {
        maps::copy_state(&older.ebpf, &mut self.ebpf);
    }
}

/// Rows of counters up to the last that a rule has.
fn rows_in_use(compiled: &Compiled) -> usize {
    compiled.tables.rule_info.iter().map(|rule| rule.counter_slot as usize + 1).max().expect("there are some")
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
        reserved: [0; 3],
    }
}

/// What a counter block has more of.
fn moved(before: &CounterBlock, after: &CounterBlock) -> String {
    let mut text = Vec::new();
    let mut say = |what: &str, packets: u64| {
        if packets != 0 {
            text.push(format!("{what} +{packets}"));
        }
    };
    say("passed", after.passed.packets - before.passed.packets);
    for reason in DropReason::ALL {
        let n = *reason as usize;
        say(reason.label(), after.dropped[n].packets - before.dropped[n].packets);
        let would_drop = after.would_drop[n].packets - before.would_drop[n].packets;
        say(&format!("would drop {}", reason.label()), would_drop);
    }
    format!("[{}], last passed {}", text.join(", "), after.last_passed)
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

/// Each table's map, entries, bytes.
fn tables(compiled: &Compiled) -> Vec<(&'static str, u32, &[u8])> {
    fn table<'a, T: IntoBytes + Immutable>(name: String, elements: &'a [T]) -> (&'static str, u32, &'a [u8]) {
        (name.leak(), elements.len() as u32, elements.as_bytes())
    }
    let generation = &compiled.tables;
    let mut all = vec![
        table("INGRESS_CLAIMS".into(), &generation.claims[0]),
        table("EGRESS_CLAIMS".into(), &generation.claims[1]),
        table("RULE_INFO".into(), &generation.rule_info),
        table("NAME_RULES".into(), &generation.name_rules),
    ];
    for kind in AddressTable::ALL {
        let prefix = kind.map_prefix();
        let AddressTables { index4, ranges4, index6, starts6, ids6, classes } =
            &generation.address[kind as usize];
        all.extend([
            table(format!("{prefix}4_INDEX"), index4),
            table(format!("{prefix}4_RANGES"), ranges4),
            table(format!("{prefix}6_INDEX"), index6),
            table(format!("{prefix}6_STARTS"), starts6),
            table(format!("{prefix}6_IDS"), ids6),
            table(format!("{prefix}_CLASSES"), classes),
        ]);
    }
    all
}

/// Host and kernel side by side.
pub(crate) struct Pair {
    pub(crate) rules: Rules,
    pub(crate) state: HostState,
    kernel: Kernel,
    traced: bool,
}

impl Pair {
    pub(crate) fn new(rules: Rules, state: HostState, traced: bool) -> Self {
        let mut kernel = Kernel::load(&rules.compiled, traced);
        maps::put_state(&mut kernel.ebpf, &state);
        Self { rules, state, kernel, traced }
    }

    pub(crate) fn reload(&mut self, rules: Rules) {
        let mut kernel = Kernel::load(&rules.compiled, self.traced);
        kernel.inherit(&self.kernel);
        self.kernel = kernel;
        self.rules = rules;
    }

    pub(crate) fn wait(&mut self, time: u64) {
        self.state.wait(time);
        maps::age(&mut self.kernel.ebpf, time);
    }

    /// Judges a packet both ways; what differs, and None where a test run can't have the frame.
    pub(crate) fn judge(&mut self, packet: &Packet, hook: Hook) -> Option<Vec<String>> {
        let verdict = self.kernel.run(packet.direction, hook, &packet.frame)?;
        let decision =
            host::judge(&self.rules.compiled, &self.state, &packet.frame, packet.direction, &TEST_RUN);
        Some(self.kernel.differences(&self.rules, packet, verdict, &decision))
    }

    /// Flows and fragments that host and kernel are left with, where they differ.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let mut wrong = maps::compare_state(&self.kernel.ebpf, &self.state);
        wrong.extend(self.kernel.stray_counts(&self.rules));
        wrong
    }
}

/// The catalogue again, in the kernel: at XDP, and at TC with each line of the trace.
#[test]
#[ignore = "needs root and a kernel"]
fn the_catalogue_in_the_kernel() {
    let mut wrong = Vec::new();
    let (mut cases, mut packets, mut left_out) = (0, 0, 0);
    for case in catalogue::all().iter().filter(|case| !case.is_host_only()) {
        cases += 1;
        for hook in [Hook::Xdp, Hook::Tc] {
            let (run, skipped) = run(case, hook, &mut wrong);
            packets += run;
            left_out += skipped;
        }
    }
    println!("{cases} cases, {packets} packets, {left_out} that a test run can't have");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Packets judged, and those that could not be.
fn run(case: &Case, hook: Hook, wrong: &mut Vec<String>) -> (usize, usize) {
    let rules = Rules::new(case.policy);
    let state = case.state(&rules);
    let mut pair = Pair::new(rules, state, hook == Hook::Tc);
    let (mut run, mut skipped) = (0, 0);
    for step in &case.steps {
        match step {
            Step::Wait(time) => pair.wait(*time),
            Step::Reload(policy) => {
                let rules = pair.rules.reload(policy);
                pair.reload(rules);
            }
            Step::Packet(packet) => match pair.judge(packet, hook) {
                Some(differences) => {
                    run += 1;
                    let say = |what| format!("{} / {}, {hook:?}: {what}", case.name, packet.label);
                    wrong.extend(differences.into_iter().map(say));
                }
                None => skipped += 1,
            },
        }
    }
    wrong.extend(pair.left_over().into_iter().map(|what| format!("{}, {hook:?}: {what}", case.name)));
    (run, skipped)
}
