//! What `cargo xtask bench` rates: the programs, and those that they are compared with. Only with feature `bench`, never in
//! the agent's object.
//!
//! `BPF_PROG_TEST_RUN` gives the same packet again and again; each of these programs gives it another address first, so
//! that the searches and the caches meet what a flood would bring.

mod search;
mod vary;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use mpesa_fw_common::{Direction, Verdict, packet::Parsed};

use crate::{
    access::{Frame, SkbFrame, XdpFrame},
    case, tc_action,
};
use vary::vary;

/// The least that a program can do.
#[xdp(frags)]
#[inline(always)]
pub fn bench_bare(context: XdpContext) -> u32 {
    match vary(&mut XdpFrame::new(context.ctx)) {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Parses as the ingress program does, and drops.
#[xdp(frags)]
#[inline(always)]
pub fn bench_parse(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context.ctx);
    match vary(&mut frame).and_then(|()| ip(&frame, Direction::Ingress)) {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

/// `ingress_xdp`.
#[xdp(frags)]
#[inline(always)]
pub fn bench_ingress(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(context.ctx);
    if vary(&mut frame).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    match case::ingress_xdp(&frame) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// The least that a program can do at TC.
#[classifier]
#[inline(always)]
pub fn bench_bare_tc(context: TcContext) -> i32 {
    match vary(&mut SkbFrame::new(context.skb.skb)) {
        Some(()) => tc_action(Verdict::Pass),
        None => TC_ACT_SHOT,
    }
}

/// Parses as the egress program does, and passes.
#[classifier]
#[inline(always)]
pub fn bench_parse_tc(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(context.skb.skb);
    match vary(&mut frame).and_then(|()| ip(&frame, Direction::Egress)) {
        Some(()) => tc_action(Verdict::Pass),
        None => TC_ACT_SHOT,
    }
}

/// `egress_tc`.
#[classifier]
#[inline(always)]
pub fn bench_egress(context: TcContext) -> i32 {
    let mut frame = SkbFrame::new(context.skb.skb);
    if vary(&mut frame).is_none() {
        return TC_ACT_SHOT;
    }
    tc_action(case::egress(&frame))
}

/// Parses; none where it is not IP.
#[inline(always)]
fn ip<F: Frame>(frame: &F, direction: Direction) -> Option<()> {
    match case::parsed(frame, direction)? {
        Parsed::Ip => Some(()),
        Parsed::LinkLayer | Parsed::UnknownEthertype | Parsed::Malformed => None,
    }
}
