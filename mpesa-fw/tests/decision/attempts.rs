//! What a program is told when it connects or sends, beside what becomes of the packet that it leads to.

use mpesa_fw_common::{
    Direction, DropReason, PassReason, Reason,
    attempt::{Attempt, AttemptKind},
    decide::{self, Sender},
    packet::{FragmentKind, PacketMeta, Parsed},
};

use crate::{
    case::{Expected, Rules},
    host::{self, Frame, HostState},
};

/// Where what is said of the attempt contradicts what the oracle says of the packet.
pub(crate) fn contradiction(
    rules: &Rules,
    state: &HostState,
    frame: &Frame,
    sender: &Sender,
    said: &Expected,
) -> Option<String> {
    let meta = host::facts(frame);
    let attempt = attempt_of(&meta)?;
    let is_owned = rules.compiled.settings.owned[Direction::Egress as usize] != 0;
    // Whoever attempts is known; such packets come from elsewhere.
    if is_owned && sender.owner.is_known == 0 || sender.is_raw {
        return None;
    }
    let judged = decide::attempt(&rules.compiled, state, &attempt, &sender.owner);
    let told = judged.map(|decision| rules.explain(Direction::Egress, &decision));
    let is_consistent = match &told {
        // TCP is always told, but where a rule names a user: who made the socket may be another.
        None => attempt.kind != AttemptKind::ConnectTcp || says_owner(said) || !drops(said),
        Some(told) if drops(told) => {
            // A datagram along a flow whose destination is permitted no more passes until that is noticed.
            let is_of_flow = matches!(said.reason, Reason::Pass(PassReason::Flow));
            told == said || attempt.kind == AttemptKind::SendUdp && (is_of_flow || observed(rules, said))
        }
        Some(_) => !drops(said) || matches!(said.reason, Reason::Drop(DropReason::FlowTableFull)),
    };
    (!is_consistent).then(|| format!("told {told:?} of the attempt, the oracle says {said:?} of the packet"))
}

fn attempt_of(meta: &PacketMeta) -> Option<Attempt> {
    let kind = match () {
        () if meta.parsed != Parsed::Ip || !matches!(meta.fragment, FragmentKind::Whole) => return None,
        () if meta.is_tcp() && meta.opens_connection() => AttemptKind::ConnectTcp,
        () if meta.is_udp() => AttemptKind::SendUdp,
        () => return None,
    };
    Some(Attempt {
        kind,
        family: meta.family,
        remote: meta.target,
        remote_port: meta.target_port,
        local_port: meta.source_port,
    })
}

fn drops(expected: &Expected) -> bool {
    matches!(expected.reason, Reason::Drop(_))
}

fn says_owner(expected: &Expected) -> bool {
    matches!(expected.reason, Reason::Drop(DropReason::OwnerNotAllowed))
}

/// In observe mode a flow keeps what it was charged with.
fn observed(rules: &Rules, said: &Expected) -> bool {
    drops(said) && rules.compiled.settings.mode == mpesa_fw_common::Mode::Observe as u32
}
