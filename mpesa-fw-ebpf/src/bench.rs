//! What `cargo xtask bench` rates: the ingress program and the two that it is compared with. Only with feature `bench`,
//! never in the agent's object.
//!
//! `BPF_PROG_TEST_RUN` gives the same packet again and again; each of these programs gives it another source first, so
//! that the searches and the caches meet what a flood would bring.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::{Array, PerCpuArray},
    programs::XdpContext,
};
use mpesa_fw_common::{Verdict, packet::Parsed};

use crate::{
    access::{self, XdpFrame},
    case,
};

/// Elements of `BENCH_PLACES`.
const PLACES: u32 = 256;

/// Where the sources lie, and the random numbers that choose among them. One element.
#[repr(C)]
struct Sources {
    /// Of the generator; never 0.
    state: u64,
    /// Bits that are random: high and low half of an IPv6 address, the first of an IPv4 address (in its low 32 bits).
    random: [u64; 2],
    /// 4 or 6.
    family: u64,
}

/// Bits that are not random, of one place among [`PLACES`].
type Place = [u64; 2];

#[map]
static BENCH_SOURCES: PerCpuArray<Sources> = PerCpuArray::with_max_entries(1, 0);
#[map]
static BENCH_PLACES: Array<Place> = Array::with_max_entries(PLACES, 0);

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
    match vary(&mut frame).and_then(|()| case::parsed(&frame)) {
        Some(Parsed::Ip) => xdp_action::XDP_DROP,
        Some(Parsed::LinkLayer | Parsed::UnknownEthertype | Parsed::Malformed) | None => {
            xdp_action::XDP_ABORTED
        }
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

/// Writes the next source into the packet.
#[inline(always)]
fn vary(frame: &mut XdpFrame) -> Option<()> {
    const SOURCE_V4: u32 = 14 + 12;
    const SOURCE_V6: u32 = 14 + 8;
    let sources = access::value(BENCH_SOURCES.get_ptr_mut(0))?;
    let random = next(&mut sources.state);
    let [high, low] = access::copied(BENCH_PLACES.get_ptr((random >> 56) as u32))?;
    let [random_high, random_low] = sources.random;
    if sources.family == 4 {
        let source = (high | random & random_high) as u32;
        frame.write(SOURCE_V4, source.to_be_bytes())
    } else {
        frame.write(SOURCE_V6, (high | random & random_high).to_be_bytes())?;
        let random = next(&mut sources.state);
        frame.write(SOURCE_V6 + 8, (low | random & random_low).to_be_bytes())
    }
}

/// Marsaglia's xorshift (2003), 64 bits.
#[inline(always)]
fn next(state: &mut u64) -> u64 {
    let mut x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    x
}
