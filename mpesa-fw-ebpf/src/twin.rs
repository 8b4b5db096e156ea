//! What a twin does instead of what leaves a trace. In the programs of a hook the verifier deletes all of it.

use mpesa_fw_common::{
    Reason, Verdict,
    decide::{Found, Sender},
    packet::PacketMeta,
    twin::TwinCase,
};

use crate::{access, case::Case, kernel, maps};

/// Reads the socket that the question names, in the place of the one that a test run does not have, into one of which nothing
/// is known.
#[inline(always)]
pub fn read_sender(meta: &PacketMeta, sender: &mut Sender) {
    if let Some(twin) = current() {
        twin.read_sender(Sender::matters(meta) || kernel::asks_owners(), sender);
    }
}

/// Notes what was found of the packet's flow.
#[inline(always)]
pub fn note_flow(found: Found) {
    if let Some(twin) = current() {
        twin.found = found.code();
    }
}

/// Leaves the decision for whoever asked.
#[inline(always)]
pub fn answer(case: &Case) -> Verdict {
    let Some(twin) = current() else {
        return Verdict::Drop;
    };
    let (drops, reason, verdict) = match case.decision.reason {
        Reason::Pass(reason) => (0, reason as u8, Verdict::Pass),
        Reason::Drop(reason) => (1, reason as u8, Verdict::Drop),
    };
    twin.drops = drops;
    twin.reason = reason;
    twin.rule = case.decision.rule.raw();
    twin.near_miss = case.decision.near_miss;
    twin.judged = 1;
    verdict
}

#[inline(always)]
fn current<'a>() -> Option<&'a mut TwinCase> {
    access::value(maps::TWIN.get_ptr_mut(0))
}
