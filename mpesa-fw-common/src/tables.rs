//! Lay-out of the tables of a generation, and the one way to look something up in them.
//!
//! Compile turns a policy into **bit vectors**: each dimension (address, protocol and port, local
//! address) maps a packet to the set of rules that it satisfies there. The AND of these sets is the
//! answer and its lowest bit is the rule to charge.

mod search;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    address::Family,
    settings::{Direction, feature},
};

pub use search::{climb4, look_up, scan4, search4, search6};

/// Rules a direction at most: one bit each in a [`RuleSet`].
pub const RULES: usize = 64;

/// A set of rules of one direction; bit n is the n-th in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RuleSet(pub u64);

impl RuleSet {
    /// No rule.
    pub const NONE: Self = Self(0);
    /// Every rule.
    pub const ALL: Self = Self(u64::MAX);

    /// Rules in both.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Rules in either.
    #[inline(always)]
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no rule is in it.
    #[inline(always)]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first rule in file order.
    #[inline(always)]
    #[must_use]
    pub fn first(self) -> RuleIndex {
        RuleIndex::of_lowest_bit(self.0)
    }
}

/// Position of a rule in its direction's file order, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct RuleIndex(u8);

impl RuleIndex {
    /// No rule claims the packet; its counts go under the empty rule label.
    pub const NONE: Self = Self(RULES as u8);

    /// The rule at this position, if there can be one.
    #[must_use]
    pub const fn new(index: u8) -> Option<Self> {
        if index < RULES as u8 { Some(Self(index)) } else { None }
    }

    /// Position in file order; [`RULES`] for none.
    #[inline(always)]
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// Position in file order.
    #[must_use]
    pub const fn index(self) -> Option<usize> {
        if self.0 < RULES as u8 { Some(self.0 as usize) } else { None }
    }

    /// The ones below the lowest bit; all 64 of them where there is no bit, which is [`Self::NONE`].
    ///
    /// Verifier: arithmetic only. Halving with branches gives it 64 paths with a known index each, and whatever comes
    /// behind is walked 64 times. BPF has no instruction that counts trailing zeros, and what the compiler puts in
    /// its place is a table in `.rodata`: the black box keeps it from seeing that this is one.
    #[inline(always)]
    fn of_lowest_bit(bits: u64) -> Self {
        let lowest = core::hint::black_box(bits & bits.wrapping_neg());
        Self(lowest.wrapping_sub(1).count_ones() as u8)
    }
}

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

/// Element of `PORTS[direction]`, by [`ClaimIndex`]: the rules that claim a protocol and port.
/// Maps `INGRESS_CLAIMS` and `EGRESS_CLAIMS`, each of [`CLAIMS_LEN`] elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ClaimIndex(pub u32);

/// Elements of a table of claims.
pub const CLAIMS_LEN: usize = 2 * 65536 + 3 * 256;

impl ClaimIndex {
    /// A TCP port.
    #[inline(always)]
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self(port as u32)
    }
    /// A UDP port.
    #[inline(always)]
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self(65536 + port as u32)
    }
    /// A protocol without ports, by its IANA number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(number: u8) -> Self {
        Self(2 * 65536 + number as u32)
    }
    /// An ICMP type.
    #[inline(always)]
    #[must_use]
    pub const fn icmp(kind: u8) -> Self {
        Self(2 * 65536 + 256 + kind as u32)
    }
    /// An ICMPv6 type.
    #[inline(always)]
    #[must_use]
    pub const fn icmpv6(kind: u8) -> Self {
        Self(2 * 65536 + 512 + kind as u32)
    }
}

/// What the datapath must know of one rule besides its bits. Map `RULE_INFO`, [`RULE_INFO_LEN`] elements,
/// by [`rule_info_index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RuleInfo {
    /// Nanoseconds a token; 0: no limit.
    pub limit_interval: u64,
    /// Nanoseconds that a source may be ahead of its rate: (burst - 1) intervals.
    pub limit_tolerance: u64,
    /// A [`LimitWhat`](crate::limit::LimitWhat).
    pub limit_what: u32,
    /// A [`LimitPer`](crate::limit::LimitPer).
    pub limit_per: u32,
    /// The rule's row in the counters, which follows its name across generations.
    pub counter_slot: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// Elements of `RULE_INFO`: the rules of each direction and its "no rule".
