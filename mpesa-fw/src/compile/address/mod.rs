//! Prefixes become sorted disjoint ranges behind an index.
//!
//! [`spec`] says which rules each list of prefixes stands for, [`flatten`] resolves how they overlap, [`index`] lays the
//! result out.

mod bits;
mod classes;
mod flatten;
mod index;
mod masks;
mod spec;

use mpesa_fw_common::{
    RuleSet,
    address::Family,
    tables::{
        AddressClass, AddressTable, BUCKETS, Block4, Bucket, IDS_PER_BLOCK, Levels4, OUTSIDE_V4, OUTSIDE_V6,
        RANGES_PER_BLOCK, Range4, SCANNED, Start6, Window,
    },
};

use super::{AddressTables, CompileError};
use classes::Classes;
use flatten::{Prefix, Segment, flatten};
use index::{Frame, index};
use masks::{Masks, OUTSIDE};

pub(super) use spec::AddressSpec;

/// A table with what the settings must say of it.
pub(super) struct Built {
    pub(super) tables: AddressTables,
    pub(super) window: Window,
    /// Rules that every address satisfies.
    pub(super) outside: RuleSet,
    /// Bits of the families that have ranges, and of the indexes that are sparse.
    pub(super) features: u32,
}

/// Marked buckets up to which an index is sparse: of the addresses anywhere, most are outside.
const SPARSE: usize = BUCKETS / 16;

impl Built {
    /// Puts the marks behind an index.
    fn mark(&mut self, family: Family, table: AddressTable) {
        let (index, outside) = match family {
            Family::V4 => (&mut self.tables.index4, Bucket::uniform(OUTSIDE_V4)),
            Family::V6 => (&mut self.tables.index6, Bucket::uniform(OUTSIDE_V6)),
        };
        let marks: Vec<u64> = index
            .chunks(64)
            .map(|buckets| {
                (0u32..).zip(buckets).fold(0, |marks, (i, bucket)| marks | u64::from(*bucket != outside) << i)
            })
            .collect();
        if marks.iter().map(|marks| marks.count_ones() as usize).sum::<usize>() <= SPARSE {
            self.features |= table.sparse(family);
        }
        index.extend(marks.into_iter().map(Bucket::of_marks));
    }
}

/// Builds one table.
///
/// # Errors
/// More classes or ranges than the lay-out can number.
pub(super) fn build(spec: &AddressSpec<'_>) -> Result<Built, CompileError> {
    let outside = AddressClass { rules: spec.any, watch: 0 };
    let mut masks = Masks::new(outside);
    let (prefixes4, prefixes6) = collect(spec, &mut masks);
    let segments4 = flatten(prefixes4, &mut masks);
    let segments6 = flatten(prefixes6, &mut masks);

    let mut classes = Classes::new(&masks);
    let mut built = Built { tables: without_ranges(), window: Window::ALL, outside: spec.any, features: 0 };
    if has_ranges(&segments4) {
        built.features |= spec.table.feature(Family::V4);
        build4(&segments4, &mut classes, spec.table, &mut built)?;
        built.mark(Family::V4, spec.table);
    }
    if has_ranges(&segments6) {
        built.features |= spec.table.feature(Family::V6);
        build6(&segments6, &mut classes, spec.table, &mut built)?;
        built.mark(Family::V6, spec.table);
    }
    built.tables.classes = classes.into_table(spec.table)?;
    Ok(built)
}

/// What the lists are called in messages.
const fn list(table: AddressTable) -> &'static str {
    match table {
        AddressTable::Source => "`from` and `watch` lists of the services",
        AddressTable::Local => "`to` lists of the services",
        AddressTable::Destination => "`to` lists of the destinations",
    }
}

fn without_ranges() -> AddressTables {
    AddressTables {
        index4: vec![Bucket::default()],
        ranges4: vec![[Range4::PADDING; RANGES_PER_BLOCK]],
        index6: vec![Bucket::default()],
        starts6: vec![Start6::default()],
        ids6: vec![[0; IDS_PER_BLOCK]],
        classes: Vec::new(),
    }
}

fn has_ranges<B>(segments: &[Segment<B>]) -> bool {
    segments.iter().any(|segment| segment.mask != OUTSIDE)
}

