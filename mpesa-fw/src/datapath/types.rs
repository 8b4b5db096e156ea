//! Options and answers of the datapath.

use std::path::PathBuf;

use mpesa_fw_common::tables::GenerationStamp;

use super::DatapathError;

/// Shorthand of this module.
pub type Result<T, E = DatapathError> = std::result::Result<T, E>;

/// Where the datapath lives and which hooks it may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pins are kept in `<bpffs>/abi-<ABI_VERSION>/`.
    pub bpffs: PathBuf,
    /// Which XDP modes are acceptable.
    pub xdp: XdpChoice,
    /// Which kind of TC hook is acceptable.
    pub tc: TcChoice,
    /// Entries of the flow table. Fixed as long as something is attached.
    pub flows_capacity: u32,
    /// One aya-log line a packet.
    pub trace: bool,
}

/// Which XDP modes are acceptable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpChoice {
    /// Native, else generic, else TC ingress where a foreign XDP program owns the interface.
    #[default]
    Auto,
    /// Native or an error.
    Native,
    /// Generic; TC ingress where a foreign XDP program owns the interface.
    Generic,
    /// Native, else generic, else an error.
    Required,
}

/// Which kind of TC hook is acceptable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcChoice {
    /// TCX, else clsact (before Linux 6.6).
    #[default]
    Auto,
    /// TCX or an error.
    Tcx,
    /// The clsact qdisc.
    Clsact,
}

/// A network interface of the process's own network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    /// Its name now.
    pub name: String,
    /// Its index.
    pub index: u32,
}

/// How ingress is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressHook {
    /// In the driver.
    XdpNative,
    /// In front of the network stack.
    XdpGeneric,
    /// At TC, because a foreign XDP program owns the interface, or it takes none of ours.
    TcIngress {
        /// Its program id; 0: there is none, or it has gone since.
        foreign_xdp_program: u32,
    },
}

/// How egress is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressHook {
    /// A TCX link (Linux 6.6).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
}

/// The hooks of one interface, as they are in the kernel now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: Interface,
    /// None: no program of ours judges ingress.
    pub ingress: Option<IngressHook>,
    /// None: no program of ours judges egress.
    pub egress: Option<EgressHook>,
    /// Ids of foreign programs that see egress packets before ours, and may accept or redirect them on their own.
    pub ahead_of_egress: Vec<u32>,
    /// The same at TC ingress; always empty where ingress is judged at XDP.
    pub ahead_of_ingress: Vec<u32>,
}

impl Attachment {
    /// An interface without any hook of ours.
    #[must_use]
    pub const fn bare(interface: Interface) -> Self {
        Self {
            interface,
            ingress: None,
            egress: None,
            ahead_of_egress: Vec::new(),
            ahead_of_ingress: Vec::new(),
        }
    }

    /// Whether both directions are judged.
    #[must_use]
    pub const fn live(&self) -> bool {
        self.ingress.is_some() && self.egress.is_some()
    }
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Report {
    /// The generation that judges now.
    pub stamp: GenerationStamp,
    /// Its hooks.
    pub attachments: Vec<Attachment>,
    /// Interfaces that were let go because they are no longer in the list.
    pub detached: Vec<String>,
    /// What the admin should know: a mode that is second choice, a pin that could not be removed.
    pub notes: Vec<String>,
}
