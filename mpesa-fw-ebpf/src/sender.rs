//! What is known of the socket behind a packet of egress, as far as somebody will ask.

use mpesa_fw_common::{
    decide::Sender,
    packet::PacketMeta,
    settings::Direction,
    state::{FlowState, State as _},
    tables::Tables as _,
};

use crate::{
    access::SkbFrame,
    case::{self, Case},
    kernel::{KERNEL, asks_owners},
};

/// Reads the sender of a frame into one of whom nothing is known. Each question is a call that the JIT does not inline. (In
/// place, in the map: on the stack of 512 bytes for all calls there is no room for it.)
#[inline(always)]
pub fn read(frame: &SkbFrame, meta: &PacketMeta, sender: &mut Sender) {
    let socket = frame.socket();
    let is_the_kernels =
        may_be_the_kernels(meta) && socket.as_ref().is_some_and(|socket| frame.is_of_the_kernel(socket));
    // Resets and the like: there is no socket any more, or there never was, for which it speaks.
    sender.is_full = socket.is_some() && !(is_the_kernels && meta.is_tcp());
    sender.is_raw =
        !is_the_kernels && socket.as_ref().is_some_and(|socket| socket.is_packet() || socket.is_raw());
    if is_the_kernels {
        return;
    }
    // A SYN-ACK is sent on the listener's behalf: whose it is decides whether it may.
    let matters = Sender::matters(meta) || asks_owners() && meta.accepts_connection();
    if !matters && !asks_owners() {
        return;
    }
    sender.cookie = frame.cookie();
    sender.bound_port = socket.map_or(0, |socket| socket.port());
    if asks_owners() && (matters || is_case_unsettled() == UNSETTLED) {
        frame.read_owner(&mut sender.owner);
    }
    if asks_owners() && meta.accepts_connection() {
        if sender.owner.is_known == 0 {
            frame.read_listener(meta, &mut sender.owner);
        } else {
            frame.note_listener(&sender.owner);
        }
    }
}

/// Whether the kernel sends such a packet by a raw socket of its own: an answer to a ping, a RST or ACK for a socket that is
/// gone or never was (`tcp_v4_send_reset`).
#[inline(always)]
fn may_be_the_kernels(meta: &PacketMeta) -> bool {
    meta.is_icmp() || meta.is_bare_tcp()
}

/// A global function, see [`case`]: whether the packet of the case, which goes along an open connection, may belong to a flow
/// of which it is not settled whose it is. That of a visitor has a port that no flow ever had.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_case_unsettled() -> u32 {
    let Some(Case { meta, sender, .. }) = case::current(Direction::Egress) else { return UNSETTLED };
    let key = meta.flow_key(Direction::Egress);
    let now = KERNEL.now();
    let is_settled = |flow: &mut FlowState| {
        flow.cookie == sender.cookie
            && flow.generation == KERNEL.generation()
            && !flow.is_expired(key.protocol, now)
    };
    if KERNEL.may_have_flow(key.local_port) && !KERNEL.flow(&key).is_some_and(is_settled) {
        UNSETTLED
    } else {
        0
    }
}

const UNSETTLED: u32 = 1;
