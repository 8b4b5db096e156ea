//! One entry of the catalogue: a policy, what the host knows, packets one after the other, and what becomes of each.

use std::{borrow::Cow, collections::BTreeMap, io::Write as _, net::IpAddr};

use mpesa_fw::{
    compile::{Compiled, Registry, Slots, compile},
    policy::{
        self, Permissions,
        model::{self, Policy},
    },
};
use mpesa_fw_common::{
    Address, Direction, DropReason, PassReason, Reason,
    decide::{Decision, Sender},
    owner::{Owner, OwnerKey, OwnerRules},
    tables::RuleIndex,
};

use crate::{
    frames::ip,
    host::{Frame, HostState},
};

/// What happens, in order.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Packet(Packet),
    /// Time goes by: nanoseconds.
    Wait(u64),
    /// Another policy, as the next generation; the state stays.
    Reload(Cow<'static, str>),
    /// DNS answers otherwise from now on.
    Resolve(Names),
}

/// Names that addresses are the answer to.
pub(crate) type Names = Vec<(IpAddr, Vec<String>)>;

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) label: String,
    pub(crate) frame: Frame,
    pub(crate) direction: Direction,
    /// None: the socket that a test run of the kernel gives a packet.
    pub(crate) sender: Option<Sender>,
    /// None: whatever the oracle says.
    pub(crate) expected: Option<Expected>,
}

/// Reason, rule by name (empty: none), sets that watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) reason: Reason,
    pub(crate) rule: String,
    pub(crate) near_miss: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) policy: Cow<'static, str>,
    /// Addresses of this host.
    pub(crate) own: Vec<IpAddr>,
    /// Addresses that DNS names are resolved to.
    pub(crate) names: Names,
    pub(crate) steps: Vec<Step>,
    /// No room for flows (host only).
    pub(crate) full: bool,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        policy: impl Into<Cow<'static, str>>,
        steps: Vec<Step>,
    ) -> Self {
        let (name, policy) = (name.into(), policy.into());
        Self { name, policy, own: Vec::new(), names: Vec::new(), steps, full: false }
    }

    pub(crate) fn own(mut self, addresses: &[&str]) -> Self {
        self.own = addresses.iter().map(|address| ip(address)).collect();
        self
    }

    pub(crate) fn resolved(mut self, address: &str, names: &[&str]) -> Self {
        self.names.push((ip(address), names.iter().map(|name| (*name).to_owned()).collect()));
        self
    }

    pub(crate) fn full(mut self) -> Self {
        self.full = true;
        self
    }

    /// Whether the kernel can't show it: a tag that was stripped, a table that can't be full, more time than has passed since boot
    /// (the kernel's clock can't be moved, so that entries are made older instead).
    #[cfg(not(mpesa_fw_no_object))]
    pub(crate) fn is_host_only(&self, uptime: u64) -> bool {
        let waits = self.steps.iter().map(|step| match step {
            Step::Wait(time) => *time,
            Step::Packet(_) | Step::Reload(_) | Step::Resolve(_) => 0,
        });
        self.full
            || self.packets().any(|packet| packet.frame.stripped_tags != 0)
            || waits.sum::<u64>() >= uptime
    }

    /// Whether a test run can't send it, for want of the sockets: the twin is asked.
    #[cfg(not(mpesa_fw_no_object))]
    pub(crate) fn has_senders(&self) -> bool {
        self.packets().any(|packet| packet.sender.is_some())
    }

    /// Whether the policy, or what its names stand for, changes meanwhile.
    #[cfg(all(test, not(mpesa_fw_no_object)))]
    pub(crate) fn changes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Reload(_) | Step::Resolve(_)))
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.steps.iter().filter_map(|step| match step {
            Step::Packet(packet) => Some(packet),
            Step::Wait(_) | Step::Reload(_) | Step::Resolve(_) => None,
        })
    }

    pub(crate) fn state(&self, rules: &Rules) -> HostState {
        let mut state = HostState::new();
        state.own = self.own.iter().map(|address| Address::from(*address)).collect();
        state.has_room.set(!self.full);
        state.resolve(rules, &self.names);
        state
    }
}

/// The socket that `BPF_PROG_TEST_RUN` makes for a packet: full, with a cookie, bound to nothing.
pub(crate) const TEST_RUN: Sender = Sender { cookie: 1, is_full: true, ..Sender::NONE };

/// A policy and all that is made of it.
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) slots: Slots,
    pub(crate) compiled: Compiled,
    registry: Registry,
}

impl Rules {
    pub(crate) fn new(yaml: &str) -> Self {
        Self::of(yaml, &Registry::new(), 1)
    }

    /// The next generation.
    pub(crate) fn reload(&self, yaml: &str) -> Self {
        Self::of(yaml, &self.registry, self.compiled.settings.generation + 1)
    }

