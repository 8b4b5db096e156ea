//! Which names this host asked for: evidence, beside what was learnt for the policy's names.

use std::{io, time::Duration};

use mpesa_fw_common::{Address, dns::Answered};

use super::{Datapath, Result, state};
use crate::sys::KernelMap;

/// No cache hands out an answer that is older.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The last name that each address was an answer to. With a descriptor of its own: it is asked while others hold the datapath.
pub struct AskedNames(KernelMap<Address, Answered>);

impl AskedNames {
    /// The last name that the address was an answer to within a day before `now` (monotonic clock, nanoseconds), if the programs saw that answer
    /// and there was room for it. They read answers of the policy's name servers, while the policy has names.
    #[must_use]
    pub fn of(&self, address: Address, now: u64) -> Option<String> {
        let answered = self.0.get(&address).unwrap_or_else(|error: io::Error| {
            tracing::debug!(%error, "names that were asked for can't be read");
            None
        })?;
        let age = Duration::from_nanos(now.saturating_sub(answered.time));
        (age < LONGEST).then(|| answered.name.text(answered.length).collect())
    }
}

impl Datapath {
    /// The names that were asked for.
    ///
    /// # Errors
    /// The map can't be opened.
    pub fn asked_names(&self) -> Result<AskedNames> {
        state::answered(&self.pins).map(AskedNames)
    }
}
