//! The programs of the bench in the kernel, with the tables of a policy.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues},
    programs::{Program, SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use mpesa_fw::{
    compile::Compiled,
    datapath::{fill, tables},
};
use mpesa_fw_common::{
    Address, DropReason,
    counter::{COUNTER_SLOTS, CounterBlock},
    settings::Settings,
    state::{FlowKey, FlowState, FragmentKey, FragmentState, InterfaceSlot},
};

use crate::{
    packet,
    traffic::{PLACES, Traffic},
};

/// The interface that a test run pretends to come in by, or leave by, unless told otherwise: loopback.
const INTERFACE: u32 = 1;

/// A program of the bench, and what it must answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    pub(crate) answer: u32,
}

/// Of programs at XDP.
pub(crate) const XDP_DROP: u32 = 1;
/// Likewise.
pub(crate) const XDP_PASS: u32 = 2;
/// TC_ACT_UNSPEC, of programs at TC: they have no objection.
pub(crate) const TC_PASS: u32 = u32::MAX;

/// What the packets of a row are counted as: in this row of the counters, as passed (`None`) or dropped for this reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) slot: u32,
    pub(crate) dropped: Option<DropReason>,
}

/// The object with all tables of a policy.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    packet: Vec<u8>,
}

impl Kernel {
    /// Makes the maps, fills and freezes the tables, loads the programs. `sized`: maps that are made in another size.
    pub(crate) fn new(
        object: &[u8],
        compiled: &Compiled,
        traffic: &Traffic,
        probes: &[Probe],
        sized: &[(&str, u32)],
    ) -> Result<Self> {
        let mut settings: Settings = compiled.settings;
        settings.generation = GENERATION;
        settings.limit_seed = 1;
        let tables = tables(&compiled.tables);
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("SETTINGS", &settings, true);
        for table in &tables {
            loader.map_max_entries(table.name, table.entries);
        }
        for (name, entries) in sized {
            loader.map_max_entries(name, *entries);
        }
        let ebpf = loader.load(object).context("the bench's eBPF object")?;
        for table in &tables {
            fill(&ebpf, table)?;
        }
        let mut kernel = Self { ebpf, packet: traffic.packet.clone() };
        kernel.fill_state(traffic)?;
        for Probe { name, .. } in probes {
            let program = kernel.program(name)?;
            if let Program::Xdp(program) = program {
                program.load()
            } else {
                <&mut SchedClassifier>::try_from(program)?.load()
            }
            .with_context(|| format!("load {name}"))?;
        }
        Ok(kernel)
    }

    fn fill_state(&mut self, traffic: &Traffic) -> Result<()> {
        let mut slots: Array<_, InterfaceSlot> = self.map("INTERFACE_SLOTS")?.try_into()?;
        slots.set(0, InterfaceSlot { index: INTERFACE, ..InterfaceSlot::default() }, 0)?;

        let own = Address::from(packet::local(traffic.v4));
        let mut hints: Array<_, u64> = self.map("OWN_HINTS")?.try_into()?;
        hints.set(u32::from(own.hint()) / 64, 1 << (own.hint() % 64), 0)?;
        let mut addresses: HashMap<_, Address, u8> = self.map("OWN_ADDRESSES")?.try_into()?;
        addresses.insert(own, 1, 0)?;

        ensure!(traffic.address.places.len() <= PLACES, "{} places", traffic.address.places.len());
        let mut places: Array<_, [u64; 2]> = self.map("BENCH_PLACES")?.try_into()?;
        for (n, place) in (0..).zip(&traffic.address.places) {
            places.set(n, *place, 0)?;
        }
        self.begin(traffic)
    }

