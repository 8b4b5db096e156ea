//! Refuses to connect and to send to where the policy permits no packet, so that the program hears of it at once. TC judges all packets
//! all the same: what is not sure here goes on.
//!
//! Kernel: these programs run for the process that connects or sends, and may be preempted: nothing here lies in a map per CPU between
//! two steps. They see sockets of every network namespace.

use mpesa_fw_common::{
    Address, Direction, DropReason, Family, Reason,
    attempt::{Attempt, AttemptKind, Way, WayKey},
    counter::{INTERFACES, SLOT_EGRESS_NONE},
    decide,
    event::{Event, Occasion, ProgramEvent, Quota},
    owner::Owner,
    reason::DROP_REASONS,
    state::State as _,
    tables::{RuleIndex, Tables as _},
};

use aya_ebpf::maps::lpm_trie::Key;

use crate::{
    access::{self, SocketAddress},
    kernel::{KERNEL, asks_owners, namespace},
    maps,
    report::{count_suppressed, take_token},
    tally,
};

/// What a program at a cgroup answers so that the program goes on.
const GO_ON: i32 = 1;
/// And so that it does not: EPERM.
const REFUSE: i32 = 0;

/// A socket is about to be connected.
#[inline(always)]
pub fn connect(address: &SocketAddress, family: Family) -> i32 {
    if is_ours(address) && address.is_tcp() { judge(address, family, AttemptKind::Connect) } else { GO_ON }
}

/// A datagram is about to be sent by a socket that is not connected to there.
#[inline(always)]
pub fn send(address: &SocketAddress, family: Family) -> i32 {
    if is_ours(address) && address.is_udp() { judge(address, family, AttemptKind::Send) } else { GO_ON }
}

/// Whether the socket is of this namespace: others have agents of their own, or none. Notes who uses one that is: what is not refused
/// here egress may drop, and is to know whose it is.
#[inline(always)]
fn is_ours(address: &SocketAddress) -> bool {
    let is_ours = address.namespace() == namespace();
    if is_ours {
        address.note_maker();
    }
    is_ours
}

#[inline(always)]
fn judge(address: &SocketAddress, family: Family, kind: AttemptKind) -> i32 {
    if !is_vouched_for() {
        return GO_ON;
    }
    let (local_port, interface) = address.bound();
    let remote = address.remote(family);
    if way(&remote) != Way::Protected as u32 || interface != 0 && !is_protected(interface) {
        return GO_ON;
    }
    let family = if remote.is_v4() { Family::V4 } else { Family::V6 };
    let attempt = Attempt { kind, family, remote, remote_port: address.remote_port(), local_port };
    let owner = if asks_owners() { address.owner() } else { Owner::UNKNOWN };
    let Some(decision) = decide::attempt(&KERNEL, &KERNEL, &attempt, &owner) else { return GO_ON };
    let Reason::Drop(reason) = decision.reason else { return GO_ON };
    let refused = !KERNEL.observes() && decide::is_certain(reason) && !is_the_kernels();
    report(address, &attempt, reason, decision.rule, refused);
    if refused { REFUSE } else { GO_ON }
}

/// Whether the kernel connects a socket of its own. Some of it (SUNRPC before Linux 6.10) tries again at once, and for ever.
#[inline(always)]
fn is_the_kernels() -> bool {
    let (uid, name) = access::current();
    uid == 0 && name.starts_with(b"kworker/")
}

/// Whether an interface has a place in the counters, and so a hook.
#[inline(always)]
fn is_protected(interface: u32) -> bool {
    (0..INTERFACES as u32)
        .any(|place| maps::INTERFACE_SLOTS.get(place).is_some_and(|slot| slot.index == interface))
}

/// Whether the agent knows by which way packets leave.
#[inline(always)]
fn is_vouched_for() -> bool {
    maps::LEASE.get(0).is_some_and(|lease| KERNEL.now() < lease.until)
}

#[inline(always)]
fn way(remote: &Address) -> u32 {
    let WayKey { length, octets } = WayKey::new(remote, 128);
    maps::WAYS.get(Key::new(length, octets)).map_or(Way::Unsure as u32, |way| *way)
}

#[inline(always)]
fn report(address: &SocketAddress, attempt: &Attempt, reason: DropReason, rule: RuleIndex, refused: bool) {
    let slot = KERNEL.rule_info(Direction::Egress, rule).map_or(SLOT_EGRESS_NONE, |info| info.counter_slot);
    if let Some(counts) = access::value(maps::REFUSALS.get_ptr_mut(slot)) {
        let counts = if refused { &mut counts.refused } else { &mut counts.let_go };
        access::add(&mut counts[access::opaque(reason as u32) as usize & (DROP_REASONS - 1)], 1);
    }
    // One that is let go becomes a packet, and is counted then.
    if refused {
        let (cgroup, uid) = address.sender();
        tally::refusal(cgroup, uid, slot);
    }
    // A bucket apart from that of packets: no flood hides who tries.
    if !take_token(Quota::Attempts) {
        return;
    }
    let Some(mut entry) = maps::EVENTS.reserve::<ProgramEvent>(0) else {
        return count_suppressed(Quota::Attempts);
    };
    let told = access::entry(&mut entry);
    told.event = Event {
        time: access::exactly_now(),
        source: Address::UNSPECIFIED,
        target: attempt.remote,
        interface: 0,
        generation: KERNEL.generation(),
        length: 0,
        source_port: attempt.local_port,
        target_port: attempt.remote_port,
        protocol: attempt.kind.protocol(),
        direction: Direction::Egress as u8,
        reason: reason as u8,
        rule: rule.raw(),
        enforced: refused as u8,
        occasion: Occasion::Attempt as u8,
        captured: 0,
    };
    address.program(&mut told.program);
    entry.submit(0);
}
