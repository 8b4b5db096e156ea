//! Segments of the address space become ranges behind an index of 16 bits.

use mpesa_fw_common::tables::{AddressTable, Bucket, ClassId, INDEX_LEN, SEARCH_STEPS6};

use super::{
    bits::Bits,
    flatten::Segment,
    list,
    masks::{MaskId, OUTSIDE},
};
use crate::compile::CompileError;

/// Most ranges of a bucket: the search halves them [`SEARCH_STEPS6`] times. (A bucket of IPv4 has 65,536 addresses.)
const RANGES_PER_BUCKET: usize = (1 << SEARCH_STEPS6) - 1;

/// Which 16 bits are indexed: those at `shift`, of addresses that agree with `base` in all bits above.
#[derive(Clone, Copy)]
pub(super) struct Frame<B> {
    pub(super) base: B,
    pub(super) shift: u32,
}

/// Makes the index and hands the ranges to `push` in their order. A bucket that is all of one class has none.
pub(super) fn index<B: Bits>(
    segments: &[Segment<B>],
    frame: Frame<B>,
    table: AddressTable,
    mut class: impl FnMut(MaskId) -> ClassId,
    mut push: impl FnMut(B, ClassId),
) -> Result<Vec<Bucket>, CompileError> {
    let Frame { base, shift } = frame;
    let mut index = Vec::with_capacity(INDEX_LEN);
    let mut pushed = 0usize;
    // The segments that are not wholly before the bucket.
    let mut rest = &segments[segments.partition_point(|segment| segment.start <= base).saturating_sub(1)..];
    for bucket in 0..=u16::MAX {
        let first = B::bucket_first(base, bucket, shift);
        let last = first.bucket_last(shift);
        let within = rest.iter().take_while(|segment| segment.start <= last).count();
        let (here, _) = rest.split_at(within);
        if let [only] = here {
            index.push(Bucket::uniform(class(only.mask)));
        } else {
            let full = || CompileError::TooManyRanges {
                list: list(table),
                count: within,
                bits: 8 * size_of::<B>() as u32 - shift,
                max: RANGES_PER_BUCKET,
            };
            let begin = u32::try_from(pushed).map_err(|_| full())?;
            let count = u32::try_from(within)
                .ok()
                .filter(|count| *count as usize <= RANGES_PER_BUCKET)
                .ok_or_else(full)?;
            for segment in here {
                push(segment.start.max(first), class(segment.mask));
            }
            index.push(Bucket { begin, count });
            pushed += within;
        }
        rest = behind(rest, within, last);
    }
    Ok(index)
}

/// What is left behind a bucket: the last segment goes on unless the next one starts right behind the bucket.
fn behind<B: Bits>(rest: &[Segment<B>], within: usize, last: B) -> &[Segment<B>] {
    let starts_behind = |next: &Segment<B>| Some(next.start) == last.next();
    let goes_on = !rest.get(within).is_some_and(starts_behind);
    &rest[within.saturating_sub(usize::from(goes_on))..]
}

/// First and last address that is not outside all prefixes; the whole space if there is none.
pub(super) fn extent<B: Bits>(segments: &[Segment<B>]) -> (B, B) {
    let inside = |segment: &Segment<B>| segment.mask != OUTSIDE;
    let first = segments.iter().find(|segment| inside(segment)).map_or(B::LOWEST, |segment| segment.start);
    // Behind the last segment inside there is at most one, since neighbours differ.
    let last = match segments {
        [.., end] if !inside(end) => end.start.previous().unwrap_or(B::LOWEST),
        _ => B::HIGHEST,
    };
    (first, last)
}
