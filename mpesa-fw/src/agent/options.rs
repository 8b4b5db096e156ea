//! What `mpesa-fw run` was told.

use std::path::{Path, PathBuf};

use crate::datapath::{TcChoice, XdpChoice};

/// Everything that is fixed while the agent runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The policy file.
    pub rules: PathBuf,
    /// What must outlive a restart but not the machine's state: answers of DNS, counts of reloads, the default route.
    pub state_dir: PathBuf,
    /// Lock and control socket.
    pub runtime_dir: PathBuf,
    /// Directory of pins, in a bpffs.
    pub bpffs: PathBuf,
    /// Kind of ingress hook.
    pub xdp: XdpChoice,
    /// Kind of egress hook.
    pub tc: TcChoice,
    /// Entries of the flow table.
    pub flows_capacity: u32,
    /// One log line a packet.
    pub trace_packets: bool,
    /// Start even where that cuts the caller's own connection.
    pub force: bool,
}

impl Options {
    /// Where the command line finds the agent.
    #[must_use]
    pub fn control_socket(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("control.sock")
    }
}
