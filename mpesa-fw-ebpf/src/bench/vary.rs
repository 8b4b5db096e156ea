//! The packet of a test run, with another address and another number each time.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};

use crate::access::{self, Editable};

/// Elements of `BENCH_PLACES`.
const PLACES: u32 = 1 << 14;

/// What varies, and the random numbers that choose. One element.
#[repr(C)]
struct Orders {
    /// Of the generator; never 0.
    state: u64,
    /// Place of the last packet, where they are taken in turn.
    turn: u64,
    /// 1: the places are taken in turn. 0: one of the first 256, at random.
    in_turn: u64,
    /// Where the address lies in the frame.
    address_at: u64,
    /// 4 or 6.
    family: u64,
    /// Bits of the address that are random: high and low half for IPv6, the first (in its low 32 bits) for IPv4.
    random: [u64; 2],
    /// Where a number of 16 bits lies that varies too, a port or an identification; 0: none does.
    number_at: u64,
    /// Its bits that do not vary, and a mask of those that do; they are those of the address, where both are random.
    number: [u64; 2],
}

/// Bits of an address that are not random.
type Place = [u64; 2];

#[map]
static BENCH_ORDERS: PerCpuArray<Orders> = PerCpuArray::with_max_entries(1, 0);
#[map]
static BENCH_PLACES: Array<Place> = Array::with_max_entries(PLACES, 0);

/// Writes the next address and number into the packet.
#[inline(always)]
pub fn vary<F: Editable>(frame: &mut F) -> Option<()> {
    let orders = access::value(BENCH_ORDERS.get_ptr_mut(0))?;
    let random = next(&mut orders.state);
    let place = if orders.in_turn == 0 {
        (random >> 56) as u32
    } else {
        orders.turn += 1;
        orders.turn as u32 % PLACES
    };
    let [high, low] = access::copied(BENCH_PLACES.get_ptr(place))?;
    if orders.number_at != 0 {
        let [fixed, varied] = orders.number;
        frame.write(orders.number_at as u32, ((fixed | random & varied) as u16).to_be_bytes())?;
    }
    let at = orders.address_at as u32;
    let [random_high, random_low] = orders.random;
    if orders.family == 4 {
        frame.write(at, ((high | random & random_high) as u32).to_be_bytes())
    } else {
        frame.write(at, (high | random & random_high).to_be_bytes())?;
        let random = next(&mut orders.state);
        frame.write(at + 8, (low | random & random_low).to_be_bytes())
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
