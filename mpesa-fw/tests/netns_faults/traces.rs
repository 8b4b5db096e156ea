//! What an agent leaves in the kernel and in files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::Result;
use testbed::{Firewall, ok};

/// What a host with a running agent has, as a clean start left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Every path below the bpffs, without the number of the generation.
    pins: BTreeSet<String>,
    /// Files in the directories for state and for running.
    files: BTreeSet<String>,
    programs: usize,
    maps: usize,
    descriptors: usize,
}

impl Traces {
    /// Of the agent with this process. `states`: ids of the map of counters in every life of the state.
    pub(crate) fn of(firewall: &Firewall<'_>, pid: u32, states: &BTreeSet<u64>) -> Result<Self> {
        let (programs, maps) = owned(states)?;
        let mut files = below(&firewall.runtime())?;
        files.extend(below(&firewall.directory.join("state"))?);
        let pins = below(&firewall.bpffs)?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { pins, files, programs, maps, descriptors })
    }
}

/// Programs that share our state, and the maps that they use.
pub(crate) fn owned(states: &BTreeSet<u64>) -> Result<(usize, usize)> {
    let shown = ok(Command::new("bpftool").args(["-j", "prog", "show"]))?;
    let shown: Vec<BTreeMap<String, serde_json::Value>> = serde_json::from_str(&shown)?;
    let maps_of = |program: &BTreeMap<String, serde_json::Value>| -> BTreeSet<u64> {
        let ids = program.get("map_ids").and_then(serde_json::Value::as_array);
        ids.into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
    };
    let ours: Vec<_> = shown.iter().map(maps_of).filter(|maps| !maps.is_disjoint(states)).collect();
    Ok((ours.len(), ours.iter().flatten().collect::<BTreeSet<_>>().len()))
}

/// Every path below a directory; of a generation without number and digest, of what is kept of it without its name.
pub(crate) fn below(directory: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.strip_prefix(directory)?.to_string_lossy().into_owned();
            let parts =
                name.split('/').map(|part| if part.starts_with("generation-") { "generation" } else { part });
            let name = parts.collect::<Vec<_>>().join("/");
            let kept = ["generations/", "texts/"].into_iter().find(|directory| name.starts_with(directory));
            found.insert(kept.map_or(name.clone(), str::to_owned));
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(found)
}
