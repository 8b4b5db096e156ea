//! What an agent can be told.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use mpesa_fw_common::state::FLOWS_CAPACITY;

use super::BPFFS;
use crate::datapath::{TcChoice, XdpChoice};

#[derive(Debug, Args)]
pub(in crate::cli) struct RunArguments {
    #[command(flatten)]
    pub agent: AgentArguments,
    /// Where to serve /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9477")]
    pub metrics: SocketAddr,
    /// Start even if that ends connections that are open now, your own SSH session included.
    #[arg(long)]
    pub force: bool,
}

/// What an agent and its watchdog have in common.
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentArguments {
    /// The policy file.
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,
    /// What outlives a restart: generations, answers of DNS, counts of reloads, the egress audit, who holds the default route.
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

/// Kind of ingress hook.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Xdp {
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
pub(in crate::cli) enum Tc {
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
