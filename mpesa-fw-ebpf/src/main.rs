//! The programs of mpesa-fw that run in the kernel: each parses, decides and reports, and all of the
//! parsing and deciding is in `mpesa-fw-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod attempts;
#[cfg(feature = "bench")]
mod bench;
mod bypass;
mod case;
mod connections;
#[cfg(feature = "bench")]
mod flood;
mod kernel;
mod learn;
mod makers;
mod maps;
mod report;
mod search;
mod sender;
mod tally;
mod trace;
mod twin;

use access::{Connection, NewSocket, SkbFrame, SocketAddress, SocketOption, XdpFrame};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_sock, cgroup_sock_addr, cgroup_sockopt, classifier, sock_ops, xdp},
    programs::{SockAddrContext, SockContext, SockOpsContext, SockoptContext, TcContext, XdpContext},
};
use mpesa_fw_common::{Family, Verdict};

/// Ingress, in front of the network stack.
#[xdp(frags)]
#[inline(always)]
pub fn ingress_xdp(context: XdpContext) -> u32 {
    match case::ingress_xdp(&XdpFrame::new(context.ctx)) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// Ingress where another XDP program owns the interface.
#[classifier]
#[inline(always)]
pub fn ingress_tc(context: TcContext) -> i32 {
    tc_action(case::ingress_tc(&SkbFrame::new(context.skb.skb)))
}

/// Egress.
#[classifier]
#[inline(always)]
pub fn egress_tc(context: TcContext) -> i32 {
    tc_action(case::egress(&SkbFrame::new(context.skb.skb)))
}

/// TCP connections of this host whose handshake is finished. Decides nothing.
#[sock_ops]
#[inline(always)]
pub fn connections(context: SockOpsContext) -> u32 {
    connections::count(&Connection::new(context.ops))
}

/// Options of sockets that would send past egress.
#[cgroup_sockopt(setsockopt)]
#[inline(always)]
pub fn bypass(context: SockoptContext) -> i32 {
    bypass::judge(&SocketOption::new(context.sockopt))
}

/// Sockets that are made. Refuses nothing: of a packet that is dropped it must be known whose it was.
#[cgroup_sock(sock_create)]
#[inline(always)]
pub fn makers(context: SockContext) -> i32 {
    makers::note(&NewSocket::new(context.sock))
}

/// Programs that connect to where no packet may go.
#[cgroup_sock_addr(connect4)]
#[inline(always)]
pub fn connect4(context: SockAddrContext) -> i32 {
    attempts::connect(&SocketAddress::new(context.sock_addr), Family::V4)
}

/// Likewise.
#[cgroup_sock_addr(connect6)]
#[inline(always)]
pub fn connect6(context: SockAddrContext) -> i32 {
    attempts::connect(&SocketAddress::new(context.sock_addr), Family::V6)
}

/// Programs that send datagrams to where none may go.
#[cgroup_sock_addr(sendmsg4)]
#[inline(always)]
pub fn sendmsg4(context: SockAddrContext) -> i32 {
    attempts::send(&SocketAddress::new(context.sock_addr), Family::V4)
}

/// Likewise.
#[cgroup_sock_addr(sendmsg6)]
#[inline(always)]
pub fn sendmsg6(context: SockAddrContext) -> i32 {
    attempts::send(&SocketAddress::new(context.sock_addr), Family::V6)
}

/// Pass is "no opinion": other filters on the hook run too.
const fn tc_action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never linked in: no code path panics, and the verifier refuses a program with one that might.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
