//! Counts who opened connections to which destination, and who was denied.

use mpesa_fw_common::{
    counter::SLOT_EGRESS_NONE,
    decide,
    settings::Direction,
    tables::{RuleIndex, Tables as _},
    tally::{NO_USER, Tallied, Tally, TallyKey},
};

use crate::{
    access::{self, SkbFrame},
    case::Case,
    kernel::{self, KERNEL},
    maps,
};

/// Counts a packet of egress that was judged, if it opened a flow or would have.
#[inline(always)]
pub fn packet(case: &Case, frame: &SkbFrame) {
    if kernel::is_twin() {
        return;
    }
    let opens = decide::opens_flow(&case.meta, &case.sender);
    let Some(what) = Tallied::of(case.decision.reason, case.is_of_flow != 0, opens) else { return };
    let cgroup = frame.cgroup();
    let uid = if cgroup == 0 { NO_USER } else { frame.uid() };
    let _counted = tally(cgroup, uid, row(case.decision.rule), what as u32);
}

/// Counts an attempt that was refused: no packet comes of it.
#[inline(always)]
pub fn refusal(cgroup: u64, uid: u32, row: u32) {
    let _counted = tally(cgroup, uid, row, Tallied::Denied as u32);
}

#[inline(always)]
fn row(rule: RuleIndex) -> u32 {
    KERNEL.rule_info(Direction::Egress, rule).map_or(SLOT_EGRESS_NONE, |info| info.counter_slot)
}

/// A global function, see [`crate::case`]: it has a key and a value on the stack. Returns 1 where it counted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tally(cgroup: u64, uid: u32, row: u32, what: u32) -> u32 {
    const NO_EXIST: u64 = 1; // BPF_NOEXIST
    let key = TallyKey { cgroup, uid, row };
    let mut entry = access::value(maps::TALLIES.get_ptr_mut(key));
    if entry.is_none() {
        let fresh = Tally { opened: 0, denied: 0, last: 0, first: access::exactly_now() };
        // Another CPU may have made it meanwhile, which is as well; or there is no room.
        let _made = maps::TALLIES.insert(key, fresh, NO_EXIST);
        entry = access::value(maps::TALLIES.get_ptr_mut(key));
    }
    if entry.is_none() {
        entry = access::value(maps::TALLIES_REST.get_ptr_mut(row));
    }
    let Some(entry) = entry else { return 0 };
    entry.last = access::now();
    if what == Tallied::Opened as u32 {
        access::add(&mut entry.opened, 1);
    } else {
        access::add(&mut entry.denied, 1);
    }
    1
}
