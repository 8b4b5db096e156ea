//! The search for a source alone: in the ranges of the tables, and in a trie of the kernel that holds the same prefixes.

use aya_ebpf::{
    bindings::xdp_action,
    macros::{map, xdp},
    maps::{LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::XdpContext,
};
use mpesa_fw_common::{
    Direction,
    address::Family,
    packet::PacketMeta,
    tables::{AddressTable, look_up},
};

use super::{ip, vary::vary};
use crate::{
    access::{self, XdpFrame},
    case,
    kernel::FAST,
};

/// The bench makes them in the size that the set needs.
#[map]
static BENCH_TRIE4: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static BENCH_TRIE6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
/// Sources that were in the set: by the ranges, by the trie.
#[map]
static BENCH_FOUND: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

const RANGES: u32 = 0;
const TRIE: u32 = 1;

/// Parses, looks the source up in the ranges, and drops.
#[xdp(frags)]
#[inline(always)]
pub fn bench_ranges(context: XdpContext) -> u32 {
    answer(parsed(&context).and_then(|meta| {
        let class = look_up(&FAST, AddressTable::Source, meta.family, &meta.source)?;
        count(RANGES, !class.rules.is_empty())
    }))
}

/// Parses, looks the source up in the trie of its family, and drops.
#[xdp(frags)]
#[inline(always)]
pub fn bench_trie(context: XdpContext) -> u32 {
    answer(parsed(&context).and_then(|meta| {
        let [a, b, c, d] = meta.source.words.map(u32::to_be_bytes);
        let found = match meta.family {
            Family::V4 => BENCH_TRIE4.get(Key::new(32, d)).is_some(),
            Family::V6 => {
                let octets = [
                    a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
                    d[3],
                ];
                BENCH_TRIE6.get(Key::new(128, octets)).is_some()
            }
        };
        count(TRIE, found)
    }))
}

/// The next packet.
#[inline(always)]
fn parsed<'a>(context: &XdpContext) -> Option<&'a PacketMeta> {
    let mut frame = XdpFrame::new(context.ctx);
    vary(&mut frame)?;
    ip(&frame, Direction::Ingress)?;
    access::settle();
    Some(&case::current(Direction::Ingress)?.meta)
}

#[inline(always)]
fn count(by: u32, found: bool) -> Option<()> {
    if found {
        *access::value(BENCH_FOUND.get_ptr_mut(by))? += 1;
    }
    Some(())
}

#[inline(always)]
const fn answer(done: Option<()>) -> u32 {
    match done {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}