    /// Puts the generator of the packets to its beginning.
    pub(crate) fn begin(&mut self, traffic: &Traffic) -> Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error).context("number of CPUs")?;
        let mut orders: PerCpuArray<_, [u64; 10]> = self.map("BENCH_ORDERS")?.try_into()?;
        orders.set(0, PerCpuValues::try_from(vec![traffic.orders(); cpus])?, 0)?;
        Ok(())
    }

    /// Records flows of this host, which this rule allows.
    pub(crate) fn record_flows(&mut self, keys: impl Iterator<Item = FlowKey>, rule: u8) -> Result<()> {
        let flow = FlowState {
            last_seen: LATER,
            cookie: 0,
            generation: GENERATION,
            phase: 0,
            rule,
            would_drop: 0,
            reserved: 0,
        };
        let mut ports = vec![0_u64; 1 << 10];
        let mut flows: HashMap<_, FlowKey, FlowState> = self.map("FLOWS")?.try_into()?;
        for key in keys {
            flows.insert(key, flow, 0)?;
            ports[usize::from(key.local_port) / 64] |= 1 << (key.local_port % 64);
        }
        let mut bits: Array<_, u64> = self.map("FLOW_PORTS")?.try_into()?;
        for (n, word) in (0..).zip(ports) {
            bits.set(n, word, 0)?;
        }
        Ok(())
    }

    /// Records first fragments that this rule allowed.
    pub(crate) fn record_fragments(
        &mut self,
        keys: impl Iterator<Item = FragmentKey>,
        rule: u8,
    ) -> Result<()> {
        let first = FragmentState { passed_at: LATER, generation: GENERATION, rule: rule.into() };
        let mut fragments: HashMap<_, FragmentKey, FragmentState> = self.map("FRAGMENTS")?.try_into()?;
        for key in keys {
            fragments.insert(key, first, 0)?;
        }
        Ok(())
    }

    /// Flows that are recorded.
    pub(crate) fn flows(&mut self) -> Result<usize> {
        let flows: HashMap<_, FlowKey, FlowState> = self.map("FLOWS")?.try_into()?;
        Ok(flows.keys().filter(Result::is_ok).count())
    }

    /// Entries of a map by address.
    pub(crate) fn entries<V: aya::Pod>(&mut self, name: &str) -> Result<usize> {
        let entries: HashMap<_, Address, V> = self.map(name)?.try_into()?;
        Ok(entries.keys().filter(Result::is_ok).count())
    }

    /// First fragments that are recorded.
    pub(crate) fn fragments(&mut self) -> Result<usize> {
        let fragments: HashMap<_, FragmentKey, FragmentState> = self.map("FRAGMENTS")?.try_into()?;
        Ok(fragments.keys().filter(Result::is_ok).count())
    }

    /// Runs a program `repeat` times and gives nanoseconds a run.
    pub(crate) fn rate(&mut self, probe: Probe, repeat: u32) -> Result<f64> {
        let Probe { name, answer } = probe;
        let packet = self.packet.clone();
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet);
        options.repeat = repeat;
        let program = self.program(name)?;
        let result = if let Program::Xdp(program) = program {
            program.test_run(options)
        } else {
            <&mut SchedClassifier>::try_from(program)?.test_run(options)
        }
        .with_context(|| format!("run {name}"))?;
        ensure!(result.return_value == answer, "{name} answered {}, not {answer}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    /// Packets counted so, and all others.
    pub(crate) fn counted(&mut self, counted: Counted) -> Result<(u64, u64)> {
        let counters: PerCpuArray<_, CounterBlock> = self.map("COUNTERS")?.try_into()?;
        let (mut so, mut all) = (0, 0);
        for slot in 0..COUNTER_SLOTS as u32 {
            for block in counters.get(&slot, 0)?.iter() {
                let dropped = block.dropped.map(|counter| counter.packets);
                all += dropped.iter().sum::<u64>() + block.passed.packets;
                if slot == counted.slot {
                    so += counted.dropped.map_or(block.passed.packets, |reason| dropped[reason as usize]);
                }
            }
        }
        Ok((so, all - so))
    }

    pub(crate) fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }

    fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))
    }
}

/// The number of the generation.
pub(crate) const GENERATION: u32 = 1;
/// Of what is recorded before a row: never too long ago.
const LATER: u64 = u64::MAX;
