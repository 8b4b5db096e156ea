//! One entry of the catalogue: a policy, what the host knows, packets one after the other, and what becomes of each.

use std::{io::Write as _, path::Path};

use mpesa_fw::{
    compile::{Compiled, Registry, Slots, compile},
    policy::{self, Permissions, model::Policy},
};
use mpesa_fw_common::{
    Address, Direction, DropReason, PassReason, Reason,
    decide::{Decision, Sender},
    tables::{ResolvedNames, RuleIndex},
};

use crate::{
    frames::ip,
    host::{Frame, HostState},
};

/// What happens, in order.
pub(crate) enum Step {
    Packet(Packet),
    /// Time goes by: nanoseconds.
    Wait(u64),
    /// Another policy, as the next generation; the state stays.
    Reload(&'static str),
}

pub(crate) struct Packet {
    pub(crate) label: String,
    pub(crate) frame: Frame,
    pub(crate) direction: Direction,
    /// None: the socket that a test run of the kernel gives a packet.
    pub(crate) sender: Option<Sender>,
    pub(crate) expected: Expected,
}

/// Reason, rule by name (empty: none), sets that watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) reason: Reason,
    pub(crate) rule: String,
    pub(crate) near_miss: Vec<String>,
}

pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) policy: &'static str,
    /// Addresses of this host.
    pub(crate) own: Vec<&'static str>,
    /// Addresses that DNS names are resolved to.
    pub(crate) resolved: Vec<(&'static str, Vec<&'static str>)>,
    pub(crate) steps: Vec<Step>,
    /// No room for flows (host only).
    pub(crate) full: bool,
}

impl Case {
    pub(crate) fn new(name: &'static str, policy: &'static str, steps: Vec<Step>) -> Self {
        Self { name, policy, own: Vec::new(), resolved: Vec::new(), steps, full: false }
    }

    pub(crate) fn own(mut self, addresses: &[&'static str]) -> Self {
        self.own = addresses.to_vec();
        self
    }

    pub(crate) fn resolved(mut self, address: &'static str, names: &[&'static str]) -> Self {
        self.resolved.push((address, names.to_vec()));
        self
    }

    pub(crate) fn full(mut self) -> Self {
        self.full = true;
        self
    }

    /// Whether a test run can't show it: a sender or a tag that it can't give, a table that can't be full, more time than
    /// has passed since boot.
    pub(crate) fn is_host_only(&self) -> bool {
        self.full
            || self.steps.iter().any(|step| match step {
                Step::Packet(packet) => packet.sender.is_some() || packet.frame.stripped_tags != 0,
                Step::Wait(time) => *time > 400 * crate::host::SECOND,
                Step::Reload(_) => false,
            })
    }

    pub(crate) fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.steps.iter().filter_map(|step| match step {
            Step::Packet(packet) => Some(packet),
            Step::Wait(_) | Step::Reload(_) => None,
        })
    }

    pub(crate) fn state(&self, rules: &Rules) -> HostState {
        let mut state = HostState::new();
        state.own = self.own.iter().map(|address| Address::from(ip(address))).collect();
        state.has_room.set(!self.full);
        for (address, names) in &self.resolved {
            let mut slots = ResolvedNames::default();
            for (n, name) in names.iter().enumerate() {
                slots[n] = rules.slots.names.get(*name).map_or(0, |slot| slot + 1);
            }
            state.resolved.insert(Address::from(ip(address)), slots);
        }
        state
    }
}

/// The socket that `BPF_PROG_TEST_RUN` makes for a packet: full, with a cookie, bound to nothing.
pub(crate) const TEST_RUN: Sender = Sender { cookie: 1, bound_port: 0, is_full: true };

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
        Self { policy, slots: assignment.slots, compiled, registry: assignment.registry }
    }

    /// A decision in words.
    pub(crate) fn explain(&self, direction: Direction, decision: &Decision) -> Expected {
        let set = |bit: usize| self.slots.sets.iter().find(|(_, slot)| usize::from(**slot) == bit);
        Expected {
            reason: decision.reason,
            rule: self.rule_name(direction, decision.rule).to_owned(),
            near_miss: (0..64)
                .filter(|bit| decision.near_miss >> bit & 1 == 1)
                .map(|bit| set(bit).expect("a watched set").0.clone())
                .collect(),
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

/// Policies of tests leave out what is the same in all.
fn load(yaml: &str) -> Policy {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "version: 1\ninterfaces: [eth0]\n{yaml}").expect("written");
    load_file(file.path())
}

fn load_file(path: &Path) -> Policy {
    match policy::load(path, Permissions::Ignore) {
        Ok(loaded) => loaded.policy,
        Err(errors) => panic!("{errors}"),
    }
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
    Step::Packet(Packet { label: label.into(), frame: frame.into(), direction, sender, expected })
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
