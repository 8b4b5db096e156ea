//! Lay-out of the tables that map addresses to sets of rules: sorted disjoint ranges behind an index of 16 bits.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::RuleSet;
use crate::{address::Family, settings::feature};

/// A dimension that maps addresses to rule sets. Each has its own maps, named after it:
/// `<NAME>4_INDEX`, `<NAME>4_RANGES`, `<NAME>6_INDEX`, `<NAME>6_STARTS`, `<NAME>6_IDS`, `<NAME>_CLASSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AddressTable {
    /// `from` of services; maps `SOURCE…`.
    Source = 0,
    /// `to` of services; maps `LOCAL…`.
    Local = 1,
    /// `to` of destinations; maps `DESTINATION…`.
    Destination = 2,
}

impl AddressTable {
    /// All, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Source, Self::Local, Self::Destination];

    /// Prefix of the names of its maps.
    #[must_use]
    pub const fn map_prefix(self) -> &'static str {
        match self {
            Self::Source => "SOURCE",
            Self::Local => "LOCAL",
            Self::Destination => "DESTINATION",
        }
    }

    /// Whether the table has ranges of this family; else every address is in the outside class.
    #[inline(always)]
    #[must_use]
    pub const fn feature(self, family: Family) -> u32 {
        let shift = 2 * self as u32;
        match family {
            Family::V4 => 1 << shift,
            Family::V6 => 2 << shift,
        }
    }

    /// Whether the marks behind the index are worth asking first.
    #[inline(always)]
    #[must_use]
    pub const fn sparse(self, family: Family) -> u32 {
        let shift = 2 * self as u32;
        match family {
            Family::V4 => feature::SPARSE_SOURCE4 << shift,
            Family::V6 => feature::SPARSE_SOURCE6 << shift,
        }
    }
}

/// Everything that is the same for a range of addresses. Element of `<NAME>_CLASSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressClass {
    /// Rules whose address list holds the range.
    pub rules: RuleSet,
    /// Sets that watch the range for near misses: bit n is the set in slot n of the agent's registry.
    pub watch: u64,
}

/// Number of an [`AddressClass`] in its table. 65,536 classes at most.
pub type ClassId = u16;

/// Class of the IPv4 addresses in a table without IPv4 ranges.
pub const OUTSIDE_V4: ClassId = 0;
/// Class of the IPv6 addresses outside the window's prefix.
pub const OUTSIDE_V6: ClassId = 1;

/// Buckets of an index: one a value of 16 bits.
pub const BUCKETS: usize = 1 << 16;
/// Elements behind them that hold a mark for each bucket: whether there is anything in it but the outside class.
pub const MARKS: usize = BUCKETS / 64;
/// Elements of an index.
pub const INDEX_LEN: usize = BUCKETS + MARKS;
/// Elements of a block of IPv4 ranges: a cache line, and a node of a [tree](Levels4).
pub const RANGES_PER_BLOCK: usize = 16;
/// Class ids a block of IPv6 ranges: a cache line.
pub const IDS_PER_BLOCK: usize = 32;

/// Element of an index: what a bucket of addresses (one value of the 16 indexed bits) holds.
///
/// `count == 0`: the whole bucket is in class `begin`. Else its ranges are `begin .. begin + count`, sorted, and the first
/// starts where the bucket starts. IPv4: up to [`SCANNED`] ranges lie in as few blocks as they fit in, a block may have
/// ranges of several buckets; more are the leaves of a tree, see [`Levels4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    /// First range, or the class of the whole bucket.
    pub begin: u32,
    /// Number of ranges.
    pub count: u32,
}

impl Bucket {
    /// 64 marks.
    #[must_use]
    pub const fn of_marks(marks: u64) -> Self {
        Self { begin: marks as u32, count: (marks >> 32) as u32 }
    }

    /// The mark of a bucket, if this element holds it.
    #[inline(always)]
    #[must_use]
    pub const fn has_mark(self, bucket: u32) -> bool {
        let marks = (self.count as u64) << 32 | self.begin as u64;
        marks >> (bucket & 63) & 1 != 0
    }

    /// Where the mark of a bucket is.
    #[inline(always)]
    #[must_use]
    pub const fn place_of_mark(bucket: u32) -> u32 {
        BUCKETS as u32 + bucket / 64
    }

