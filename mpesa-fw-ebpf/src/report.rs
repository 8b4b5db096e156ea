//! What is left of a packet: counts, and for some drops an event.

use mpesa_fw_common::{
    DropReason, PassReason, Reason, Verdict,
    counter::{Counter, CounterBlock, INTERFACES, SLOT_EGRESS_NONE, SLOT_INGRESS_NONE, counter_index},
    event::{CapturedEvent, EVENT_REFILL_SHIFT, Event, EventBucket, Occasion, ProgramEvent, Quota},
    program::SocketKind,
    reason::DROP_REASONS,
    settings::Direction,
    tables::Tables,
};

use crate::{
    access::{self, Source},
    case::Case,
    kernel::KERNEL,
    maps,
};

/// What became of a packet.
pub struct Reported {
    pub verdict: Verdict,
    /// Its event is still to be sent, with the frame: [`send_frame`].
    pub captures: bool,
}

impl Reported {
    /// There is no more to do.
    pub const fn only(verdict: Verdict) -> Self {
        Self { verdict, captures: false }
    }
}

/// Counts a decision, and says what becomes of the packet in this generation's mode.
#[inline(always)]
pub fn report(case: &Case, direction: Direction) -> Reported {
    let Case { decision, interface, length, .. } = case;
    let (interface, length) = (*interface, *length);
    let slot =
        KERNEL.rule_info(direction, decision.rule).map_or(no_rule(direction), |info| info.counter_slot);
    let block = maps::COUNTERS.get_ptr_mut(counter_index(interface_place(interface), slot));
    match decision.reason {
        Reason::Pass(reason) => {
            if let Some(block) = access::value(block) {
                count_pass(block, length, reason, case.meta.opens_connection());
            }
            Reported::only(Verdict::Pass)
        }
        Reason::Drop(reason) => {
            let enforced = !KERNEL.observes();
            if let Some(block) = access::value(block) {
                let counts = if enforced { &mut block.dropped } else { &mut block.would_drop };
                count(&mut counts[access::opaque(reason as u32) as usize & (DROP_REASONS - 1)], length);
            }
            count_near_misses(decision.near_miss);
            let captures = send_event(case, direction, reason, enforced);
            Reported { verdict: if enforced { Verdict::Drop } else { Verdict::Pass }, captures }
        }
    }
}

const fn no_rule(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => SLOT_INGRESS_NONE,
        Direction::Egress => SLOT_EGRESS_NONE,
    }
}

#[inline(always)]
fn count(counter: &mut Counter, length: u32) {
    counter.packets += 1;
    counter.bytes += u64::from(length);
}

#[inline(always)]
fn count_pass(block: &mut CounterBlock, length: u32, reason: PassReason, opens_connection: bool) {
    count(&mut block.passed, length);
    if matches!(reason, PassReason::Service) {
        block.last_passed = access::now();
        block.passed_syns += u64::from(opens_connection);
    }
}

/// The interface's place in the counters. The agent writes it before it attaches; an interface that is in none (it was
/// given a new index this very moment) is counted in the first.
#[inline(always)]
fn interface_place(interface: u32) -> u32 {
    for place in 0..INTERFACES as u32 {
        if maps::INTERFACE_SLOTS.get(place).is_some_and(|slot| slot.index == interface) {
            return place;
        }
    }
    0
}

#[inline(always)]
fn count_near_misses(sets: u64) {
    if sets == 0 {
        return;
    }
    for set in 0..u64::BITS {
        if sets & (1 << set) != 0
            && let Some(count) = access::value(maps::NEAR_MISSES.get_ptr_mut(set))
        {
            *count += 1;
        }
    }
}

/// Sends an event if this CPU may; true: [`send_frame`] is to do it, and for egress asks whether it may: only the frame tells
/// whose it is. Whether somebody captures is asked last: most of a flood does not come here.
#[inline(always)]
fn send_event(case: &Case, direction: Direction, reason: DropReason, enforced: bool) -> bool {
    if matches!(direction, Direction::Egress) {
        return true;
    }
    if !take_token(Quota::Others) {
        return false;
    }
    if captures() {
        return true;
    }
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event(case, reason, enforced));
            entry.submit(0);
        }
        None => count_suppressed(Quota::Others),
    }
    false
}

#[inline(always)]
fn captures() -> bool {
    maps::CAPTURE.get(0).is_some_and(|captures| *captures != 0)
}

/// Sends the event of a packet with what the frame says: who sent it, and its beginning if somebody captures.
#[inline(always)]
pub fn send_frame(case: &Case, direction: Direction, frame: &impl Source) {
    let Reason::Drop(reason) = case.decision.reason else {
        return;
    };
    // Whoever sent it is known of what leaves only.
    let kind = match direction {
        Direction::Ingress => SocketKind::Nobody,
        Direction::Egress => frame.socket_kind(),
    };
    let quota = if matches!(kind, SocketKind::Own) { Quota::Programs } else { Quota::Others };
    if matches!(direction, Direction::Egress) && !take_token(quota) {
        return;
    }
    if !captures() {
        let Some(mut entry) = maps::EVENTS.reserve::<ProgramEvent>(0) else {
            return count_suppressed(quota);
        };
        let told = access::entry(&mut entry);
        told.event = event(case, reason, !KERNEL.observes());
        frame.program(kind, &mut told.program);
        entry.submit(0);
        return;
    }
    let Some(mut entry) = maps::EVENTS.reserve::<CapturedEvent>(0) else {
        return count_suppressed(quota);
    };
    let captured = access::entry(&mut entry);
    captured.event = event(case, reason, !KERNEL.observes());
    frame.program(kind, &mut captured.program);
    captured.event.captured = frame.copy(case.length, &mut captured.bytes);
    entry.submit(0);
}

#[inline(always)]
fn event(case: &Case, reason: DropReason, enforced: bool) -> Event {
    let Case { meta, decision, direction, interface, length, .. } = case;
    Event {
        time: access::exactly_now(),
        source: meta.source,
        target: meta.target,
        interface: *interface,
        generation: KERNEL.generation(),
        length: *length,
        source_port: meta.source_port,
        target_port: if meta.is_icmp() { u16::from(meta.icmp_type) } else { meta.target_port },
        protocol: meta.protocol,
        direction: *direction as u8,
        reason: reason as u8,
        rule: decision.rule.raw(),
        enforced: enforced as u8,
        occasion: Occasion::Packet as u8,
        captured: 0,
    }
}

/// There was no room for it.
#[inline(always)]
pub fn count_suppressed(quota: Quota) {
    if let Some(bucket) = bucket(quota) {
        bucket.suppressed += 1;
    }
}

#[inline(always)]
fn bucket<'a>(quota: Quota) -> Option<&'a mut EventBucket> {
    access::value(maps::EVENT_BUCKETS.get_ptr_mut(quota as u32))
}

/// Whether this CPU may still send an event of that kind in this epoch; counts the ones that it may not.
#[inline(always)]
pub fn take_token(quota: Quota) -> bool {
    let Some(bucket) = bucket(quota) else {
        return false;
    };
    let epoch = access::jiffies() >> EVENT_REFILL_SHIFT;
    if bucket.epoch != epoch {
        bucket.epoch = epoch;
        bucket.spent = 0;
    }
    if bucket.spent >= quota.burst() {
        bucket.suppressed += 1;
        return false;
    }
    bucket.spent += 1;
    true
}
