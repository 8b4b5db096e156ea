//! What can be typed.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

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
    #[command(flatten)]
    pub agent: AgentArguments,
    /// Where to serve /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9477")]
    pub metrics: SocketAddr,
    /// Start even if that cuts connections that are open now.
    #[arg(long)]
    pub force: bool,
}

/// What an agent and its watchdog have in common.
#[derive(Debug, Args)]
pub(super) struct AgentArguments {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,
    /// What outlives a restart: generations, answers of DNS, counts of reloads, who holds the default route.
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
    /// Reload even if that cuts connections that are open now.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub trial: TrialArguments,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct TrialArguments {
    /// Only on trial: what was in force comes back unless `mpesa-fw confirm` follows in time, even if the agent dies.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub confirm_within: Option<Duration>,
}

impl TrialArguments {
    /// Whole seconds: the agent bounds them.
    pub(super) fn seconds(&self) -> Option<u64> {
        self.confirm_within.map(|window| window.as_secs())
    }
}

#[derive(Debug, Args)]
pub(super) struct ConfirmArguments {
    /// Only if this generation is on trial.
    pub generation: Option<u32>,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct RollbackArguments {
    /// Which one; `--list` shows those that are kept.
    pub generation: Option<u32>,
    /// Show the generations that are kept, and change nothing.
    #[arg(long, conflicts_with_all = ["generation", "force", "confirm_within"])]
    pub list: bool,
    /// Go back even if that cuts connections that are open now.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub trial: TrialArguments,
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
pub(super) struct WhyArguments {
    /// Where the packet comes from [default with --egress: an address of this host].
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<IpAddr>,
    /// Where it goes to [default without --egress: an address of this host].
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<IpAddr>,
    /// The port that it goes to.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The port that it comes from [default: 40000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub from_port: Option<u16>,
    /// tcp, udp, icmp (also that of IPv6), sctp, or a number [default: tcp].
    #[arg(long, value_name = "NAME", value_parser = protocol)]
    pub protocol: Option<u8>,
    /// Type of ICMP or ICMPv6 [default: echo request].
    #[arg(long, value_name = "N")]
    pub icmp_type: Option<u8>,
    /// TCP flags, as in `syn,ack` [default: syn].
    #[arg(long, value_name = "FLAGS", value_parser = flags)]
    pub flags: Option<u8>,
    /// The packet is one from this host.
    #[arg(long)]
    pub egress: bool,
    /// The port that the sending socket is bound to [default: --from-port].
    #[arg(long, value_name = "N", requires = "egress", conflicts_with_all = ["no_socket", "pcap"])]
    pub bound_port: Option<u16>,
    /// No socket sends it: it is forwarded, or the kernel's own.
    #[arg(long, requires = "egress", conflicts_with = "pcap")]
    pub no_socket: bool,
    /// The interface whose hook is asked [default: the first that is protected].
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Ask about every packet of a capture (pcap or pcapng) instead.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port", "from_port", "protocol", "icmp_type", "flags"])]
    pub pcap: Option<PathBuf>,
    /// All packets of the capture come in [default: those from an address of this host go out].
    #[arg(long, requires = "pcap", conflicts_with = "egress")]
    pub ingress: bool,
    #[command(flatten)]
    pub format: FormatArguments,
}

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    /// The policy file to compare with the one in force.
    pub file: PathBuf,
    /// Judge every packet of a capture (pcap or pcapng) by both, and show those that are judged otherwise.
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// All packets of the capture come in [default: those from an address of this host go out].
    #[arg(long, requires = "pcap", conflicts_with = "egress")]
    pub ingress: bool,
    /// All of them go out.
    #[arg(long, requires = "pcap")]
    pub egress: bool,
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

/// A protocol by name or number.
fn protocol(text: &str) -> Result<u8, String> {
    match text {
        "tcp" => Ok(6),
        "udp" => Ok(17),
        "icmp" => Ok(1),
        "icmpv6" => Ok(58),
        "sctp" => Ok(132),
        number => number.parse().map_err(|_| "tcp, udp, icmp, icmpv6, sctp, or 0 to 255".to_owned()),
    }
}

/// TCP flags by name.
fn flags(text: &str) -> Result<u8, String> {
    const NAMES: [(&str, u8); 6] =
        [("fin", 0x01), ("syn", 0x02), ("rst", 0x04), ("psh", 0x08), ("ack", 0x10), ("urg", 0x20)];
    if text == "none" {
        return Ok(0);
    }
    text.split(',').try_fold(0, |flags, word| {
        let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word.trim()));
        found
            .map(|(_, bit)| flags | bit)
            .ok_or_else(|| format!("`{word}` is none of fin, syn, rst, psh, ack, urg, none"))
    })
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
