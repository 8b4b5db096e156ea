//! Tables become a firewall: the only module that changes the kernel.
//!
//! A [`Datapath`] stands for the pins below one directory of a bpffs. [`Datapath::stage`] loads a new generation
//! beside the running one, [`Datapath::commit`] swaps every hook to it or none. Nothing here detaches when the
//! process ends: hooks live in pinned links (or clsact filters), and the next process adopts them.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use mpesa_fw_common::{
    counter::CounterBlock,
    settings::Direction,
    state::{FlowKey, FlowState},
    tables::GenerationStamp,
};

pub use error::{DatapathError, ErrorKind};

use crate::compile::{Compiled, RegistryRows};

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
    /// At TC, because a foreign XDP program owns the interface.
    TcIngress {
        /// Its program id; 0: it has gone since.
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

/// A generation that is loaded, verified and pinned, but judges nothing yet. Dropped without a commit it is removed.
#[derive(Debug)]
pub struct Staged {
    stamp: GenerationStamp,
}

impl Staged {
    /// Number, digest and mode of it.
    #[must_use]
    pub const fn stamp(&self) -> GenerationStamp {
        self.stamp
    }
}

/// Counts of one rule on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCounts {
    /// Name of the interface.
    pub interface: String,
    /// Direction of the rule.
    pub direction: Direction,
    /// Name of the rule; empty: no rule claims the packets.
    pub rule: String,
    /// Sums over all CPUs; `last_passed` is the latest.
    pub block: CounterBlock,
}

/// The datapath behind one pin directory.
pub struct Datapath {
    options: Options,
}

impl Datapath {
    /// Opens the datapath: mounts the bpffs if need be, creates or adopts the state maps, finishes or reverts what a crash
    /// left half swapped. Changes nothing else that judges packets.
    ///
    /// # Errors
    /// No permission, a kernel that lacks a feature, or pinned maps of another shape.
    pub fn open(options: Options) -> Result<Self> {
        let _ = options;
        todo!()
    }

    /// Where a bpffs had to be mounted.
    #[must_use]
    pub fn mounted_bpffs(&self) -> Option<&Path> {
        todo!()
    }

    /// The generation that judges packets now; none before the first commit.
    #[must_use]
    pub fn running(&self) -> Option<GenerationStamp> {
        todo!()
    }

    /// Whether the running generation was found attached by [`Datapath::open`].
    #[must_use]
    pub fn adopted(&self) -> bool {
        todo!()
    }

    /// What `open` had to mend, for the log.
    #[must_use]
    pub fn mended(&self) -> &[String] {
        todo!()
    }

    /// The registry of stable numbers, as kept beside the state.
    #[must_use]
    pub fn registry_rows(&self) -> &RegistryRows {
        todo!()
    }

    /// Loads a new generation beside the running one: new tables, filled and frozen, and new program instances, verified and
    /// pinned. `serial` is the policy's.
    ///
    /// # Errors
    /// The kernel refuses a table or a program; nothing has changed then.
    pub fn stage(&mut self, compiled: &Compiled, serial: Option<u64>) -> Result<Staged> {
        let _ = (compiled, serial);
        todo!()
    }

    /// Makes a staged generation judge `interfaces`: writes the registry (`reclaimed` rows of counters are zeroed), swaps all
    /// egress hooks, calls `between` if an interface is newly protected (seed flows now), swaps all ingress hooks, and at last
    /// lets go of interfaces that are not in the list. If one hook fails, those done are undone in reverse order.
    ///
    /// # Errors
    /// A hook could not be swapped or attached; the previous generation judges on, as before.
    pub fn commit(
        &mut self,
        staged: Staged,
        rows: &RegistryRows,
        reclaimed: &[u32],
        interfaces: &[Interface],
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Report> {
        let _ = (staged, rows, reclaimed, interfaces, between);
        todo!()
    }

    /// Lets the running generation judge one more interface (new, or created again under an old name): egress, then `between`
    /// (seed flows now), then ingress.
    ///
    /// # Errors
    /// Nothing is loaded yet, the interface is gone, or a hook can't be attached; nothing is half attached then.
    pub fn protect(
        &mut self,
        interface: &Interface,
        between: &mut dyn FnMut(&Datapath),
    ) -> Result<Attachment> {
        let _ = (interface, between);
        todo!()
    }

    /// The interface with this index is gone: frees its place and removes its dead pins. Its counts are kept.
    pub fn release(&mut self, index: u32) {
        let _ = index;
        todo!()
    }

    /// The hooks, as they are in the kernel now.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        todo!()
    }

    /// Ids of the running generation's programs; `aya_log::EbpfLogger::init_from_id` takes the first where `trace` is on.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn program_ids(&self) -> Result<Vec<u32>> {
        todo!()
    }

    /// All counts: rows in the registry, times interfaces ever protected.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn counters(&self) -> Result<Vec<RuleCounts>> {
        todo!()
    }

    /// Drops from the wider ranges of sets with `watch`, by set.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn near_misses(&self) -> Result<Vec<(String, u64)>> {
        todo!()
    }

    /// Events that were not sent because there were too many.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn events_suppressed(&self) -> Result<u64> {
        todo!()
    }

    /// The ring buffer of [`Event`](mpesa_fw_common::event::Event)s; one reader at a time.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn events(&self) -> Result<aya::maps::RingBuf<aya::maps::MapData>> {
        todo!()
    }

    /// Every flow, expired ones included.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowState)>> {
        todo!()
    }

    /// Number of entries of the flow table.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flow_count(&self) -> Result<u32> {
        todo!()
    }

    /// Records a flow (its local port is marked first), or replaces it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn put_flow(&self, key: &FlowKey, state: &FlowState) -> Result<()> {
        let _ = (key, state);
        todo!()
    }

    /// Changes a flow only if it is still there. False: it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn update_flow(&self, key: &FlowKey, state: &FlowState) -> Result<bool> {
        let _ = (key, state);
        todo!()
    }

    /// Forgets a flow. False: it was gone already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_flow(&self, key: &FlowKey) -> Result<bool> {
        let _ = key;
        todo!()
    }

    /// Sets the addresses of this host: none that stays is ever missing meanwhile.
    ///
    /// # Errors
    /// More than the table holds, or the kernel refuses.
    pub fn set_own_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        let _ = addresses;
        todo!()
    }

    /// Sets which names (slots of the registry) each address is the answer to; additions first. Returns how many addresses or
    /// names of an address did not fit.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_resolved(&self, answers: &BTreeMap<IpAddr, Vec<u16>>) -> Result<usize> {
        let _ = answers;
        todo!()
    }
}

/// Removes every hook, table and pin of all ABI versions below `bpffs`, from the pins alone. Says what it detached.
///
/// # Errors
/// No permission; what could be detached is.
pub fn detach(bpffs: &Path) -> Result<Vec<String>> {
    let _ = bpffs;
    todo!()
}
