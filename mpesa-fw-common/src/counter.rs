//! Counts, by interface and rule. Map `COUNTERS`: per CPU, [`COUNTER_BLOCKS`] blocks, pinned.
//!
//! The agent gives each (direction, rule name) a row that it keeps across generations and restarts, so
//! that counts follow the name, and each protected interface a place.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::reason::DROP_REASONS;

/// Interfaces protected at the same time.
pub const INTERFACES: usize = 8;
/// Rows of counters an interface: 64 rules and "no rule" a direction, and room for rules that are gone.
pub const COUNTER_SLOTS: usize = 160;
/// Elements of the map.
pub const COUNTER_BLOCKS: usize = INTERFACES * COUNTER_SLOTS;
/// Row of ingress packets that no rule claims.
pub const SLOT_INGRESS_NONE: u32 = 0;
/// Row of egress packets that no rule claims.
pub const SLOT_EGRESS_NONE: u32 = 1;

/// Packets and their bytes, link header included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes of the frames as the hook sees them.
    pub bytes: u64,
}

/// All counts of one rule on one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CounterBlock {
    /// Passed.
    pub passed: Counter,
    /// Dropped, by the code of the [`DropReason`](crate::DropReason).
    pub dropped: [Counter; DROP_REASONS],
    /// Would have been dropped (observe mode), likewise.
    pub would_drop: [Counter; DROP_REASONS],
    /// Monotonic clock in nanoseconds when a packet last passed; 0: never. Coarse (some milliseconds).
    pub last_passed: u64,
    /// Of `passed`: SYNs without ACK that a service let pass. How many of them became connections, only the kernel's
    /// sockets know ([`ConnectionCount`](crate::connection::ConnectionCount)).
    pub passed_syns: u64,
}

impl CounterBlock {
    /// All zero.
    pub const ZERO: Self = Self {
        passed: Counter { packets: 0, bytes: 0 },
        dropped: [Counter { packets: 0, bytes: 0 }; DROP_REASONS],
        would_drop: [Counter { packets: 0, bytes: 0 }; DROP_REASONS],
        last_passed: 0,
        passed_syns: 0,
    };
}

/// Position of a block.
#[inline(always)]
#[must_use]
pub const fn counter_index(interface: u32, slot: u32) -> u32 {
    interface * COUNTER_SLOTS as u32 + slot
}
