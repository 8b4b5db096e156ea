//! Nanoseconds that the ingress program takes for a packet that it denies, beside the two programs that it is compared
//! with.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use mpesa_fw::{
    compile::{Compiled, Registry, compile},
    policy::{self, Permissions},
};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::{
    kernel::{Kernel, PROGRAMS},
    sample::{Sample, against},
    sets::{PrefixSet, Sources, Spread},
};

const SIZES: [usize; 4] = [12, 1_000, 100_000, 1_000_000];

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The eBPF object with the programs of the bench
    #[arg(long)]
    object: PathBuf,
    /// Rounds; each runs every program once, one after the other
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Packets a run
    #[arg(long, default_value_t = 200_000)]
    packets: u32,
    /// Only sets of this many prefixes
    #[arg(long)]
    prefixes: Option<usize>,
}

/// Rates all sets.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let statistics = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")?;
    ensure!(statistics.trim() == "0", "kernel.bpf_stats_enabled is on, which costs each run: set it to 0");
    stay_on_this_cpu()?;
    let object = std::fs::read(&arguments.object)
        .with_context(|| format!("the eBPF object {}", arguments.object.display()))?;
    println!(
        "| packet | prefixes | set | sources | bare drop, ns | parse and drop, ns | `ingress_xdp`, ns | over parse | over bare |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for v4 in [true, false] {
        for prefixes in SIZES {
            if arguments.prefixes.is_some_and(|only| only != prefixes) {
                continue;
            }
            for spread in [Spread::Random, Spread::Clustered] {
                let set = PrefixSet::new(v4, spread, prefixes);
                let compiled = compiled(&set)?;
                for sources in set.sources() {
                    println!("{}", row(&object, &set, &compiled, &sources, arguments)?);
                }
            }
        }
    }
    Ok(())
}

/// What `ingress_xdp` may take more than parsing, and more than nothing.
fn targets(v4: bool, prefixes: usize) -> (Option<f64>, Option<f64>) {
    match (v4, prefixes) {
        (true, ..=1_000) => (Some(15.0), Some(50.0)),
        (true, ..=100_000) => (Some(45.0), None),
        (true, _) => (Some(120.0), None),
        (false, ..=1_000) => (None, Some(80.0)),
        (false, _) => (None, None),
    }
}

fn row(
    object: &[u8],
    set: &PrefixSet,
    compiled: &Compiled,
    sources: &Sources,
    arguments: &Arguments,
) -> Result<String> {
    let count = set.prefixes.len();
    let family = if set.v4 { "IPv4" } else { "IPv6" };
    let from = if sources.spread == Spread::Random { "random" } else { "in the clusters" };
    eprintln!("{family}, {count} prefixes, {}, sources {from}", set.spread);
    let mut kernel = Kernel::new(object, compiled, sources)?;
    for name in PROGRAMS {
        kernel.rate(name, arguments.packets)?; // warms the caches, and spends the events
    }
    let mut samples = [const { Sample::new() }; PROGRAMS.len()];
    for _ in 0..arguments.rounds {
        for (sample, name) in samples.iter_mut().zip(PROGRAMS) {
            sample.push(kernel.rate(name, arguments.packets)?);
        }
    }
    let (denied, other) = kernel.counted()?;
    let expected = u64::from(arguments.packets) * (arguments.rounds as u64 + 1);
    // The callback host itself lies within a cluster.
    ensure!(
        denied + other == expected && other <= expected / 10_000,
        "{denied} denied and {other} others of {expected} packets"
    );

    let [bare, parse, ingress] = &samples;
    let (over_parse, over_bare) = targets(set.v4, count);
    let mut row = format!("| {family} | {count} | {} | {from} |", set.spread);
    for sample in &samples {
        write!(row, " {:.0} / {:.0} |", sample.min(), sample.median())?;
    }
    write!(row, " {} |", against(ingress.over(parse).median(), over_parse))?;
    write!(row, " {} |", against(ingress.over(bare).median(), over_bare))?;
    Ok(row)
}

/// The set beside the callback hosts, in a policy like the shipped ones. The packets go to the port of the callbacks, so
/// that all of them are denied, wherever in the set their source lies; all lists of a policy are in one table.
fn compiled(set: &PrefixSet) -> Result<Compiled> {
    let directory = tempfile::tempdir()?;
    let feed: String = set.prefixes.iter().fold(String::new(), |mut feed, prefix| {
        let _ = writeln!(feed, "{prefix}");
        feed
    });
    std::fs::write(directory.path().join("feed.netset"), feed)?;
    let rules = directory.path().join("rules.yaml");
    std::fs::write(&rules, RULES)?;
    let policy =
        policy::load(&rules, Permissions::Ignore).map_err(|errors| anyhow::anyhow!("{errors}"))?.policy;
    let assignment = Registry::default().assign(&policy)?;
    compile(&policy, &assignment.slots).context("compile")
}

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