/// All prefixes of a table, by family, each with the mask of its list.
fn collect(spec: &AddressSpec<'_>, masks: &mut Masks) -> (Vec<Prefix<u32>>, Vec<Prefix<u128>>) {
    let count = |v4: bool| {
        spec.lists.iter().flat_map(|list| list.prefixes).filter(|net| net.addr().is_ipv4() == v4).count()
    };
    let mut prefixes4 = Vec::with_capacity(count(true));
    let mut prefixes6 = Vec::with_capacity(count(false));
    for list in &spec.lists {
        let mask = masks.id(list.class);
        for net in list.prefixes {
            match net {
                ipnet::IpNet::V4(net) => {
                    prefixes4.push(Prefix { start: net.network().to_bits(), length: net.prefix_len(), mask })
                }
                ipnet::IpNet::V6(net) => {
                    prefixes6.push(Prefix { start: net.network().to_bits(), length: net.prefix_len(), mask })
                }
            }
        }
    }
    (prefixes4, prefixes6)
}

fn build4(
    segments: &[Segment<u32>],
    classes: &mut Classes<'_>,
    table: AddressTable,
    built: &mut Built,
) -> Result<(), CompileError> {
    let mut ranges = Vec::with_capacity(segments.len());
    let frame = Frame { base: 0, shift: 16 };
    built.tables.index4 = index(
        segments,
        frame,
        table,
        |mask| classes.id(mask, OUTSIDE_V4),
        |start, class| {
            ranges.push(Range4::new(start as u16, class));
        },
    )?;
    built.tables.ranges4 = lay_out4(&mut built.tables.index4, &ranges);
    Ok(())
}

/// Puts the ranges of each bucket into blocks, and where they begin into the bucket.
fn lay_out4(index: &mut [Bucket], ranges: &[Range4]) -> Vec<Block4> {
    let mut laid = Vec::with_capacity(ranges.len() + ranges.len() / 8);
    for bucket in index.iter_mut().filter(|bucket| bucket.count != 0) {
        let first = bucket.begin as usize;
        let ranges = &ranges[first..first + bucket.count as usize];
        if laid.len() % RANGES_PER_BLOCK + ranges.len() > RANGES_PER_BLOCK {
            fill_up(&mut laid);
        }
        bucket.begin = laid.len() as u32;
        laid.extend_from_slice(ranges);
        if bucket.count > SCANNED {
            fill_up(&mut laid);
            push_nodes(&mut laid, bucket.count);
        }
    }
    fill_up(&mut laid);
    if laid.is_empty() {
        laid.resize(RANGES_PER_BLOCK, Range4::PADDING);
    }
    let (blocks, _) = laid.as_chunks();
    blocks.to_vec()
}

/// The levels above leaves that hold `count` ranges and were laid last.
fn push_nodes(laid: &mut Vec<Range4>, count: u32) {
    for nodes in Levels4::of(count).nodes {
        if nodes > 1 {
            let children = laid.len() - nodes as usize * RANGES_PER_BLOCK..laid.len();
            let firsts: Vec<Range4> = laid[children].iter().step_by(RANGES_PER_BLOCK).copied().collect();
            laid.extend(firsts);
            fill_up(laid);
        }
    }
}

fn fill_up(laid: &mut Vec<Range4>) {
    laid.resize(laid.len().next_multiple_of(RANGES_PER_BLOCK), Range4::PADDING);
}

fn build6(
    segments: &[Segment<u128>],
    classes: &mut Classes<'_>,
    table: AddressTable,
    built: &mut Built,
) -> Result<(), CompileError> {
    let (first, last) = index::extent(segments);
    // Whole groups that the first and the last address have in common; one group must be left to index.
    let groups = ((first ^ last).leading_zeros() / 16).min(7);
    built.window = Window::behind((first >> 64) as u64, first as u64, groups);
    let [high, low] = built.window.prefix;
    let frame = Frame { base: (u128::from(high) << 64) | u128::from(low), shift: 112 - 16 * groups };

    let mut starts: Vec<Start6> = Vec::with_capacity(segments.len());
    let mut ids = Vec::with_capacity(segments.len());
    built.tables.index6 = index(
        segments,
        frame,
        table,
        |mask| classes.id(mask, OUTSIDE_V6),
        |start, class| {
            starts.push([(start >> 64) as u64, start as u64]);
            ids.push(class);
        },
    )?;
    if starts.is_empty() {
        starts.push(Start6::default());
    }
    built.tables.starts6 = starts;
    built.tables.ids6 = in_blocks(ids);
    Ok(())
}

/// Fills up the last block with zeros; at least one block.
fn in_blocks<T: Copy + Default, const N: usize>(mut elements: Vec<T>) -> Vec<[T; N]> {
    elements.resize(elements.len().max(1).next_multiple_of(N), T::default());
    let (blocks, _) = elements.as_chunks::<N>();
    blocks.to_vec()
}