    fn of(yaml: &str, registry: &Registry, generation: u32) -> Self {
        let policy = load(yaml);
        let assignment = registry.assign(&policy).expect("there is room");
        let mut compiled = compile(&policy, &assignment.slots).unwrap_or_else(|error| panic!("{error}"));
        compiled.settings.generation = generation;
        compiled.settings.limit_seed = 0x5eed;
        compiled.present = compiled
            .owners
            .iter()
            .map(|(owner, rules)| (key_of(&compiled.owners, owner).expect("it is one of them"), *rules))
            .collect();
        Self { policy, slots: assignment.slots, compiled, registry: assignment.registry }
    }

    /// Whom the policy knows of those that a socket belongs to.
    pub(crate) fn owners(&self, owner: &Owner) -> Vec<model::Owner> {
        let is_one = |key: OwnerKey| {
            key == OwnerKey::user(owner.uid)
                || owner.cgroups.iter().take_while(|id| **id != 0).any(|id| key == OwnerKey::cgroup(*id))
        };
        let names = &self.compiled.owners;
        let known = names.keys().filter(|owner| key_of(names, owner).is_some_and(is_one));
        if owner.is_known == 0 { Vec::new() } else { known.cloned().collect() }
    }

    /// A decision in words.
    pub(crate) fn explain(&self, direction: Direction, decision: &Decision) -> Expected {
        let watching = self.slots.sets.iter().filter(|(_, bit)| decision.near_miss >> **bit & 1 == 1);
        Expected {
            reason: decision.reason,
            rule: self.rule_name(direction, decision.rule).to_owned(),
            near_miss: watching.map(|(set, _)| set.clone()).collect(),
        }
    }

    pub(crate) fn rule_name(&self, direction: Direction, rule: RuleIndex) -> &str {
        let Some(position) = rule.index() else {
            return "";
        };
        match direction {
            Direction::Ingress => self.policy.ingress.services.get(position).map(|rule| &rule.name),
            Direction::Egress => self.policy.egress.allow.get(position).map(|rule| &rule.name),
        }
        .unwrap_or_else(|| panic!("no rule {position} of {direction:?}"))
    }
}

/// What the kernel knows the owner by: 1,000 and its position.
fn key_of(owners: &BTreeMap<model::Owner, OwnerRules>, owner: &model::Owner) -> Option<OwnerKey> {
    let id = 1000 + owners.keys().position(|known| known == owner)? as u32;
    Some(match owner {
        model::Owner::Unit(_) => OwnerKey::cgroup(id.into()),
        model::Owner::User(_) => OwnerKey::user(id),
    })
}

/// Policies of tests leave out what is the same in all.
pub(crate) fn load(yaml: &str) -> Policy {
    match policy::load(&written(yaml), Permissions::Ignore) {
        Ok(loaded) => loaded.policy,
        Err(errors) => panic!("{errors}"),
    }
}

fn written(yaml: &str) -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "version: 1\ninterfaces: [eth0]\n{yaml}").expect("written");
    // Closed: a file that is open for writing is not read.
    file.into_temp_path()
}

/// Whether such a text is a policy.
pub(crate) fn is_policy(yaml: &str) -> bool {
    policy::load(&written(yaml), Permissions::Ignore).is_ok()
}

/// A packet towards this host.
pub(crate) fn to(label: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Step {
    packet(label, frame, Direction::Ingress, None, expected)
}

/// A packet from this host.
pub(crate) fn from(label: impl Into<String>, frame: impl Into<Frame>, expected: Expected) -> Step {
    packet(label, frame, Direction::Egress, None, expected)
}

/// A packet from this host and a socket that is known.
pub(crate) fn sent_by(
    sender: Sender,
    label: impl Into<String>,
    frame: impl Into<Frame>,
    expected: Expected,
) -> Step {
    packet(label, frame, Direction::Egress, Some(sender), expected)
}

fn packet(
    label: impl Into<String>,
    frame: impl Into<Frame>,
    direction: Direction,
    sender: Option<Sender>,
    expected: Expected,
) -> Step {
    let (label, frame, expected) = (label.into(), frame.into(), Some(expected));
    Step::Packet(Packet { label, frame, direction, sender, expected })
}

pub(crate) fn pass(reason: PassReason, rule: &str) -> Expected {
    Expected { reason: Reason::Pass(reason), rule: rule.to_owned(), near_miss: Vec::new() }
}

pub(crate) fn drop(reason: DropReason, rule: &str) -> Expected {
    Expected { reason: Reason::Drop(reason), rule: rule.to_owned(), near_miss: Vec::new() }
}

pub(crate) fn near_miss(reason: DropReason, rule: &str, sets: &[&str]) -> Expected {
    let near_miss = sets.iter().map(|set| (*set).to_owned()).collect();
    Expected { near_miss, ..drop(reason, rule) }
}
