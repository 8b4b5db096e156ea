//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

mod agent;
mod audit;
mod change;
mod packets;

pub(super) use agent::{AgentArguments, RunArguments};
pub(super) use audit::{AuditArguments, AuditCommand, EgressAuditArguments};
pub(super) use change::{ConfirmArguments, ReloadArguments, RollbackArguments};
pub(super) use packets::{CaptureArguments, DiffArguments, EventsArguments, WantedArguments, WhyArguments};

/// Where the pins are unless told otherwise.
pub(super) const BPFFS: &str = "/sys/fs/bpf/mpesa-fw";

/// Host firewall for servers that receive M-Pesa callbacks.
///
/// XDP drops packets to callback ports that do not come from the configured addresses, TC drops packets to
/// destinations that the policy does not allow, and every packet is counted for Prometheus.
#[derive(Debug, Parser)]
#[command(name = "mpesa-fw", version, max_term_width = 100)]
#[command(after_help = "\
Exit codes:
   0  ok
   1  the answer is no: an invalid policy, a refused reload, a packet that would be dropped, a difference
   2  the command line can't be understood
   3  no agent answers
   4  the kernel, the system or missing permissions
  70  a defect of mpesa-fw")]
pub(super) struct Arguments {
    /// Directory of the agent's lock and control socket.
    #[arg(long, global = true, value_name = "DIR", default_value = "/run/mpesa-fw")]
    pub runtime_dir: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the agent in the foreground.
    Run(Box<RunArguments>),
    /// Check a policy file; needs no root and no kernel.
    Check(CheckArguments),
    /// Put the policy file, or another one, in force without a gap.
    Reload(ReloadArguments),
    /// Keep what is on trial.
    Confirm(ConfirmArguments),
    /// Go back to an earlier generation: without a number the one that was confirmed before the trial, or the one before
    /// that in force.
    Rollback(RollbackArguments),
    /// Take back what is on trial when the agent can't. The agent runs it.
    #[command(hide = true)]
    Watchdog(Box<AgentArguments>),
    /// Show how things are.
    Status(FormatArguments),
    /// Show the packets that were dropped last.
    Events(EventsArguments),
    /// Explain what would become of a packet: the loaded programs are asked, nothing is counted or changed.
    Why(Box<WhyArguments>),
    /// Show what another policy file would change; exit code 1 if anything.
    Diff(DiffArguments),
    /// Look for what keeps the firewall from doing its work, before it is attached and while it runs.
    Doctor(DoctorArguments),
    /// Write the packets that are dropped to a file for Wireshark, with the reason in each one's comment.
    ///
    /// Of each packet the headers, up to TCP's or UDP's: what customers sent is left out, unless you say --payload.
    /// Of a flood only some packets are written; how many were not is said at the end.
    Capture(CaptureArguments),
    /// Show what listens on this host and no service declares, and services that nobody answers.
    Listeners(FormatArguments),
    /// Show who opened connections to which destination, and who was denied: by the hour, for 90 days.
    Audit(AuditArguments),
    /// Stop judging packets: the only way to do so. Ends the agent.
    Detach(DetachArguments),
    /// Print completions for a shell.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man {
        /// Of this command instead of the whole program.
        command: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The policy file.
    pub file: PathBuf,
    /// Do not look at owners and modes of files (for a checkout in CI).
    #[arg(long)]
    pub ignore_permissions: bool,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// The policy file [default: the one in force, or /etc/mpesa-fw/rules.yaml].
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// Directory of pins.
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct DetachArguments {
    /// Directory of pins, where no agent answers [default: /sys/fs/bpf/mpesa-fw].
    #[arg(long, value_name = "DIR")]
    pub bpffs: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FormatArguments {
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// For people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text and tables.
    Table,
    /// One JSON document.
    Json,
}
