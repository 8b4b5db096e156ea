//! Facts become a decision. The numbers in the comments are those of the precedence list in
//! `ARCHITECTURE.md`: 1 to 8 for ingress, E1 to E8 for egress; the first that matches wins.

mod attempt;
mod control;
mod egress;
mod flow;
mod ingress;
mod permission;
mod step;

pub use attempt::{attempt, is_certain};
pub use egress::egress;
pub use flow::{Found, find_flow, opens_flow};
pub use ingress::ingress;
pub use permission::{Permission, destination, flow_permission, is_resolver, service};
pub use step::step;

use crate::{
    owner::Owner,
    packet::PacketMeta,
    reason::{DropReason, PassReason, Reason},
    settings::Verdict,
    tables::RuleIndex,
};

/// What becomes of a packet, why, and which rule is charged for it. The verdict is what the policy says; whether it
/// is carried out is a matter of the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Why.
    pub reason: Reason,
    /// The rule to charge, of the direction in which the packet goes.
    pub rule: RuleIndex,
    /// Sets that watch the source of a denied packet.
    pub near_miss: u64,
}

impl Decision {
    /// A pass that no rule is charged for.
    #[inline(always)]
    pub const fn pass(reason: PassReason) -> Self {
        Self::pass_by(reason, RuleIndex::NONE)
    }

    /// A pass charged to a rule.
    #[inline(always)]
    pub const fn pass_by(reason: PassReason, rule: RuleIndex) -> Self {
        Self { reason: Reason::Pass(reason), rule, near_miss: 0 }
    }

    /// A drop that no rule is charged for.
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self::drop_by(reason, RuleIndex::NONE)
    }

    /// A drop charged to a rule.
    #[inline(always)]
    pub const fn drop_by(reason: DropReason, rule: RuleIndex) -> Self {
        Self { reason: Reason::Drop(reason), rule, near_miss: 0 }
    }

    /// Pass or drop; it follows from the reason.
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        match self.reason {
            Reason::Pass(_) => Verdict::Pass,
            Reason::Drop(_) => Verdict::Drop,
        }
    }
}

/// What is known of the socket behind a packet of egress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sender {
    /// Its cookie; 0: none.
    pub cookie: u64,
    /// Whose it is.
    pub owner: Owner,
    /// The port it is bound to; 0: none.
    pub bound_port: u16,
    /// Whether there is one that a program may hold: not the remains of a connection (TIME_WAIT), not a half-open one,
    /// not none (the kernel itself, or forwarded).
    pub is_full: bool,
    /// Whether it is a raw socket or a packet socket of a program: what looks like an answer of a service from there is made
    /// up. (The kernel answers pings by a raw socket too, which is in the root of the cgroups.)
    pub is_raw: bool,
}

impl Sender {
    /// There is none.
    pub const NONE: Self =
        Self { cookie: 0, owner: Owner::UNKNOWN, bound_port: 0, is_full: false, is_raw: false };

    /// Whether more is asked of the sender of such a packet than whether it is full: of what a program sends along an
    /// open connection it is not.
    #[inline(always)]
    #[must_use]
    pub const fn matters(meta: &PacketMeta) -> bool {
        !meta.is_tcp() || meta.opens_connection() || meta.is_bare_tcp()
    }
}
