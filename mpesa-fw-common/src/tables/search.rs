//! How an address finds its class.

use super::{
    AddressClass, AddressTable, Block4, Bucket, ClassId, Levels4, RANGES_PER_BLOCK, SCANNED, SEARCH_STEPS4,
    SEARCH_STEPS6, Tables,
};
use crate::address::{Address, Family};

/// The class of an address. None only where a table is not what compile makes: the caller fails closed.
#[inline(always)]
pub fn look_up<T: Tables>(
    tables: &T,
    table: AddressTable,
    family: Family,
    address: &Address,
) -> Option<AddressClass> {
    let outside = AddressClass { rules: tables.outside(table), watch: 0 };
    if tables.features() & table.feature(family) == 0 {
        return Some(outside);
    }
    let sparse = tables.features() & table.sparse(family) != 0;
    let id = match family {
        Family::V4 => {
            let bits = address.v4_bits();
            let i = bits >> 16;
            if sparse && !tables.index4(table, Bucket::place_of_mark(i))?.has_mark(i) {
                return Some(outside);
            }
            let bucket = tables.index4(table, i)?;
            if bucket.count == 0 { bucket.begin as ClassId } else { tables.class4(table, bucket, bits)? }
        }
        Family::V6 => {
            let (high, low) = address.halves();
            let Some(i) = tables.window(table).bucket(high, low) else {
                return Some(outside);
            };
            if sparse && !tables.index6(table, Bucket::place_of_mark(i))?.has_mark(i) {
                return Some(outside);
            }
            let bucket = tables.index6(table, i)?;
            if bucket.count == 0 {
                bucket.begin as ClassId
            } else {
                tables.class6(table, bucket, high, low)?
            }
        }
    };
    tables.class(table, id)
}

/// Searches the ranges of a bucket for an IPv4 address in it: the smallest way. [`scan4`] and [`climb4`] are quicker.
#[inline(always)]
pub fn search4<T: Tables + ?Sized>(
    tables: &T,
    table: AddressTable,
    bucket: Bucket,
    bits: u32,
) -> Option<ClassId> {
    const EACH: u32 = RANGES_PER_BLOCK as u32;
    let range = |i: u32| Some(tables.block4(table, i / EACH)?[(i % EACH) as usize]);
    // The last range that starts at or before the address: it lies in base .. base + len throughout.
    let key = (bits << 16) | 0xffff;
    let (mut base, mut len) = (bucket.begin, bucket.count);
    for _ in 0..SEARCH_STEPS4 {
        if len <= 1 {
            break;
        }
        let half = len >> 1;
        if range(base.wrapping_add(half))?.0 <= key {
            base = base.wrapping_add(half);
        }
        len -= half;
    }
    Some(range(base)?.class())
}

/// Looks at up to [`SCANNED`] ranges, all of them.
#[inline(always)]
pub fn scan4<T: Tables + ?Sized>(
    tables: &T,
    table: AddressTable,
    bucket: Bucket,
    bits: u32,
) -> Option<ClassId> {
    const EACH: u32 = RANGES_PER_BLOCK as u32;
    let key = (bits << 16) | 0xffff;
    let (block, skipped) = (bucket.begin / EACH, bucket.begin % EACH);
    // One bit a range: whether it starts at or before the address.
    let mut not_behind = 0u64;
    for i in 0..SCANNED / EACH {
        if i * EACH >= skipped + bucket.count {
            break;
        }
        let ranges = tables.block4(table, block.wrapping_add(i))?;
        let bits = (0..EACH).zip(ranges).fold(0u64, |bits, (n, range)| bits | at_most(range.0, key) << n);
        not_behind |= bits << (i * EACH);
    }
    let mine = u64::MAX >> (SCANNED.wrapping_sub(bucket.count) % SCANNED);
    let before = ((not_behind >> skipped) & mine).count_ones();
    let last = bucket.begin.wrapping_add(before).wrapping_sub(1);
    Some(tables.block4(table, last / EACH)?[(last % EACH) as usize].class())
}

/// Goes down the tree of a bucket with more than [`SCANNED`] ranges.
#[inline(always)]
pub fn climb4<T: Tables + ?Sized>(
    tables: &T,
    table: AddressTable,
    bucket: Bucket,
    bits: u32,
) -> Option<ClassId> {
    let key = (bits << 16) | 0xffff;
    let begin = bucket.begin / RANGES_PER_BLOCK as u32;
    let Levels4 { nodes: [leaves, second, third, _] } = Levels4::of(bucket.count);
    let mut node = 0;
    let mut level = begin.wrapping_add(leaves).wrapping_add(second).wrapping_add(third);
    if third > 1 {
        node = child4(tables.block4(table, level)?, key, node, third);
    }
    level = level.wrapping_sub(third);
    if second > 1 {
        node = child4(tables.block4(table, level.wrapping_add(node))?, key, node, second);
    }
    level = level.wrapping_sub(second);
    if leaves > 1 {
        node = child4(tables.block4(table, level.wrapping_add(node))?, key, node, leaves);
    }
    let leaf = tables.block4(table, begin.wrapping_add(node))?;
    let i = child4(leaf, key, node, bucket.count);
    Some(leaf[i as usize % RANGES_PER_BLOCK].class())
}

/// The last child of node number `node` that starts at or before the address; there are `children` on the level below.
#[inline(always)]
fn child4(block: &Block4, key: u32, node: u32, children: u32) -> u32 {
    let not_behind = block.iter().fold(0, |count, start| count + at_most(start.0, key) as u32);
    let child = (node * RANGES_PER_BLOCK as u32).wrapping_add(not_behind).wrapping_sub(1);
    // The padding is not behind the last address of a bucket.
    if child < children { child } else { children - 1 }
}

/// 1 if `a <= b`, else 0. Without a branch: which way a step of a search goes is a coin toss, and every second branch would
/// be mispredicted.
#[inline(always)]
const fn at_most(a: u32, b: u32) -> u64 {
    (a as u64).wrapping_sub(b as u64 + 1) >> 63
}

/// Searches the ranges of a bucket for an IPv6 address in it.
#[inline(always)]
pub fn search6<T: Tables + ?Sized>(
    tables: &T,
    table: AddressTable,
    bucket: Bucket,
    high: u64,
    low: u64,
) -> Option<ClassId> {
    let (mut base, mut len) = (bucket.begin, bucket.count);
    for _ in 0..SEARCH_STEPS6 {
        if len <= 1 {
            break;
        }
        let half = len >> 1;
        let [start_high, start_low] = tables.start6(table, base.wrapping_add(half))?;
        // With a branch: the next start is fetched meanwhile, which is worth more than what mispredictions cost.
        if start_high < high || (start_high == high && start_low <= low) {
            base = base.wrapping_add(half);
        }
        len -= half;
    }
    tables.id6(table, base)
}
