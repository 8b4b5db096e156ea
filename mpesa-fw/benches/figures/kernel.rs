//! The programs of the bench in the kernel, with the tables of a policy.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
    util::nr_cpus,
};
use mpesa_fw::{compile::Compiled, sys};
use mpesa_fw_common::{
    Address, DropReason,
    counter::{COUNTER_SLOTS, CounterBlock},
    settings::Settings,
    state::InterfaceSlot,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{packet, sets::Sources};

/// XDP_DROP.
const DROP: u32 = 1;
/// The interface that a test run pretends to come in by, unless told otherwise: loopback.
const INTERFACE: u32 = 1;

/// What is rated, in this order.
pub(crate) const PROGRAMS: [&str; 3] = ["bench_bare", "bench_parse", "bench_ingress"];

/// The object with all tables of a policy.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    packet: Vec<u8>,
}

impl Kernel {
    /// Makes the maps, fills and freezes the tables, loads the programs.
    pub(crate) fn new(object: &[u8], compiled: &Compiled, sources: &Sources) -> Result<Self> {
        let mut settings: Settings = compiled.settings;
        settings.generation = 1;
        settings.limit_seed = 1;
        let tables = tables(compiled);
        let mut loader = EbpfLoader::new();
        loader.btf(None).override_global("SETTINGS", &settings, true);
        for (name, entries, _) in &tables {
            loader.map_max_entries(name, (*entries).max(1) as u32);
        }
        let ebpf = loader.load(object).context("the bench's eBPF object")?;
        for (name, _, bytes) in &tables {
            let Some(Map::Array(map)) = ebpf.map(name) else { bail!("the object has no array {name}") };
            sys::fill(map.fd().as_fd(), bytes).with_context(|| format!("fill {name}"))?;
            sys::freeze(map.fd().as_fd()).with_context(|| format!("freeze {name}"))?;
        }
        let mut kernel = Self { ebpf, packet: packet::syn(sources.v4)? };
        kernel.fill_state(sources)?;
        for name in PROGRAMS {
            kernel.program(name)?.load().with_context(|| format!("load {name}"))?;
        }
        Ok(kernel)
    }

    fn fill_state(&mut self, from: &Sources) -> Result<()> {
        let mut slots: Array<_, InterfaceSlot> = self.map("INTERFACE_SLOTS")?.try_into()?;
        slots.set(0, InterfaceSlot { index: INTERFACE, ..InterfaceSlot::default() }, 0)?;

        let own = Address::from(packet::local(from.v4));
        let mut hints: Array<_, u64> = self.map("OWN_HINTS")?.try_into()?;
        hints.set(u32::from(own.hint()) / 64, 1 << (own.hint() % 64), 0)?;
        let mut addresses: HashMap<_, Address, u8> = self.map("OWN_ADDRESSES")?.try_into()?;
        addresses.insert(own, 1, 0)?;

        let mut places: Array<_, [u64; 2]> = self.map("BENCH_PLACES")?.try_into()?;
        for (n, place) in from.places.iter().enumerate() {
            places.set(n as u32, *place, 0)?;
        }
        let family = if from.v4 { 4 } else { 6 };
        let [high, low] = from.random;
        let mut sources: PerCpuArray<_, [u64; 4]> = self.map("BENCH_SOURCES")?.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error).context("number of CPUs")?;
        sources.set(0, PerCpuValues::try_from(vec![[0x9e37_79b9_7f4a_7c15, high, low, family]; cpus])?, 0)?;
        Ok(())
    }

    /// Runs a program `repeat` times and gives nanoseconds a run.
    pub(crate) fn rate(&mut self, name: &str, repeat: u32) -> Result<f64> {
        let packet = self.packet.clone();
        let program = self.program(name)?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet);
        options.repeat = repeat;
        let result = program.test_run(options).with_context(|| format!("run {name}"))?;
        ensure!(result.return_value == DROP, "{name} answered {}, not {DROP}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    /// Packets counted as dropped because no rule allows their source, and all others.
    pub(crate) fn counted(&mut self) -> Result<(u64, u64)> {
        let counters: PerCpuArray<_, CounterBlock> = self.map("COUNTERS")?.try_into()?;
        let (mut denied, mut other) = (0, 0);
        for slot in 0..COUNTER_SLOTS as u32 {
            for block in counters.get(&slot, 0)?.iter() {
                let dropped = block.dropped.map(|counter| counter.packets);
                let all = dropped.iter().sum::<u64>() + block.passed.packets;
                denied += dropped[DropReason::SourceNotAllowed as usize];
                other += all - dropped[DropReason::SourceNotAllowed as usize];
            }
        }
        Ok((denied, other))
    }

    fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }

    fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program =
            self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// Every table of a generation: map, elements, contents.
fn tables(compiled: &Compiled) -> Vec<(String, usize, &[u8])> {
    fn table<'a, T: IntoBytes + Immutable>(name: &str, elements: &'a [T]) -> (String, usize, &'a [u8]) {
        (name.to_owned(), elements.len(), elements.as_bytes())
    }
    let tables = &compiled.tables;
    let mut all = vec![
        table("INGRESS_CLAIMS", &tables.claims[0]),
        table("EGRESS_CLAIMS", &tables.claims[1]),
        table("RULE_INFO", &tables.rule_info),
        table("NAME_RULES", &tables.name_rules),
    ];
    for (prefix, address) in ["SOURCE", "LOCAL", "DESTINATION"].iter().zip(&tables.address) {
        all.extend([
            table(&format!("{prefix}4_INDEX"), &address.index4),
            table(&format!("{prefix}4_RANGES"), &address.ranges4),
            table(&format!("{prefix}6_INDEX"), &address.index6),
            table(&format!("{prefix}6_STARTS"), &address.starts6),
            table(&format!("{prefix}6_IDS"), &address.ids6),
            table(&format!("{prefix}_CLASSES"), &address.classes),
        ]);
    }
    all
}
