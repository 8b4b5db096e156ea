//! Learns from an answer of a resolver before the program that asked has it.
//!
//! Verifier: the message lies in a per-CPU map, and so does how far it is read: where either is on the stack, the loops
//! are walked to their last turn. By `bpf_loop` (Linux 5.17) each step is looked at once.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, xdp_md},
    helpers::generated::bpf_loop,
};
use mpesa_fw_common::{
    Address, PassReason, Reason,
    decide::is_resolver,
    dns::{
        self, LearnOutcome, Learnt, LearntName, NAME_ROOM, Next, Noted, RECORD_STEPS, Reading, Record,
        SLOTS_PER_NAME, WILDCARD,
    },
    packet::FragmentKind,
    settings::{Direction, feature},
    tables::Tables as _,
};

use crate::{
    access::{self, Message},
    case::{self, Case},
    kernel::{self, KERNEL},
    maps,
};

/// Octets of a UDP header.
const UDP_HEADER: u32 = 8;

/// Whether the packet is what a name server sends that a destination lists, to a question that this host asked.
#[inline(always)]
pub fn is_answer(case: &Case) -> bool {
    may_be_answer(case) && is_from_resolver() == LISTED
}

#[inline(always)]
fn may_be_answer(case: &Case) -> bool {
    if KERNEL.features() & feature::NAMES == 0 || kernel::is_twin() {
        return false;
    }
    let meta = &case.meta;
    meta.source_port == dns::PORT
        && meta.is_udp()
        && matches!(case.decision.reason, Reason::Pass(PassReason::Flow))
        && matches!(meta.fragment, FragmentKind::Whole | FragmentKind::First)
}

/// A global function, see [`case`]: learns from the case that was judged, whose frame this is.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn_xdp(context: *mut xdp_md) -> u32 {
    learn(&Message::OfXdp(context))
}

/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn learn_tc(context: *mut __sk_buff) -> u32 {
    learn(&Message::OfTc(context))
}

/// A global function too: whether a destination lists the sender of the case as a name server; [`LISTED`], or not.
///
/// Verifier: apart from [`learn`], whose stack would be on top of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_from_resolver() -> u32 {
    let is_listed = case::current(Direction::Ingress)
        .is_some_and(|case| is_resolver(&KERNEL, case.meta.family, &case.meta.source));
    if is_listed { LISTED } else { 0 }
}

pub const LISTED: u32 = 1;

/// Answers nothing.
#[inline(always)]
fn learn(message: &Message) -> u32 {
    let (Some(case), Some(reading)) =
        (case::current(Direction::Ingress), access::value(maps::READINGS.get_ptr_mut(0)))
    else {
        return 0;
    };
    let meta = &case.meta;
    let begin = meta.transport_offset + UDP_HEADER;
    let length = message.copy(begin, meta.end.wrapping_sub(begin), &mut reading.message);
    if !reading.begin(length) {
        count(LearnOutcome::Unreadable);
        return 0;
    }
    each(NAME_ROOM as u32, step_name, reading);
    let Some(key) = reading.end_name() else {
        count(LearnOutcome::Unreadable);
        return 0;
    };
    reading.answered.time = access::now();
    match access::trie_value(&maps::ASKED_NAMES, reading.answered.name.room(), key) {
        Some(slots) => {
            reading.slots = slots;
            count(LearnOutcome::Answer);
        }
        // Of no rule: its addresses are noted, for whoever asks later why a packet to them was dropped.
        None => reading.slots = [0; SLOTS_PER_NAME],
    }
    each(RECORD_STEPS, step_record, reading);
    0
}

/// What a step is given: a pointer to the stack, where the verifier knows what the pointer in it is.
struct Given<'r> {
    reading: &'r mut Reading,
}

const GO_ON: i64 = 0;
const STOP: i64 = 1;

type Step = extern "C" fn(u32, &mut Given<'_>) -> i64;

/// Steps until one says [`STOP`], `most` times at most.
#[inline(always)]
fn each(most: u32, step: Step, reading: &mut Reading) {
    let mut given = Given { reading };
    let context = (&raw mut given).cast::<c_void>();
    // SAFETY: the kernel calls `step` with `context`, which lives until it returns.
    unsafe { bpf_loop(most, step as *mut c_void, context, 0) };
}

#[inline(never)]
extern "C" fn step_name(_: u32, given: &mut Given<'_>) -> i64 {
    match given.reading.step_name() {
        Next::Step => GO_ON,
        Next::Done | Next::Stop => STOP,
    }
}

#[inline(never)]
extern "C" fn step_record(_: u32, given: &mut Given<'_>) -> i64 {
    match given.reading.step_record() {
        Record::Step => GO_ON,
        Record::Address(ttl) => {
            note(given.reading, ttl);
            GO_ON
        }
        Record::End => STOP,
    }
}

/// Notes an address: with the name that was asked for, and for each of the names of the policy that it is.
#[inline(always)]
fn note(reading: &mut Reading, ttl: u32) {
    if !reading.address.is_host() {
        return;
    }
    let may_note = reading.may_note();
    let Reading { slots, fresh, address, answered, .. } = reading;
    let (address, answered) = (&*address, &*answered);
    if may_note {
        match access::value(maps::ANSWERED.get_ptr_mut(address)) {
            Some(known) if known.is_same(answered) => known.time = answered.time,
            Some(_) | None => {
                // Where there is no room, a packet to there is told without its name.
                let _noted = maps::ANSWERED.insert(address, answered, 0);
            }
        }
    }
    let now = access::now();
    let until = dns::until(now, ttl);
    for named in slots {
        if *named != 0 {
            note_name(fresh, address, *named, until, now);
        }
    }
}

#[inline(always)]
fn note_name(fresh: &mut Learnt, address: &Address, named: u16, until: u32, now: u64) {
    let slot = (named & !WILDCARD) - 1;
    let may_add = || {
        access::value(maps::NAME_BUDGETS.get_ptr_mut(u32::from(slot)))
            .is_some_and(|budget| budget.take(named, now))
    };
    let noted = match access::value(maps::LEARNT.get_ptr_mut(address)) {
        Some(learnt) => dns::note(learnt, slot, until, dns::tick(now), may_add),
        None if may_add() => {
            fresh[0] = LearntName::new(slot, until); // all others stay empty
            let fresh: &Learnt = fresh;
            match maps::LEARNT.insert(address, fresh, BPF_NOEXIST.into()) {
                Ok(()) => Noted::New,
                // Another CPU was first; or there is no room.
                Err(_) => access::value(maps::LEARNT.get_ptr_mut(address))
                    .map_or(Noted::NoRoom, |learnt| dns::note(learnt, slot, until, dns::tick(now), || true)),
            }
        }
        None => Noted::NoRoom,
    };
    match noted {
        Noted::Known => {}
        Noted::New => count(LearnOutcome::Address),
        Noted::NoRoom => count(LearnOutcome::Refused),
    }
}

#[inline(always)]
fn count(outcome: LearnOutcome) {
    if let Some(counts) = access::value(maps::LEARNING.get_ptr_mut(0)) {
        counts.outcomes[outcome as usize] += 1;
    }
}
