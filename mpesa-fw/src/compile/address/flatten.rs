//! Overlapping prefixes become disjoint ranges.
//!
//! Two prefixes are nested or disjoint. So one pass over them in the order of their starts, outer before inner, with a
//! stack of the open ones, meets every border in order.

use super::{
    bits::Bits,
    masks::{MaskId, Masks, OUTSIDE},
};

/// A prefix of some list. The order of the fields is the order of the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix<B> {
    pub(super) start: B,
    pub(super) length: u8,
    pub(super) mask: MaskId,
}

/// Addresses from `start` to the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<B> {
    pub(super) start: B,
    pub(super) mask: MaskId,
}

/// The segments of the whole address space: the first starts at the lowest address, neighbours differ.
pub(super) fn flatten<B: Bits>(mut prefixes: Vec<Prefix<B>>, masks: &mut Masks) -> Vec<Segment<B>> {
    prefixes.sort_unstable();
    prefixes.dedup();
    let mut segments = Segments::with_room_for(prefixes.len());
    let mut open: Vec<Open<B>> = Vec::new();
    for prefix in prefixes {
        close(&mut open, &mut segments, |last| last < prefix.start);
        let mask = masks.union(innermost(&open), prefix.mask);
        open.push(Open { last: prefix.start.last_of(prefix.length), mask });
        segments.begin(prefix.start, mask);
    }
    close(&mut open, &mut segments, |_| true);
    segments.0
}

/// A prefix that the sweep is inside of, with the union of its mask and those around it.
struct Open<B> {
    last: B,
    mask: MaskId,
}

fn innermost<B>(open: &[Open<B>]) -> MaskId {
    open.last().map_or(OUTSIDE, |prefix| prefix.mask)
}

/// Leaves the open prefixes that end before where the sweep goes on.
fn close<B: Bits>(open: &mut Vec<Open<B>>, segments: &mut Segments<B>, ends_before: impl Fn(B) -> bool) {
    while let Some(ended) = open.pop_if(|prefix| ends_before(prefix.last)) {
        if let Some(next) = ended.last.next() {
            segments.begin(next, innermost(open));
        }
    }
}

struct Segments<B>(Vec<Segment<B>>);

impl<B: Bits> Segments<B> {
    fn with_room_for(prefixes: usize) -> Self {
        let mut segments = Vec::with_capacity(2 * prefixes + 1);
        segments.push(Segment { start: B::LOWEST, mask: OUTSIDE });
        Self(segments)
    }

    /// From `start` on it is `mask`. A later word on the same start wins; equal neighbours become one.
    fn begin(&mut self, start: B, mask: MaskId) {
        self.0.pop_if(|last| last.start == start);
        if self.0.last().is_none_or(|last| last.mask != mask) {
            self.0.push(Segment { start, mask });
        }
    }
}
