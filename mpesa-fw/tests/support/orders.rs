//! What a test has an agent do at its fault points ([`mpesa_fw::fault`]).

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use mpesa_fw::fault;
use testbed::{Firewall, holds};

use super::SOON;

/// The orders of the agents of one firewall.
pub struct Orders {
    file: PathBuf,
}

impl Orders {
    /// For the agents that are started from now on.
    pub fn new(firewall: &mut Firewall<'_>) -> Self {
        let file = firewall.directory.join("orders");
        firewall.environment.push((fault::VARIABLE, file.clone().into()));
        Self { file }
    }

    /// In place of what was ordered before: `HookReplaced pause 1`, one a line.
    pub fn give(&self, orders: &str) -> Result<()> {
        fs::write(&self.file, orders).context("could not give orders")
    }

    /// Whether all that was ordered has been done. A pause is done when it is over.
    pub fn are_done(&self) -> bool {
        !self.file.exists()
    }

    /// What was not done yet.
    pub fn left(&self) -> String {
        fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Nothing is ordered any more; does not wait until an agent that pauses has seen it.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(&self.file);
    }

    /// Waits until an agent pauses.
    pub fn wait_for_pause(&self) -> Result<()> {
        let reached = self.beside(fault::REACHED);
        holds("the agent to pause", SOON, || reached.exists())
    }

    /// An agent that pauses goes on, and can be given other orders: while it pauses it would go on waiting with those.
    pub fn go_on(&self) -> Result<()> {
        self.withdraw();
        let reached = self.beside(fault::REACHED);
        holds("the agent to go on", SOON, || !reached.exists())
    }

    /// From now on the agents' clock differs from the host's by so many seconds.
    pub fn shift_clock(&self, seconds: &str) -> Result<()> {
        fs::write(self.beside(fault::CLOCK), seconds).context("could not shift the clock")
    }

    /// The points that were crossed since [`fault::TRACE`] was ordered, one a line.
    pub fn take_trace(&self) -> Result<String> {
        let traced = self.beside(fault::TRACED);
        let text = fs::read_to_string(&traced).context("could not read the trace")?;
        fs::remove_file(traced).context("could not remove the trace")?;
        Ok(text)
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}
