//! What is known of the socket behind a packet of egress, as far as somebody will ask.

use mpesa_fw_common::{
    decide::Sender, packet::PacketMeta, settings::Direction, state::State as _, tables::Tables as _,
};

use crate::{
    access::SkbFrame,
    kernel::{KERNEL, asks_owners},
};

/// The sender of a frame. Each question is a call that the JIT does not inline.
#[inline(always)]
pub fn of(frame: &SkbFrame, meta: &PacketMeta) -> Sender {
    let socket = frame.socket();
    let is_full = socket.is_some();
    let is_raw = socket.as_ref().is_some_and(|socket| {
        socket.is_packet() || socket.is_raw() && !(may_be_the_kernels(meta) && frame.is_in_root())
    });
    // A SYN-ACK is sent on the listener's behalf: whose it is decides whether it may.
    let matters = Sender::matters(meta) || asks_owners() && meta.accepts_connection();
    if !matters && !asks_owners() {
        return Sender { is_full, is_raw, ..Sender::NONE };
    }
    let mut sender = Sender {
        cookie: frame.cookie(),
        bound_port: socket.map_or(0, |socket| socket.port()),
        is_full,
        is_raw,
        ..Sender::NONE
    };
    if asks_owners() && (matters || is_unsettled(meta, sender.cookie)) {
        sender.owner = frame.owner();
    }
    sender
}

/// Whether the kernel sends such a packet by a raw socket of its own: an answer to a ping, a RST or ACK for a socket that is
/// gone or never was (`tcp_v4_send_reset`).
#[inline(always)]
fn may_be_the_kernels(meta: &PacketMeta) -> bool {
    meta.is_icmp() || meta.is_bare_tcp()
}

/// Whether a packet along an open connection may belong to a flow of which it is not settled whose it is. That of a visitor
/// has a port that no flow ever had.
#[inline(always)]
fn is_unsettled(meta: &PacketMeta, cookie: u64) -> bool {
    let key = meta.flow_key(Direction::Egress);
    KERNEL.may_have_flow(key.local_port)
        && KERNEL
            .flow(&key)
            .is_none_or(|flow| flow.cookie != cookie || flow.generation != KERNEL.generation())
}
