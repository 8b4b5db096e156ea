//! Tables become a firewall: the only module that changes the kernel.
//!
//! A [`Datapath`] stands for the pins below one directory of a bpffs. [`Datapath::stage`] loads a new generation
//! beside the running one, [`Datapath::commit`] swaps every hook to it or none. Nothing here detaches when the
//! process ends: hooks live in pinned links (or clsact filters), and the next process adopts them.

mod addresses;
mod attach;
mod bpffs;
mod commit;
mod counters;
mod detach;
mod error;
mod generation;
mod heal;
mod hooks;
mod netlink;
mod object;
mod pins;
mod registry;
mod requirements;
mod shape;
mod slots;
mod state;
mod swap;
mod tables;
mod types;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, RingBuf};
use mpesa_fw_common::{
    state::{FlowKey, FlowState},
    tables::GenerationStamp,
};

pub use counters::RuleCounts;
pub use detach::detach;
pub use error::{DatapathError, ErrorKind};
pub use generation::Staged;
pub use object::OBJECT;
pub use state::EventSwitch;
#[doc(hidden)]
pub use swap::Fault;
pub use tables::{Table, tables};
pub use types::{
    Attachment, EgressHook, IngressHook, Interface, Options, Report, Result, TcChoice, XdpChoice,
};

use crate::{
    compile::{Compiled, RegistryRows},
    fault::{self, Point},
};
use error::Context;
use generation::{Choice, Programs};
use hooks::Found;
use netlink::Netlink;
use object::Object;
use pins::{GenerationPins, Pins};
use state::State;

/// The datapath behind one pin directory. One process at a time may hold one: the agent's lock sees to that.
pub struct Datapath {
    options: Options,
    pins: Pins,
    mounted: Option<PathBuf>,
    object: Object,
    netlink: Netlink,
    state: State,
    registry: RegistryRows,
    limit_seed: u64,
    running: Option<(GenerationStamp, GenerationPins)>,
    adopted: bool,
    mended: Vec<String>,
    fault: Option<Fault>,
}

impl Datapath {
    /// Opens the datapath: mounts the bpffs if need be, creates or adopts the state maps, finishes or reverts what a crash
    /// left half swapped. Changes nothing else that judges packets.
    ///
    /// # Errors
    /// No permission, a kernel that lacks a feature, or pinned maps of another shape.
    pub fn open(options: Options) -> Result<Self> {
        requirements::check()?;
        let mounted = bpffs::prepare(&options.bpffs)?;
        fault::point(Point::BpffsReady)?;
        let pins = Pins::below(&options.bpffs);
        pins.create()?;
        fault::point(Point::DirectoriesMade)?;
        let netlink = swap::open_netlink()?;
        let mut object = Object::open()?;
        let ids = shape::adopt_state(&mut object, &pins, options.flows_capacity)?;
        let limit_seed = state::limit_seed(&pins)?;
        let state = State::open(&pins, ids)?;
        fault::point(Point::StateOpened)?;
        let registry = registry::read(&state)?;
        let mut datapath = Self {
            options,
            pins,
            mounted,
            object,
            netlink,
            state,
            registry,
            limit_seed,
            running: None,
            adopted: false,
            mended: Vec::new(),
            fault: None,
        };
        let mut found = datapath.find()?;
        found.tidy(&datapath.pins);
        let healed = heal::heal(&datapath.pins, &datapath.netlink, &found)?;
        datapath.adopted = healed.running.is_some();
        datapath.running = healed.running;
        datapath.mended = healed.notes;
        Ok(datapath)
    }

    /// Where a bpffs had to be mounted.
    #[must_use]
    pub fn mounted_bpffs(&self) -> Option<&Path> {
        self.mounted.as_deref()
    }

    /// The generation that judges packets now; none before the first commit.
    #[must_use]
    pub fn running(&self) -> Option<GenerationStamp> {
        self.running.as_ref().map(|(stamp, _)| *stamp)
    }

    /// Whether the running generation was found attached by [`Datapath::open`].
    #[must_use]
    pub const fn adopted(&self) -> bool {
        self.adopted
    }

    /// What `open` had to mend or remove, for the log.
    #[must_use]
    pub fn mended(&self) -> &[String] {
        &self.mended
    }

    /// The registry of stable numbers, as kept beside the state.
    #[must_use]
    pub const fn registry_rows(&self) -> &RegistryRows {
        &self.registry
    }

    /// Secret of the limiter's hash, for [`Settings::limit_seed`](mpesa_fw_common::settings::Settings) of a host-side judge.
    #[must_use]
    pub const fn limit_seed(&self) -> u64 {
        self.limit_seed
    }

