//! Why a valid policy can't become tables.

use mpesa_fw_common::{
    Direction,
    dns::SLOTS_PER_NAME,
    limit::LIMITED_PER_CLAIM,
    tables::{RULES, WATCHED_SETS},
};

/// Most classes a table of addresses can tell apart: a class id has 16 bits.
pub(super) const CLASSES: usize = 1 << 16;

/// Why a valid policy can't become tables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A direction has more rules than a bit vector has bits.
    #[error("{} has {count} rules, {RULES} fit: merge rules that differ only in their addresses or ports", direction.label())]
    TooManyRules {
        /// Which.
        direction: Direction,
        /// How many it has.
        count: usize,
    },
    /// More sets have a `watch` than a class has bits for.
    #[error("{count} sets have a `watch` list, {WATCHED_SETS} fit: watch a wider prefix in one set instead")]
    TooManyWatchedSets {
        /// How many have one.
        count: usize,
    },
    /// The prefixes of the rules overlap in too many different ways.
    #[error(
        "the {list} overlap in {count} different combinations, {CLASSES} fit: where large sets overlap each other, \
         merge them, or use them together in the same rules"
    )]
    TooManyClasses {
        /// Which lists, as the author knows them.
        list: &'static str,
        /// How many combinations there are, the outside included.
        count: usize,
    },
    /// So many IPv6 prefixes share their first bits that the search would not end.
    #[error("{count} ranges of the {list} share their first {bits} bits, {max} fit: use shorter prefixes")]
    TooManyRanges {
        /// Which lists, as the author knows them.
        list: &'static str,
        /// How many ranges share them.
        count: usize,
        /// How many bits they share.
        bits: u32,
        /// How many ranges may.
        max: usize,
    },
    /// A limit recovers so slowly that the clock would overflow.
    #[error(
        "the limit of service `{service}` takes more than 146 years to recover from a burst of {burst}: \
         lower `burst` or raise the rate"
    )]
    LimitTooSlow {
        /// The service.
        service: String,
        /// Its burst.
        burst: u64,
    },
    /// More services with a limit claim the same than the kernel tries.
    #[error(
        "{} services with a limit claim {claim} ({}), {LIMITED_PER_CLAIM} may: merge them, or take the limit off some",
        services.len(), services.join(", ")
    )]
    TooManyLimits {
        /// The first port, type or protocol that they all claim, as the author knows it.
        claim: String,
        /// Their names, in file order.
        services: Vec<String>,
    },
    /// A name lies below more wildcards than the kernel looks at.
    #[error(
        "the name `{name}` lies below {SLOTS_PER_NAME} or more wildcards, {} may be: the widest of them covers the others",
        SLOTS_PER_NAME - 1
    )]
    NestedWildcards {
        /// The name.
        name: String,
    },
    /// The slots were not made for this policy. A mistake of the caller, not of the author.
    #[error("{what} `{name}` has no slot: the registry was asked about another policy")]
    NoSlot {
        /// What has none.
        what: &'static str,
        /// Its name.
        name: String,
    },
}
