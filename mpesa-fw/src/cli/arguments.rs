//! What can be typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::PossibleValuesParser};
use clap_complete::Shell;
use mpesa_fw_common::{Direction, DropReason, event::CAPTURE_BYTES, state::FLOWS_CAPACITY};

use crate::datapath::{TcChoice, XdpChoice};

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
   1  the answer is no: an invalid policy, a refused reload
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
    /// Show how things are.
    Status(FormatArguments),
    /// Show the packets that were dropped last.
    Events(EventsArguments),
    /// Write the packets that are dropped to a file for Wireshark, with the reason in each one's comment.
    ///
    /// Of each packet the headers, up to TCP's or UDP's: what customers sent is left out, unless you say --payload.
    /// Of a flood only some packets are written; how many were not is said at the end.
    Capture(CaptureArguments),
    /// Show what listens on this host and no service declares, and services that nobody answers.
    Listeners(FormatArguments),
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
pub(super) struct RunArguments {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,
    /// Where to serve /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9477")]
    pub metrics: SocketAddr,
    /// What outlives a restart: answers of DNS, counts of reloads, who holds the default route.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/mpesa-fw")]
    pub state_dir: PathBuf,
    /// Directory of pins, in a bpffs; one is mounted where there is none.
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    /// Kind of ingress hook.
    #[arg(long, value_enum, default_value_t = Xdp::Auto)]
    pub xdp: Xdp,
    /// Kind of egress hook.
    #[arg(long, value_enum, default_value_t = Tc::Auto)]
    pub tc: Tc,
    /// Entries of the flow table.
    #[arg(long, value_name = "N", default_value_t = FLOWS_CAPACITY, value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub flows_capacity: u32,
    /// Log every packet that is judged; slow, for debugging only.
    #[arg(long)]
    pub trace_packets: bool,
    /// Start even if that cuts your own SSH connection.
    #[arg(long)]
    pub force: bool,
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
pub(super) struct ReloadArguments {
    /// Another policy file than the one in force. After a restart `run --rules` wins.
    pub file: Option<PathBuf>,
    /// Reload even if that cuts your own SSH connection.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct EventsArguments {
    /// How many; the agent keeps the last 1000.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: usize,
    /// Go on with those that come, until Ctrl-C; with `--format json` one document a line.
    #[arg(long, short)]
    pub follow: bool,
    #[command(flatten)]
    pub wanted: WantedArguments,
    #[command(flatten)]
    pub format: FormatArguments,
}

/// Which events.
#[derive(Debug, Args)]
pub(super) struct WantedArguments {
    /// Only drops with this reason; several: any of them.
    #[arg(long, value_parser = PossibleValuesParser::new(DropReason::ALL.iter().map(|reason| reason.label())))]
    pub reason: Vec<String>,
    /// Only drops charged to this service or destination; `--rule ""`: to none.
    #[arg(long, value_name = "NAME")]
    pub rule: Vec<String>,
    /// Only from or to this address or prefix.
    #[arg(long, value_name = "PREFIX")]
    pub address: Vec<String>,
    /// Only this way.
    #[arg(long, value_parser = PossibleValuesParser::new(Direction::ALL.map(Direction::label)))]
    pub direction: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct CaptureArguments {
    /// The file (pcapng, mode 0600), or `-` for stdout: `ssh HOST mpesa-fw capture -w - | wireshark -k -i -`.
    #[arg(long, short, value_name = "FILE")]
    pub write: PathBuf,
    /// Also what lies behind the headers, as far as --snaplen goes. It may hold personal data of customers.
    #[arg(long)]
    pub payload: bool,
    /// Bytes of a packet at most.
    #[arg(long, value_name = "N", default_value_t = CAPTURE_BYTES as u16, value_parser = clap::value_parser!(u16).range(1..=CAPTURE_BYTES as i64))]
    pub snaplen: u16,
    /// End after so many packets.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    #[command(flatten)]
    pub wanted: WantedArguments,
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

/// Kind of ingress hook.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Xdp {
    /// Native XDP, else generic, else TC where another XDP program owns the interface.
    Auto,
    /// Native XDP only.
    Native,
    /// Generic XDP, or TC where another XDP program owns the interface.
    Generic,
    /// Native or generic XDP, never TC.
    Required,
}

/// Kind of egress hook.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Tc {
    /// TCX, else clsact (before Linux 6.6).
    Auto,
    /// TCX only.
    Tcx,
    /// The clsact qdisc.
    Clsact,
}

impl From<Xdp> for XdpChoice {
    fn from(xdp: Xdp) -> Self {
        match xdp {
            Xdp::Auto => Self::Auto,
            Xdp::Native => Self::Native,
            Xdp::Generic => Self::Generic,
            Xdp::Required => Self::Required,
        }
    }
}

impl From<Tc> for TcChoice {
    fn from(tc: Tc) -> Self {
        match tc {
            Tc::Auto => Self::Auto,
            Tc::Tcx => Self::Tcx,
            Tc::Clsact => Self::Clsact,
        }
    }
}