pub const RULE_INFO_LEN: usize = 2 * (RULES + 1);

/// Position of a rule, or of "no rule", in `RULE_INFO`.
#[inline(always)]
#[must_use]
pub const fn rule_info_index(direction: Direction, rule: RuleIndex) -> u32 {
    direction as u32 * (RULES as u32 + 1) + rule.raw() as u32
}

/// DNS names a policy at most. Map `NAME_RULES`: for each name slot the destinations that name it.
pub const NAMES: usize = 256;
/// Names that one address can be the answer to at the same time.
pub const NAMES_PER_ADDRESS: usize = 8;
/// Element of the state map `RESOLVED`: name slots plus one; 0 is an empty place.
pub type ResolvedNames = [u16; NAMES_PER_ADDRESS];

/// Sets with `watch` at most: one bit each in [`AddressClass::watch`].
pub const WATCHED_SETS: usize = 64;

/// What the generation map says of itself. Map `GENERATION`, one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GenerationStamp {
    /// SHA-256 of the policy and its tables.
    pub digest: [u8; 32],
    /// Unix time of loading, seconds.
    pub loaded_at: u64,
    /// The policy's serial plus one; 0: it has none.
    pub serial_plus_one: u64,
    /// Number of the generation.
    pub number: u32,
    /// A [`Mode`](crate::settings::Mode).
    pub mode: u32,
}

/// The tables of one generation, wherever they are kept.
pub trait Tables {
    /// The settings' field [`Settings::features`](crate::settings::Settings).
    fn features(&self) -> u32;
    /// Number of this generation.
    fn generation(&self) -> u32;
    /// Whether the default of a direction is pass.
    fn default_passes(&self, direction: Direction) -> bool;
    /// Whether verdicts are only counted.
    fn observes(&self) -> bool;
    /// Rules that an address outside all prefixes of a table satisfies.
    fn outside(&self, table: AddressTable) -> RuleSet;
    /// Destinations whose `to` holds names only.
    fn names_only(&self) -> RuleSet;
    /// Secret of the limiter's hash.
    fn limit_seed(&self) -> u64;
    /// Window of an IPv6 index.
    fn window(&self, table: AddressTable) -> Window;
    /// Element of `<NAME>4_INDEX`.
    fn index4(&self, table: AddressTable, i: u32) -> Option<Bucket>;
    /// Element of `<NAME>4_RANGES`.
    fn block4(&self, table: AddressTable, i: u32) -> Option<&Block4>;
    /// Element of `<NAME>6_INDEX`.
    fn index6(&self, table: AddressTable, i: u32) -> Option<Bucket>;
    /// Element of `<NAME>6_STARTS`.
    fn start6(&self, table: AddressTable, i: u32) -> Option<Start6>;
    /// One class id of `<NAME>6_IDS`, counted through all blocks.
    fn id6(&self, table: AddressTable, i: u32) -> Option<ClassId>;
    /// Element of `<NAME>_CLASSES`.
    fn class(&self, table: AddressTable, id: ClassId) -> Option<AddressClass>;
    /// Element of the claims of a direction.
    fn claims(&self, direction: Direction, claim: ClaimIndex) -> Option<RuleSet>;
    /// Element of `RULE_INFO`.
    fn rule_info(&self, direction: Direction, rule: RuleIndex) -> Option<RuleInfo>;
    /// Element of `NAME_RULES`.
    fn name_rules(&self, slot: u16) -> Option<RuleSet>;

    /// The class of an IPv4 address in a bucket that has ranges.
    #[inline(always)]
    fn class4(&self, table: AddressTable, bucket: Bucket, bits: u32) -> Option<ClassId> {
        if bucket.count <= SCANNED {
            scan4(self, table, bucket, bits)
        } else {
            climb4(self, table, bucket, bits)
        }
    }

    /// Likewise for IPv6; high and low half of the address.
    #[inline(always)]
    fn class6(&self, table: AddressTable, bucket: Bucket, high: u64, low: u64) -> Option<ClassId> {
        search6(self, table, bucket, high, low)
    }
}
