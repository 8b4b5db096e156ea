//! The programs of mpesa-fw that run in the kernel.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

/// Ingress, in front of the network stack.
#[xdp(frags)]
pub fn ingress_xdp(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Ingress where another XDP program owns the interface.
#[classifier]
pub fn ingress_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Egress.
#[classifier]
pub fn egress_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never linked in: no code path panics, and the linker refuses one that would.
    unsafe { core::hint::unreachable_unchecked() }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
