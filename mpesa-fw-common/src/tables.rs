//! Lay-out of the tables of a generation, and the one way to look something up in them.
//!
//! Compile turns a policy into **bit vectors**: each dimension (address, protocol and port, local
//! address) maps a packet to the set of rules that it satisfies there. The AND of these sets is the
//! answer and its lowest bit is the rule to charge.

mod address;
mod search;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    owner::{Owner, OwnerKey, OwnerRules, rules_of},
    settings::Direction,
};

pub use address::{
    AddressClass, AddressTable, BUCKETS, Block4, Bucket, ClassId, IDS_PER_BLOCK, INDEX_LEN, Ids6, Levels4,
    MARKS, OUTSIDE_V4, OUTSIDE_V6, RANGES_PER_BLOCK, Range4, SCANNED, SEARCH_STEPS4, SEARCH_STEPS6, Start6,
    Window,
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
    /// Rules of a direction that say `by`.
    fn owned(&self, direction: Direction) -> RuleSet;
    /// Rules that name an owner: an element of `OWNERS`.
    fn owner(&self, key: &OwnerKey) -> Option<OwnerRules>;
    /// Rules of a direction that an owner may use: [`owner::rules_of`](crate::owner::rules_of), which the kernel's implementation
    /// calls as a function that the verifier looks at only once.
    #[inline(always)]
    fn rules_of(&self, direction: Direction, owner: &Owner) -> RuleSet {
        rules_of(self, direction, owner)
    }
    /// Destinations some of whose owners are users.
    fn owned_by_users(&self) -> RuleSet;
    /// Destinations that list name servers: what claims UDP port 53 and says to which addresses.
    fn resolvers(&self) -> RuleSet;
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
