//! What was learnt from answers: addresses with the names that they are answers to, each until its TTL is over.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::name::WILDCARD;
use crate::tables::NAMES_PER_ADDRESS;

/// Entries of `LEARNT`, a least-recently-used hash.
pub const LEARNT_CAPACITY: u32 = 1 << 15;

/// A tick is 2^30 ns, about 1.07 s.
const TICK_SHIFT: u32 = 30;
/// Bounds of a TTL in seconds. At least: a program connects a moment after it was told. At most: caches of this host (a stub
/// resolver) answer from memory for as long, and nothing of it is seen here.
const TTL_BOUNDS: (u32, u32) = (60, 86_400);
/// Seconds longer: what a cache hands out in its last second is used too.
const GRACE: u32 = 300;

/// The budget of a name is renewed every 2^38 ns, about 275 s.
pub const PERIOD_SHIFT: u32 = 38;
/// New addresses in a period: of one name, and of all names below a wildcard together.
const BUDGET: u32 = 256;
const WILDCARD_BUDGET: u32 = LEARNT_CAPACITY / 2;

/// Ticks since boot, from the monotonic clock in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn tick(now: u64) -> u32 {
    (now >> TICK_SHIFT) as u32
}

/// Until when an address may be used whose TTL is `ttl` seconds, in ticks: a second counts as a tick, which is 7 % longer.
#[inline(always)]
#[must_use]
pub const fn until(now: u64, ttl: u32) -> u32 {
    let (least, most) = TTL_BOUNDS;
    // RFC 2181 8: with the highest bit set it is 0.
    let ttl = if ttl >> 31 != 0 || ttl < least { least } else { ttl };
    tick(now) + GRACE + if ttl > most { most } else { ttl }
}

/// Value of `LEARNT`, by address.
pub type Learnt = [LearntName; NAMES_PER_ADDRESS];

/// A name that an address is an answer to, and until when. One word, so that no other CPU sees half of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct LearntName(u64);

impl LearntName {
    /// An empty place.
    pub const NONE: Self = Self(0);

    /// The name in this slot, until this tick.
    #[inline(always)]
    #[must_use]
    pub const fn new(slot: u16, until: u32) -> Self {
        Self(((until as u64) << 32) | (slot as u64 + 1))
    }

    /// The slot of the name; none: an empty place.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> Option<u16> {
        (self.0 as u16).checked_sub(1)
    }

    /// The tick after which it does not count any more.
    #[inline(always)]
    #[must_use]
    pub const fn until(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Its slot, while it counts.
    #[inline(always)]
    #[must_use]
    pub const fn live(self, tick: u32) -> Option<u16> {
        if tick <= self.until() { self.slot() } else { None }
    }
}

/// Whether a name could be noted at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It was there, and stays as long as this answer says if that is longer.
    Known,
    /// It was not.
    New,
    /// All places are taken.
    NoRoom,
}

/// Notes the name in `slot` among those of an address; `may_add` is asked before one that was not there is added.
#[inline(always)]
pub fn note(learnt: &mut Learnt, slot: u16, until: u32, tick: u32, may_add: impl FnOnce() -> bool) -> Noted {
    let mut free = None;
    for place in learnt.iter_mut() {
        match place.slot() {
            Some(known) if known == slot => {
                if place.until() < until {
                    *place = LearntName::new(slot, until);
                }
                return Noted::Known;
            }
            Some(_) if place.until() >= tick => {}
            Some(_) | None => free = Some(place),
        }
    }
    match free {
        Some(place) if may_add() => {
            *place = LearntName::new(slot, until);
            Noted::New
        }
        Some(_) | None => Noted::NoRoom,
    }
}

/// Element of `NAME_BUDGETS`, by name slot: how many addresses were learnt in this period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NameBudget {
    /// Number of the period.
    pub period: u32,
    /// How many.
    pub spent: u32,
}

impl NameBudget {
    /// Takes one; `named` is an element of [`NameSlots`](super::NameSlots). False: there is none left in this period.
    #[inline(always)]
    pub fn take(&mut self, named: u16, now: u64) -> bool {
        let period = (now >> PERIOD_SHIFT) as u32;
        if self.period != period {
            *self = Self { period, spent: 0 };
        }
        let budget = if named & WILDCARD == 0 { BUDGET } else { WILDCARD_BUDGET };
        if self.spent >= budget {
            return false;
        }
        self.spent += 1;
        true
    }
}

/// Element of `LEARNING`, a per-CPU array of one: what became of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LearnCount {
    /// By [`LearnOutcome`].
    pub outcomes: [u64; 4],
}

/// What became of an answer of a resolver, or of an address in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LearnOutcome {
    /// An answer to a name of the policy.
    Answer = 0,
    /// An address that was not known to be one of the name's.
    Address = 1,
    /// An address of which there were too many for the name, or for the table.
    Refused = 2,
    /// A message that can't be read, or is no answer.
    Unreadable = 3,
}

impl LearnOutcome {
    /// In the order of their codes.
    pub const ALL: [Self; 4] = [Self::Answer, Self::Address, Self::Refused, Self::Unreadable];

    /// The word in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Address => "address",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}
