//! Positions that follow a name across policies and restarts: a rule's row of counters, a set's watch bit, a DNS name's slot.
//!
//! Pure: the agent keeps the [`RegistryRows`] in pinned maps, asks [`Registry::assign`] before it compiles, and stores the
//! assignment's registry once the new generation runs. Then a reload that fails has changed nothing.

mod places;
mod rows;
mod slots;

use mpesa_fw_common::{
    Direction,
    counter::{COUNTER_SLOTS, SLOT_EGRESS_NONE, SLOT_INGRESS_NONE},
    tables::{NAMES, WATCHED_SETS},
};

use crate::policy::model::Policy;
use places::{Key, Places};

pub use rows::RegistryRows;
pub use slots::Slots;

/// Rows of counters that belong to no rule.
const RESERVED: [Direction; 2] = {
    assert!(
        SLOT_INGRESS_NONE == 0 && SLOT_EGRESS_NONE == 1,
        "the reserved rows are the first two, in the order of the directions"
    );
    Direction::ALL
};

/// Who has which position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    rules: Places,
    sets: Places,
    names: Places,
}

/// What [`Registry::assign`] answers.
#[derive(Clone, Debug)]
#[must_use]
pub struct Assignment {
    /// The registry to keep, and to write back, once the policy is in force.
    pub registry: Registry,
    /// The positions of everything in the policy.
    pub slots: Slots,
    /// Positions that have a new owner.
    pub fresh: Fresh,
}

/// Positions that did not belong to their owner before. What is kept under them is someone else's, and must go
/// **before** the new generation is swapped in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fresh {
    /// Rows of counters to set to zero, on every interface.
    pub counter_rows: Vec<u32>,
    /// Bits whose near-miss counts are to be set to zero.
    pub watch_bits: Vec<u8>,
    /// Name slots to purge from the map `RESOLVED`: an entry that still holds one would allow the addresses of the
    /// name that had the slot before.
    pub name_slots: Vec<u16>,
}

/// Who has a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOwner<'a> {
    /// The position.
    pub row: u32,
    /// Of a rule; ingress for sets and DNS names.
    pub direction: Direction,
    /// Its name; empty for the rows of "no rule".
    pub name: &'a str,
    /// Whether the policy has it. Else it is gone, and its counts are kept until the room is needed.
    pub in_use: bool,
}

/// Why a policy can't be given positions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// More names than positions.
    #[error("the policy has {wanted} {what}, {room} fit: {advice}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many the policy has.
        wanted: usize,
        /// How many fit.
        room: usize,
        /// What to do.
        advice: &'static str,
    },
    /// A name that does not fit its row.
    #[error("the name `{name}` has {length} bytes, {room} fit: choose a shorter one")]
    NameTooLong {
        /// The name.
        name: String,
        /// Its length.
        length: usize,
        /// The longest that fits.
        room: usize,
    },
}

impl Registry {
    /// Nobody has anything.
    #[must_use]
    pub fn new() -> Self {
        Self::from_rows(&RegistryRows::default())
    }

    /// Reads what an earlier agent kept. Rows that make no sense (not UTF-8, a name twice, an unknown status) are free.
    #[must_use]
    pub fn from_rows(rows: &RegistryRows) -> Self {
        Self {
            rules: Places::from_rows(&rows.rules, COUNTER_SLOTS, &RESERVED),
            sets: Places::from_rows(&rows.sets, WATCHED_SETS, &[]),
            names: Places::from_rows(&rows.names, NAMES, &[]),
        }
    }

    /// What to keep.
    #[must_use]
    pub fn to_rows(&self) -> RegistryRows {
        RegistryRows { rules: self.rules.to_rows(), sets: self.sets.to_rows(), names: self.names.to_rows() }
    }

    /// Gives everything in a policy its position. Who has one keeps it, also when it was gone and comes back; who is new
    /// gets a free one, else that of whoever has been gone for longest (after a restart of the agent: the lowest).
    ///
    /// # Errors
    /// More watched sets or DNS names than there are positions, or a name that is too long.
    pub fn assign(&self, policy: &Policy) -> Result<Assignment, RegistryError> {
        let services =
            policy.ingress.services.iter().map(|service| Key::new(Direction::Ingress, &service.name));
        let destinations =
            policy.egress.allow.iter().map(|destination| Key::new(Direction::Egress, &destination.name));
        let watched = policy.sets.iter().filter(|set| !set.watch.is_empty());
        let names = policy.egress.allow.iter().flat_map(|destination| &destination.names);

        let rules = self.rules.assign(services.chain(destinations), "rules", "remove some")?;
        let sets = self.sets.assign(
            watched.map(|set| Key::undirected(&set.name)),
            "sets with `watch`",
            "watch a wider prefix in one set instead",
        )?;
        let names = self.names.assign(
            names.map(|name| Key::undirected(name)),
            "DNS names",
            "use addresses or prefixes for some of them",
        )?;
        Ok(Assignment {
            slots: Slots {
                rules: rules.taken.into_iter().map(|(key, row)| ((key.direction, key.name), row)).collect(),
                sets: sets.taken.into_iter().map(|(key, row)| (key.name, row as u8)).collect(),
                names: names.taken.into_iter().map(|(key, row)| (key.name, row as u16)).collect(),
            },
            fresh: Fresh {
                counter_rows: rules.fresh,
                watch_bits: sets.fresh.into_iter().map(|row| row as u8).collect(),
                name_slots: names.fresh.into_iter().map(|row| row as u16).collect(),
            },
            registry: Self { rules: rules.places, sets: sets.places, names: names.places },
        })
    }

    /// The rows of counters that have an owner, in order, those of "no rule" included.
    pub fn rules(&self) -> impl Iterator<Item = RowOwner<'_>> {
        self.rules.owners()
    }

    /// The watch bits that have an owner, in order.
    pub fn sets(&self) -> impl Iterator<Item = RowOwner<'_>> {
        self.sets.owners()
    }

    /// The name slots that have an owner, in order.
    pub fn names(&self) -> impl Iterator<Item = RowOwner<'_>> {
        self.names.owners()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}
