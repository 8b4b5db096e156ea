//! What a prefix takes in the kernel: the maps of the loaded program, as the kernel counts them.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::{maps::MapInfo, programs::ProgramInfo};
use testbed::{Firewall, Host, Network};

use crate::{
    agent::write_rules,
    calls,
    sample::within,
    sets::{PrefixSet, Spread},
};

/// What everything else is compared with: the index and what has a fixed size are there too.
const FEW: usize = 12;
const SIZES: [usize; 2] = [100_000, 1_000_000];

/// Prints it for both families.
pub(crate) fn table(network: &Network, host: &Host, binary: &str) -> Result<()> {
    println!(
        "| family | prefixes | set | maps of the program, MB | bytes a prefix beyond {FEW} prefixes | at most |"
    );
    println!("|---|---|---|---|---|---|");
    let firewall = Firewall::new(network, &host.namespace, binary)?;
    write_rules(&firewall, &PrefixSet::new(true, Spread::Random, FEW))?;
    let _agent = firewall.start(&[])?;
    for v4 in [true, false] {
        for spread in [Spread::Random, Spread::Clustered] {
            let few = memory(&firewall, &PrefixSet::new(v4, spread, FEW))?;
            for size in SIZES {
                let many = memory(&firewall, &PrefixSet::new(v4, spread, size))?;
                let each = (many as f64 - few as f64) / (size - FEW) as f64;
                let (family, most) = if v4 { ("IPv4", 20.0) } else { ("IPv6", 48.0) };
                println!(
                    "| {family} | {size} | {spread} | {:.1} | {each:.1} | {} |",
                    many as f64 / 1e6,
                    within(each, most)
                );
            }
        }
    }
    Ok(())
}

/// Bytes of all maps of the ingress program, once this set is in force.
fn memory(firewall: &Firewall<'_>, set: &PrefixSet) -> Result<u64> {
    write_rules(firewall, set)?;
    let reloaded = firewall.ask(["reload"])?;
    anyhow::ensure!(reloaded.code == Some(0), "reload: {}", reloaded.text());
    maps(&calls::pinned(&firewall.bpffs)?)
}

fn maps(program: &Path) -> Result<u64> {
    let program = ProgramInfo::from_pin(program).with_context(|| program.display().to_string())?;
    let mut bytes = 0;
    for id in program.map_ids()?.context("the kernel does not tell the maps of a program")? {
        let map = MapInfo::from_id(id)?.fd()?;
        let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
        let memlock = told.lines().find_map(|line| line.strip_prefix("memlock:")).context("no memlock")?;
        bytes += memlock.trim().parse::<u64>().context("memlock")?;
    }
    Ok(bytes)
}
