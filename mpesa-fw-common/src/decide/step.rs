//! Which number of the precedence a decision came from.

use super::Decision;
use crate::{
    reason::{DropReason, PassReason, Reason},
    settings::Direction,
};

/// The number, 1 to 8, as in the comments of this module and in `ARCHITECTURE.md`; those of egress are written E1 to E8.
/// `of_flow`: a live flow of the packet was found.
///
/// No part of the decision, which has no time for it: it follows from what the decision says anyhow.
#[must_use]
pub const fn step(direction: Direction, decision: &Decision, of_flow: bool) -> u8 {
    match direction {
        Direction::Ingress => ingress(decision.reason),
        // Who has found a flow is judged by it.
        Direction::Egress if of_flow => 7,
        Direction::Egress => egress(decision),
    }
}

const fn ingress(reason: Reason) -> u8 {
    match reason {
        Reason::Pass(PassReason::LinkLayer) | Reason::Drop(DropReason::UnknownEthertype) => 1,
        Reason::Drop(DropReason::Malformed) => 2,
        Reason::Drop(DropReason::Spoofed) => 3,
        Reason::Pass(PassReason::Control) => 4,
        Reason::Pass(PassReason::Fragment) | Reason::Drop(DropReason::Fragment) => 5,
        Reason::Pass(PassReason::Flow) => 7,
        Reason::Pass(PassReason::Default) | Reason::Drop(DropReason::NoService) => 8,
        Reason::Pass(PassReason::Service | PassReason::ServiceReply | PassReason::Destination)
        | Reason::Drop(
            DropReason::SourceNotAllowed
            | DropReason::RateLimited
            | DropReason::Internal
            | DropReason::DestinationNotAllowed
            | DropReason::NameNotAllowed
            | DropReason::OwnerNotAllowed
            | DropReason::NoDestination
            | DropReason::FlowTableFull,
        ) => 6,
    }
}

const fn egress(decision: &Decision) -> u8 {
    match decision.reason {
        Reason::Pass(PassReason::LinkLayer) | Reason::Drop(DropReason::UnknownEthertype) => 1,
        Reason::Drop(DropReason::Malformed | DropReason::Spoofed) => 2,
        Reason::Pass(PassReason::Control) => 3,
        Reason::Pass(PassReason::Fragment) | Reason::Drop(DropReason::Fragment) => 4,
        Reason::Pass(PassReason::ServiceReply | PassReason::Service) => 5,
        Reason::Pass(PassReason::Flow) => 7,
        Reason::Pass(PassReason::Default)
        | Reason::Drop(DropReason::NoDestination | DropReason::NoService) => 8,
        // What the default lets go opens flows too.
        Reason::Drop(DropReason::FlowTableFull) if decision.rule.index().is_none() => 8,
        Reason::Pass(PassReason::Destination)
        | Reason::Drop(
            DropReason::DestinationNotAllowed
            | DropReason::NameNotAllowed
            | DropReason::OwnerNotAllowed
            | DropReason::FlowTableFull
            | DropReason::SourceNotAllowed
            | DropReason::RateLimited
            | DropReason::Internal,
        ) => 6,
    }
}
