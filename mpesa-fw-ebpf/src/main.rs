//! The programs of mpesa-fw that run in the kernel: each parses, decides and reports, and all of the
//! parsing and deciding is in `mpesa-fw-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod kernel;
mod maps;
mod report;
mod trace;

use access::{Frame, SkbFrame, XdpFrame};
use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use kernel::Kernel;
use mpesa_fw_common::{
    Verdict, decide,
    packet::PacketMeta,
    settings::Direction,
};
use report::report;

/// Ingress, in front of the network stack.
#[xdp(frags)]
pub fn ingress_xdp(context: XdpContext) -> u32 {
    match ingress(&context, &XdpFrame::new(context.ctx)) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// Ingress where another XDP program owns the interface.
#[classifier]
pub fn ingress_tc(context: TcContext) -> i32 {
    tc_action(ingress(&context, &SkbFrame::new(context.skb.skb)))
}

/// Egress.
#[classifier]
pub fn egress_tc(context: TcContext) -> i32 {
    tc_action(egress(&context, &SkbFrame::new(context.skb.skb)))
}

#[inline(always)]
fn ingress<C: EbpfContext, B: Frame>(context: &C, frame: &B) -> Verdict {
    let mut meta = PacketMeta::EMPTY;
    let decision = decide::ingress(&Kernel, &Kernel, frame, &mut meta);
    trace::packet(context, Direction::Ingress, &meta, &decision);
    report(Direction::Ingress, frame.interface(), frame.counted_length(&meta), &meta, &decision)
}

#[inline(always)]
fn egress(context: &TcContext, frame: &SkbFrame) -> Verdict {
    let mut meta = PacketMeta::EMPTY;
    let decision = decide::egress(&Kernel, &Kernel, frame, frame, &mut meta);
    trace::packet(context, Direction::Egress, &meta, &decision);
    report(Direction::Egress, frame.interface(), frame.counted_length(&meta), &meta, &decision)
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
