//! Completed connections: what a finished handshake proves and a SYN does not.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;

/// Entries of `CALLERS` and of `STRANGERS`, least-recently-used hashes.
pub const CALLERS_CAPACITY: u32 = 1 << 13;

/// Inbound TCP connections of one service whose handshake was finished. Map `CONNECTIONS`,
/// [`COUNTER_SLOTS`](crate::counter::COUNTER_SLOTS) elements: a service has the row that it has in the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ConnectionCount {
    /// How many.
    pub completed: u64,
    /// Monotonic clock of the last one, nanoseconds, coarse; 0: never.
    pub last: u64,
}

/// Who called which service. Key of `CALLERS` (sources that the service lists) and of `STRANGERS` (sources of a service
/// that is open to any: a crowd there displaces no known caller).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CallerKey {
    /// The peer.
    pub source: Address,
    /// Row of the service in the counters.
    pub slot: u32,
}
