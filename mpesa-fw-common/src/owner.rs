//! Who a socket belongs to: a user, and a systemd unit, which is a cgroup.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    settings::Direction,
    tables::{RuleSet, Tables},
};

/// How deep below the root of the cgroups a unit is looked for. Those of a user's login are at 3
/// (`user.slice/user-N.slice/session-N.scope`), that of a pod at 4.
pub const LEVELS: usize = 8;

/// Entries of `OWNERS`: users, and units that run.
pub const OWNERS_CAPACITY: u32 = 1 << 12;

/// Whose socket a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Owner {
    /// The cgroups it is in, by their ids, from the one below the root on; 0: no more.
    pub cgroups: [u64; LEVELS],
    /// Numeric id of the user that made it.
    pub uid: u32,
    /// 0: it is not known (forwarded, or the remains of a connection), and no owner satisfies a rule.
    pub is_known: u32,
}

impl Owner {
    /// Nobody knows.
    pub const UNKNOWN: Self = Self { cgroups: [0; LEVELS], uid: 0, is_known: 0 };
}

/// Key of `OWNERS`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct OwnerKey {
    /// Id of a cgroup (unique for as long as the machine is up, however often a unit is started), or of a user.
    pub id: u64,
    /// Which of the two.
    kind: u32,
    reserved: u32,
}

impl OwnerKey {
    /// A cgroup.
    #[inline(always)]
    #[must_use]
    pub const fn cgroup(id: u64) -> Self {
        Self { id, kind: 1, reserved: 0 }
    }

    /// A user.
    #[inline(always)]
    #[must_use]
    pub const fn user(uid: u32) -> Self {
        Self { id: uid as u64, kind: 2, reserved: 0 }
    }
}

/// Value of `OWNERS`, a table of a generation that the agent keeps up to date: the rules of each
/// [`Direction`] that name this owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OwnerRules {
    /// By direction.
    pub rules: [RuleSet; 2],
}

/// The rules of a direction that somebody may use: those without `by`, and those that name him.
#[inline(always)]
pub fn rules_of<T: Tables + ?Sized>(tables: &T, direction: Direction, owner: &Owner) -> RuleSet {
    let owned = tables.owned(direction);
    let free = RuleSet(!owned.0);
    if owned.is_empty() || owner.is_known == 0 {
        return free;
    }
    let of = |key: OwnerKey| match tables.owner(&key) {
        Some(rules) => rules.rules[direction as usize],
        None => RuleSet::NONE,
    };
    let mut rules = free.or(of(OwnerKey::user(owner.uid)));
    // By reference: a copy of the list would lie on the stack, of which all calls together have 512 bytes.
    for id in &owner.cgroups {
        if *id == 0 {
            break;
        }
        rules = rules.or(of(OwnerKey::cgroup(*id)));
    }
    rules
}
