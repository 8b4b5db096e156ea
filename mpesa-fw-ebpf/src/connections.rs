//! Counts TCP connections whose handshake is finished, by service and peer. A SYN from an address that a service lists may be
//! anybody's; whoever finishes the handshake can receive there.
//!
//! Kernel: the callback comes when the last ACK of the handshake does (`tcp_rcv_state_process`), with SYN cookies too. With
//! TCP Fast Open it comes with the SYN, whose cookie proves an earlier handshake.

use mpesa_fw_common::{
    Address, Direction, Family,
    connection::{CallerKey, ConnectionCount},
    decide::{Permission, service},
    state::State as _,
    tables::{AddressTable, ClaimIndex, RuleIndex, Tables as _},
};

use crate::{
    access::{self, Connection},
    kernel::{KERNEL, namespace},
    maps,
};

/// What a program at a cgroup answers so that nothing changes. The context's `reply` is left alone too: another program may
/// have set it.
const GO_ON: u32 = 1;

/// Counts it, if it is one of this agent's network namespace that a service allows.
#[inline(always)]
pub fn count(connection: &Connection) -> u32 {
    // Other namespaces have agents of their own, or none.
    if connection.is_accepted() && connection.namespace() == namespace() {
        let (local, remote) = connection.ends();
        count_ends(&local, &remote, connection.local_port());
    }
    GO_ON
}

#[inline(always)]
fn count_ends(local: &Address, remote: &Address, port: u16) {
    if is_loopback(remote) || KERNEL.is_own(remote) {
        return;
    }
    let family = if remote.is_v4() { Family::V4 } else { Family::V6 };
    match service(&KERNEL, family, ClaimIndex::tcp(port), local, remote) {
        Permission::Allowed(rules) => count_service(rules.first(), remote),
        // It came by an interface that is not protected, or was opened under another policy.
        Permission::Denied(..) | Permission::Unclaimed => {}
    }
}

#[inline(always)]
fn count_service(rule: RuleIndex, remote: &Address) {
    let Some(info) = KERNEL.rule_info(Direction::Ingress, rule) else {
        return;
    };
    let now = access::now();
    if let Some(count) = access::value(maps::CONNECTIONS.get_ptr_mut(info.counter_slot)) {
        access::add(&mut count.completed, 1);
        count.last = now;
    }
    let is_open_to_any = KERNEL.outside(AddressTable::Source).0 & (1 << (rule.raw() & 63)) != 0;
    let callers = if is_open_to_any { &maps::STRANGERS } else { &maps::CALLERS };
    let key = CallerKey { source: *remote, slot: info.counter_slot };
    if let Some(known) = access::value(callers.get_ptr_mut(key)) {
        access::add(&mut known.completed, 1);
        known.last = now;
        return;
    }
    // Where it fails, one caller is not listed; the count above has it.
    let _noted = callers.insert(key, ConnectionCount { completed: 1, last: now }, 0);
}

#[inline(always)]
fn is_loopback(address: &Address) -> bool {
    const V6: Address = Address { words: [0, 0, 0, 1] };
    *address == V6 || address.is_v4() && address.v4_bits() >> 24 == 127
}
