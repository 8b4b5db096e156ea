//! Sockets that would have passed TC by: how many were refused.

use std::{collections::BTreeMap, fs, os::fd::AsFd, path::Path, time::SystemTime};

use mpesa_fw_common::bypass::Bypass;

use super::{Datapath, Result, cgroup::CgroupProgram, error::Context, pins::Pins};
use crate::sys;

impl Datapath {
    /// How often a socket of this network namespace was to pass TC by, since the maps were made; in observe mode nothing is
    /// refused. None: it is not looked for (no cgroup v2, or somebody detached the program).
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn bypasses(&self) -> Result<Option<BTreeMap<Bypass, u64>>> {
        if CgroupProgram::Bypass.attached(&self.pins).is_none() {
            return Ok(None);
        }
        let count = |bypass: Bypass| {
            let count =
                self.state.bypasses.get(&(bypass as u32)).context(|| "read the counts of refused sockets")?;
            Ok((bypass, count.unwrap_or_default()))
        };
        Bypass::ALL.into_iter().map(count).collect::<Result<_>>().map(Some)
    }
}

/// Since when sockets that would pass TC by are refused, or in observe mode counted; none: they are not. Changes nothing.
#[must_use]
pub fn refuses_bypasses_since(bpffs: &Path) -> Option<SystemTime> {
    let pin = Pins::below(bpffs).cgroup_link(CgroupProgram::Bypass);
    let link = sys::open_pin(&pin).ok()?;
    let is_attached = sys::link_info(link.as_fd()).is_ok_and(|info| info.cgroup != 0);
    fs::metadata(&pin).ok()?.modified().ok().filter(|_| is_attached)
}
