//! Who sent what was not let out, and which name was asked for: looked up while it can be.

use std::time::{Duration, Instant};

use mpesa_fw_common::DropReason;

use super::{
    audit::Sender, groups::Groups, program::ProgramRecord, running::Running, told::Told,
    why::nearest_destination,
};
use crate::datapath::AskedNames;

/// Cgroups are walked at most so often for one that is not known.
const LOOK: Duration = Duration::from_secs(1);

/// What is known of an event beyond what the kernel tells of it.
#[derive(Default)]
pub(super) struct Testimony {
    /// Who.
    pub(super) program: Option<ProgramRecord>,
    /// The name that this host had asked for last of those that the target was an answer to.
    pub(super) asked_for: Option<String>,
    /// Where no destination claims it, the one that comes nearest.
    pub(super) nearest: Option<String>,
}

/// Looks it up.
pub(super) struct Witness {
    names: Option<AskedNames>,
    groups: Groups,
    looked: Option<Instant>,
}

impl Witness {
    /// Without names where they can't be read.
    pub(super) fn new(names: Option<AskedNames>) -> Self {
        Self { names, groups: Groups::default(), looked: None }
    }

    /// What is known of an event of egress. Blocks: looks at processes and cgroups as they are now.
    pub(super) fn testimony(&mut self, told: &Told<'_>, running: &Running) -> Testimony {
        let is_unclaimed = told.event.reason == DropReason::NoDestination as u8;
        let is_current = told.event.generation == running.stamp.number;
        Testimony {
            program: told.program.map(|program| ProgramRecord::of(&program, |group| self.unit(group))),
            nearest: (is_current && is_unclaimed)
                .then(|| nearest_destination(&running.policy, &told.event))
                .flatten(),
            asked_for: self.names.as_ref().and_then(|names| names.of(told.event.target, told.event.time)),
        }
    }

    fn unit(&mut self, group: u64) -> Option<String> {
        if self.groups.sender(group).is_none() && self.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            self.groups.look();
            self.looked = Some(Instant::now());
        }
        match self.groups.sender(group) {
            Some(Sender::Unit(unit)) => Some(unit.clone()),
            Some(Sender::Group(_) | Sender::Gone(_) | Sender::Nobody | Sender::Others | Sender::NoRoom)
            | None => None,
        }
    }
}
