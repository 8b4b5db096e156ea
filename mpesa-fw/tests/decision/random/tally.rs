//! What random packets came to.

use mpesa_fw_common::{Direction, DropReason, PassReason, Reason};

/// How often each reason came up: a run that leaves most out shows nothing.
#[derive(Default)]
pub(crate) struct Tally(std::collections::BTreeMap<String, usize>);

impl Tally {
    pub(crate) fn count(&mut self, direction: Direction, reason: Reason) {
        let word = match reason {
            Reason::Pass(reason) => format!("{} pass {}", direction.label(), reason.label()),
            Reason::Drop(reason) => format!("{} drop {}", direction.label(), reason.label()),
        };
        *self.0.entry(word).or_default() += 1;
    }

    /// All reasons that random packets can have.
    pub(crate) fn assert_complete(&self) {
        let ingress_only = [
            DropReason::Spoofed,
            DropReason::SourceNotAllowed,
            DropReason::RateLimited,
            DropReason::NoService,
        ];
        let egress_only =
            [DropReason::DestinationNotAllowed, DropReason::NameNotAllowed, DropReason::NoDestination];
        let never = [DropReason::OwnerNotAllowed, DropReason::FlowTableFull, DropReason::Internal];
        for direction in Direction::ALL {
            let is_ingress = direction == Direction::Ingress;
            let others = if is_ingress { &egress_only[..] } else { &ingress_only[..] };
            let drops =
                DropReason::ALL.iter().filter(|reason| !never.contains(reason) && !others.contains(reason));
            let others = if is_ingress {
                [PassReason::ServiceReply, PassReason::Destination]
            } else {
                [PassReason::Service, PassReason::Service]
            };
            let passes = PassReason::ALL.iter().filter(|reason| !others.contains(reason));
            let wanted = drops
                .map(|reason| format!("{} drop {}", direction.label(), reason.label()))
                .chain(passes.map(|reason| format!("{} pass {}", direction.label(), reason.label())));
            for word in wanted {
                assert!(self.0.contains_key(&word), "no packet was `{word}`: {:?}", self.0);
            }
        }
        println!("{:?}", self.0);
    }
}
