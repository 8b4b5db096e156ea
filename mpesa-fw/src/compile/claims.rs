//! Protocol and port to the rules that claim them.

use std::ops::RangeInclusive;

use mpesa_fw_common::{
    RuleSet,
    tables::{CLAIMS_LEN, ClaimIndex},
};

use super::only;
use crate::policy::model::Claim;

/// The table of one direction, given the claims of each of its rules in file order.
pub(super) fn claims<'a>(rules: impl Iterator<Item = &'a [Claim]>) -> Vec<RuleSet> {
    let mut table = vec![RuleSet::NONE; CLAIMS_LEN];
    for (position, claims) in rules.enumerate() {
        for span in claims.iter().flat_map(spans) {
            for element in &mut table[span] {
                *element = element.or(only(position));
            }
        }
    }
    table
}

/// The elements that a claim covers.
fn spans(claim: &Claim) -> Vec<RangeInclusive<usize>> {
    match claim {
        Claim::Tcp(ports) => ports.iter().map(|ports| span(ports, ClaimIndex::tcp)).collect(),
        Claim::Udp(ports) => ports.iter().map(|ports| span(ports, ClaimIndex::udp)).collect(),
        Claim::Icmp(types) => type_spans(types, ClaimIndex::icmp),
        Claim::Icmpv6(types) => type_spans(types, ClaimIndex::icmpv6),
        Claim::Other(number) => vec![span(&(*number..=*number), ClaimIndex::protocol)],
    }
}

/// No types: all of them.
fn type_spans(types: &[u8], index: fn(u8) -> ClaimIndex) -> Vec<RangeInclusive<usize>> {
    if types.is_empty() {
        return vec![span(&(0..=u8::MAX), index)];
    }
    types.iter().map(|kind| span(&(*kind..=*kind), index)).collect()
}

fn span<T: Copy>(values: &RangeInclusive<T>, index: fn(T) -> ClaimIndex) -> RangeInclusive<usize> {
    index(*values.start()).0 as usize..=index(*values.end()).0 as usize
}