    /// A bucket that is all of one class.
    #[must_use]
    pub const fn uniform(class: ClassId) -> Self {
        Self { begin: class as u32, count: 0 }
    }
}

/// An IPv4 range: the low 16 bits of its first address, and its class. It ends before the next one.
/// Ordered as integers, ranges are in the order of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Range4(pub u32);

impl Range4 {
    /// Behind the last range of a block: no search comes to it.
    pub const PADDING: Self = Self(u32::MAX);

    /// The range that starts at `low` within its bucket.
    #[must_use]
    pub const fn new(low: u16, class: ClassId) -> Self {
        Self(((low as u32) << 16) | class as u32)
    }

    /// Its class.
    #[inline(always)]
    #[must_use]
    pub const fn class(self) -> ClassId {
        self.0 as ClassId
    }
}

/// Ranges of an IPv4 bucket that are looked at one and all: they fill four cache lines, which are fetched at the same time.
/// The lines of a tree are fetched one after the other.
pub const SCANNED: u32 = 64;

/// Blocks of the tree of an IPv4 bucket with more than [`SCANNED`] ranges, level by level.
///
/// The leaves hold the ranges; each node above holds the first range of each of its 16 children, again. The levels lie
/// one behind the other, leaves first, root last; a level of one node has none above it. The last node of a level is
/// filled up with [`Range4::PADDING`]. A search reads one cache line a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels4 {
    /// Nodes of each level, leaves first; 65,536 ranges have 4096, 256, 16 and 1.
    pub nodes: [u32; 4],
}

impl Levels4 {
    /// The levels above `count` ranges.
    #[inline(always)]
    #[must_use]
    pub const fn of(count: u32) -> Self {
        const CHILDREN: u32 = RANGES_PER_BLOCK as u32;
        let leaves = count.div_ceil(CHILDREN);
        let second = leaves.div_ceil(CHILDREN);
        let third = second.div_ceil(CHILDREN);
        Self { nodes: [leaves, second, third, third.div_ceil(CHILDREN)] }
    }
}

/// Element of `<NAME>4_RANGES`.
pub type Block4 = [Range4; RANGES_PER_BLOCK];
/// Element of `<NAME>6_STARTS`: high and low half of a range's first address, host byte order.
pub type Start6 = [u64; 2];
/// Element of `<NAME>6_IDS`: the classes of the ranges, in the order of their starts.
pub type Ids6 = [ClassId; IDS_PER_BLOCK];

/// Which 16 bits of an IPv6 address are indexed: those behind the longest prefix, in whole groups of
/// 16 bits, that all entries of the table have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Window {
    /// High and low half of the common prefix.
    pub prefix: [u64; 2],
    /// Its mask.
    pub mask: [u64; 2],
    /// 1: the indexed bits are in the low half.
    pub low: u32,
    /// How far right they are to be shifted: 0, 16, 32 or 48.
    pub shift: u32,
}

impl Window {
    /// No common prefix: the first 16 bits are indexed.
    pub const ALL: Self = Self { prefix: [0; 2], mask: [0; 2], low: 0, shift: 48 };

    /// The window behind the first `groups` 16-bit groups of an address, 0 to 7.
    #[must_use]
    pub const fn behind(high: u64, low: u64, groups: u32) -> Self {
        let bits = groups * 16;
        let mask_high = if bits == 0 {
            0
        } else if bits >= 64 {
            u64::MAX
        } else {
            u64::MAX << (64 - bits)
        };
        let mask_low = if bits <= 64 { 0 } else { u64::MAX << (128 - bits) };
        Self {
            prefix: [high & mask_high, low & mask_low],
            mask: [mask_high, mask_low],
            low: (groups >= 4) as u32,
            shift: 48 - 16 * (groups % 4),
        }
    }

    /// Position in the index, or none where the address is outside the prefix.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(&self, high: u64, low: u64) -> Option<u32> {
        if high & self.mask[0] != self.prefix[0] || low & self.mask[1] != self.prefix[1] {
            return None;
        }
        let half = if self.low == 0 { high } else { low };
        Some(((half >> (self.shift & 63)) & 0xffff) as u32)
    }
}

/// Steps of the search within an IPv4 bucket: at most 65,536 ranges.
pub const SEARCH_STEPS4: u32 = 17;
/// Steps of the search within an IPv6 bucket: at most 16,777,215 ranges.
pub const SEARCH_STEPS6: u32 = 24;
