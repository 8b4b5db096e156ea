//! The end of protection: from the pins alone, whether or not an agent is there.

use std::{collections::HashSet, path::Path};

use mpesa_fw_common::settings::Direction;

use super::{
    DatapathError, Result, bpffs,
    cgroup::CgroupProgram,
    error::Context,
    hooks::{self, Way},
    pins::{Pins, remove_tree},
    swap::open_netlink,
};
use crate::fault::{self, Point};

/// Removes every hook, table and pin of all ABI versions below `bpffs`. Says what it detached.
///
/// # Errors
/// No permission, or a hook that can't be removed; what could be detached is.
pub fn detach(bpffs: &Path) -> Result<Vec<String>> {
    if !bpffs.exists() || !bpffs::is_bpffs(bpffs)? {
        return Ok(Vec::new());
    }
    // A hook whose pin stays would be taken for one that is gone, and half of them would be left.
    bpffs::expect_writable(bpffs, "detach")?;
    let mut detached = Vec::new();
    let mut failure = None;
    for pins in Pins::all_below(bpffs)? {
        match detach_version(&pins) {
            Ok(more) => detached.extend(more),
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(detached), Err)
}

fn detach_version(pins: &Pins) -> Result<Vec<String>> {
    let netlink = open_netlink()?;
    // Another version may have kept its places in another form: every interface is asked.
    let interfaces = hooks::all_interfaces()?;
    let ours = programs_of(pins)?;
    let mut found = hooks::find(pins, &netlink, &interfaces, &ours)?;
    found.tidy(pins);
    fault::point(Point::DetachBegun)?;
    let mut detached = Vec::new();
    let mut failure = None;
    // Ingress first: without egress nothing opens flows, and replies would be dropped.
    found.hooks.sort_by_key(|hook| (hook.direction != Direction::Ingress, hook.interface.index));
    for hook in &found.hooks {
        let way = match hook.way {
            Way::Xdp(_) => "XDP",
            Way::Tcx(_) => "TCX",
            Way::Clsact => "clsact",
        };
        let place = format!("{} {} ({way})", hook.interface.name, hook.direction.label());
        match hook.detach(&netlink) {
            Ok(()) => detached.push(place),
            Err(error) => failure = Some(DatapathError::system(format!("detach from {place}"), &error)),
        }
    }
    for away in &found.away {
        match away.detach() {
            Ok(()) => detached.push(String::from("an interface in another network namespace")),
            Err(error) => {
                failure = Some(DatapathError::system("detach from an interface that is away", &error))
            }
        }
    }
    if let Some(failure) = failure {
        return Err(failure);
    }
    // They go with their pins, unless somebody else holds them.
    for at_root in CgroupProgram::ALL {
        if let Err(error) = at_root.detach(pins) {
            tracing::warn!("{error}");
        }
    }
    // It judges nothing, and the next one uses it: no reason to keep the pins.
    for left in hooks::remove_qdiscs(pins, &netlink, |_| false) {
        tracing::warn!("{left}");
    }
    fault::point(Point::HooksDetached)?;
    remove_tree(pins.root()).context(|| format!("remove the pins {}", pins.root().display()))?;
    fault::point(Point::PinsRemoved)?;
    Ok(detached)
}

/// Ids of the programs of all pinned generations.
pub(super) fn programs_of(pins: &Pins) -> Result<HashSet<u32>> {
    Ok(pins.generations()?.iter().flat_map(super::pins::GenerationPins::program_ids).collect())
}
