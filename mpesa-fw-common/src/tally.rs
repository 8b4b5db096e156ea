//! Who spoke to whom: connections that were opened and attempts that were denied, by owner and destination.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::reason::{DropReason, PassReason, Reason};

/// Entries of `TALLIES`. It is no least-recently-used hash: nothing is forgotten silently. What finds no room is counted in
/// `TALLIES_REST`, one element a row, without its owner.
pub const TALLIES_CAPACITY: u32 = 1 << 13;

/// A user that nobody knows, because no socket is known (`INVALID_UID`).
pub const NO_USER: u32 = u32::MAX;

/// Key of `TALLIES`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TallyKey {
    /// Id of the cgroup; 0: nobody's, the packet is forwarded or the kernel's.
    pub cgroup: u64,
    /// User of the socket; [`NO_USER`] where the cgroup is nobody's.
    pub uid: u32,
    /// Row of the destination in the counters; that of none, if none claims the packet.
    pub row: u32,
}

/// Value of `TALLIES` and of `TALLIES_REST`. Written by atomic additions; it only grows until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tally {
    /// Packets that opened a flow.
    pub opened: u64,
    /// Packets that would have opened one and were denied (observe mode: would have been), and attempts that were refused.
    pub denied: u64,
    /// Monotonic clock of the last one, nanoseconds, coarse.
    pub last: u64,
    /// Monotonic clock when the entry was made, nanoseconds: tells it from one that was removed. 0 in `TALLIES_REST`.
    pub first: u64,
}

/// What a packet is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Tallied {
    /// It opened a flow.
    Opened = 0,
    /// It would have opened one.
    Denied = 1,
}

impl Tallied {
    /// What a packet of egress counts as; none: it goes along a flow, or no destination had to say of it, or it passed and is none
    /// that opens a flow (`opens`: it would be).
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason, is_of_flow: bool, opens: bool) -> Option<Self> {
        if is_of_flow {
            return None; // observe mode: only the first packet is an attempt
        }
        if matches!(reason, Reason::Pass(PassReason::Destination | PassReason::Default)) {
            return if opens { Some(Self::Opened) } else { None };
        }
        let is_denied = matches!(
            reason,
            Reason::Drop(
                DropReason::DestinationNotAllowed
                    | DropReason::NameNotAllowed
                    | DropReason::OwnerNotAllowed
                    | DropReason::NoDestination
            )
        );
        if is_denied { Some(Self::Denied) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_opens_or_would_open_a_flow_counts() {
        let of = |reason| Tallied::of(reason, false, true);
        assert_eq!(of(Reason::Pass(PassReason::Destination)), Some(Tallied::Opened));
        assert_eq!(of(Reason::Pass(PassReason::Default)), Some(Tallied::Opened));
        assert_eq!(of(Reason::Drop(DropReason::OwnerNotAllowed)), Some(Tallied::Denied));
        for other in [
            Reason::Pass(PassReason::Flow),
            Reason::Pass(PassReason::ServiceReply),
            Reason::Drop(DropReason::Malformed),
            Reason::Drop(DropReason::FlowTableFull),
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
        assert_eq!(Tallied::of(Reason::Drop(DropReason::NoDestination), true, true), None, "along a flow");
        assert_eq!(Tallied::of(Reason::Pass(PassReason::Default), false, false), None, "it opens none");
        let denied = Tallied::of(Reason::Drop(DropReason::NoDestination), false, false);
        assert_eq!(denied, Some(Tallied::Denied), "whatever it is");
    }
}
