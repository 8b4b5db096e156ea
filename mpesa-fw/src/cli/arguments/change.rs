//! What can be said of a change of rules.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::FormatArguments;

#[derive(Debug, Args)]
pub(in crate::cli) struct ReloadArguments {
    /// Another policy file than the one in force. After a restart `run --rules` wins.
    pub file: Option<PathBuf>,
    /// Reload even if that ends connections that are open now, your own SSH session included.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub trial: TrialArguments,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TrialArguments {
    /// Only on trial: what was in force comes back unless `mpesa-fw confirm` follows in time, even if the agent dies.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub confirm_within: Option<Duration>,
}

impl TrialArguments {
    /// Whole seconds: the agent bounds them.
    pub(in crate::cli) fn seconds(&self) -> Option<u64> {
        self.confirm_within.map(|window| window.as_secs())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ConfirmArguments {
    /// Only if this generation is on trial.
    pub generation: Option<u32>,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArguments {
    /// Which one; `--list` shows those that are kept.
    pub generation: Option<u32>,
    /// Show the generations that are kept, and change nothing.
    #[arg(long, conflicts_with_all = ["generation", "force", "confirm_within"])]
    pub list: bool,
    /// Go back even if that ends connections that are open now, your own SSH session included.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub trial: TrialArguments,
    #[command(flatten)]
    pub format: FormatArguments,
}
