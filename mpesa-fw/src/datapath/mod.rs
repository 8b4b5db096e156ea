//! Tables become a firewall: the only module that changes the kernel.
//!
//! A [`Datapath`] stands for the pins below one directory of a bpffs. [`Datapath::stage`] loads a new generation
//! beside the running one, [`Datapath::commit`] swaps every hook to it or none. Nothing here detaches when the
//! process ends: hooks live in pinned links (or clsact filters), and the next process adopts them.

mod addresses;
mod asked;
mod attach;
mod attempts;
mod baseline;
mod bpffs;
mod bypass;
mod cgroup;
mod commit;
mod connections;
mod counters;
mod culprit;
mod departures;
mod detach;
mod error;
mod flows;
mod front;
mod generation;
mod heal;
mod hooks;
mod intact;
mod learnt;
mod loaded;
mod netlink;
mod object;
mod owners;
mod pins;
mod registry;
mod requirements;
mod shape;
mod slots;
mod state;
mod swap;
mod tables;
mod tallies;
mod tamper;
mod tidy;
mod twin;
mod types;
mod view;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::maps::{MapData, RingBuf};
use mpesa_fw_common::{state::InterfaceSlot, tables::GenerationStamp};

pub use asked::AskedNames;
pub use bypass::refuses_bypasses_since;
pub use connections::{Caller, Handshakes};
pub use counters::RuleCounts;
pub use detach::detach;
pub use error::{DatapathError, ErrorKind};
pub use generation::Staged;
pub use learnt::LearntNames;
pub use object::OBJECT;
pub use owners::{PresentOwners, cgroup_root};
pub use state::EventSwitch;
#[doc(hidden)]
pub use swap::Fault;
pub use tables::{Table, fill, tables};
pub use tallies::{Count, Who};
pub use tamper::{TamperKind, Tampering};
#[doc(hidden)]
pub use twin::Falsehood;
pub use twin::{Judgement, Probe, Program, Twin};
pub use types::{
    Attachment, EgressHook, IngressHook, Interface, Options, Report, Result, TcChoice, XdpChoice,
};
pub use ways::WaysLease;

use crate::{
    compile::{Compiled, RegistryRows},
    fault::{self, Point},
};
use baseline::{Baseline, WatchedPin};
use departures::Departures;
use error::Context;
use generation::{Choice, Programs};
use hooks::Found;
use intact::Counted;
use loaded::Loaded;
use netlink::Netlink;
use object::Object;
use pins::{GenerationPins, Pins};
use state::State;

/// Whether this kernel has what the programs need.
///
/// # Errors
/// What it lacks.
pub fn requirements() -> Result<()> {
    requirements::check()
}

/// Whether a generation is pinned below `bpffs`.
#[must_use]
pub fn is_in_force(bpffs: &Path) -> bool {
    Pins::below(bpffs).generations().is_ok_and(|generations| !generations.is_empty())
}

/// Whether a directory is on a bpffs (or will be when it is made), and can be written.
///
/// # Errors
/// It can't.
pub fn pins_can_be_kept(bpffs: &Path) -> Result<bool> {
    bpffs::is_ready(bpffs)
}

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
    netns_cookie: u64,
    running: Option<(GenerationStamp, GenerationPins)>,
    /// What the programs of the running generation read, where this process has loaded it.
    loaded: Option<Loaded>,
    adopted: bool,
    next_table: usize,
    /// How often it was looked for tampering.
    looks: u64,
    /// Tables of the running generation that are not what they were filled with, and that was told.
    damaged: HashSet<&'static str>,
    baseline: Option<Baseline>,
    state_pins: Vec<WatchedPin>,
    departures: Departures,
    places: Vec<InterfaceSlot>,
    counted: Counted,
    /// Foreign programs that ours was moved before.
    overtaken: HashSet<u32>,
    mended: Vec<String>,
    /// Generations have higher numbers.
    counted_to: u32,
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
        // 0 is no namespace's: where it can't be had (before Linux 5.14), no connection is counted.
        let netns_cookie = netlink.netns_cookie().unwrap_or(0);
        let state = State::open(&pins, ids)?;
        fault::point(Point::StateOpened)?;
        let registry = registry::read(&state)?;
        let state_pins = baseline::state_pins(&pins, &state.ids)?;
        let departures = Departures::open().context(|| "listen for interfaces that go away")?;
        let mut datapath = Self {
            options,
            pins,
            mounted,
            object,
            netlink,
            state,
            registry,
            limit_seed,
            netns_cookie,
            running: None,
            loaded: None,
            adopted: false,
            next_table: 0,
            looks: 0,
            damaged: HashSet::new(),
            baseline: None,
            state_pins,
            departures,
            places: Vec::new(),
            counted: Counted::default(),
            overtaken: HashSet::new(),
            mended: Vec::new(),
            counted_to: 0,
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

    /// Numbers that earlier boots gave to generations are not given again.
    pub const fn count_from(&mut self, last: u32) {
        self.counted_to = last;
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
        let choice = Choice {
            number: self.next_number()?,
            serial,
            trace: self.options.trace,
            limit_seed: self.limit_seed,
            netns_cookie: self.netns_cookie,
            twin: false,
        };
        let ids = &self.state.ids;
        generation::stage(&mut self.object, &self.pins, compiled, &choice, |id| ids.contains(&id))
    }

    /// The number of the next generation.
    fn next_number(&self) -> Result<u32> {
        let used = self.pins.generations()?.iter().map(|generation| generation.number).max().unwrap_or(0);
        Ok(used.max(self.counted_to).max(self.running().map_or(0, |stamp| stamp.number)).saturating_add(1))
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

    /// Stops judging: removes every hook, table and pin. Nothing is looked for any more.
    ///
    /// # Errors
    /// No permission, or a hook that can't be removed; what could be detached is.
    pub fn detach_all(&mut self) -> Result<Vec<String>> {
        self.baseline = None;
        let detached = detach(&self.options.bpffs)?;
        self.running = None;
        Ok(detached)
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

    /// Those of all pinned generations, and of the running one whatever became of its pins.
    fn our_programs(&self) -> Result<HashSet<u32>> {
        let mut ours = detach::programs_of(&self.pins)?;
        if let Some(baseline) = &self.baseline {
            ours.extend(baseline.programs.ids().context(|| "look at the running programs")?);
        }
        Ok(ours)
    }
}
