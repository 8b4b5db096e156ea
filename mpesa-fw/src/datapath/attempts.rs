//! Programs that are told at once where they may not connect or send: by which way packets leave, and how many were refused.

use std::collections::BTreeMap;

use mpesa_fw_common::attempt::{Lease, Way, WayKey};

use super::{Datapath, Result, error::Context};

impl Datapath {
    /// Says by which way packets to each prefix leave, instead of what was said before. Nothing is refused meanwhile, nor later until
    /// [`lease_ways`](Self::lease_ways).
    ///
    /// # Errors
    /// The kernel refuses, for want of room maybe.
    pub fn set_ways(&self, ways: &BTreeMap<WayKey, Way>) -> Result<()> {
        self.lease_ways(0)?;
        let map = &self.state.ways;
        let mut known = BTreeMap::new();
        map.for_each(|key, way| {
            known.insert(*key, *way);
        })
        .context(|| "read by which ways packets leave")?;
        for key in known.keys().filter(|key| !ways.contains_key(key)) {
            map.remove(key).context(|| "forget a way by which packets left")?;
        }
        for (key, way) in ways {
            if known.get(key) != Some(&(*way as u32)) {
                map.put(key, &(*way as u32)).context(|| "say by which way packets leave")?;
            }
        }
        Ok(())
    }

    /// Vouches for the ways until then (monotonic clock, nanoseconds); 0: no longer.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lease_ways(&self, until: u64) -> Result<()> {
        self.state.lease.put(&0, &Lease { until }).context(|| "say how long the ways hold")
    }
}
