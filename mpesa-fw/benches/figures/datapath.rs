//! Nanoseconds that the programs take for a packet, beside those that they are compared with.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mpesa_fw::{
    compile::{Compiled, Registry, compile},
    policy::{self, Permissions},
};
use mpesa_fw_common::{
    settings::Direction,
    tables::{RuleIndex, rule_info_index},
};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::{answers, denied, search, sets::PrefixSet, verdicts};

const SIZES: [usize; 4] = [12, 1_000, 100_000, 1_000_000];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The eBPF object with the programs of the bench
    #[arg(long)]
    object: PathBuf,
    /// Rounds; each runs every program once, one after the other
    #[arg(long, default_value_t = 21)]
    pub(crate) rounds: usize,
    /// Packets a run
    #[arg(long, default_value_t = 200_000)]
    pub(crate) packets: u32,
    /// Only sets of this many prefixes
    #[arg(long)]
    prefixes: Option<usize>,
    /// Only this table
    #[arg(long, value_enum)]
    table: Option<Table>,
}

/// What is rated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Table {
    /// Denied packets, by sets and sources
    Denied,
    /// Other packets
    Verdicts,
    /// Answers of name servers
    Answers,
    /// The search for a source, beside a trie of the kernel
    Search,
}

impl Arguments {
    /// Prefixes of the sets.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = usize> {
        let only = self.prefixes;
        SIZES.into_iter().filter(move |size| only.is_none_or(|only| only == *size))
    }

    fn wants(&self, table: Table) -> bool {
        self.table.is_none_or(|only| only == table)
    }
}

/// Rates everything.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let statistics = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")?;
    ensure!(statistics.trim() == "0", "kernel.bpf_stats_enabled is on, which costs each run: set it to 0");
    stay_on_this_cpu()?;
    let object = std::fs::read(&arguments.object)
        .with_context(|| format!("the eBPF object {}", arguments.object.display()))?;
    if arguments.wants(Table::Denied) {
        println!("### Denied\n");
        denied::table(&object, arguments)?;
    }
    if arguments.wants(Table::Verdicts) {
        println!("\n### Other packets\n");
        verdicts::table(&object, arguments)?;
    }
    if arguments.wants(Table::Answers) {
        println!("\n### Answers of name servers\n");
        answers::table(&object, arguments)?;
    }
    if arguments.wants(Table::Search) {
        println!("\n### The search alone, beside the kernel's LPM trie\n");
        search::table(&object, arguments)?;
    }
    Ok(())
}

/// These rules with the set, which is in their `feed.netset`.
pub(crate) fn compiled(set: &PrefixSet, rules: &str) -> Result<Compiled> {
    let directory = tempfile::tempdir()?;
    let feed: String = set.prefixes.iter().fold(String::new(), |mut feed, prefix| {
        let _ = writeln!(feed, "{prefix}");
        feed
    });
    std::fs::write(directory.path().join("feed.netset"), feed)?;
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, rules)?;
    let policy =
        policy::load(&file, Permissions::Ignore).map_err(|errors| anyhow::anyhow!("{errors}"))?.policy;
    let assignment = Registry::default().assign(&policy)?;
    compile(&policy, &assignment.slots).context("compile")
}

/// The rule's row in the counters.
pub(crate) fn slot(compiled: &Compiled, direction: Direction, rule: usize) -> u32 {
    let rule = RuleIndex::new(rule as u8).unwrap_or(RuleIndex::NONE);
    compiled.tables.rule_info[rule_info_index(direction, rule) as usize].counter_slot
}

/// The set beside the callback hosts, in a policy like the shipped ones. Packets to the port of the callbacks are denied
/// wherever in the set their source lies; all lists of a policy are in one table.
pub(crate) const RULES: &str = r#"
version: 1
mode: enforce
interfaces: [eth0]
sets:
  safaricom: { addresses: [196.201.214.200, "2c0f:fe38::200"] }
  partners: { file: feed.netset }
ingress:
  default: drop
  services:
    - { name: callbacks, ports: [443], from: [safaricom] }
    - { name: partners, ports: [8443], from: [partners] }
    - { name: ssh, ports: [22], from: [203.0.113.7] }
egress:
  default: drop
  allow:
    - { name: dns, to: [10.0.0.2], protocol: [udp, tcp], ports: [53] }
"#;

/// The state of the programs is per CPU.
fn stay_on_this_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("stay on one CPU")
}
