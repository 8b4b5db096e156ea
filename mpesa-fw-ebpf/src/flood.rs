//! The generator of `cargo xtask bench`: run with `BPF_F_TEST_XDP_LIVE_FRAMES` on the far side of a link, it sends the same
//! frame again and again, each with another source and, if told so, port or identification. Only with feature `bench`.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};

use crate::access::{self, Editable as _, XdpFrame};

/// Elements of `FLOOD_PLACES`.
const PLACES: u32 = 256;
/// Elements of `FLOOD_ALLOWED`.
const ALLOWED: u32 = 16;

// Where the varied fields of an IPv4 frame without options and tags are.
const IDENTIFICATION: u32 = 14 + 4;
const HEADER_CHECKSUM: u32 = 14 + 10;
const SOURCE: u32 = 14 + 12;
const SOURCE_PORT: u32 = 14 + 20;
const TCP_CHECKSUM: u32 = 14 + 20 + 16;

// Bits of `Orders::vary`.
const VARY_PORT: u64 = 1;
const VARY_IDENTIFICATION: u64 = 2;
const SUM_TCP: u64 = 4;

/// What to send. One element.
#[repr(C)]
struct Orders {
    /// Nanoseconds from packet to packet; 0: as fast as it goes.
    interval: u64,
    /// Nanoseconds of delay that are made up for, at most: bounds the bursts.
    arrears: u64,
    /// Every so many packets one has its source from `FLOOD_ALLOWED`; 0: none has.
    share: u64,
    /// Bits of the other sources that are random; the rest is from `FLOOD_PLACES`.
    random: u64,
    /// `VARY_…`, `SUM_TCP`.
    vary: u64,
    /// Sums (RFC 1071, not folded) over the header and over pseudo header and segment, with zeros in what is varied and in
    /// the checksums themselves.
    header_sum: u64,
    segment_sum: u64,
}

/// What was sent. One element.
#[repr(C)]
struct Progress {
    /// Of the random numbers; never 0.
    state: u64,
    /// When the next packet is due.
    due: u64,
    /// Packets until the next one from an allowed source.
    turn: u64,
    /// Packets sent with any source, and with an allowed one.
    sent: [u64; 2],
}

#[map]
static FLOOD_ORDERS: Array<Orders> = Array::with_max_entries(1, 0);
#[map]
static FLOOD_PROGRESS: Array<Progress> = Array::with_max_entries(1, 0);
#[map]
static FLOOD_PLACES: Array<u32> = Array::with_max_entries(PLACES, 0);
#[map]
static FLOOD_ALLOWED: Array<u32> = Array::with_max_entries(ALLOWED, 0);

/// The receiver's side of a comparison: the least that a program can do.
#[xdp]
#[inline(always)]
pub fn bench_drop(_: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Sends the frame back out of the interface it is said to have come in by, or, where none is due, does not.
#[xdp]
#[inline(always)]
pub fn bench_flood(context: XdpContext) -> u32 {
    match next_packet(&mut XdpFrame::new(context.ctx)) {
        Some(true) => xdp_action::XDP_TX,
        Some(false) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Makes the next packet of the frame. False: none is due.
#[inline(always)]
fn next_packet(frame: &mut XdpFrame) -> Option<bool> {
    let orders = access::value(FLOOD_ORDERS.get_ptr_mut(0))?;
    let progress = access::value(FLOOD_PROGRESS.get_ptr_mut(0))?;
    if orders.interval != 0 && !is_due(orders, progress) {
        return Some(false);
    }
    let random = progress.random();
    let (source, allowed) = source(orders, progress, random)?;
    let mut header_sum = orders.header_sum + words(source);
    let mut segment_sum = orders.segment_sum + words(source);
    frame.write(SOURCE, source.to_be_bytes())?;
    let random = progress.random();
    if orders.vary & VARY_PORT != 0 {
        let port = (random >> 48) as u16 | 1024;
        segment_sum += u64::from(port);
        frame.write(SOURCE_PORT, port.to_be_bytes())?;
    }
    if orders.vary & VARY_IDENTIFICATION != 0 {
        let id = (random >> 32) as u16;
        header_sum += u64::from(id);
        frame.write(IDENTIFICATION, id.to_be_bytes())?;
    }
    frame.write(HEADER_CHECKSUM, folded(header_sum).to_be_bytes())?;
    if orders.vary & SUM_TCP != 0 {
        frame.write(TCP_CHECKSUM, folded(segment_sum).to_be_bytes())?;
    }
    progress.sent[allowed as usize & 1] += 1;
    Some(true)
}

/// Whether the time has come; then the next packet is due an interval later.
#[inline(always)]
fn is_due(orders: &Orders, progress: &mut Progress) -> bool {
    let now = access::exactly_now();
    if now < progress.due {
        return false;
    }
    if now - progress.due > orders.arrears {
        progress.due = now - orders.arrears;
    }
    progress.due += orders.interval;
    true
}

/// The next source, and whether it is an allowed one.
#[inline(always)]
fn source(orders: &Orders, progress: &mut Progress, random: u64) -> Option<(u32, bool)> {
    let place = (random >> 56) as u32;
    if orders.share != 0 {
        progress.turn += 1;
        if progress.turn >= orders.share {
            progress.turn = 0;
            return Some((access::copied(FLOOD_ALLOWED.get_ptr(place % ALLOWED))?, true));
        }
    }
    let fixed = access::copied(FLOOD_PLACES.get_ptr(place))?;
    Some((fixed | random as u32 & orders.random as u32, false))
}

impl Progress {
    /// Marsaglia's xorshift (2003), 64 bits.
    #[inline(always)]
    fn random(&mut self) -> u64 {
        let mut x = self.state;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state = x;
        x
    }
}

/// An address in a sum of 16-bit words.
#[inline(always)]
const fn words(address: u32) -> u64 {
    (address >> 16) as u64 + (address & 0xffff) as u64
}

/// The checksum of a sum.
#[inline(always)]
const fn folded(sum: u64) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}
