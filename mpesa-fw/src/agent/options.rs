//! What `mpesa-fw run` was told.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

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
    /// As arguments of a command that takes those of `mpesa-fw run`, without the runtime directory.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let xdp = match self.xdp {
            XdpChoice::Auto => "auto",
            XdpChoice::Native => "native",
            XdpChoice::Generic => "generic",
            XdpChoice::Required => "required",
        };
        let tc = match self.tc {
            TcChoice::Auto => "auto",
            TcChoice::Tcx => "tcx",
            TcChoice::Clsact => "clsact",
        };
        let mut arguments: Vec<OsString> = Vec::new();
        for (name, value) in [
            ("--rules", self.rules.clone().into_os_string()),
            ("--state-dir", self.state_dir.clone().into_os_string()),
            ("--bpffs", self.bpffs.clone().into_os_string()),
            ("--xdp", xdp.into()),
            ("--tc", tc.into()),
            ("--flows-capacity", self.flows_capacity.to_string().into()),
        ] {
            arguments.extend([name.into(), value]);
        }
        if self.trace_packets {
            arguments.push("--trace-packets".into());
        }
        arguments
    }

    /// Where the command line finds the agent.
    #[must_use]
    pub fn control_socket(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("control.sock")
    }
}
