//! Which name an address was an answer to. Evidence, no permission: every name that this host asked for, also those of no rule.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::name::NameKey;

/// Entries of `ANSWERED`, a least-recently-used hash by address.
pub const ANSWERED_CAPACITY: u32 = 1 << 11;
/// Addresses of one answer that are noted: one that has a hundred takes the place of few others.
pub const ANSWERED_AT_ONCE: u32 = 16;

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The last name that an address was an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Answered {
    /// When; monotonic clock, nanoseconds.
    pub time: u64,
    /// Octets of the name.
    pub length: u32,
    /// FNV-1a of the name (32 bits), so that one that is noted already need not be written again.
    pub hash: u32,
    /// The name. What lies ahead of it is left of others.
    pub name: NameKey,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

impl Answered {
    /// Nothing yet.
    pub const NONE: Self = Self { time: 0, length: 0, hash: FNV_OFFSET, name: NameKey::EMPTY, reserved: 0 };

    /// Begins a name.
    #[inline(always)]
    pub fn begin(&mut self) {
        self.length = 0;
        self.hash = FNV_OFFSET;
    }

    /// The next octet of the name, which is its `text`th. False: it is too long for a name.
    #[inline(always)]
    pub fn put(&mut self, text: u32, octet: u8) -> bool {
        self.hash = (self.hash ^ u32::from(octet)).wrapping_mul(FNV_PRIME);
        self.name.put(text, octet)
    }

    /// Whether it is the same name, as far as length and hash say.
    #[inline(always)]
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.length == other.length && self.hash == other.hash
    }
}
