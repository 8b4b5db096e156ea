//! Which name an address was an answer to. Evidence, no permission: every name that this host asked for, also those of no rule.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::name::NameKey;

/// Entries of `ANSWERED`, a least-recently-used hash by address.
pub const ANSWERED_CAPACITY: u32 = 1 << 11;
/// Addresses of one answer that are noted: one that has a hundred takes the place of few others.
pub const ANSWERED_AT_ONCE: u32 = 16;

/// The last name that an address was an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answered {
    /// When; monotonic clock, nanoseconds.
    pub time: u64,
    /// Octets of the name.
    pub length: u32,
    /// The name. What lies ahead of it is left of others.
    pub name: NameKey,
}

impl Answered {
    /// Nothing yet.
    pub const NONE: Self = Self { time: 0, length: 0, name: NameKey::EMPTY };
}
