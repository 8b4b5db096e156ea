//! A packet on its way through a program: parsed, judged, reported.
//!
//! Verifier: in one piece every path of the parser is walked through every path of the decision, which is more than the
//! million steps it has. So the case between them lies in a per-CPU map: it does not know the contents of maps, and where
//! all that it knows is forgotten on the way ([`access::settle`]), it walks on once. (The hooks run with bottom halves
//! disabled, so that no other run of the same program can come between on the same CPU. On the stack of 512 bytes there
//! would be no room either.) At TC judging and reporting are global functions, looked at once each whatever parsing may
//! come to (Linux 5.6), which takes fewer steps still.

use aya_ebpf::bindings::__sk_buff;
use mpesa_fw_common::{
    DropReason, Verdict,
    decide::{self, Decision, Sender},
    packet::{PacketMeta, parse},
    settings::Direction,
};

use crate::{
    access::{self, Frame, Skb, SkbFrame, XdpFrame},
    kernel::{self, FAST, KERNEL},
    learn, maps,
    report::{self, Reported},
    sender, tally, trace, twin,
};

/// What is known of a packet, and what was decided.
#[repr(C)]
pub struct Case {
    pub meta: PacketMeta,
    pub sender: Sender,
    pub decision: Decision,
    pub direction: Direction,
    /// Not 0: a flow was found along which it goes.
    pub is_of_flow: u32,
    pub interface: u32,
    /// Bytes of the frame.
    pub length: u32,
}

impl Case {
    const EMPTY: Self = Self {
        meta: PacketMeta::EMPTY,
        sender: Sender::NONE,
        decision: Decision::drop(DropReason::Internal),
        direction: Direction::Ingress,
        is_of_flow: 0,
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

/// A frame towards this host at XDP: what becomes of it. All in one piece, because what comes here may be a flood: a
/// function costs its return, 5 to 10 ns where returns are guarded (SRSO, retbleed).
#[inline(always)]
pub fn ingress_xdp(frame: &XdpFrame) -> Verdict {
    let Some(case) = current(Direction::Ingress) else {
        return Verdict::Drop;
    };
    *case = Case::EMPTY;
    case.read(frame, Direction::Ingress);
    access::settle();
    case.decision = decide::ingress(&FAST, &FAST, &case.meta);
    access::settle();
    let Reported { verdict, captures } = report(case, Direction::Ingress);
    if captures {
        report::send_frame(case, Direction::Ingress, frame);
    }
    if learn::is_answer(case) {
        learn::learn_xdp(frame.context());
    }
    verdict
}

/// As far as parsing, for the bench.
#[cfg(feature = "bench")]
#[inline(always)]
pub fn parsed<F: Frame>(frame: &F, direction: Direction) -> Option<mpesa_fw_common::packet::Parsed> {
    let case = current(direction)?;
    *case = Case::EMPTY;
    case.read(frame, direction);
    Some(case.meta.parsed)
}

/// A frame towards this host at TC: what becomes of it.
#[inline(always)]
pub fn ingress_tc(frame: &SkbFrame) -> Verdict {
    let Some(case) = current(Direction::Ingress) else {
        return Verdict::Drop;
    };
    *case = Case::EMPTY;
    case.read(frame, Direction::Ingress);
    let verdict = verdict(judge_ingress() & reported(Direction::Ingress, frame));
    if learn::is_answer(case) {
        learn::learn_tc(frame.context());
    }
    verdict
}

/// A frame from this host: what becomes of it.
#[inline(always)]
pub fn egress(frame: &SkbFrame) -> Verdict {
    let Some(case) = current(Direction::Egress) else {
        return Verdict::Drop;
    };
    *case = Case::EMPTY;
    case.read(frame, Direction::Egress);
    if kernel::is_twin() {
        twin::read_sender(&case.meta, &mut case.sender);
    } else {
        sender::read(frame, &case.meta, &mut case.sender);
    }
    let verdict = verdict(judge_egress() & reported(Direction::Egress, frame));
    tally::packet(case, frame);
    verdict
}

/// Counts the decision, and sends the frame where somebody captures; [`PASS`] or [`DROP`].
#[inline(always)]
fn reported(direction: Direction, frame: &SkbFrame) -> u32 {
    let code = report_case(direction as u32);
    if code & CAPTURE != 0 {
        send_frame(frame.context(), direction as u32);
    }
    code & PASS
}

/// The case of this CPU.
#[inline(always)]
pub fn current<'a>(direction: Direction) -> Option<&'a mut Case> {
    access::value(maps::CASES.get_ptr_mut(direction as u32))
}

const PASS: u32 = 1;
const DROP: u32 = 0;
/// With either: the event is to be sent with the frame, which a global function does not have.
const CAPTURE: u32 = 2;

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
    case.decision = decide::ingress(&KERNEL, &KERNEL, &case.meta);
    PASS
}

/// Returns [`PASS`]: it has judged.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn judge_egress() -> u32 {
    let Some(case) = current(Direction::Egress) else {
        return DROP;
    };
    case.decision = decide::egress(&KERNEL, &KERNEL, &case.meta, &case.sender);
    PASS
}

/// Counts the decision; [`PASS`] or [`DROP`], and [`CAPTURE`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_case(direction: u32) -> u32 {
    let Some(case) = access::value(maps::CASES.get_ptr_mut(direction)) else {
        return DROP;
    };
    let Reported { verdict, captures } = report(case, case.direction);
    let code = match verdict {
        Verdict::Pass => PASS,
        Verdict::Drop => DROP,
    };
    if captures { code | CAPTURE } else { code }
}

/// Sends the event of a packet with what its frame says. Returns [`PASS`], which means nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_frame(context: *mut __sk_buff, direction: u32) -> u32 {
    if let Some(case) = access::value(maps::CASES.get_ptr_mut(direction)) {
        report::send_frame(case, case.direction, &Skb(context));
    }
    PASS
}

/// Logs and counts the decision, and says what becomes of the packet.
#[inline(always)]
fn report(case: &Case, direction: Direction) -> Reported {
    if !kernel::is_ordinary() {
        if kernel::is_twin() {
            return Reported::only(twin::answer(case));
        }
        trace::packet(case);
    }
    report::report(case, direction)
}