    /// Loads a new generation beside the running one: new tables, filled and frozen, and new program instances, verified and
    /// pinned. `serial` is the policy's.
    ///
    /// # Errors
    /// The kernel refuses a table or a program; nothing has changed then.
    pub fn stage(&mut self, compiled: &Compiled, serial: Option<u64>) -> Result<Staged> {
        bpffs::expect_writable(&self.options.bpffs, "load a generation")?;
        let used = self.pins.generations()?.iter().map(|generation| generation.number).max().unwrap_or(0);
        let choice = Choice {
            number: used.max(self.running().map_or(0, |stamp| stamp.number)).saturating_add(1),
            serial,
            trace: self.options.trace,
            limit_seed: self.limit_seed,
        };
        let ids = &self.state.ids;
        generation::stage(&mut self.object, &self.pins, compiled, &choice, |id| ids.contains(&id))
    }

    /// The hooks, as they are in the kernel now.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn attachments(&self) -> Result<Vec<Attachment>> {
        view::attachments(&self.netlink, &self.find()?)
    }

    /// Ids of the running generation's programs; `aya_log::EbpfLogger::init_from_id` takes any of them where `trace` is on.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn program_ids(&self) -> Result<Vec<u32>> {
        self.running.as_ref().map_or(Ok(Vec::new()), |(_, generation)| {
            Programs::open(generation)?.ids().context(|| "look at the running programs")
        })
    }

    /// Ids of the programs that the hooks run, one a hook.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn hooked_programs(&self) -> Result<Vec<u32>> {
        Ok(self.find()?.hooks.iter().map(|hook| hook.program).collect())
    }

    /// All counts: rows in the registry, times interfaces that are or were protected.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn counters(&self) -> Result<Vec<RuleCounts>> {
        counters::read(&self.state, &self.registry)
    }

    /// Drops from the wider ranges of sets with `watch`, by set.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn near_misses(&self) -> Result<Vec<(String, u64)>> {
        counters::near_misses(&self.state, &self.registry)
    }

    /// Events that were not sent because there were too many.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn events_suppressed(&self) -> Result<u64> {
        counters::events_suppressed(&self.state)
    }

    /// The ring buffer of [`Event`](mpesa_fw_common::event::Event)s. It outlives generations; one reader at a time.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn events(&self) -> Result<RingBuf<MapData>> {
        state::events(&self.pins)
    }

    /// What events carry.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn event_switch(&self) -> Result<EventSwitch> {
        EventSwitch::open(&self.pins)
    }

    /// Every flow, expired ones included.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flows(&self) -> Result<Vec<(FlowKey, FlowState)>> {
        let mut flows = Vec::new();
        self.state.flows.for_each(|key, flow| flows.push((*key, *flow))).context(|| "read the flow table")?;
        Ok(flows)
    }

    /// Number of entries of the flow table, expired ones included.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn flow_count(&self) -> Result<u32> {
        let mut count = 0;
        self.state.flows.for_each(|_, _| count += 1).context(|| "count the flows")?;
        Ok(count)
    }

    /// Entries that the flow table can hold.
    #[must_use]
    pub const fn flows_capacity(&self) -> u32 {
        self.state.flows.max_entries()
    }

    /// Records a flow that is not known yet (its local port is marked first). False: it is known, and stays as it is.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn add_flow(&self, key: &FlowKey, flow: &FlowState) -> Result<bool> {
        self.state.flow_ports.mark(key.local_port)?;
        self.state.flows.add(key, flow).context(|| format!("record the flow {key:?}"))
    }

    /// Changes a flow only if it is still there. False: it is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn update_flow(&self, key: &FlowKey, flow: &FlowState) -> Result<bool> {
        self.state.flows.replace(key, flow).context(|| format!("change the flow {key:?}"))
    }

    /// Forgets a flow. False: it was gone already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn remove_flow(&self, key: &FlowKey) -> Result<bool> {
        self.state.flows.remove(key).context(|| format!("forget the flow {key:?}"))
    }

    /// Sets the addresses of this host: none that stays is ever missing meanwhile.
    ///
    /// # Errors
    /// More than the table holds, or the kernel refuses.
    pub fn set_own_addresses(&self, addresses: &BTreeSet<IpAddr>) -> Result<()> {
        addresses::set_own(&self.state, addresses)
    }

    /// Sets which names (slots of the registry) each address is the answer to; additions first. Returns how many addresses or
    /// names of an address did not fit.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_resolved(&self, answers: &BTreeMap<IpAddr, Vec<u16>>) -> Result<usize> {
        addresses::set_resolved(&self.state, answers)
    }

    /// For tests: what goes wrong in the next commits.
    #[doc(hidden)]
    pub const fn inject(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    fn find(&self) -> Result<Found> {
        let interfaces: Vec<_> = slots::taken(&self.state)?
            .into_iter()
            .map(|place| place.interface)
            .filter(|interface| interface.index != 0)
            .collect();
        hooks::find(&self.pins, &self.netlink, &interfaces, &self.our_programs()?)
    }

    fn our_programs(&self) -> Result<HashSet<u32>> {
        detach::programs_of(&self.pins)
    }
}
