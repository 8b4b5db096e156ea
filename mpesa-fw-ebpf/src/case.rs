//! A packet on its way through a program: parsed in the entry point, judged and reported by functions of their own.
//!
//! Verifier: `judge_ingress`, `judge_egress` and `report_case` are global functions, looked at once each with any facts
//! that parsing may come to (Linux 5.6). In one piece every path of the parser is walked through every path of the
//! decision, which is more than the million steps it has. The case between them lies in a per-CPU map, because three
//! frames with it do not fit on a stack of 512 bytes: the hooks run with bottom halves disabled, so that no other run of
//! the same program can come between on the same CPU.

use mpesa_fw_common::{
    DropReason, Verdict,
    decide::{self, Decision, Sender},
    packet::{PacketMeta, parse},
    settings::Direction,
};

use crate::{
    access::{self, Frame, SkbFrame},
    kernel::Kernel,
    maps, report, trace,
};

/// What is known of a packet, and what was decided.
#[repr(C)]
pub struct Case {
    pub meta: PacketMeta,
    pub sender: Sender,
    pub decision: Decision,
    pub direction: Direction,
    pub interface: u32,
    /// Bytes of the frame.
    pub length: u32,
}

impl Case {
    const EMPTY: Self = Self {
        meta: PacketMeta::EMPTY,
        sender: Sender { cookie: 0, bound_port: 0, is_full: false },
        decision: Decision::drop(DropReason::Internal),
        direction: Direction::Ingress,
        interface: 0,
        length: 0,
    };

    /// In place, in the map.
    #[inline(always)]
    fn read<F: Frame>(&mut self, frame: &F, direction: Direction) {
        parse(frame, &mut self.meta);
        self.direction = direction;
        self.interface = frame.interface();
        self.length = frame.counted_length(&self.meta);
    }
}

/// A frame towards this host: what becomes of it.
#[inline(always)]
pub fn ingress<F: Frame>(frame: &F) -> Verdict {
    let Some(case) = current(Direction::Ingress) else {
        return Verdict::Drop;
    };
    *case = Case::EMPTY;
    case.read(frame, Direction::Ingress);
    verdict(judge_ingress() & report_case(Direction::Ingress as u32))
}

/// A frame from this host: what becomes of it.
#[inline(always)]
pub fn egress(frame: &SkbFrame) -> Verdict {
    let Some(case) = current(Direction::Egress) else {
        return Verdict::Drop;
    };
    *case = Case::EMPTY;
    case.read(frame, Direction::Egress);
    case.sender = frame.sender(&case.meta);
    verdict(judge_egress() & report_case(Direction::Egress as u32))
}

/// The case of this CPU.
#[inline(always)]
pub fn current<'a>(direction: Direction) -> Option<&'a mut Case> {
    access::value(maps::CASES.get_ptr_mut(direction as u32))
}

const PASS: u32 = 1;
const DROP: u32 = 0;

/// Everything but a clear pass is a drop.
#[inline(always)]
const fn verdict(code: u32) -> Verdict {
    if code == PASS { Verdict::Pass } else { Verdict::Drop }
}

/// Returns [`PASS`]: it has judged.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_ingress() -> u32 {
    let Some(case) = current(Direction::Ingress) else {
        return DROP;
    };
    case.decision = decide::ingress(&Kernel, &Kernel, &case.meta);
    PASS
}

/// Returns [`PASS`]: it has judged.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_egress() -> u32 {
    let Some(case) = current(Direction::Egress) else {
        return DROP;
    };
    case.decision = decide::egress(&Kernel, &Kernel, &case.meta, &case.sender);
    PASS
}

/// Counts the decision; [`PASS`] or [`DROP`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_case(direction: u32) -> u32 {
    let Some(case) = access::value(maps::CASES.get_ptr_mut(direction)) else {
        return DROP;
    };
    trace::packet(case);
    match report::report(case) {
        Verdict::Pass => PASS,
        Verdict::Drop => DROP,
    }
}
