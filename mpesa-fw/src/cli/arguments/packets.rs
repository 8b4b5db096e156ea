//! Which packets are meant, and what is to be known of them.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, builder::PossibleValuesParser};
use mpesa_fw_common::{Direction, DropReason, event::CAPTURE_BYTES};

use super::FormatArguments;

#[derive(Debug, Args)]
pub(in crate::cli) struct EventsArguments {
    /// How many; the agent keeps the last 1000 of programs of this host, and 1000 of others.
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
pub(in crate::cli) struct WantedArguments {
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
pub(in crate::cli) struct CaptureArguments {
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
pub(in crate::cli) struct WhyArguments {
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
    /// The systemd unit whose socket sends it; it must run. For rules with `by`.
    #[arg(long, value_name = "NAME", requires = "egress", conflicts_with_all = ["no_socket", "pcap"])]
    pub unit: Option<String>,
    /// The user whose socket sends it, by name or number.
    #[arg(long, value_name = "NAME", requires = "egress", conflicts_with_all = ["no_socket", "pcap"])]
    pub user: Option<String>,
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
pub(in crate::cli) struct DiffArguments {
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
