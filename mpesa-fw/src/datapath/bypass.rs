//! Sockets that would have passed TC by: how many were refused.

use std::collections::BTreeMap;

use mpesa_fw_common::bypass::Bypass;

use super::{Datapath, Result, cgroup::CgroupProgram, error::Context};

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
